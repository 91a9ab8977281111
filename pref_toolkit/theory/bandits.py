"""Bandits whose optimum is known: one prompt, K responses, and a policy that is a softmax over them.

All tensors are float64. :func:`minimise` runs the losses that train a language model, on the same records
:class:`~pref_toolkit.logps.Logps`. A result about a loss on a bandit is a result about the toolkit's own code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pref_toolkit.logps import Logps
from pref_toolkit.losses import METHODS


def probabilities(values: Any, name: str) -> Tensor:
    """``values`` as a float64 distribution over K responses, each of positive probability.

    Raises:
        ValueError: if a value is not positive or they do not sum to 1.
    """
    p = torch.as_tensor(values, dtype=torch.float64)
    if p.ndim != 1 or not bool((p > 0).all()) or abs(float(p.sum()) - 1) > 1e-6:
        raise ValueError(f"{name} wants K positive probabilities that sum to 1, got {p.tolist()}")
    return p


def kl(policy: Any, reference: Any) -> Tensor:
    """``sum_y pi(y) log(pi(y) / ref(y))`` in nats; a response of probability 0 under the policy adds nothing."""
    pi = torch.as_tensor(policy, dtype=torch.float64)
    ref = torch.as_tensor(reference, dtype=torch.float64)
    return (torch.xlogy(pi, pi) - torch.xlogy(pi, ref)).sum()


def rlhf_value(policy: Any, reference: Any, reward: Any, beta: float) -> Tensor:
    """``E_pi[r] - beta KL(pi || ref)``, the objective of RLHF."""
    pi, r = (torch.as_tensor(v, dtype=torch.float64) for v in (policy, reward))
    return (pi * r).sum() - beta * kl(pi, reference)


def rlhf_optimum(reference: Any, reward: Any, beta: float) -> tuple[Tensor, Tensor]:
    """The policy ``ref exp(r / beta) / Z`` that maximises :func:`rlhf_value`, and ``log Z``. The maximum is ``beta log Z``.

    Args:
        reference: ``(K,)`` probabilities.
        reward: ``(K,)``; a reward of ``-inf`` excludes a response.
        beta: strength of the pull to the reference.
    """
    scores = probabilities(reference, "reference").log() + torch.as_tensor(reward, dtype=torch.float64) / beta
    log_z = torch.logsumexp(scores, dim=-1)
    return torch.exp(scores - log_z), log_z


def bradley_terry(reward: Any) -> Tensor:
    """``(K, K)`` probabilities ``p[i, j] = sigmoid(r_i - r_j)`` that response i is preferred to response j."""
    r = torch.as_tensor(reward, dtype=torch.float64)
    return torch.sigmoid(r[:, None] - r[None, :])


def total_order(k: int) -> Tensor:
    """``(K, K)`` probabilities with which every response always beats all later ones; 1/2 on the diagonal."""
    ones = torch.ones(k, k, dtype=torch.float64)
    return ones.triu(1) + ones.diag().diag() / 2


def ipo_optimum(reference: Any, chance: Any, tau: float) -> Tensor:
    """``ref exp(E_y'[p(y beats y')] / tau) / Z`` with ``y'`` uniform: the minimiser of IPO's loss on uniform pairs.

    Args:
        reference: ``(K,)`` probabilities.
        chance: ``(K, K)`` probabilities that response i is preferred to response j; 1/2 on the diagonal.
        tau: strength of the pull to the reference.
    """
    return rlhf_optimum(reference, torch.as_tensor(chance, dtype=torch.float64).mean(dim=1), tau)[0]


class Comparisons(NamedTuple):
    """Rankings of responses to the one prompt, with a weight for each ranking."""

    responses: Tensor
    """``(N, K')`` indices of responses, best first; pairs have two columns."""

    weights: Tensor
    """``(N,)`` weights that sum to 1."""


def every_pair(chance: Any) -> Comparisons:
    """The population of pairs: each two different responses are compared equally often, and each order has its probability."""
    p = torch.as_tensor(chance, dtype=torch.float64)
    k = len(p)
    winner, loser = torch.nonzero(~torch.eye(k, dtype=torch.bool), as_tuple=True)
    return Comparisons(torch.stack([winner, loser], dim=1), p[winner, loser] * 2 / (k * (k - 1)))


def sampled_pairs(chance: Any, n: int, generator: torch.Generator) -> Comparisons:
    """``n`` pairs of different responses, drawn uniformly; one draw from the pair's probability decides the order."""
    p = torch.as_tensor(chance, dtype=torch.float64)
    first = torch.randint(len(p), (n,), generator=generator)
    second = (first + torch.randint(1, len(p), (n,), generator=generator)) % len(p)
    won = torch.rand(n, generator=generator, dtype=torch.float64) < p[first, second]
    pairs = torch.where(won[:, None], torch.stack([first, second], 1), torch.stack([second, first], 1))
    return Comparisons(pairs, torch.full((n,), 1 / n, dtype=torch.float64))


def amsgrad(parameters: Any, lr: float) -> torch.optim.Optimizer:
    """Adam that comes to rest at a minimum, for :func:`minimise` and for loops that run until nothing changes.

    Adam divides its step by the size of recent gradients. At an exact minimum both are rounding errors, so Adam divides one by
    the other and jumps away after some thousand steps, differently on each processor. AMSGrad divides by the largest size so
    far (Reddi, Kale and Kumar 2018, algorithm 2).
    """
    return torch.optim.Adam(parameters, lr=lr, amsgrad=True)


def minimise(
    loss: Callable[..., Tensor],
    comparisons: Comparisons | Callable[[], Comparisons],
    reference: Any,
    *,
    steps: int,
    learning_rate: float,
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    start: Any = None,
    features: Any = None,
    tokens: Any = None,
    **given: Any,
) -> Tensor:
    """Gradient descent on a loss of ``METHODS`` over policies ``softmax(features @ parameters)``, from the reference.

    Args:
        loss: a loss of ``METHODS``, such as ``losses.dpo``.
        comparisons: the comparisons of every step, or a function that draws new ones at each step.
        reference: ``(K,)`` probabilities of the frozen reference.
        steps: number of updates.
        learning_rate: passed to the optimiser; the default optimiser is plain gradient descent.
        optimiser: makes the optimiser from parameters and ``lr``, such as :func:`amsgrad`.
        start: ``(d,)`` initial parameters, required with ``features``; without features, those of the reference.
        features: ``(K, d)`` output embeddings; without them each response has its own logit (a tabular softmax).
        tokens: ``(K,)`` lengths of the responses; 1 each if not given.
        given: the loss's hyperparameters and its other arguments, such as ``scores``.

    Returns:
        ``(steps + 1, K)`` probabilities of the policy before the first and after every update.
    """
    ref = probabilities(reference, "reference")
    if features is not None and start is None:
        raise ValueError("minimise wants start, the (d,) parameters to start from, where features are given")
    table = torch.eye(len(ref), dtype=torch.float64) if features is None else torch.as_tensor(features).double()
    parameters = (ref.log() if start is None else torch.as_tensor(start).double()).clone().requires_grad_()
    lengths = torch.ones(len(ref), dtype=torch.int64) if tokens is None else torch.as_tensor(tokens)
    needs_reference = "reference" in METHODS[loss.__name__].needs
    update = optimiser([parameters], lr=learning_rate)
    path = [torch.softmax(table @ parameters, dim=-1).detach()]
    for _ in range(steps):
        ranked, weights = comparisons() if callable(comparisons) else comparisons
        policy = Logps(torch.log_softmax(table @ parameters, dim=-1)[ranked], lengths[ranked])
        records = [policy, Logps(ref.log()[ranked], lengths[ranked])] if needs_reference else [policy]
        update.zero_grad()
        (weights * loss(*records, **given)).sum().backward()
        update.step()
        path.append(torch.softmax(table @ parameters, dim=-1).detach())
    return torch.stack(path)
