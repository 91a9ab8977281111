"""Both numbers of every disagreement, worked out by hand: l = -12 and -15, r = -14 and -14, n = 4 and 10, D = 3."""

from math import exp, log, log1p

import pytest
import torch

from pref_toolkit import losses
from pref_toolkit.logps import Logps
from pref_toolkit.losses import METHODS
from pref_toolkit.losses.disagreements import DISAGREEMENTS


def sp(t: float) -> float:
    return log1p(exp(t))


def sigmoid(t: float) -> float:
    return 1 / (1 + exp(-t))


def kto_of(z0: float) -> float:
    """A desirable answer with rho = 2, beta = 0.1."""
    return 1 - sigmoid(0.1 * (2 - z0))


def alpha_gap(alpha: float) -> float:
    """``g(2) - g(-1)`` for ``g(rho) = (1 - exp(-alpha rho)) / alpha``."""
    return (exp(alpha) - exp(-2 * alpha)) / alpha


ODDS = sp(-((-3 - log(1 - exp(-3))) - (-1.5 - log(1 - exp(-1.5)))))
BY_HAND = {
    "ipo_sum_or_mean": ((3 - 5) ** 2, (0.6 - 5) ** 2),
    "simpo_gamma": (sp(2 * 1.5 + 1), sp(2 * (1.5 + 1))),
    "simpo_in_cpo": (sp(4), sp(4) + 3),
    "dpo_on_means": (sp(-0.3), sp(-0.06)),
    "label_smoothing": (0.9 * sp(-0.3) + 0.1 * sp(0.3), (0.9 * sp(-0.3) - 0.1 * sp(0.3)) / 0.8),
    "label_smoothing_ignored": (0.9 * sp(-0.3) + 0.1 * sp(0.3), sp(-0.3)),
    "bco_without_shift": (sp(-(0.2 - 0.05)), sp(-0.2)),
    "sppo_scale": (((2 - 500) ** 2 + (-1 + 500) ** 2) / 2, (2 - 5) ** 2 + (-1 + 5) ** 2),
    "ld_dpo_reference": (log(2), sp(0.4)),
    "kto_matched": (kto_of(1.25), kto_of(0.5)),
    "kto_clamp": (kto_of(0), kto_of(0.5)),
    "orpo_prompt": (3 + 0.1 * ODDS, 2.1 + 0.1 * ODDS),
    "nll_mean": ((3 + 1.5) / 2, 27 / 14),
    "ipo_psi": (4, 10 * log(9)),
    "f_dpo_alpha": (sp(-0.1 * alpha_gap(0.1)), sp(-0.1 * alpha_gap(0.9))),
    "wpo_clamp": (sp(-0.3), exp(0.7) * sp(-0.3)),
    "r_dpo_sign": (sp(-(0.3 - 0.6)), sp(-(0.3 + 0.6))),
}


def test_every_disagreement_has_its_numbers():
    assert set(BY_HAND) == set(DISAGREEMENTS)


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_both_numbers(name):
    ours, theirs = DISAGREEMENTS[name].numbers()
    assert (ours, theirs) == pytest.approx(BY_HAND[name], rel=1e-7)
    assert ours != pytest.approx(theirs, rel=1e-2)


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_it_says_what_is_what(name):
    entry = DISAGREEMENTS[name]
    assert set(entry.methods) <= set(METHODS)
    assert entry.ours and entry.theirs and entry.ours != entry.theirs


def test_the_gap_of_ipo_minimises_its_loss():
    """The identity's number is where the expected IPO loss has its minimum, by its derivative in the gap h."""
    h, tau, p = DISAGREEMENTS["ipo_psi"].numbers()[0], 0.1, 0.9
    assert p * 2 * (h - 1 / (2 * tau)) + (1 - p) * 2 * (h + 1 / (2 * tau)) == pytest.approx(0, abs=1e-12)


def test_the_other_sign_of_r_dpo_is_the_functions_alone():
    with pytest.raises(ValueError, match="'alpha' of method 'r_dpo' must be a finite number >= 0"):
        METHODS["r_dpo"].check(alpha=-0.1)


def test_the_way_to_the_other_mean_of_the_nll():
    policy = Logps(torch.tensor([[-12.0, -3.0], [-15.0, -3.0]]), torch.tensor([[4, 1], [10, 1]]))
    other = losses.cpo(policy, alpha=0.0).mean() - policy.chosen.sum() / policy.tokens[:, 0].sum()
    by_mean, by_batch = (loss - losses.cpo(policy, alpha=0.0).mean() for loss in (losses.cpo(policy).mean(), other))
    assert (by_mean.item(), by_batch.item()) == pytest.approx(DISAGREEMENTS["nll_mean"].numbers())


def test_the_way_to_a_ratio_of_simpo():
    policy = Logps(torch.tensor([[-12.0, -15.0]]), torch.tensor([[4, 10]]))
    ratio, beta = 1.0, 2.0
    assert losses.simpo(policy, beta=beta, gamma=beta * ratio).item() == pytest.approx(sp(-beta * (-1.5 - ratio)))
