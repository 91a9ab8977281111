"""The rejection sampler against the distribution that it should sample from."""

import random

import numpy as np
import pytest
from scipy import stats

from pref_toolkit.loops.rso import accepted
from pref_toolkit.theory.exact_loops import best_of_n

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


@pytest.mark.parametrize("n", [1, 2, 6])
def test_as_beta_falls_the_first_that_is_kept_is_a_draw_of_best_of_n(n):
    rng = random.Random(3)
    counts = np.zeros(4)
    for _ in range(4000):
        drawn = rng.choices(range(4), REFERENCE, k=n)
        counts[drawn[accepted(REWARD[drawn].tolist(), 1, 1e-3, rng)[0]]] += 1
    assert stats.chisquare(counts, 4000 * best_of_n(REFERENCE, REWARD, n).numpy()).pvalue > 1e-3
    assert stats.chisquare(counts, 4000 * best_of_n(REFERENCE, REWARD, n + 1).numpy()).pvalue < 1e-6


def test_candidates_named_by_their_text_lose_how_often_they_were_drawn():
    """As in the paper's Algorithm 1, whose candidates are the keys of a dictionary: equal texts are one candidate."""
    rng = random.Random(4)
    by_place, by_text = np.zeros(4), np.zeros(4)
    for _ in range(4000):
        drawn = rng.choices(range(4), REFERENCE, k=60)
        texts = list(dict.fromkeys(drawn))
        by_place[drawn[accepted(REWARD[drawn].tolist(), 1, 1.0, rng)[0]]] += 1
        by_text[texts[accepted(REWARD[texts].tolist(), 1, 1.0, rng)[0]]] += 1
    optimum = REFERENCE * np.exp(REWARD)
    assert stats.chisquare(by_place, 4000 * optimum / optimum.sum()).pvalue > 1e-3
    assert stats.chisquare(by_text, 4000 * optimum / optimum.sum()).pvalue < 1e-6
