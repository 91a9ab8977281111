"""Losses that read one answer to a prompt and whether it is desirable.

Notation of the docstrings, for one answer: ``rho = l - r`` is its log-ratio to the reference in nats, and ``s`` is +1
if it is desirable, -1 if not.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pref_toolkit.logps import Logps
from pref_toolkit.losses.inputs import answer_log_ratios, tensor_of
from pref_toolkit.losses.method import NonNegative, Positive, method


def signs(desirable: Tensor, like: Tensor) -> Tensor:
    """``s``: +1 where desirable, -1 where not.

    Raises:
        ValueError: if the labels are not booleans, one for each answer. A -1 would otherwise read as true.
    """
    if desirable.dtype != torch.bool or desirable.shape != like.shape:
        raise ValueError(
            f"desirable must be booleans of shape {tuple(like.shape)}, "
            f"got {desirable.dtype} of shape {tuple(desirable.shape)}"
        )
    return torch.where(desirable, 1.0, -1.0).to(like.dtype)


@method(
    paper="Ethayarajh et al. 2024, arXiv:2402.01306",
    equation="the loss with its reference point",
    chapter="methods/beyond_pairs",
)
def kto(
    policy: Logps,
    reference: Logps,
    desirable: Tensor,
    kl: Tensor,
    *,
    beta: Positive = 0.1,
    lam_D: NonNegative = 1.0,
    lam_U: NonNegative = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation: ``lam (1 - sigmoid(s beta (rho - z0)))``, ``lam`` one of ``lam_D``, ``lam_U``.

    ``z0 = max(0, mean(kl))`` stands for KL(policy || reference) and carries no gradient. Mean first, clamp after. The
    log-ratios are of mismatched pairs: each answer is scored after *another* prompt. The paper calls that estimate
    "biased but convenient", and says that the clamp biases it upwards. An estimate from the matched answers is not
    unbiased either, and moves with the labels: what is learnt from the desirable ones raises it.

    The paper wants ``lam_D n_D / (lam_U n_U)`` between 1 and 3/2, for ``n_D`` desirable and ``n_U`` undesirable answers.

    Args:
        policy: one labelled answer to each prompt ``(B, 1)``, nats.
        reference: the same answers under the frozen reference.
        desirable: ``(B,)`` booleans.
        kl: log-ratios in nats of mismatched prompts and answers, of any number and shape: those of the whole update.
        beta: strength of the pull to the reference, per nat; the paper's symbol.
        lam_D: weight of desirable answers; the paper's lambda_D.
        lam_U: weight of undesirable answers; the paper's lambda_U.

    Returns:
        ``(B,)`` losses in ``[0, lam]``. At policy = reference, where ``kl`` is 0, each is ``lam / 2``.

    Raises:
        ValueError: if the records do not hold the same single answers, the labels do not match, or ``kl`` is empty.

    Example:
        >>> policy = Logps(torch.tensor([[-12.0], [-12.0], [-14.0]]), torch.ones(3, 1))
        >>> reference = Logps(torch.full((3, 1), -14.0), torch.ones(3, 1))
        >>> desirable = torch.tensor([True, False, True])
        >>> kto(policy, reference, desirable, kl=torch.tensor([-3.0, 1.0]))  # z0 = 0; sigmoid(-0.2), ...
        tensor([0.4502, 0.5498, 0.5000])
    """
    rho = answer_log_ratios(policy, reference)
    if kl.numel() == 0:
        raise ValueError("kto wants at least one mismatched log-ratio in kl, got none")
    s = signs(desirable, rho)
    z0 = tensor_of("kl", kl, kl.shape, rho.dtype).mean().clamp(min=0).detach()
    lam = torch.where(desirable, rho.new_tensor(lam_D), rho.new_tensor(lam_U))
    return lam * torch.sigmoid(-s * beta * (rho - z0))


@method(
    paper="Jung et al. 2024, arXiv:2404.04656",
    equation="the binary classifier loss with its reward shift",
    chapter="methods/beyond_pairs",
)
def bco(policy: Logps, reference: Logps, desirable: Tensor, shift: Tensor, *, beta: Positive = 0.01) -> Tensor:
    """Binary classifier optimisation: ``-log sigmoid(s (beta rho - shift))``.

    The paper also weights the undesirable answers by a ratio of densities (UDM), for desirable and undesirable answers
    to different prompts. These weights are not here.

    Args:
        policy: one labelled answer to each prompt ``(B, 1)``, nats.
        reference: the same answers under the frozen reference.
        desirable: ``(B,)`` booleans.
        shift: scalar tensor, half the sum of two means of ``beta rho``: that of the desirable and that of the
            undesirable answers, running over the updates before; the paper's delta, as we read it. The mean over all
            answers is the same number only if there are as many of each kind. No gradient.
        beta: strength of the pull to the reference, per nat; the paper's symbol. A library's notes give the default as
            the paper's.

    Returns:
        ``(B,)`` losses. At policy = reference, where ``shift`` is 0, each is ``log 2``.

    Raises:
        ValueError: if the records do not hold the same single answers, or labels or shift have another shape.

    Example:
        >>> policy = Logps(torch.tensor([[-12.0], [-12.0], [-14.0]]), torch.ones(3, 1))
        >>> reference = Logps(torch.full((3, 1), -14.0), torch.ones(3, 1))
        >>> desirable = torch.tensor([True, False, True])
        >>> shift = torch.tensor(0.0)
        >>> bco(policy, reference, desirable, shift, beta=0.1)  # beta rho = 0.2: log(1 + exp(-0.2)), ...
        tensor([0.5981, 0.7981, 0.6931])
    """
    rho = answer_log_ratios(policy, reference)
    s = signs(desirable, rho)
    return -logsigmoid(s * (beta * rho - tensor_of("shift", shift, (), rho.dtype).detach()))
