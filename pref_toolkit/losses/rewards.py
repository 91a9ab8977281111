"""Losses of a reward model: they read the rewards it gives to responses, and no policy.

Notation of the docstrings: ``s_w, s_l`` are the rewards of the chosen and the rejected response of a pair,
``s_1 ... s_K`` those of K responses, best first; ``r`` is the reference's log-probability everywhere else.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pref_toolkit.losses.inputs import tensor_of
from pref_toolkit.losses.method import NonNegative, method


@method(
    paper="Bradley & Terry 1952; Ouyang et al. 2022, arXiv:2203.02155",
    equation="the pairwise reward-model loss",
    chapter="foundations/preferences",
)
def bradley_terry(rewards: Tensor, *, m: NonNegative = 0.0) -> Tensor:
    """A reward model from pairs: ``-log sigmoid(s_w - s_l - m)``.

    Args:
        rewards: ``(B, 2)``, of the chosen and the rejected response, from the model that is trained.
        m: margin by which the chosen must lead. Margins that differ between pairs are composed:
            subtract them from ``rewards[:, 0]``.

    Returns:
        ``(B,)`` losses. There is no reference; at ``s_w = s_l`` each is ``log(1 + exp(m))``.

    Raises:
        ValueError: if the rewards are not ``(B, 2)``.

    Example:
        >>> bradley_terry(torch.tensor([[3.0, 1.0], [1.0, 1.0]]))  # log(1 + exp(-2)), and log 2 at equal ones
        tensor([0.1269, 0.6931])
    """
    if rewards.ndim == 2 and rewards.shape[1] != 2:
        raise ValueError(f"a pair loss wants K=2 responses to each prompt, got K={rewards.shape[1]}")
    rewards = tensor_of("rewards", rewards, (len(rewards), 2))
    return -logsigmoid(rewards[:, 0] - rewards[:, 1] - m)


@method(
    paper="Plackett 1975; Luce 1959", equation="the likelihood of a whole ranking", chapter="foundations/preferences"
)
def plackett_luce(rewards: Tensor) -> Tensor:
    """A reward model from rankings: ``-sum_k [s_k - log sum_{j >= k} exp(s_j)]``.

    Best first, each response is chosen among those not yet placed. With K=2 this is Bradley-Terry. The order of the
    columns is the ranking; a policy's ``beta rho`` in place of rewards gives DPO's ranking form.

    Args:
        rewards: ``(B, K)``, of K >= 2 responses, best first, from the model that is trained.

    Returns:
        ``(B,)`` losses. There is no reference; at equal rewards each is ``log(K!)``.

    Raises:
        ValueError: if the rewards are not ``(B, K)`` with K >= 2.

    Example:
        >>> plackett_luce(torch.tensor([[3.0, 1.0], [1.0, 1.0]]))  # of two responses: Bradley-Terry
        tensor([0.1269, 0.6931])
        >>> plackett_luce(torch.zeros(1, 3)).exp()  # 3! rankings, equally likely
        tensor([6.])
    """
    if rewards.ndim != 2:
        raise ValueError(f"plackett_luce wants rewards of shape (B, K), got {tuple(rewards.shape)}")
    if rewards.shape[1] < 2:
        raise ValueError(f"a ranking loss wants K >= 2 responses to each prompt, got K={rewards.shape[1]}")
    rewards = tensor_of("rewards", rewards, rewards.shape)
    # Only differences of rewards enter, so that large rewards cost no precision.
    places = [(rewards[:, k + 1 :] - rewards[:, k : k + 1]).logsumexp(dim=1) for k in range(rewards.shape[1] - 1)]
    return -logsigmoid(-torch.stack(places)).sum(dim=0)
