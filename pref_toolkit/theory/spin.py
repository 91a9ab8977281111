"""SPIN on a known world: what one iteration of self-play does to a policy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pref_toolkit.theory.bandits import probabilities


def spin_update(policy: Any, data: Any, lam: float) -> Tensor:
    """The next iterate, ``pi (p_data / pi)^(1 / lam) / Z``: the population minimiser of SPIN's loss with the logistic link.

    The data's distribution is the only fixed point; ``lam = 1`` reaches it in one step, a larger ``lam`` slowly.

    Args:
        policy: ``(K,)`` probabilities of the present iterate, which is also the reference.
        data: ``(K,)`` probabilities of the responses to be imitated.
        lam: the pull to the present iterate.
    """
    pi, p_data = probabilities(policy, "policy").log(), probabilities(data, "data").log()
    return torch.softmax(pi + (p_data - pi) / lam, dim=-1)
