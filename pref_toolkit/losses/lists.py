"""Losses that read K responses to each prompt, or what a judge says of them.

Notation of the docstrings, beside that of ``pairs.py``: ``s_i`` is the score of response i,
``rho_k = l_k - r_k`` its log-ratio to the reference.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pref_toolkit.logps import Logps, margin, ranked_log_ratios
from pref_toolkit.losses.inputs import RowError, only_response, tensor_of
from pref_toolkit.losses.method import ErrorRate, NonNegative, Positive, method


@method(
    paper="maximum likelihood; Ouyang et al. 2022, arXiv:2203.02155",
    equation="the supervised stage",
    chapter="methods/reference_free",
)
def sft(policy: Logps, target: Logps | None = None, *, per: Literal["response", "token"] = "response") -> Tensor:
    """Supervised fine-tuning: ``-l_target / c``.

    ``c`` is 1 per response, and the target's number of tokens per token. A mean over all tokens of a batch, which other
    programs use, is neither of the two, and changes when a batch is split.

    Args:
        policy: K >= 1 responses ``(B, K)``, best first, nats, with their token counts. The others than the first are not
            learnt from, so that this loss may stand in one mixture with losses that read them.
        target: a supervised response to each prompt under the policy, ``(B, 1)``, nats; the first one if not given.
        per: ``"response"`` for the sum over tokens, ``"token"`` for their mean.

    Returns:
        ``(B,)`` losses. There is no reference; at every policy each is ``-l_target / c``.

    Raises:
        ValueError: if the target does not hold one response to each prompt.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]), 4, 10)
        >>> sft(policy), sft(policy, per="token")
        (tensor([12., 14.]), tensor([3.0000, 3.5000]))
        >>> sft(Logps(torch.tensor([[-12.0]]), torch.tensor([[4]])))  # one response to each prompt will do
        tensor([12.])
    """
    if per not in ("response", "token"):
        raise ValueError(f"per must be response or token, got {per!r}")
    if per == "token":
        policy, target = policy.per_token(), None if target is None else target.per_token()
    first = policy.sums[:, 0]
    return -(first if target is None else tensor_of("target", only_response("target", target), first.shape))


@method(
    paper="Yuan et al. 2023, arXiv:2304.05302",
    equation="the ranking loss and the supervised loss of the best response",
    chapter="methods/ranking",
)
def rrhf(policy: Logps, scores: Tensor, *, weight: NonNegative = 1.0) -> Tensor:
    """Rank responses to align: ``sum_{s_i < s_j} max(0, lbar_i - lbar_j) - weight l_best``.

    The ranking reads means per token; the supervised term is the best-scored response's token sum, as in the paper.
    The scores alone rank, whatever the order of the columns. Responses with equal scores are not compared; of several
    best ones the first is supervised.

    The authors' code multiplies the ranking term by 100 unless told otherwise, and every one of their scripts tells it 1. Both
    its terms are means over the whole padded row, prompt included (GanjinZero/RRHF, train.py, commit e1a2b61, lines 237-256).

    Args:
        policy: K >= 2 responses ``(B, K)``, nats, with their token counts.
        scores: ``(B, K)`` scores of the same responses, higher is better.
        weight: weight of the supervised term, which the paper fixes at 1.

    Returns:
        ``(B,)`` losses. There is no reference; at ``lbar_1 = ... = lbar_K`` each is ``-weight l_best``.

    Raises:
        ValueError: if the scores are not of the record's shape, or there are fewer than two responses.

    Example:
        >>> policy = Logps(torch.tensor([[-4.0, -9.0, -6.0]]), torch.tensor([[4, 3, 3]]))
        >>> rrhf(policy, torch.tensor([[0.1, 0.9, 0.5]]))  # means -1, -3, -2 in the wrong order: 2 + 1 + 1, and 9 nats
        tensor([13.])
    """
    scores = tensor_of("scores", scores, policy.sums.shape)
    if scores.shape[1] < 2:
        raise ValueError(f"a ranking loss wants K >= 2 responses to each prompt, got K={scores.shape[1]}")
    mean = policy.per_token().sums
    lead_of_worse = torch.relu(mean[:, :, None] - mean[:, None, :])  # [b, i, j]: lbar_i - lbar_j
    worse = scores[:, :, None] < scores[:, None, :]
    best = policy.sums.gather(1, scores.argmax(dim=1, keepdim=True))[:, 0]
    return (lead_of_worse * worse).sum(dim=(1, 2)) - weight * best


@method(paper="Amini et al. 2024, arXiv:2402.10571", equation="the loss with an offset", chapter="methods/beyond_pairs")
def odpo(policy: Logps, reference: Logps, scores: Tensor, *, beta: Positive = 0.1, alpha: NonNegative = 1.0) -> Tensor:
    """DPO with an offset: ``-log sigmoid(beta D - alpha log(s_w - s_l))``.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        scores: ``(B, 2)`` scores of the pair; the chosen response's must be the higher one.
        beta: strength of the pull to the reference, per nat; the default is DPO's.
        alpha: weight of the offset; the paper's symbol. 0 is DPO.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log(1 + (s_w - s_l)^alpha)``.

    Raises:
        ValueError: if the records do not hold the same pairs.
        RowError: if a row's scores do not rank the chosen response first.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> odpo(policy, reference, torch.tensor([[2.0, 1.0], [3.0, 1.0]]))  # a gap of 1: DPO; of 2: log(1 + 2)
        tensor([0.5544, 1.0986])
    """
    D = margin(policy, reference)
    scores = tensor_of("scores", scores, policy.sums.shape, D.dtype)
    gap = scores[:, 0] - scores[:, 1]
    if not bool((gap > 0).all()):
        row = int((~(gap > 0)).nonzero()[0])
        s_w, s_l = scores[row]
        raise RowError(f"odpo wants the chosen response to score higher, got {s_w:g} against {s_l:g}", row)
    return -logsigmoid(beta * D - alpha * gap.log())


@method(
    paper="Chen et al. 2024, arXiv:2406.09215",
    equation="the softmax loss over several rejected responses",
    chapter="methods/beyond_pairs",
)
def s_dpo(policy: Logps, reference: Logps, *, beta: Positive = 1.0) -> Tensor:
    """Softmax DPO, one chosen against K - 1 rejected: ``log(1 + sum_k(exp(beta (rho_k - rho_w))))``.

    The sum is over the rejected responses. With K=2 this is DPO.

    Args:
        policy: K >= 2 responses ``(B, K)``, the chosen one first, nats.
        reference: the same responses under the frozen reference.
        beta: strength of the pull to the reference, per nat; the paper's symbol.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log K``.

    Raises:
        ValueError: if the records differ in shape or hold fewer than two responses to a prompt.

    Example:
        >>> policy = Logps(torch.tensor([[-12.0, -15.0, -9.0], [-14.0, -14.0, -14.0]]), torch.ones(2, 3))
        >>> reference = Logps(torch.full((2, 3), -14.0), torch.ones(2, 3))
        >>> s_dpo(policy, reference)  # rho = 2, -1, 5: log(1 + exp(-3) + exp(3)); log 3 at policy = reference
        tensor([3.0509, 1.0986])
    """
    best, others = ranked_log_ratios(policy, reference)
    return -logsigmoid(-(beta * (others - best)).logsumexp(dim=1))  # log(sum(exp)) overflows at 89 in float32


@method(
    paper="Ji et al. 2024, arXiv:2402.00856", equation="the reverse KL on preferences", chapter="methods/beyond_pairs"
)
def exo(
    policy: Logps,
    reference: Logps,
    scores: Tensor | None = None,
    *,
    beta: Positive = 0.1,
    eps: ErrorRate = 1e-3,
    beta_r: Positive = 1.0,
) -> Tensor:
    """Exact optimisation: ``sum_k(p_k (log(p_k) - log(q_k)))``, the KL from ``p = softmax(beta rho)`` to a target ``q``.

    With scores ``q = softmax(scores / beta_r)``, for any K, as in the paper. Without scores ``q`` is the label: for pairs
    ``(1 - eps, eps)``, as in the paper; for K > 2 it is ours, the best response keeps ``1 - eps`` and the others share
    ``eps`` equally.

    Args:
        policy: K >= 2 responses ``(B, K)``, nats; best first if there are no scores.
        reference: the same responses under the frozen reference.
        scores: ``(B, K)`` scores of the same responses, higher is better; without gradient.
        beta: strength of the pull to the reference, per nat; the default is DPO's.
        eps: probability that the label is wrong; above 0, since the KL to a one-hot label is infinite. The default is the
            paper's; the authors' code comes to 4.5e-5. Scores make it idle.
        beta_r: the difference of scores that makes a response e times as good; the paper's symbol, the default is ours.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``-log K - sum_k(log(q_k)) / K``.

    Raises:
        ValueError: if the records differ in shape, hold fewer than two responses to a prompt, or the scores are not of
            their shape.

    Example:
        >>> policy = Logps(torch.tensor([[-12.0, -15.0], [-14.0, -14.0]]), torch.ones(2, 2))
        >>> reference = Logps(torch.full((2, 2), -14.0), torch.ones(2, 2))
        >>> exo(policy, reference, eps=0.1)  # KL from (0.57, 0.43), and from (0.5, 0.5), to (0.9, 0.1)
        tensor([0.3584, 0.5108])
        >>> exo(policy, reference, torch.tensor([[2.0, 0.0], [0.0, 0.0]]))  # to (0.88, 0.12), and to (0.5, 0.5)
        tensor([0.2960, 0.0000])
    """
    best, others = ranked_log_ratios(policy, reference)
    log_p = (beta * torch.cat([best, others], dim=1)).log_softmax(dim=1)
    if scores is None:
        q = torch.full_like(log_p, eps / others.shape[1])
        q[:, 0] = 1 - eps
        log_q = q.log()
    else:
        log_q = (tensor_of("scores", scores, log_p.shape, log_p.dtype).detach() / beta_r).log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)
