"""The exact frontier against its ends, its slope, and optima found without its formula."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from pref_toolkit.lab import frontier, optimum

CHANCES = [0.02, 0.3, 0.58, 0.9]


def test_no_kl_buys_nothing_and_enough_buys_everything():
    assert frontier(CHANCES, 0.0) == pytest.approx(np.mean(CHANCES), abs=1e-12)
    everything = -np.mean(np.log(CHANCES))
    assert frontier(CHANCES, everything) == pytest.approx(1, abs=1e-9)
    assert frontier(CHANCES, 100.0) == 1.0
    assert frontier(CHANCES, everything - 0.05) < 0.9999


def test_more_kl_is_better_and_less_and_less_so():
    kl = np.linspace(0, -np.mean(np.log(CHANCES)), 60)
    gains = np.diff([frontier(CHANCES, k) for k in kl])
    assert (gains > 0).all()
    assert (np.diff(gains) < 1e-12).all()


@pytest.mark.parametrize("beta", [0.05, 0.3, 1.0, 10.0])
def test_the_frontier_passes_through_every_optimum(beta):
    accuracy, kl = optimum(CHANCES, beta)
    assert frontier(CHANCES, kl) == pytest.approx(accuracy, abs=1e-9)


def test_an_infinite_beta_is_the_reference():
    assert optimum(CHANCES, math.inf) == pytest.approx((np.mean(CHANCES), 0), abs=1e-12)


def test_a_single_prompt_has_the_closed_form_of_two_outcomes():
    p, better = 0.58, 0.8
    kl = better * math.log(better / p) + (1 - better) * math.log((1 - better) / (1 - p))
    assert frontier(p, kl) == pytest.approx(better, abs=1e-9)


def bandit():
    """Three prompts, five responses each, some right: reference probabilities and rewards."""
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(5), size=3), np.array([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1.0]])


@pytest.mark.parametrize("beta", [0.2, 0.7, 2.0])
def test_agrees_with_an_optimum_searched_for_numerically(beta):
    """Maximise E[r] - beta KL over all softmax policies of a bandit; nothing of the closed form is used."""
    reference, reward = bandit()

    def policy(logits):
        z = np.exp(logits.reshape(3, 5) - logits.reshape(3, 5).max(1, keepdims=True))
        return z / z.sum(1, keepdims=True)

    def kl_of(pi):
        return (pi * np.log(pi / reference)).sum(1).mean()

    def loss(logits):
        pi = policy(logits)
        return beta * kl_of(pi) - (pi * reward).sum(1).mean()

    found = policy(minimize(loss, np.zeros(15), method="BFGS", options={"gtol": 1e-9}).x)
    p = (reference * reward).sum(1)
    accuracy, kl = optimum(p, beta)
    assert (found * reward).sum(1).mean() == pytest.approx(accuracy, abs=1e-5)
    assert kl_of(found) == pytest.approx(kl, abs=1e-5)
    assert frontier(p, kl_of(found)) == pytest.approx((found * reward).sum(1).mean(), abs=1e-5)


def test_no_random_policy_is_above_the_frontier():
    reference, reward = bandit()
    p = (reference * reward).sum(1)
    rng = np.random.default_rng(1)
    for spread in np.linspace(0.05, 1.5, 100):
        weights = reference * np.exp(rng.normal(size=reference.shape) * spread + reward * rng.uniform(0, 3))
        pi = weights / weights.sum(1, keepdims=True)
        kl = (pi * np.log(pi / reference)).sum(1).mean()
        assert (pi * reward).sum(1).mean() <= frontier(p, kl) + 1e-12


def test_prompts_without_a_right_or_a_wrong_response_stay_as_they_are():
    assert frontier([0.0, 1.0], 3.0) == 0.5
    assert frontier([0.0, 1.0, 0.5], 100.0) == pytest.approx(2 / 3)
    assert optimum([0.0, 1.0], 0.1) == pytest.approx((0.5, 0))


@pytest.mark.parametrize("p, kl", [([0.5], -0.1), ([0.5], math.nan), ([1.2], 0.1), ([math.nan], 0.1), ([], 0.1)])
def test_impossible_input_is_refused(p, kl):
    with pytest.raises(ValueError, match="must"):
        frontier(p, kl)


def test_beta_must_be_positive():
    with pytest.raises(ValueError, match="beta"):
        optimum(CHANCES, 0.0)
