"""Both numbers of every entry, worked out by hand: l = -12 and -15, r = -14 and -14, n = 4 and 10, so that D = 3."""

from __future__ import annotations

import math
import re
from datetime import date
from math import exp, inf, log

import numpy as np
import pytest

from pref_toolkit.errata import ERRATA, KINDS, TOLERANCE, Erratum
from pref_toolkit.losses.disagreements import DISAGREEMENTS

BY_ID = {entry.id: entry for entry in ERRATA}

# Entries that have the numbers of a disagreement, whose values tests/losses/test_disagreements.py works out.
SHARED = {
    "E08": "ipo_psi",
    "E13": "r_dpo_sign",
    "E28": "ipo_sum_or_mean",
    "E29": "simpo_in_cpo",
    "E30": "label_smoothing",
    "E31": "label_smoothing_ignored",
    "E32": "bco_without_shift",
    "E33": "sppo_scale",
    "E34": "orpo_prompt",
    "E35": "nll_mean",
    "E36": "f_dpo_alpha",
    "E37": "wpo_clamp",
    "E38": "ld_dpo_reference",
    "E42": "simpo_gamma",
    "E53": "dpo_on_means",
    "E57": "r_dpo_sign",
}


def sp(t: float) -> float:
    return float(np.logaddexp(0, t))


def sigmoid(t: float) -> float:
    return 1 / (1 + exp(-t))


def desirable(z0: float) -> float:
    """KTO's loss for rho = 2, beta = 0.1."""
    return 1 - sigmoid(0.1 * (2 - z0))


def undesirable(z0: float) -> float:
    """KTO's loss for rho = -1, beta = 0.1."""
    return 1 - sigmoid(0.1 * (z0 + 1))


def log_odds(logp: float) -> float:
    return logp - log(1 - exp(logp))


def odds_slope(lam: float = 0.1, step: float = 1e-5) -> float:
    """Slope of the odds-ratio term in the mean of the chosen response, by differences."""
    value = lambda x: lam * sp(-(log_odds(x) - log_odds(-1.5)))
    return (value(-3 + step) - value(-3 - step)) / (2 * step)


def weighted_slope(detached: bool, step: float = 1e-5) -> float:
    """Slope in l_w of the first of two pairs of the weighted mean loss, by differences."""

    def value(l_w: float) -> float:
        losses = np.array([sp(-0.1 * (l_w + 15)), log(2)])
        weights = np.exp([(-12 if detached else l_w) / 4 - 1.5, -14 / 4 - 14 / 10])
        return float((weights * losses).sum() / weights.sum())

    return (value(-12 + step) - value(-12 - step)) / (2 * step)


def kl_to(*target: float) -> float:
    """KL from the policy's (0.57, 0.43) to a pair of log-probabilities."""
    p = np.array([sigmoid(0.3), sigmoid(-0.3)])
    return float((p * (np.log(p) - np.array(target))).sum())


PENALTY = 0.9 * exp(0.4 * 1.5) - 1
ODDS = sp(-(log_odds(-3) - log_odds(-1.5)))
# The value by the source, and the right one, each from its formula.
BY_HAND = {
    "E01": (desirable(2), desirable(0.3)),
    "E02": (log(1), log(sigmoid(0.3) * sigmoid(-0.3))),
    "E03": (0, 1 / 0.2),
    "E04": (sp(2 * 1.5 + 1), sp(2 * 1.5 + 0.5)),
    "E05": (-inf, log(-math.expm1(-1e-8))),
    "E06": (1 / 1.33, 1),
    "E07": ((0.9 * sp(-0.3) - 0.1 * sp(0.3)) / 0.8, sp(-(0.3 - log(2)))),
    "E09": (sp(-0.3), 0.9 * sp(-0.3) + 0.1 * sp(0.3)),
    "E10": (-odds_slope(), odds_slope()),
    "E11": (sp(-2 * 0.6), sp(2 * 1.5 + 1)),
    "E12": (2 - log((exp(2) + exp(1) + 1) / 3), 2),
    "E14": (sp(-0.2), desirable(0)),
    "E15": (desirable(3), desirable(0.3)),
    "E16": (desirable(-3), desirable(0)),
    "E17": ((0.9 * sp(-0.3) + 0.1 * sp(0.3)) / 0.8, (0.9 * sp(-0.3) - 0.1 * sp(0.3)) / 0.8),
    "E18": (sp(-0.3) / 16, sp(-0.3)),
    "E19": (weighted_slope(False), weighted_slope(True)),
    "E20": (sp(-0.3), exp(-0.7) * sp(-0.3)),
    "E21": (-sigmoid(-0.75) * 0.1 * (1 + 2 * 0.5 * 3), -sigmoid(-0.75) * 0.1 * (1 + 0.5 * 3)),
    "E22": (sp(1 - 0.3), sp(log(2) - 0.3)),
    "E23": (sp(-0.2) + sp(-0.1), sp(0.5 - 0.2) + sp(-0.1 - 0.5)),
    "E24": (sp(-(0.3 + 0.1 * (exp(-2) - exp(1)))), sp(-0.1 * (exp(1) - exp(-2)))),
    "E25": (
        sp(-(0.3 - log((1 + exp(2)) / (1 + exp(-1))))),
        sp(-0.1 * log((2 * exp(2) / (1 + exp(2))) / (2 * exp(-1) / (1 + exp(-1))))),
    ),
    "E26": (sp(-2 * (exp(0.5) - exp(-1))), sp(-0.2 * (exp(0.5) - exp(-1)))),
    "E27": ((sp(-0.1 * (2 + 1)) + sp(-0.1 * (3 - 4))) / 2, (sp(-0.1 * (0 - 0)) + sp(-0.1 * (3 - 1))) / 2),
    "E39": (sp(-0.3), sp(-0.2) + sp(-0.1)),
    "E40": (inf, kl_to(log(0.999), log(0.001))),
    "E41": (sp(-(0.2 - 0.125)), sp(-(0.2 - 0.05))),
    "E43": (150 + 12 / 192, 1.5 + 12 / 192),
    "E44": (12 / 192, 12),
    "E45": (3 + 20 * max(0, 0.5 - 3), 3 + 0.5 * (20 - 3)),
    "E46": (sp(-0.1 * (-12 + 15 * PENALTY)) + 3, sp(-0.3) + 3),
    "E47": (kl_to(0, -10), kl_to(log(0.999), log(0.001))),
    "E48": (sp(-0.3 * 0.29 * log(2)), sp(-0.3 * log(2) / 0.29)),
    "E49": (3 + ODDS, 3 + 0.1 * ODDS),
    "E50": (500, 1000 + log((1 + exp(-1000)) / 2)),
    "E51": (undesirable(3), undesirable(0.3)),
    "E52": (
        sigmoid(-3) * sp(-0.3) + sigmoid(3) * exp(-0.3),
        sigmoid(-6) * sp(-0.3) + sigmoid(6) * exp(-0.3),
    ),
    "E54": (0.1 * 0.1 * 3, 0.1 * 3),
    "E55": (inf, 200),
    "E56": (sp(-0.03), sp(-0.3)),
    "E58": (0.2**2, 2**2),
    "E59": (10, 5),
    "E60": (sp(-0.3) + 12, sp(-0.3) + 3),
    "E61": (0.05, 5),
    "E62": (0, log(2)),
    "E63": (exp(3) / (exp(1) + 1 + exp(3)), 1 / (exp(0.5) + exp(-0.5) + 1)),
    "E64": (5, 20 / 3),
    "E65": (100 * 3, 3 / 50 * 192),
    "E66": (9, 0.8),
    "E67": (0.6 * log(1.2) + 0.4 * log(0.8), log(1.2)),
    "E68": (3 + max(0, 1 - 3), 3 + 0.5 * (20 - 3)),
    "E69": (sp(-0.3) + 3, sp(-0.03) + 0.005 * 3),
    "E70": (log(2) / 0.29, 0.29 * log(2)),
    "E71": (0.5**2 / 0.8 + 0.5**2 / 0.2 - 1 - 0.5 * log(0.25 / 0.16), 0.5 * log(0.25 / 0.16)),
    "E72": (-0.5 * log(0.25 / 0.16), 0.5 * log(0.25 / 0.16)),
    "E73": (0, 0.5 * 0.5 * (0.9 * log(1.8) + 0.1 * log(0.2))),
}

entries = pytest.mark.parametrize("entry", ERRATA, ids=lambda entry: entry.id)


def test_every_entry_has_its_numbers_here() -> None:
    assert sorted([*BY_HAND, *SHARED]) == list(BY_ID)


@entries
def test_both_numbers(entry: Erratum) -> None:
    if entry.id in SHARED:
        ours, theirs = DISAGREEMENTS[SHARED[entry.id]].numbers()
    else:
        theirs, ours = BY_HAND[entry.id]
    # Log-probabilities of the shared pair are float64, rewards and weights of the others float32.
    assert entry.numbers() == pytest.approx((theirs, ours), rel=1e-5, abs=1e-7)


@entries
def test_the_two_numbers_differ(entry: Erratum) -> None:
    theirs, ours = entry.numbers()
    assert math.isfinite(ours) and not math.isnan(theirs)
    assert math.isinf(theirs) or abs(theirs - ours) > TOLERANCE * max(abs(theirs), abs(ours))


def test_ids_are_in_order_and_unique() -> None:
    assert [entry.id for entry in ERRATA] == [f"E{k:02}" for k in range(1, len(ERRATA) + 1)]
    assert len(ERRATA) >= 40


@entries
def test_days_are_possible(entry: Erratum) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry.seen)
    assert date(2026, 11, 25) <= date.fromisoformat(entry.seen) < date(2100, 1, 1)


@entries
def test_every_source_can_be_found(entry: Erratum) -> None:
    """By a release, a commit or a version of a paper, and in it a line or an equation."""
    assert entry.source.name
    assert re.search(
        r"\b\d+\.\d+\.\d+\b|\bcommits? [0-9a-f]{7}\b|arXiv:\d{4}\.\d{5}v\d|as cited by .*\d", entry.source.version
    )
    assert re.search(r":\d+|\beqs?\. \d+|appendix|\bline \d+|docs/.*\d+", entry.source.place)


@entries
def test_it_says_what_is_what(entry: Erratum) -> None:
    assert entry.kind in KINDS
    texts = (entry.says, entry.right, entry.quantity)
    assert all(text and text == text.strip() and not text.endswith(".") for text in texts)
    assert len(set(texts)) == 3


def test_every_kind_has_entries() -> None:
    assert {entry.kind for entry in ERRATA} == set(KINDS)


def test_ipos_target_has_the_least_expected_loss() -> None:
    """E03: by the slope of the expected loss in the margin."""
    at_half, at_one = BY_ID["E03"].numbers()
    for p, h in ((0.5, at_half), (1.0, at_one)):
        assert p * 2 * (h - 5) + (1 - p) * 2 * (h + 5) == pytest.approx(0, abs=1e-12)


def test_robust_dpo_is_unbiased_with_its_sign_alone() -> None:
    """E17: the mean over labels flipped one time in ten, against DPO's loss on the clean label."""
    mean = lambda loss: 0.9 * loss(0.3) + 0.1 * loss(-0.3)
    right = lambda t: (0.9 * sp(-t) - 0.1 * sp(t)) / 0.8
    printed = lambda t: (0.9 * sp(-t) + 0.1 * sp(t)) / 0.8
    assert mean(right) == pytest.approx(sp(-0.3))
    assert abs(mean(printed) - sp(-0.3)) > 0.1


def test_the_reference_is_the_minimum_of_a_cycle() -> None:
    """E62: the loss is convex, and its slope at equal log-ratios is 0: each response wins once and loses once."""
    slope = np.zeros(3)
    for winner, loser in ((0, 1), (1, 2), (2, 0)):
        slope[winner] -= sigmoid(0) / 3
        slope[loser] += sigmoid(0) / 3
    assert slope == pytest.approx(0)
    assert BY_ID["E62"].numbers()[1] == pytest.approx(sp(0))


def test_both_policies_have_the_least_loss_on_the_compared_pair() -> None:
    """E63: rewards 1, 0, 3 and the pair (0, 1) alone: the loss sees the difference of two logits, which is 1 in both."""
    win = sigmoid(1)
    loss = lambda gap: win * sp(-gap) + (1 - win) * sp(gap)
    assert loss(1) == pytest.approx(min(loss(gap) for gap in np.linspace(-3, 3, 601)))
    for logits in ((1.0, 0.0, 3.0), (0.5, -0.5, 0.0)):
        assert logits[0] - logits[1] == 1


def test_a_priced_length_gives_a_plus() -> None:
    """E13, E57: max E[r - alpha n] - beta KL has r_w - r_l = beta D + alpha (n_w - n_l) at its optimum, by a small example."""
    beta, alpha = 0.5, 0.1
    rewards, n, reference = np.array([1.0, 0.2]), np.array([4, 10]), np.array([0.3, 0.7])
    optimum = reference * np.exp((rewards - alpha * n) / beta)
    rho = np.log(optimum / optimum.sum() / reference)
    assert rewards[0] - rewards[1] == pytest.approx(beta * (rho[0] - rho[1]) + alpha * (n[0] - n[1]))


def test_log_z_has_a_lower_bound() -> None:
    """E50: of all win probabilities with a mean of one half, the constant one has the least log Z."""
    at_half, extreme = BY_ID["E50"].numbers()
    for win in (np.array([0.5, 0.5]), np.array([0.4, 0.6]), np.array([0.0, 0.5, 1.0])):
        log_z = float(np.logaddexp.reduce(1000 * win)) - log(len(win))
        assert at_half <= log_z <= extreme + 1e-9
