"""Training loops on known worlds, without sampling: displacement, SPIN, best-of-n, RSO, online IPO and IPO-MD.

Each function gives the exact distribution over responses after an iteration of a loop, after its selection of draws, or at
its fixed point. The two-dimensional world of :func:`displacement` has four responses with output embeddings ``w = (1, .1)``,
``l = (1, -.1)``, ``z = (0, 1)`` and ``u = (0, -1)``. Its policy is ``softmax(<mu, h>)``, and training moves only the hidden
state ``h``, from ``(2, 0)``. The one pair is ``w`` over ``l``. The embeddings of the two nearly agree: an update that lowers
``l`` also lowers ``w``, and the probability goes to ``z``, which is in no pair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pref_toolkit.theory.bandits import Comparisons, minimise, probabilities, rlhf_optimum

RESPONSES = ("w", "l", "z", "u")
"""The responses of :func:`displacement`: the chosen, the rejected, and two that are in no pair."""
EMBEDDINGS = torch.tensor([[1, 0.1], [1, -0.1], [0, 1], [0, -1]], dtype=torch.float64)
START = torch.tensor([2.0, 0.0], dtype=torch.float64)
REFERENCE = torch.softmax(EMBEDDINGS @ START, dim=-1)
PAIR = Comparisons(torch.tensor([[0, 1]]), torch.ones(1, dtype=torch.float64))


def displacement(loss: Callable[..., Tensor], *, steps: int = 5000, learning_rate: float = 1.0, **given: Any) -> Tensor:
    """``(steps + 1, 4)`` probabilities of :data:`RESPONSES` along plain gradient descent on the pair.

    The arguments are those of :func:`~pref_toolkit.theory.bandits.minimise`.
    """
    return minimise(
        loss, PAIR, REFERENCE, features=EMBEDDINGS, start=START, steps=steps, learning_rate=learning_rate, **given
    )


def spin_update(policy: Any, data: Any, lam: float) -> Tensor:
    """The next iterate of SPIN, ``pi (p_data / pi)^(1 / lam) / Z``: the population minimiser of its loss, logistic link.

    The data's distribution is the only fixed point. ``lam = 1`` reaches it in one step; a larger ``lam`` takes more steps.

    Args:
        policy: ``(K,)`` probabilities of the present iterate, which is also the reference.
        data: ``(K,)`` probabilities of the responses to be imitated.
        lam: strength of the pull to the present iterate.
    """
    pi, p_data = probabilities(policy, "policy").log(), probabilities(data, "data").log()
    return torch.softmax(pi + (p_data - pi) / lam, dim=-1)


def best_of_n(reference: Any, reward: Any, n: int) -> Tensor:
    """``(K,)`` probabilities of the response of highest reward among ``n`` draws; among equals the first draw is kept.

    The best draw has reward at most ``r`` with probability ``F(r)^n``, where ``F`` is the distribution function of the
    reference's reward.
    """
    ref, r = probabilities(reference, "reference"), torch.as_tensor(reward, dtype=torch.float64)
    at_most = (ref * (r[None, :] <= r[:, None])).sum(dim=1)
    tied = (ref * (r[None, :] == r[:, None])).sum(dim=1)
    return ref / tied * (at_most**n - (at_most - tied).clamp(min=0) ** n)


def acceptance(reward: Any, beta: float) -> Tensor:
    """``(K,)`` probabilities ``exp((r - max r) / beta)`` with which RSO keeps a draw from the reference.

    The kept draws follow ``ref exp(r / beta) / Z``, the optimum of RLHF. A large ``beta`` keeps every draw, a small one
    only the best.
    """
    r = torch.as_tensor(reward, dtype=torch.float64)
    return torch.exp((r - r.max()) / beta)


def mixture(policy: Any, reference: Any, weight: float) -> Tensor:
    """The geometric mixture ``policy^(1 - weight) ref^weight / Z``."""
    pi, ref = probabilities(policy, "policy").log(), probabilities(reference, "reference").log()
    return torch.softmax((1 - weight) * pi + weight * ref, dim=-1)


def nash_policy(chance: Any, reference: Any, tau: float, weight: float = 0.0) -> Tensor:
    """The policy with ``pi = ref exp(P m / tau) / Z``, where ``m`` is the mixture of ``pi`` with the reference.

    With ``weight = 0`` the mixture is ``pi`` itself, and the policy is the stationary one of online IPO: the Nash policy of
    the regularised game. A positive ``weight`` gives the stationary policy of IPO-MD, which draws opponents from the mixture.
    A damped iteration on log-probabilities finds the policy.

    Args:
        chance: ``(K, K)`` probabilities that response i is preferred to response j; 1/2 on the diagonal.
        reference: ``(K,)`` probabilities.
        tau: strength of the pull to the reference.
        weight: weight of the reference in the mixture, in [0, 1].

    Raises:
        ArithmeticError: if the iteration does not converge to 1e-12, as for ``tau`` below a few hundredths.
    """
    p = torch.as_tensor(chance, dtype=torch.float64)
    pi = probabilities(reference, "reference")
    damping = tau**2 / (tau**2 + 0.25)  # smaller steps for a smaller tau, at which the iteration rotates faster
    for _ in range(20_000):
        answer, _ = rlhf_optimum(reference, p @ mixture(pi, reference, weight), tau)
        if bool((answer - pi).abs().max() < 1e-12):
            return pi
        pi = torch.softmax((1 - damping) * pi.log() + damping * answer.log(), dim=-1)
    raise ArithmeticError(f"no fixed point was found for tau = {tau:g}; the last policy was {pi.tolist()}")
