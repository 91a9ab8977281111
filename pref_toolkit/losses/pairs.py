"""Losses that read one preference pair: the summed log-probabilities of a chosen and a rejected response.

Notation of the docstrings, for one pair: ``l_w, l_l`` are the policy's log-probabilities of the chosen and the rejected
response in nats, ``r_w, r_l`` the reference's, ``n_w, n_l`` the numbers of response tokens, ``lbar = l / n`` the mean
per token, and ``D = (l_w - r_w) - (l_l - r_l)`` the margin.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pref_toolkit.logps import Logps
from pref_toolkit.losses.method import NonNegative, Positive, method


def margin(policy: Logps, reference: Logps) -> Tensor:
    """``D = (l_w - r_w) - (l_l - r_l)``, ``(B,)``: nats by which the policy prefers the chosen beyond the reference.

    Raises:
        ValueError: if the records do not hold the same number of pairs.
    """
    if policy.sums.shape != reference.sums.shape:
        raise ValueError(
            "policy and reference must hold the same responses, "
            f"got shapes {tuple(policy.sums.shape)} and {tuple(reference.sums.shape)}"
        )
    return (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)


@method(paper="Rafailov et al. 2023, arXiv:2305.18290", equation="eq. 7", chapter="methods/dpo")
def dpo(policy: Logps, reference: Logps, *, beta: Positive = 0.1) -> Tensor:
    """Direct preference optimisation: ``-log sigmoid(beta D)``.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference, per nat; the paper's symbol.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log 2``.

    Raises:
        ValueError: if either record does not hold pairs.
    """
    return -logsigmoid(beta * margin(policy, reference))


@method(paper="Azar et al. 2023, arXiv:2310.12036", equation="eq. 17", chapter="methods/ipo")
def ipo(policy: Logps, reference: Logps, *, tau: Positive = 0.1) -> Tensor:
    """Identity preference optimisation: ``(D - 1 / (2 tau))^2``.

    The margin is of summed log-probabilities, as in the paper. Some libraries use means per token;
    pass ``policy.per_token(), reference.per_token()`` for that loss.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        tau: strength of the pull to the reference, per nat; the paper's symbol.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``1 / (4 tau^2)``.

    Raises:
        ValueError: if either record does not hold pairs.
    """
    return (margin(policy, reference) - 1 / (2 * tau)) ** 2


@method(paper="Liu et al. 2023, arXiv:2309.06657", equation="the hinge loss of section 3", chapter="methods/ranking")
def hinge_dpo(policy: Logps, reference: Logps, *, gamma: Positive = 0.05) -> Tensor:
    """The hinge loss of RSO: ``max(0, 1 - gamma D)``.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        gamma: scale of the margin, per nat; the paper's symbol (DPO's beta).

    Returns:
        ``(B,)`` losses. At policy = reference each is 1.

    Raises:
        ValueError: if either record does not hold pairs.
    """
    return torch.relu(1 - gamma * margin(policy, reference))


@method(
    paper="Zhao et al. 2023, arXiv:2305.10425",
    equation="the calibration loss with its supervised term",
    chapter="methods/ranking",
)
def slic_hf(policy: Logps, target: Tensor | None = None, *, delta: NonNegative = 1.0, lam: NonNegative = 0.1) -> Tensor:
    """Sequence likelihood calibration: ``max(0, delta - l_w + l_l) - lam l_target``.

    Args:
        policy: pairs ``(B, 2)``, nats.
        target: ``(B,)`` policy log-probability of a supervised response, nats; the chosen response if not given.
        delta: margin in nats; the paper's symbol.
        lam: weight of the supervised term; the paper's lambda.

    Returns:
        ``(B,)`` losses. There is no reference; at ``l_w = l_l`` each is ``delta - lam l_target``.

    Raises:
        ValueError: if the record does not hold pairs.
    """
    target = policy.chosen if target is None else target.to(policy.sums.dtype)
    return torch.relu(delta - policy.chosen + policy.rejected) - lam * target


@method(paper="Meng et al. 2024, arXiv:2405.14734", equation="eq. 6", chapter="methods/simpo")
def simpo(policy: Logps, *, beta: Positive = 2.0, gamma: NonNegative = 1.0) -> Tensor:
    """Simple preference optimisation: ``-log sigmoid(beta (lbar_w - lbar_l) - gamma)``.

    Args:
        policy: pairs ``(B, 2)``, nats, with their token counts.
        beta: scale of the length-normalised log-probability; the paper's symbol.
        gamma: target reward margin, absolute as in the paper. The authors' script asks for the ratio ``gamma / beta``.

    Returns:
        ``(B,)`` losses. There is no reference; at ``lbar_w = lbar_l`` each is ``log(1 + exp(gamma))``.

    Raises:
        ValueError: if the record does not hold pairs.
    """
    mean = policy.per_token()
    return -logsigmoid(beta * (mean.chosen - mean.rejected) - gamma)


def log_odds(logp: Tensor) -> Tensor:
    """``log p - log(1 - p)`` from ``log p <= 0``, finite with a finite gradient up to and including ``p = 1``.

    ``log p`` is first kept one machine epsilon below 0: choosing between formulas afterwards would still differentiate
    the infinite one.
    """
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    return logp - torch.where(logp > -0.6931, torch.log(-torch.expm1(logp)), torch.log1p(-torch.exp(logp)))


@method(paper="Hong et al. 2024, arXiv:2403.07691", equation="eqs. 6-7", chapter="methods/reference_free")
def orpo(policy: Logps, *, lam: NonNegative = 0.1) -> Tensor:
    """Odds ratio preference optimisation: ``-lbar_w - lam log sigmoid(log_odds(lbar_w) - log_odds(lbar_l))``.

    ``log_odds(x) = x - log(1 - e^x)`` of the mean log-probability per token. The supervised term is over the response
    only; the authors' code counts the prompt too.

    Args:
        policy: pairs ``(B, 2)``, nats, with their token counts.
        lam: weight of the odds-ratio term; the paper's lambda.

    Returns:
        ``(B,)`` losses. There is no reference; at ``lbar_w = lbar_l`` each is ``-lbar_w + lam log 2``.

    Raises:
        ValueError: if the record does not hold pairs.
    """
    mean = policy.per_token()
    ratio = log_odds(mean.chosen) - log_odds(mean.rejected)
    return -mean.chosen - lam * logsigmoid(ratio)
