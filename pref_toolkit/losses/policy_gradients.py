"""The loss of a policy gradient: it learns from what the policy itself drew, so only a loop can train it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pref_toolkit.logps import Logps, check_same_responses
from pref_toolkit.losses.inputs import tensor_of
from pref_toolkit.losses.method import NonNegative, Positive, method

KL = {
    "k1": lambda rho: rho,
    "k2": lambda rho: rho.square() / 2,
    "k3": lambda rho: torch.expm1(-rho) + rho,
}
"""Estimators of KL(policy || reference) from a draw of the policy, by the log-ratio ``rho``. Schulman 2020."""


@method(
    paper="Williams 1992; Ahmadian et al. 2024, arXiv:2402.14740; Shao et al. 2024, arXiv:2402.03300",
    equation="the score-function estimator, with baseline, clipped ratio and a price for divergence",
    chapter="foundations/policy_gradients",
    of_loops=True,
)
def policy_gradient(
    policy: Logps,
    reference: Logps,
    policy_tokens: Tensor,
    reference_tokens: Tensor,
    scores: Tensor,
    drawn_tokens: Tensor | None = None,
    *,
    beta: NonNegative = 0.05,
    baseline: Literal["none", "others", "group"] = "others",
    divide: Literal["none", "deviation"] = "none",
    per: Literal["response", "token"] = "response",
    eps: Positive = 0.2,
    kl: Literal["k1", "k2", "k3"] = "k1",
    kl_in: Literal["reward", "loss"] = "reward",
) -> Tensor:
    """A policy gradient: ``-mean_k(sum_t(min(w_t A_k, clip(w_t, 1 - eps, 1 + eps) A_k)) / c_k)``.

    ``w_t`` is the ratio of a token's probability to the one it was drawn with, and ``A_k`` the advantage of response k: its
    score less the price of divergence and the baseline. ``c_k`` is 1 per response and the number of its tokens per token.
    At ``w_t = 1`` the gradient is ``-mean_k(A_k grad l_k / c_k)``, that of REINFORCE.

    REINFORCE has no baseline, and ReMax none but the score of the greedy response, which its loop takes off the scores. RLOO
    has the mean of the others. GRPO has the mean of the group, divides by deviation and tokens, and prices ``k3`` in the loss.

    Args:
        policy: K responses ``(B, K)`` that the policy drew, nats, with their token counts.
        reference: the same responses under the reference.
        policy_tokens, reference_tokens: ``(B, K, T)`` log-probabilities of each token, nats. What lies behind a response's
            last token is not read.
        scores: ``(B, K)`` scores of the responses, higher is better.
        drawn_tokens: ``(B, K, T)`` log-probabilities with which the tokens were drawn; if not given, the policy's own, and
            every ratio is 1.
        beta: price of a nat of divergence from the reference, in units of the score.
        baseline: what is taken off each score: nothing, the mean of the other K - 1, or the mean of all K.
        divide: whether advantages are divided by the standard deviation of the K (over K, not K - 1). If all K are equal, so
            that it is 0, the advantages are 0.
        per: whether a response's terms are summed over its tokens, or averaged.
        eps: how far a ratio may go before a gain ends.
        kl: the estimator of the divergence at each token, of ``rho = log(pi / ref)``: ``rho``, ``rho^2 / 2`` or
            ``exp(-rho) - 1 + rho`` (Schulman 2020). In the loss ``k1`` has a mean gradient of 0.
        kl_in: whether the sum over the response's tokens is taken off its score, without gradient, or each token's is added
            to its term of the loss, with gradient.

    Returns:
        ``(B,)`` losses. Their value says little, their gradient is that of the objective.

    Raises:
        ValueError: if the shapes differ, or a baseline of others or of the group is asked of a single response.

    Example:
        >>> policy = Logps(torch.tensor([[-1.0, -2.0]]), torch.tensor([[1, 2]]))
        >>> tokens = torch.tensor([[[-1.0, 0.0], [-1.5, -0.5]]])
        >>> policy_gradient(policy, policy, tokens, tokens, torch.tensor([[1.0, 0.0]]))  # 1 token of A=1, 2 of A=-1
        tensor([0.5000])
    """
    check_same_responses(policy, reference)
    shape = (*policy.sums.shape, policy_tokens.shape[-1])
    lt = tensor_of("policy_tokens", policy_tokens, shape)
    s = tensor_of("scores", scores, policy.sums.shape, lt.dtype)
    inside = torch.arange(shape[2], device=lt.device) < policy.tokens[..., None]
    rho = torch.where(inside, lt - tensor_of("reference_tokens", reference_tokens, shape), 0.0)
    k = KL[kl](rho)
    if kl_in == "reward":
        s = s - beta * k.detach().sum(-1)
    A = _advantages(s, baseline, divide)[..., None]
    drawn = lt.detach() if drawn_tokens is None else tensor_of("drawn_tokens", drawn_tokens, shape)
    w = torch.where(inside, lt - drawn, 0.0).exp()
    gain = torch.minimum(w * A, w.clamp(1 - eps, 1 + eps) * A)
    if kl_in == "loss":
        gain = gain - beta * k
    c = policy.tokens if per == "token" else 1
    return -((gain * inside).sum(-1) / c).mean(-1)


def _advantages(s: Tensor, baseline: str, divide: str) -> Tensor:
    number, mean = s.shape[1], s.mean(1, keepdim=True)
    if baseline != "none" and number < 2:
        raise ValueError(f"a baseline of {baseline!r} wants K >= 2 responses to each prompt, got K={number}")
    A = {"none": s, "group": s - mean, "others": (s - mean) * number / max(number - 1, 1)}[baseline]
    if divide == "none":
        return A
    spread = s.std(1, keepdim=True, correction=0)
    # Scores that are equal but for rounding have no spread.
    same = spread <= 1e-6 * s.abs().amax(1, keepdim=True)
    return torch.where(same, 0.0, A / torch.where(same, 1.0, spread))
