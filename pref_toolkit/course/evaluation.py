"""Cases of the graded exercises of ``book/practice/evaluation.md``."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from pref_toolkit.course.cases import Case, exercise


@exercise("evaluation-ex-6")
def by_prompt() -> Iterator[Case]:
    """Means and standard errors that were worked out by hand."""
    yield Case("one game a prompt", (["a", "b", "c", "d"], [1, 0, 1, 1]), (0.75, 0.25))
    yield Case("two games of one prompt", (["a", "a", "b"], [1, 1, 0]), (0.5, 0.5))
    yield Case("games out of order, with a tie", (["a", "b", "a", "c"], [1, 0, 0.5, 0.75]), (0.5, 0.25))
    yield Case("many games of one prompt", (["a"] * 9 + ["b"], [0] * 9 + [1]), (0.5, 0.5))


@exercise("evaluation-ex-7")
def length_controlled() -> Iterator[Case]:
    """The logistic fit by its two score equations, one solved inside the other."""
    generator = np.random.default_rng(0)
    for about, n, theta, eta, scale in (
        ("longer answers win", 400, 0.2, 0.7, 1.0),
        ("no preference for length", 300, -0.5, 0.0, 1.0),
        ("lengths in tens of tokens", 500, 0.0, 0.03, 30.0),
    ):
        difference = scale * generator.normal(0.5, 1.0, size=n)
        won = (generator.random(n) < expit(theta + eta * difference)).astype(float)

        def best_theta(slope: float, difference: np.ndarray = difference, won: np.ndarray = won) -> float:
            return float(brentq(lambda a: (won - expit(a + slope * difference)).sum(), -30, 30, xtol=1e-13))

        def score(slope: float, difference: np.ndarray = difference, won: np.ndarray = won) -> float:
            fitted = expit(best_theta(slope) + slope * difference)
            return float(((won - fitted) * difference).sum())

        slope = float(brentq(score, -3 / scale, 3 / scale, xtol=1e-13))
        wanted = 1 / (1 + math.exp(-best_theta(slope)))
        yield Case(about, (difference, won), wanted, rtol=1e-3)
