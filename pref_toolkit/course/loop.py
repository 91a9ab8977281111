"""Cases of the graded exercises of ``book/practice/loop.md``."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pref_toolkit.course.cases import Case, exercise


@exercise("loop-ex-6")
def rate() -> Iterator[Case]:
    """A linear rise and fall, from tables written out by hand."""
    shares = {1: 1 / 4, 2: 1 / 2, 0: 0.0, 3: 3 / 4, 4: 1.0, 5: 5 / 6, 6: 2 / 3, 8: 1 / 3, 9: 1 / 6, 10: 0.0, 12: 0.0}
    for update, share in shares.items():
        yield Case(f"update {update} of 10, 4 of them warm-up", (update, 2e-3, 4, 10), 2e-3 * share, atol=0)
    for update, share in ((0, 1.0), (2, 0.5), (4, 0.0)):
        yield Case(f"update {update} of 4 without a warm-up", (update, 5e-7, 0, 4), 5e-7 * share, atol=0)
    for update, share in ((1, 1 / 3), (3, 0.0)):
        yield Case(f"update {update} of 3, all of them warm-up", (update, 1.0, 3, 3), share, atol=0)


@exercise("loop-ex-7")
def left_padded() -> Iterator[Case]:
    """Rows that end at the same place, one entry at a time."""
    for about, rows in (
        ("a pair of different lengths", [([1, 5, 6], [7, 2]), ([1, 5, 6], [8, 9, 9, 2])]),
        ("one row", [([1, 4], [2])]),
        ("an id 0 in prompt and response", [([1, 0, 6], [0, 2]), ([1], [0])]),
        ("prompts of different lengths", [([1, 3, 3, 3], [2]), ([1], [4, 2]), ([1, 8], [5, 5, 5, 2])]),
    ):
        width = max(len(prompt) + len(response) for prompt, response in rows)
        wanted = torch.zeros(4, len(rows), width, dtype=torch.long)
        for b, (prompt, response) in enumerate(rows):
            empty = width - len(prompt) - len(response)
            for position, token in enumerate(prompt + response):
                place = empty + position
                wanted[0, b, place] = token
                wanted[1, b, place] = 1
                wanted[2, b, place] = position
                wanted[3, b, place] = int(position >= len(prompt))
        yield Case(about, (rows,), tuple(wanted))
