"""Losses that read one preference pair: the summed log-probabilities of a chosen and a rejected response.

Notation of the docstrings, for one pair: ``l_w, l_l`` are the policy's log-probabilities of the chosen and the rejected
response in nats, ``r_w, r_l`` the reference's, ``n_w, n_l`` the numbers of response tokens, ``lbar = l / n`` the mean
per token, ``rho = l - r`` the log-ratio to the reference, and ``D = rho_w - rho_l`` the margin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pref_toolkit.logps import Logps, check_same_pairs, margin, pair_log_ratios
from pref_toolkit.losses.inputs import RowError, only_response, tensor_of
from pref_toolkit.losses.method import Between0And1, FlipRate, NonNegative, Positive, method


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
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> dpo(policy, reference)  # log(1 + exp(-0.3)) at D = 3, log 2 at policy = reference
        tensor([0.5544, 0.6931])
    """
    return -logsigmoid(beta * margin(policy, reference))


@method(
    paper="Mitchell 2023, a note on DPO with noisy preferences",
    equation="the conservative DPO loss",
    chapter="methods/labels",
)
def cdpo(policy: Logps, reference: Logps, *, beta: Positive = 0.1, eps: FlipRate = 0.1) -> Tensor:
    """Conservative DPO: ``-(1 - eps) log sigmoid(beta D) - eps log sigmoid(-beta D)``.

    Its optimum is at ``beta D = log((1 - eps) / eps)``. Some libraries call this ``label_smoothing``; others mean
    ``robust_dpo`` by the same name.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference, per nat; the paper's symbol.
        eps: share of pairs whose label is believed to be wrong; the note's epsilon.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> cdpo(policy, reference)  # D = 3: 0.9 * 0.5544 + 0.1 * 0.8544
        tensor([0.5844, 0.6931])
    """
    t = beta * margin(policy, reference)
    return -(1 - eps) * logsigmoid(t) - eps * logsigmoid(-t)


@method(
    paper="Chowdhury et al. 2024, arXiv:2403.00409",
    equation="the robust DPO loss",
    chapter="methods/labels",
)
def robust_dpo(policy: Logps, reference: Logps, *, beta: Positive = 0.1, eps: FlipRate = 0.1) -> Tensor:
    """Robust DPO: ``(-(1 - eps) log sigmoid(beta D) + eps log sigmoid(-beta D)) / (1 - 2 eps)``.

    Over labels flipped with probability ``eps`` its mean is DPO's loss on the clean labels. It is unbounded below.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference, per nat; the paper's symbol.
        eps: share of flipped labels; the paper's epsilon.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> robust_dpo(policy, reference)  # D = 3: (0.9 * 0.5544 - 0.1 * 0.8544) / 0.8
        tensor([0.5169, 0.6931])
    """
    t = beta * margin(policy, reference)
    return (-(1 - eps) * logsigmoid(t) + eps * logsigmoid(-t)) / (1 - 2 * eps)


@method(paper="Azar et al. 2023, arXiv:2310.12036", equation="eq. 17", chapter="methods/ipo")
def ipo(policy: Logps, reference: Logps, *, tau: Positive = 0.1) -> Tensor:
    """Identity preference optimisation: ``(D - 1 / (2 tau))^2``.

    The margin is of summed log-probabilities, as in the paper and in eric-mitchell's code. TRL and HALOs use means per
    token; pass ``policy.per_token(), reference.per_token()`` for that loss. The minimum is the optimum that the paper
    derives if the pairs are drawn from a distribution that gives every response of the reference.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        tau: strength of the pull to the reference, per nat; the paper's symbol.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``1 / (4 tau^2)``.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> ipo(policy, reference)  # (3 - 5)^2 and (0 - 5)^2
        tensor([ 4., 25.])
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
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> hinge_dpo(policy, reference)  # 1 - 0.05 * 3, and 1
        tensor([0.8500, 1.0000])
    """
    return torch.relu(1 - gamma * margin(policy, reference))


@method(
    paper="Zhao et al. 2023, arXiv:2305.10425",
    equation="the calibration loss with its supervised term",
    chapter="methods/ranking",
)
def slic_hf(policy: Logps, target: Logps | None = None, *, delta: NonNegative = 1.0, lam: NonNegative = 0.1) -> Tensor:
    """Sequence likelihood calibration: ``max(0, delta - l_w + l_l) - lam l_target``.

    Args:
        policy: pairs ``(B, 2)``, nats.
        target: a supervised response to each prompt under the policy, ``(B, 1)``, nats; the chosen one if not given.
        delta: margin in nats; the paper's symbol.
        lam: weight of the supervised term; the paper's lambda.

    Returns:
        ``(B,)`` losses. There is no reference; at ``l_w = l_l`` each is ``delta - lam l_target``.

    Raises:
        ValueError: if the record does not hold pairs, or the target does not hold one response to each prompt.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> slic_hf(policy)  # max(0, 1 - 3) + 0.1 * 12, and max(0, 1 - 0) + 0.1 * 14
        tensor([1.2000, 2.4000])
    """
    return torch.relu(delta - policy.chosen + policy.rejected) - lam * supervised(policy, target)


def supervised(policy: Logps, target: Logps | None) -> Tensor:
    """``(B,)`` log-probability of the supervised response, nats: the chosen one unless there is a target."""
    if target is None:
        return policy.chosen
    return tensor_of("target", only_response("target", target), policy.chosen.shape)


@method(
    paper="Zheng et al. 2023, arXiv:2306.03350",
    equation="the language-modelling and the contrastive loss",
    chapter="methods/ranking",
)
def click(policy: Logps, target: Logps | None = None, *, alpha: NonNegative = 0.5, gamma: NonNegative = 20.0) -> Tensor:
    """Contrastive likelihoods of the model's own samples: ``-lbar_target + alpha max(0, gamma - l_w + l_l)``.

    The pair is a good and a bad sample of the model itself; the target comes from the data.

    Args:
        policy: pairs ``(B, 2)``, nats, with their token counts.
        target: a supervised response to each prompt under the policy, ``(B, 1)``, nats; the chosen one if not given.
        alpha: weight of the contrastive term; the paper's symbol. The authors' scripts use 0.5, 0.1 and 0.3.
        gamma: margin in nats, on sums; the paper's symbol. The authors' scripts use 20, 15 and 15. Their code has the two
            letters the other way round.

    Returns:
        ``(B,)`` losses. There is no reference; at ``l_w = l_l`` each is ``-lbar_target + alpha gamma``.

    Raises:
        ValueError: if the record does not hold pairs, or the target does not hold one response to each prompt.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -12.0]), torch.tensor([-20.0, -11.5]), 4, 10)
        >>> click(policy)  # 0.5 max(0, 20 - 8) and 0.5 max(0, 20 + 0.5), each + 12 / 4
        tensor([ 9.0000, 13.2500])
    """
    mean = supervised(policy.per_token(), None if target is None else target.per_token())
    return -mean + alpha * torch.relu(gamma - policy.chosen + policy.rejected)


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

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -12.0]), torch.tensor([-20.0, -30.0]), 4, 10)
        >>> simpo(policy)  # means -3 and -2: log(1 + exp(2 + 1)); equal means: log(1 + exp(1))
        tensor([3.0486, 1.3133])
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
    only; the authors' code takes prompt and response together unless told otherwise.

    In float32 a mean nearer to 0 than 1.2e-7, a copied string, counts as if it were that far: between two such means the
    odds term is ``lam log 2``, and has no gradient.

    Args:
        policy: pairs ``(B, 2)``, nats, with their token counts.
        lam: weight of the odds-ratio term; the paper's lambda: 0.1, 0.2 or 0.25 by model. The authors' code has 1.0 as the
            default of its argument, and 0.1 and 0.05 in its scripts.

    Returns:
        ``(B,)`` losses. There is no reference; at ``lbar_w = lbar_l`` each is ``-lbar_w + lam log 2``.

    Raises:
        ValueError: if the record does not hold pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -12.0]), torch.tensor([-20.0, -30.0]), 4, 10)
        >>> orpo(policy)  # means -3 and -2; equal means: 3 + 0.1 log 2
        tensor([3.1383, 3.0693])
    """
    mean = policy.per_token()
    ratio = log_odds(mean.chosen) - log_odds(mean.rejected)
    return -mean.chosen - lam * logsigmoid(ratio)


@method(
    paper="Xu et al. 2024, arXiv:2401.08417",
    equation="the preference loss with its supervised term",
    chapter="methods/reference_free",
)
def cpo(policy: Logps, *, beta: Positive = 0.1, alpha: NonNegative = 1.0) -> Tensor:
    """Contrastive preference optimisation: ``-log sigmoid(beta (l_w - l_l)) - alpha lbar_w``.

    The supervised term is a mean per token of each response. In the authors' code it is one mean over all tokens of a
    batch, which changes when the batch is split. Their code by now also multiplies the rejected log-probability by a penalty
    of its own (ARPO, for X-ALMA): another loss, by the same name.

    Args:
        policy: pairs ``(B, 2)``, nats, with their token counts.
        beta: scale of the log-probabilities, per nat; the paper's symbol.
        alpha: weight of the supervised term, which the paper fixes at 1.

    Returns:
        ``(B,)`` losses. There is no reference; at ``l_w = l_l`` each is ``log 2 - alpha lbar_w``.

    Raises:
        ValueError: if the record does not hold pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]), 4, 10)
        >>> cpo(policy)  # DPO without a reference, + 12 / 4 and 14 / 4
        tensor([3.5544, 4.1931])
    """
    return -logsigmoid(beta * (policy.chosen - policy.rejected)) - alpha * policy.per_token().chosen


@method(
    paper="Pang et al. 2024, arXiv:2404.19733; Liu et al. 2024, arXiv:2405.16436",
    equation="DPO plus the supervised term",
    chapter="methods/dpo_gradients",
)
def dpo_nll(policy: Logps, reference: Logps, *, beta: Positive = 0.1, alpha: NonNegative = 1.0) -> Tensor:
    """DPO plus supervised learning of the chosen response: ``-log sigmoid(beta D) - alpha lbar_w``.

    The supervised term is a mean per token of each response, which gradient accumulation leaves as it is; a mean over
    all tokens of a batch would change with the split.

    Three recipes have this form. Iterative RPO (Pang et al.) has ``alpha = 1``; RPO (Liu et al.) calls the weight eta and has
    0.005 with ``beta = 0.01``, as a library cites it; Llama 3 has 0.2 with ``beta = 0.1``, and leaves formatting tokens out
    of both terms.

    Args:
        policy: pairs ``(B, 2)``, nats, with their token counts.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference, per nat; the paper's symbol.
        alpha: weight of the supervised term; the paper's symbol.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log 2 - alpha lbar_w``.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]), 4, 10)
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> dpo_nll(policy, reference)  # DPO's 0.5544 and 0.6931, + 12 / 4 and 14 / 4
        tensor([3.5544, 4.1931])
    """
    return dpo(policy, reference, beta=beta) - alpha * policy.per_token().chosen


@method(paper="Pal et al. 2024, arXiv:2402.13228", equation="the DPO-Positive loss", chapter="methods/dpo_gradients")
def dpop(policy: Logps, reference: Logps, *, beta: Positive = 0.3, lam: NonNegative = 50.0) -> Tensor:
    """DPO-Positive: ``-log sigmoid(beta (D - lam max(0, r_w - l_w)))``.

    The margin is charged for every nat by which the chosen response falls below the reference.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference, per nat; the default is the paper's as we read it.
        lam: weight of the charge; the paper's lambda, the default as we read it.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -15.0]), torch.tensor([-15.0, -18.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> dpop(policy, reference)  # D = 3 twice; the second chosen response lost a nat: 3 - 50
        tensor([ 0.3412, 14.1000])
    """
    rho_w, rho_l = pair_log_ratios(policy, reference)
    return -logsigmoid(beta * (rho_w - rho_l - lam * torch.relu(-rho_w)))


@method(
    paper="Park et al. 2024, arXiv:2403.19159", equation="the length-regularised loss", chapter="methods/divergences"
)
def r_dpo(policy: Logps, reference: Logps, *, beta: Positive = 0.1, alpha: NonNegative = 0.1) -> Tensor:
    """DPO with a price on length: ``-log sigmoid(beta D + alpha (n_w - n_l))``.

    The sign follows from maximising ``E[r - alpha n] - beta KL``: a longer chosen response is already paid for.

    Args:
        policy: pairs ``(B, 2)``, nats, with their token counts.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference, per nat; the paper's symbol.
        alpha: price of a token, in reward; the paper's symbol.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log(1 + exp(-alpha (n_w - n_l)))``.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]), 4, 10)
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> r_dpo(policy, reference)  # log(1 + exp(0.6 - 0.3)), and log(1 + exp(0.6))
        tensor([0.8544, 1.0375])
    """
    longer = (policy.tokens[:, 0] - policy.tokens[:, 1]).to(policy.sums.dtype)
    return -logsigmoid(beta * margin(policy, reference) + alpha * longer)


@method(paper="Lambert et al. 2024, arXiv:2411.15124", equation="eq. 6", chapter="methods/divergences")
def dpo_norm(policy: Logps, reference: Logps, *, beta: Positive = 5.0) -> Tensor:
    """Length-normalised DPO: ``-log sigmoid(beta (rho_w / n_w - rho_l / n_l))``.

    DPO on means per token. The preference stage of Tulu 3 uses it. On responses of n tokens it is DPO with ``beta / n``.

    Args:
        policy: pairs ``(B, 2)``, nats, with their token counts.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference, per nat per token; the paper's symbol.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]), 4, 10)
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]), 4, 10)
        >>> dpo_norm(policy, reference)  # 2 / 4 + 1 / 10 = 0.6 nats per token: log(1 + exp(-3)), and log 2
        tensor([0.0486, 0.6931])
    """
    rho_w, rho_l = pair_log_ratios(policy, reference)
    n_w, n_l = policy.tokens.unbind(dim=1)
    return -logsigmoid(beta * (rho_w / n_w - rho_l / n_l))


TANGENT_FROM = 30.0


def growing_exp(x: Tensor) -> Tensor:
    """``exp(x)``, continued by its tangent above x = 30.

    ``exp`` itself leaves float32 at 89 while log-ratios reach thousands. The continuation stays convex and increasing,
    so the gradient keeps its direction, and small enough for the norm of a gradient to be finite too.
    """
    start = x.clamp(max=TANGENT_FROM)
    return start.exp() * (1 + x - start)


def growing_expm1(x: Tensor) -> Tensor:
    """``exp(x) - 1``, exact near 0, with the tangent of :func:`growing_exp`."""
    start = x.clamp(max=TANGENT_FROM)
    return torch.expm1(start) + start.exp() * (x - start)


LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "logistic": lambda t: -logsigmoid(t),
    "hinge": lambda t: torch.relu(1 - t),
    "square": lambda t: (1 - t) ** 2,
    "exponential": lambda t: growing_exp(-t),
    "correlation": lambda t: -t,
}
"""Convex functions that fall at 0, by name."""


def named(choices: dict[str, Callable], what: str, name: str) -> Callable[[Tensor], Tensor]:
    """The choice of this name, or a ValueError that lists the names."""
    if name not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, got {name!r}")
    return choices[name]


@method(
    paper="Chen et al. 2024, arXiv:2401.01335", equation="the self-play fine-tuning loss", chapter="loops/self_play"
)
def spin(
    policy: Logps,
    reference: Logps,
    *,
    lam: Positive = 0.1,
    link: Literal["logistic", "hinge", "correlation", "exponential"] = "logistic",
) -> Tensor:
    """Self-play fine-tuning: ``link(lam D)``.

    The chosen response is the data's, the rejected one and the reference are the previous iterate's. ``link`` of t:
    logistic ``-log sigmoid(t)``, hinge ``max(0, 1 - t)``, correlation ``-t``, exponential ``exp(-t)``, which goes on
    as its tangent below t = -30. On fixed pairs with the logistic link this is DPO with beta = lam.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the previous iterate.
        lam: strength of the pull to the previous iterate, per nat; the paper's lambda.
        link: a convex decreasing function; the paper's ell.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``link(0)``.

    Raises:
        ValueError: if the records do not hold the same pairs, or there is no such link.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> spin(policy, reference, link="hinge")  # 1 - 0.1 * 3, and 1
        tensor([0.7000, 1.0000])
    """
    return named(LINKS, "link", link)(lam * margin(policy, reference))


@method(paper="Tang et al. 2024, arXiv:2402.05749", equation="the family of losses", chapter="methods/found_by_search")
def gpo(
    policy: Logps,
    reference: Logps,
    *,
    beta: Positive = 0.1,
    link: Literal["logistic", "hinge", "square", "exponential", "correlation"] = "logistic",
) -> Tensor:
    """Generalised preference optimisation: ``link(beta D)``.

    Any convex link that falls at 0 gives a method: logistic is DPO; hinge ``max(0, 1 - t)`` is ``hinge_dpo``;
    square ``(1 - t)^2`` is ``beta^2`` times IPO with ``tau = beta / 2``; exponential ``exp(-t)``, which goes on as its
    tangent below t = -30, and correlation ``-t`` have no other name here.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference, per nat; the default is DPO's.
        link: the function of the scaled margin; the paper's f.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``link(0)``.

    Raises:
        ValueError: if the records do not hold the same pairs, or there is no such link.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> gpo(policy, reference, link="square")  # (1 - 0.3)^2, and 1
        tensor([0.4900, 1.0000])
    """
    return named(LINKS, "link", link)(beta * margin(policy, reference))


@method(paper="Wang et al. 2023, arXiv:2309.16240", equation="the f-divergence loss", chapter="methods/divergences")
def f_dpo(
    policy: Logps,
    reference: Logps,
    *,
    beta: Positive = 0.1,
    divergence: Literal["reverse_kl", "forward_kl", "jensen_shannon", "alpha"] = "reverse_kl",
    alpha: Between0And1 = 0.5,
) -> Tensor:
    """DPO for another divergence from the reference: ``-log sigmoid(beta (g(rho_w) - g(rho_l)))``.

    ``g(rho) = f'(exp(rho))``: reverse KL ``rho`` (DPO), forward KL ``-exp(-rho)``, Jensen-Shannon
    ``log sigmoid(rho) + log 2``, alpha-divergence ``(1 - exp(-alpha rho)) / alpha``. An exponential whose
    exponent passes 30 goes on as its tangent.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference, per nat; the default is DPO's.
        divergence: which f.
        alpha: order of the alpha-divergence, between reverse KL at 0 and forward KL at 1; the others ignore it.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs, or there is no such divergence.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> f_dpo(policy, reference, divergence="forward_kl")  # g is -exp(-2) and -exp(1)
        tensor([0.5723, 0.6931])
    """
    derivatives: dict[str, Callable[[Tensor], Tensor]] = {
        "reverse_kl": lambda rho: rho,
        "forward_kl": lambda rho: -growing_exp(-rho),
        "jensen_shannon": logsigmoid,  # the constant log 2 cancels
        # The 1 cancels in the difference below. At a small alpha all digits of the two exponentials would, too.
        "alpha": lambda rho: -growing_expm1(-alpha * rho) / alpha,
    }
    g = named(derivatives, "divergence", divergence)
    rho_w, rho_l = pair_log_ratios(policy, reference)
    return -logsigmoid(beta * (g(rho_w) - g(rho_l)))


@method(
    paper="Huang et al. 2024, arXiv:2407.13399",
    equation="the loss with the link z + log z",
    chapter="methods/divergences",
)
def chi_po(policy: Logps, reference: Logps, *, beta: Positive = 0.1) -> Tensor:
    """Chi-squared preference optimisation: ``-log sigmoid(beta (exp(rho_w) + rho_w - exp(rho_l) - rho_l))``.

    It is the loss of ``f_dpo`` for the chi-squared and the KL divergence together, whose link is ``z + log z`` of the ratio
    ``z = exp(rho)``. A response that the policy makes likelier than the reference does is dear: its price is the ratio
    itself, not its logarithm.

    ``exp(rho)`` goes on as its tangent above rho = 30, so that value and gradient stay finite. The paper, as we remember it,
    clips the difference; nothing is clipped here, and no pair loses its gradient for being far away.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference; the paper's symbol, the default is DPO's.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> chi_po(policy, reference)  # exp(2) + 2 - exp(-1) + 1 = 10.02: log(1 + exp(-1.002)), and log 2
        tensor([0.3127, 0.6931])
    """
    rho_w, rho_l = pair_log_ratios(policy, reference)
    # exp(rho) - 1: the 1 cancels in the difference, and small log-ratios keep their digits.
    return -logsigmoid(beta * (growing_expm1(rho_w) - growing_expm1(rho_l) + rho_w - rho_l))


@method(
    paper="Lu et al. 2024, arXiv:2406.08414", equation="the log-ratio modulated loss", chapter="methods/found_by_search"
)
def discopop(policy: Logps, reference: Logps, *, beta: Positive = 0.05, tau: Positive = 0.05) -> Tensor:
    """DiscoPOP, found by search: ``sigmoid(-t / tau) log(1 + exp(-t)) + sigmoid(t / tau) exp(-t)``, t = beta D.

    Neither convex nor monotone: at ``tau = 0.05`` it rises for t between about -0.12 and 0.07.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        beta: scale of the margin, per nat; the paper's symbol.
        tau: width, in t, over which the logistic loss turns into the exponential one; the paper's symbol.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``(1 + log 2) / 2``.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> discopop(policy, reference)  # larger at t = 0.15 than at t = 0: it is not monotone
        tensor([0.8493, 0.8466])
    """
    t = beta * margin(policy, reference)
    # One exponential: sigmoid(t / tau) exp(-t) as a product is 0 * inf far below 0.
    return torch.sigmoid(-t / tau) * -logsigmoid(t) + growing_exp(logsigmoid(t / tau) - t)


@method(paper="Wu et al. 2024, arXiv:2405.00675", equation="eq. 4.7", chapter="loops/self_play")
def sppo(policy: Logps, reference: Logps, win_probabilities: Tensor, *, beta: Positive = 1e-3) -> Tensor:
    """Self-play preferences: ``((rho_w - (P_w - 1/2) / beta)^2 + (rho_l - (P_l - 1/2) / beta)^2) / 2``.

    The half of the squares and the default of beta are those of the authors' code. ``1 / (2 beta)`` stands for the logarithm
    of the normaliser of exact multiplicative weights; it is a lower bound, so the targets of all responses together lie
    above what any policy can meet.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the previous iterate.
        win_probabilities: ``(B, 2)`` ``P_w, P_l``: probability that each response beats one of the previous iterate.
        beta: strength of the pull to the previous iterate, per nat; the paper's 1 / eta.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``((P_w - 1/2)^2 + (P_l - 1/2)^2) / (2 beta^2)``.

    Raises:
        ValueError: if the records do not hold the same pairs.
        RowError: if a win probability lies outside [0, 1].

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> win_probabilities = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
        >>> sppo(policy, reference, win_probabilities, beta=0.1)  # ((2 - 5)^2 + (-1 + 5)^2) / 2, and 0
        tensor([12.5000,  0.0000])
    """
    rho = torch.stack(pair_log_ratios(policy, reference), dim=1)
    P = tensor_of("win_probabilities", win_probabilities, rho.shape, rho.dtype)
    outside = ~((P >= 0) & (P <= 1))
    if bool(outside.any()):
        row, k = outside.nonzero()[0].tolist()
        raise RowError(f"win_probabilities must lie in [0, 1], got {P[row, k].item():g}", row, response=k)
    return ((rho - (P - 0.5) / beta) ** 2).sum(dim=1) / 2


@method(paper="Chen et al. 2024, arXiv:2402.05369", equation="the loss for pairs", chapter="methods/anchors")
def nca(policy: Logps, reference: Logps, *, beta: Positive = 0.01) -> Tensor:
    """Noise contrastive alignment: ``-log sigmoid(b_w) - log(sigmoid(-b_w)) / 2 - log(sigmoid(-b_l)) / 2``.

    ``b = beta rho``. Unlike DPO's, this loss reads the two log-ratios apart: a chosen response that falls is charged.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference, per nat; the paper's symbol.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``2 log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> nca(policy, reference, beta=1.0)  # rho = 2 and -1; at policy = reference 2 log 2
        tensor([1.3470, 1.3863])
    """
    b_w, b_l = (beta * rho for rho in pair_log_ratios(policy, reference))
    return -logsigmoid(b_w) - (logsigmoid(-b_w) + logsigmoid(-b_l)) / 2


@method(paper="D'Oosterlinck et al. 2024, arXiv:2408.06266", equation="eq. 7", chapter="methods/anchors")
def apo_zero(policy: Logps, reference: Logps, *, beta: Positive = 0.1) -> Tensor:
    """Anchored preference optimisation, chosen up and rejected down: ``1 - sigmoid(beta rho_w) + sigmoid(beta rho_l)``.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference, per nat; the paper's symbol.

    Returns:
        ``(B,)`` losses in ``[0, 2]``. At policy = reference each is 1.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> apo_zero(policy, reference)  # sigmoid(-0.2) + sigmoid(-0.1)
        tensor([0.9252, 1.0000])
    """
    rho_w, rho_l = pair_log_ratios(policy, reference)
    return torch.sigmoid(-beta * rho_w) + torch.sigmoid(beta * rho_l)


@method(paper="D'Oosterlinck et al. 2024, arXiv:2408.06266", equation="eq. 8", chapter="methods/anchors")
def apo_down(policy: Logps, reference: Logps, *, beta: Positive = 0.1) -> Tensor:
    """Anchored preference optimisation, both down, the rejected further: ``sigmoid(beta rho_w) + 1 - sigmoid(beta D)``.

    For pairs whose chosen response is worse than what the reference would write.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        beta: strength of the pull to the reference, per nat; the paper's symbol.

    Returns:
        ``(B,)`` losses in ``[0, 2]``. At policy = reference each is 1.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> apo_down(policy, reference)  # sigmoid(0.2) + sigmoid(-0.3)
        tensor([0.9754, 1.0000])
    """
    rho_w, rho_l = pair_log_ratios(policy, reference)
    return torch.sigmoid(beta * rho_w) + torch.sigmoid(-beta * (rho_w - rho_l))


@method(
    paper="Melnyk et al. 2024, arXiv:2406.05882",
    equation="the paired loss, with DPO's link",
    chapter="methods/anchors",
    batchwise=True,
)
def aot(policy: Logps, reference: Logps, *, beta: Positive = 0.01) -> Tensor:
    """Alignment by optimal transport, paired: ``-log sigmoid(beta (m - m_ref))``.

    ``m = l_w - l_l`` is a pair's margin under the policy, and ``m_ref`` the reference's margin of the same *rank* in
    the batch, not of the same pair. So the loss reads the whole batch, and with one pair it is DPO.

    Args:
        policy: pairs ``(B, 2)``, nats: all pairs of an update.
        reference: the same pairs under the frozen reference.
        beta: scale of the margin, per nat; the paper's symbol.

    Returns:
        ``(B,)`` losses, in the order of the pairs. At policy = reference each is ``log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> aot(policy, reference, beta=0.1)  # all margins of the reference are 0: DPO
        tensor([0.5544, 0.6931])
        >>> crossed = Logps.pair(torch.tensor([-14.0, -11.0]), torch.tensor([-14.0, -14.0]))  # its margins: 0 and 3
        >>> aot(policy, crossed, beta=0.1)  # 3 is compared with 3, and 0 with 0
        tensor([0.6931, 0.6931])
    """
    check_same_pairs(policy, reference)
    m = policy.chosen - policy.rejected
    rank = m.argsort(stable=True).argsort()
    return -logsigmoid(beta * (m - (reference.chosen - reference.rejected).sort().values[rank]))
