"""Metrics against hand-made numbers."""

import math

import numpy as np
import pytest
import torch

from pref_toolkit import metrics
from pref_toolkit.logps import Logps


def record(*rows, tokens=1):
    sums = torch.tensor(rows)
    return Logps(sums, torch.full(sums.shape, tokens))


def test_preference_of_a_policy_over_its_reference():
    policy, reference = record([-1.0, -3.0], [-5.0, -4.0], [-2.0, -2.0]), record([-2.0, -2.0], [-4.0, -4.0], [-2.0, -2.0])
    got = metrics.preference(policy, reference)
    assert got["reward_accuracy"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert got["likelihood_accuracy"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert got["margin"] == pytest.approx((2 - 1 + 0) / 3)
    assert got["chosen_change"] == pytest.approx((1 - 1 + 0) / 3)
    assert got["rejected_change"] == pytest.approx((-1 + 0 + 0) / 3)
    assert got["chosen_logp"] == pytest.approx(-8 / 3) and got["rejected_logp"] == pytest.approx(-9 / 3)


def test_without_a_reference_what_needs_one_is_none():
    got = metrics.preference(record([-1.0, -3.0]), None)
    assert got["likelihood_accuracy"] == 1.0
    assert [got[name] for name in ("reward_accuracy", "margin", "chosen_change", "rejected_change")] == [None] * 4


def test_a_ranking_is_judged_by_its_ends():
    assert metrics.preference(record([-1.0, -9.0, -3.0]), record([0.0, 0.0, 0.0]))["margin"] == pytest.approx(2.0)


def test_length_spearman():
    longer_is_less_likely = Logps(torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]), torch.tensor([[1, 2], [3, 4]]))
    assert metrics.length_spearman(longer_is_less_likely) == pytest.approx(-1.0)
    assert metrics.length_spearman(record([-1.0, -2.0])) is None


def test_sampled_kl_of_two_coins():
    """p = 0.8 against q = 0.5: the estimate lies within four standard errors of the exact KL."""
    random = torch.Generator().manual_seed(0)
    heads = torch.rand(4000, generator=random) < 0.8
    policy = torch.where(heads, math.log(0.8), math.log(0.2))
    estimate, error = metrics.sampled_kl(policy, torch.full((4000,), math.log(0.5)))
    exact = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert abs(estimate - exact) < 4 * error < 0.1


@pytest.mark.parametrize("share, n", [(0.5, 100), (0.9, 40), (0.02, 200)])
def test_wilson_covers_as_often_as_it_says(share, n):
    random = np.random.default_rng(0)
    covered = [low <= share <= high for k in random.binomial(n, share, 2000) for low, high in [metrics.wilson(k, n)]]
    assert 0.92 < np.mean(covered) < 0.98
    assert metrics.wilson(0, n)[0] == pytest.approx(0.0, abs=1e-12) and metrics.wilson(n, n)[1] == pytest.approx(1.0)


def test_mean_interval_covers_and_is_narrower_with_ties():
    random = np.random.default_rng(0)
    draws = random.choice([0.0, 0.5, 1.0], p=[0.2, 0.5, 0.3], size=(2000, 300))
    intervals = [metrics.mean_interval(list(row)) for row in draws]
    assert 0.93 < np.mean([low <= 0.55 <= high for low, high in intervals]) < 0.97
    low, high = intervals[0]
    wide = metrics.wilson(draws[0].sum(), 300)
    assert high - low < 0.8 * (wide[1] - wide[0])


def test_intervals_want_something_to_count():
    with pytest.raises(ValueError, match="at least one trial"):
        metrics.wilson(0, 0)
    with pytest.raises(ValueError, match="at least 2 values"):
        metrics.mean_interval([1.0])
