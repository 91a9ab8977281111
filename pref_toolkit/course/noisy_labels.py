"""Cases of the graded exercises of ``book/methods/labels.md``.

A module of the chapter's own name would hide the function :func:`pref_toolkit.course.labels`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from pref_toolkit.course.cases import Case, exercise


def _minimum(pull_for: float, pull_against: float, chance: float) -> float:
    """Zero of ``chance * (s(-t) + pull_for) - (1 - chance) * (s(t) + pull_against)`` by bisection; infinite without one."""

    def slope(t: float) -> float:
        up, down = 1 / (1 + math.exp(t)), 1 / (1 + math.exp(-t))
        return chance * (up + pull_for) - (1 - chance) * (down + pull_against)

    low, high = -40.0, 40.0
    if slope(high) > -1e-12:
        return math.inf
    if slope(low) < 1e-12:
        return -math.inf
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low + high) / 2


@exercise("labels-ex-6")
def least() -> Iterator[Case]:
    """The minimum of an expected loss, by bisection on its pull."""
    for about, p, flip, eps, method in (
        ("DPO on clean labels", 0.8, 0.0, 0.1, "dpo"),
        ("DPO on flipped labels", 0.8, 0.2, 0.1, "dpo"),
        ("cDPO, the right rate", 0.8, 0.2, 0.2, "cdpo"),
        ("cDPO, a certain preference", 1.0, 0.0, 0.1, "cdpo"),
        ("robust DPO, the right rate", 0.8, 0.2, 0.2, "robust_dpo"),
        ("robust DPO, too little noise assumed", 0.7, 0.3, 0.1, "robust_dpo"),
        ("robust DPO, far too much noise assumed", 0.9, 0.1, 0.3, "robust_dpo"),
        ("robust DPO, the same for the other side", 0.1, 0.1, 0.3, "robust_dpo"),
    ):
        more = {"dpo": 0.0, "cdpo": -eps, "robust_dpo": eps / (1 - 2 * eps)}[method]
        chance = p * (1 - flip) + (1 - p) * flip
        yield Case(about, (p, flip, eps, method), _minimum(more, more, chance))


@exercise("labels-ex-7")
def flip_rate() -> Iterator[Case]:
    """The rate from which an agreement was made, by listing the four ways in which two labels can come out."""
    for about, rate in (("one flip in ten", 0.1), ("no flips", 0.0), ("three in ten", 0.3), ("almost a coin", 0.45)):
        agreement = sum(
            (rate if first else 1 - rate) * (rate if second else 1 - rate)
            for first in (0, 1)
            for second in (0, 1)
            if first == second
        )
        yield Case(about, (agreement,), rate)
    yield Case("less agreement than coins have", (0.4,), 0.5)
