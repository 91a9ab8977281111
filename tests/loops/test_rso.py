"""The rejection sampler against the distribution that it should sample from."""

import random

import numpy as np
import pytest
from scipy import stats

from pref_toolkit.loops.rso import accepted

REFERENCE = np.array([0.4, 0.3, 0.2, 0.1])
REWARD = np.array([0.0, 1.0, 0.5, 1.5])


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_the_first_that_is_kept_is_a_draw_of_the_rlhf_optimum(beta):
    rng = random.Random(0)
    counts = np.zeros(4)
    for _ in range(4000):
        # 60 candidates lack the best response once in 500 times: less than this test can see.
        drawn = rng.choices(range(4), REFERENCE, k=60)
        counts[drawn[accepted(REWARD[drawn].tolist(), 1, beta, rng)[0]]] += 1
    optimum = REFERENCE * np.exp(REWARD / beta)
    optimum /= optimum.sum()
    assert stats.chisquare(counts, 4000 * optimum).pvalue > 1e-3
    others = [REFERENCE, np.full(4, 0.25), optimum**2 / (optimum**2).sum()]
    assert all(stats.chisquare(counts, 4000 * other).pvalue < 1e-6 for other in others)  # so the test could fail


def test_as_beta_falls_the_best_of_n_are_kept():
    rng = random.Random(1)
    for _ in range(100):
        rewards = [rng.random() for _ in range(8)]
        best_first = sorted(range(8), key=lambda i: -rewards[i])
        assert accepted(rewards, 3, 1e-5, rng) == best_first[:3]


def test_all_candidates_can_be_kept():
    assert sorted(accepted([1.0, 1.0, -500.0], 3, 1.0, random.Random(2))) == [0, 1, 2]
