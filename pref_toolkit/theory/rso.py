"""RSO on a known world: rejection sampling from the reference gives the optimum of RLHF."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def acceptance(reward: Any, beta: float) -> Tensor:
    """``(K,)`` chances ``exp((r - max r) / beta)`` with which a draw from the reference is kept.

    What is kept follows ``ref exp(r / beta) / Z``. A large beta keeps everything, a small one only the best.
    """
    r = torch.as_tensor(reward, dtype=torch.float64)
    return torch.exp((r - r.max()) / beta)
