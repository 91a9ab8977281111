"""Same name, different loss: where sources and libraries disagree, what each one computes, and what ours is.

Every entry shows both numbers on one small example, so that a reader who meets the other one recognises it. What is said
of TRL 1.16 was checked on its own code, by ``tests/peers``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pref_toolkit.logps import Logps
from pref_toolkit.losses.labels import bco, kto
from pref_toolkit.losses.pairs import cdpo, dpo, f_dpo, ipo, orpo, r_dpo, robust_dpo, simpo, sppo
from pref_toolkit.losses.token_distributions import ld_dpo, wpo


@dataclass(frozen=True)
class Disagreement:
    """One name, two losses.

    Args:
        methods: those it concerns.
        ours: what the toolkit computes, and how to get the other from its functions, or that there is no way.
        theirs: what else goes by the name.
        numbers: both values on a small example, ours first.
    """

    methods: tuple[str, ...]
    ours: str
    theirs: str
    numbers: Callable[[], tuple[float, float]]


def pair(chosen: float, rejected: float, n_w: int = 4, n_l: int = 10) -> Logps:
    """The record of one pair: summed log-probabilities in nats, lengths in tokens."""
    sums = torch.tensor([[chosen, rejected]], dtype=torch.float64)
    return Logps(sums, torch.tensor([[n_w, n_l]]))


# One pair for all of them: 4 chosen tokens, 10 rejected ones, D = 3 nats in all and 0.6 nats per token.
POLICY, REFERENCE = pair(-12, -15), pair(-14, -14)
MEAN_POLICY, MEAN_REFERENCE = POLICY.per_token(), REFERENCE.per_token()
# Its chosen response as a desirable answer, with rho = 2.
ANSWER = Logps(POLICY.sums[:, :1], POLICY.tokens[:, :1])
ANSWER_REFERENCE = Logps(REFERENCE.sums[:, :1], REFERENCE.tokens[:, :1])
DESIRABLE = torch.tensor([True])


def _kto(*kl: float) -> float:
    return kto(ANSWER, ANSWER_REFERENCE, DESIRABLE, torch.tensor(kl)).item()


def _bco(shift: float) -> float:
    return bco(ANSWER, ANSWER_REFERENCE, DESIRABLE, torch.tensor(shift), beta=0.1).item()


def _ld_dpo_at_start() -> tuple[float, float]:
    policy, head = pair(-14, -14), pair(-14, -6, 4, 4)
    whole = Logps(policy.sums, head.tokens)  # a head that lacks nothing leaves no tail to weight
    ours, theirs = (ld_dpo(policy, policy, head, h, beta=0.1, alpha=0.5).item() for h in (head, whole))
    return ours, theirs


def _alpha_divergence(alpha: float) -> float:
    return f_dpo(POLICY, REFERENCE, divergence="alpha", alpha=alpha).item()


def _nll() -> tuple[float, float]:
    nats, tokens = torch.tensor([12.0, 15.0]), torch.tensor([4, 10])
    return (nats / tokens).mean().item(), (nats.sum() / tokens.sum()).item()


def _psi() -> tuple[float, float]:
    """Log-probability gap of two responses, the better one preferred 9 times in 10, at tau = 0.1, uniform reference."""
    p, tau = 0.9, 0.1
    against_both = 0.5 * 0.5 + 0.5 * p, 0.5 * 0.5 + 0.5 * (1 - p)
    return (against_both[0] - against_both[1]) / tau, math.log(p / (1 - p)) / tau


DISAGREEMENTS: dict[str, Disagreement] = {
    "ipo_sum_or_mean": Disagreement(
        ("ipo",),
        "the paper's margin of summed log-probabilities; pass policy.per_token() and reference.per_token() for means",
        "a margin of means per token, with the same tau: TRL 1.16's DPO trainer, while its online trainer sums",
        lambda: (ipo(POLICY, REFERENCE).item(), ipo(MEAN_POLICY, MEAN_REFERENCE).item()),
    ),
    "simpo_gamma": Disagreement(
        ("simpo",),
        "gamma is absolute, as in the paper and in TRL 1.16; for a ratio pass gamma = beta ratio",
        "the authors' script asks for the ratio: beta (lbar_w - lbar_l - ratio)",
        lambda: (simpo(POLICY, beta=2.0, gamma=1.0).item(), simpo(POLICY, beta=2.0, gamma=2.0 * 1.0).item()),
    ),
    "simpo_in_cpo": Disagreement(
        ("simpo", "cpo"),
        "SimPO has no supervised term; add -policy.per_token().chosen for the other",
        "a CPO trainer with SimPO's loss adds -lbar_w until its weight is set to 0: cpo_alpha in TRL 1.16",
        lambda: (simpo(POLICY).item(), (simpo(POLICY) - MEAN_POLICY.chosen).item()),
    ),
    "dpo_on_means": Disagreement(
        ("dpo",),
        "eq. 7: summed log-probabilities; pass policy.per_token() and reference.per_token() for means",
        "DPO on means per token, in which beta is weaker by about the length: sigmoid_norm in TRL 1.16",
        lambda: (dpo(POLICY, REFERENCE).item(), dpo(MEAN_POLICY, MEAN_REFERENCE).item()),
    ),
    "label_smoothing": Disagreement(
        ("cdpo", "robust_dpo"),
        "two methods, cdpo and robust_dpo; cdpo's value",
        "label_smoothing is the one in TRL 1.16's CPO trainer, the other in its robust loss; robust_dpo's value",
        lambda: (cdpo(POLICY, REFERENCE).item(), robust_dpo(POLICY, REFERENCE).item()),
    ),
    "label_smoothing_ignored": Disagreement(
        ("cdpo", "dpo"),
        "cdpo smooths the labels; dpo has no eps and is the other",
        "label_smoothing is ignored: TRL 1.16's default DPO loss; dpo's value",
        lambda: (cdpo(POLICY, REFERENCE).item(), dpo(POLICY, REFERENCE).item()),
    ),
    "bco_without_shift": Disagreement(
        ("bco",),
        "the shift is a mean of beta rho (here 0.05); pass torch.tensor(0.0) as shift for the other",
        "a loss for pairs of the same name without the shift: bco_pair in TRL 1.16",
        lambda: (_bco(0.05), _bco(0.0)),
    ),
    "sppo_scale": Disagreement(
        ("sppo",),
        "half the squares, beta = 1e-3; the other is twice sppo with those win probabilities and beta = 0.1",
        "the squares, win probabilities 1 and 0, beta 100 times as large: sppo_hard in TRL 1.16",
        lambda: (
            sppo(POLICY, REFERENCE, torch.tensor([[1.0, 0.0]])).item(),
            2 * sppo(POLICY, REFERENCE, torch.tensor([[1.0, 0.0]]), beta=0.1).item(),
        ),
    ),
    "ld_dpo_reference": Disagreement(
        ("ld_dpo",),
        "the tail is weighted in policy and reference, as in TRL 1.16: log 2 at policy = reference; pass the whole "
        "reference's sums as reference_first for the other",
        "the tail is weighted in the policy only: the margin does not start at 0",
        _ld_dpo_at_start,
    ),
    "kto_matched": Disagreement(
        ("kto",),
        "z0 from answers to other prompts, as in TRL 1.16 if neighbouring rows have different prompts (here rho = 2 and "
        "0.5); pass the answers' own rho as kl for the other",
        "z0 from the matched answers themselves (rho = 2 and -1), which moves with the labels",
        lambda: (_kto(2.0, 0.5), _kto(2.0, -1.0)),
    ),
    "kto_clamp": Disagreement(
        ("kto",),
        "z0 is the mean, then clamped at 0, as in TRL 1.16 (here of -3 and 1); pass kl.clamp(min=0) for the other",
        "each log-ratio is clamped first, so that z0 is above 0",
        lambda: (_kto(-3.0, 1.0), _kto(0.0, 1.0)),
    ),
    "orpo_prompt": Disagreement(
        ("orpo",),
        "the supervised term is over the response; there is no way to the other, since a record holds no prompt's nats",
        "the supervised term is over prompt and response: TRL 1.16 (here a prompt of 6 tokens and 9 nats)",
        lambda: (orpo(POLICY).item(), (orpo(POLICY) + MEAN_POLICY.chosen + (9 + 12) / (6 + 4)).item()),
    ),
    "nll_mean": Disagreement(
        ("dpo_nll", "cpo", "orpo", "click"),
        "the supervised term is a mean per token of each response: unchanged by gradient accumulation; for the other set "
        "alpha = 0 (dpo_nll, cpo) and take alpha policy.chosen.sum() / policy.tokens[:, 0].sum() off the batch's mean; "
        "orpo and click have no such weight",
        "a mean over all tokens of the batch, which changes with the split: TRL 1.16 (here 12 nats of 4 tokens and 15 "
        "of 10)",
        _nll,
    ),
    "ipo_psi": Disagreement(
        ("ipo",),
        "Psi is the identity: the optimum's log-probability gap for a preference of 0.9 is 4 at tau = 0.1; the other is dpo",
        "Psi(q) = log(q / (1 - q)), printed as IPO's choice in one chapter, is that of RLHF and DPO",
        _psi,
    ),
    "r_dpo_sign": Disagreement(
        ("r_dpo",),
        "beta D plus alpha (n_w - n_l), which follows from a price on length; the function takes alpha = -0.1 for the "
        "other, but METHODS and training refuse a negative price",
        "a survey prints minus",
        lambda: (r_dpo(POLICY, REFERENCE).item(), r_dpo(POLICY, REFERENCE, alpha=-0.1).item()),
    ),
    "f_dpo_alpha": Disagreement(
        ("f_dpo",),
        "alpha near 0 is the reverse KL and near 1 the forward KL; pass 1 - alpha for the other",
        "1 - alpha goes by the same name: TRL 1.16, where both have the default 1/2 (here alpha = 0.1)",
        lambda: (_alpha_divergence(0.1), _alpha_divergence(0.9)),
    ),
    "wpo_clamp": Disagreement(
        ("wpo",),
        "a pair's weight is at most 1; the other is dpo times log_weights.sum(dim=1).exp()",
        "the weight is not clamped: TRL 1.16 (here log weights of 0.5 and 0.2)",
        lambda: (
            wpo(POLICY, REFERENCE, torch.tensor([[0.5, 0.2]]), beta=0.1).item(),
            math.exp(0.5 + 0.2) * dpo(POLICY, REFERENCE).item(),
        ),
    ),
}
"""Every disagreement, by name."""
