"""Where online IPO and IPO-MD come to rest: fixed points of a preference, with a pull to the reference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pref_toolkit.theory.bandits import probabilities, rlhf_optimum


def mixture(policy: Any, reference: Any, weight: float) -> Tensor:
    """The geometric mixture ``policy^(1 - weight) ref^weight / Z``."""
    pi, ref = probabilities(policy, "policy").log(), probabilities(reference, "reference").log()
    return torch.softmax((1 - weight) * pi + weight * ref, dim=-1)


def nash_policy(chance: Any, reference: Any, tau: float, weight: float = 0.0) -> Tensor:
    """The policy with ``pi = ref exp(P m / tau) / Z``, where ``m`` is the mixture of pi with the reference.

    With ``weight = 0``, ``m`` is pi itself: the stationary policy of online IPO, the Nash policy of the regularised game.
    Otherwise that of IPO-MD, whose opponents come from the mixture. Found by damped iteration on log-probabilities.

    Args:
        chance: ``(K, K)``, ``chance[i, j]`` that response i is preferred to response j; 1/2 on the diagonal.
        reference: ``(K,)`` probabilities.
        tau: strength of the pull to the reference.
        weight: weight of the reference in the mixture, in [0, 1].

    Raises:
        ArithmeticError: if the iteration does not settle to 1e-12, which happens for tau below a few hundredths.
    """
    p = torch.as_tensor(chance, dtype=torch.float64)
    pi = probabilities(reference, "reference")
    damping = tau**2 / (tau**2 + 0.25)  # smaller steps where the game pulls harder in circles
    for _ in range(20_000):
        answer, _ = rlhf_optimum(reference, p @ mixture(pi, reference, weight), tau)
        if bool((answer - pi).abs().max() < 1e-12):
            return pi
        pi = torch.softmax((1 - damping) * pi.log() + damping * answer.log(), dim=-1)
    raise ArithmeticError(f"no fixed point was found for tau = {tau:g}; the last policy was {pi.tolist()}")
