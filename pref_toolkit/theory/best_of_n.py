"""Best-of-n on a known world: the exact distribution of the best of n draws from the reference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pref_toolkit.theory.bandits import probabilities


def best_of_n(reference: Any, reward: Any, n: int) -> Tensor:
    """``(K,)`` probabilities of the response of highest reward among ``n`` draws; of equally good ones the first drawn is kept.

    The best draw has reward at most ``r`` with probability ``F(r)^n``, F being the reference's distribution function.
    """
    ref, r = probabilities(reference, "reference"), torch.as_tensor(reward, dtype=torch.float64)
    at_most = (ref * (r[None, :] <= r[:, None])).sum(dim=1)
    tied = (ref * (r[None, :] == r[:, None])).sum(dim=1)
    return ref / tied * (at_most**n - (at_most - tied).clamp(min=0) ** n)
