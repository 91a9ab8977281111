"""Every group of draws from a bandit, so that the mean and the noise of a policy gradient are sums and not samples.

A policy with one logit for each of K responses draws a group of k responses. There are ``K ** k`` groups. :func:`estimate`
forms the policy gradient that REINFORCE, RLOO, ReMax or GRPO would take from each, and returns the exact mean and variance.
All tensors are float64.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pref_toolkit.theory.bandits import probabilities


class Groups(NamedTuple):
    """All groups of k independent draws."""

    responses: Tensor
    """``(K ** k, k)`` indices of the responses drawn."""

    chances: Tensor
    """``(K ** k,)`` probabilities of the groups."""


class Estimate(NamedTuple):
    """What an estimator of the policy gradient is in the mean, and how noisy."""

    mean: Tensor
    """``(K,)`` expected gradient by the logits."""

    variance: Tensor
    """The expected squared distance of one group's estimate from the mean."""


def every_group(policy: Any, k: int) -> Groups:
    """All groups of ``k`` draws from ``policy``, ``(K,)`` probabilities, in which the order counts."""
    pi = probabilities(policy, "policy")
    responses = torch.cartesian_prod(*[torch.arange(len(pi))] * k).reshape(-1, k)
    return Groups(responses, pi[responses].prod(dim=1))


def scores(policy: Any) -> Tensor:
    """``(K, K)``: row y is the gradient of ``log pi(y)`` by the logits."""
    pi = probabilities(policy, "policy")
    return torch.eye(len(pi), dtype=torch.float64) - pi


def advantages(rewards: Any, baseline: float | Literal["group", "others"] = 0.0, *, deviation: bool = False) -> Tensor:
    """Rewards less their baseline, for groups along the last axis.

    Args:
        rewards: ``(..., k)`` rewards of the responses of each group.
        baseline: a number, the same for every draw; ``"group"`` for the mean of the group, as in GRPO; ``"others"`` for the
            mean of the other draws of the group, as in RLOO.
        deviation: whether to divide by the standard deviation of the group's rewards, as in GRPO. A group of equal rewards
            has advantages of 0 then.

    Raises:
        ValueError: for the mean of the others in a group of one, or a baseline of another name.
    """
    r = torch.as_tensor(rewards, dtype=torch.float64)
    k, mean = r.shape[-1], r.mean(dim=-1, keepdim=True)
    if baseline == "group":
        a = r - mean
    elif baseline == "others" and k > 1:
        a = (r - mean) * k / (k - 1)
    elif isinstance(baseline, str):
        raise ValueError(f"baseline wants a number, 'group', or 'others' of at least 2 draws, got {baseline!r} of {k}")
    else:
        a = r - baseline
    if not deviation:
        return a
    spread = r.std(dim=-1, keepdim=True, correction=0)
    return torch.where(spread > 1e-12, a / spread.clamp(min=1e-12), 0.0)


def estimate(
    policy: Any,
    reward: Any,
    k: int,
    baseline: float | Literal["group", "others"] = 0.0,
    *,
    deviation: bool = False,
    tokens: Any = None,
) -> Estimate:
    """The exact mean and variance of the mean over a group of advantage times score.

    Args:
        policy: ``(K,)`` probabilities of the policy that draws.
        reward: ``(K,)`` rewards of the responses.
        k: draws in a group; there are ``K ** k`` groups, and all of them are summed.
        baseline, deviation: as in :func:`advantages`.
        tokens: ``(K,)`` lengths by which each response's term is divided, as in GRPO; if not given, no term is.
    """
    responses, chances = every_group(policy, k)
    a = advantages(torch.as_tensor(reward, dtype=torch.float64)[responses], baseline, deviation=deviation)
    if tokens is not None:
        a = a / torch.as_tensor(tokens)[responses]
    gradients = (a[..., None] * scores(policy)[responses]).mean(dim=1)
    mean = chances @ gradients
    return Estimate(mean, chances @ (gradients - mean).square().sum(dim=1))
