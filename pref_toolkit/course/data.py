"""Cases of the graded exercises of ``book/practice/data.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pref_toolkit.course.cases import Case, exercise

Rows = list[dict[str, Any]]


@exercise("data-ex-6")
def split() -> Iterator[Case]:
    """Which rows are held out, by their number."""

    def rows(prompts: str) -> Rows:
        return [{"prompt": p, "number": k} for k, p in enumerate(prompts)]

    def judge(held: list[int], n: int) -> Callable[[Any], str]:
        def fault(got: Any) -> str:
            train, other = ([row["number"] for row in part] for part in got)
            if other != held:
                return f"held out were rows {other}, wanted {held}."
            return "" if train == [k for k in range(n) if k not in held] else f"the training rows were {train}."

        return fault

    yield Case("each prompt once", (rows("abcde"), 0.2), fault=judge([4], 5))
    yield Case("prompts that come back", (rows("abcabcad"), 0.5), fault=judge([2, 5, 7], 8))
    yield Case("a share of less than one prompt", (rows("aabb"), 0.1), fault=judge([2, 3], 4))
    yield Case("the order of first occurrence", (rows("zaza"), 0.5), fault=judge([1, 3], 4))


@exercise("data-ex-7")
def weighted_vote() -> Iterator[Case]:
    """Bayes' rule with probabilities multiplied out."""
    for about, votes, errors in (
        ("all vote", [[1, 0, 1], [1, 1, 0], [0, 1, 1]], [0.1, 0.2, 0.4]),
        ("some do not vote", [[1, -1, 0], [-1, 1, 0]], [0.25, 0.05]),
        ("a vote that says the opposite", [[1, 0], [1, 1]], [0.9, 0.3]),
        ("nobody votes on an item", [[-1, 1], [-1, 0]], [0.1, 0.3]),
    ):
        ballots, rates = np.array(votes), np.array(errors)
        chance = []
        for item in ballots.T:
            likely = [
                float(np.prod([1 - e if v == label else e for v, e in zip(item, rates) if v >= 0])) for label in (0, 1)
            ]
            chance.append(likely[1] / sum(likely))
        yield Case(about, (ballots, rates), np.array(chance))
