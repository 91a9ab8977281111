"""Cases of the graded exercises of ``book/practice/real_model.md``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from pref_toolkit.course.cases import Case, exercise


@exercise("real-model-ex-6")
def expected_pairs() -> Iterator[Case]:
    """By adding up all ways in which the answers can come out."""
    for about, p, n in (
        ("two answers", 0.5, 2),
        ("four answers of which few are right", 0.15, 4),
        ("an odd number of answers", 0.3, 5),
        ("a model that is nearly always right", 0.95, 4),
    ):
        total = 0.0
        for ways in product((0, 1), repeat=n):
            right = sum(ways)
            total += p**right * (1 - p) ** (n - right) * min(right, n - right)
        yield Case(about, (p, n), total, rtol=1e-6)


@exercise("real-model-ex-7")
def paired_gain() -> Iterator[Case]:
    """From the differences themselves."""
    world = np.random.default_rng(0)
    for about, n, before, after in (
        ("few instructions", 12, 0.3, 0.6),
        ("many instructions", 200, 0.15, 0.35),
        ("no change in the mean", 80, 0.5, 0.5),
    ):
        was, now = (world.random(n) < p for p in (before, after))
        difference = now.astype(float) - was.astype(float)
        wanted = (difference.mean(), difference.std(ddof=1) / np.sqrt(n))
        yield Case(about, (was.astype(int).tolist(), now.astype(int).tolist()), wanted, rtol=1e-6)
