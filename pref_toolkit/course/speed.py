"""Cases of the graded exercises of ``book/practice/speed.md``."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.data import Encoded
from pref_toolkit.data.batches import pack


@exercise("speed-ex-6")
def in_a_pack() -> Iterator[Case]:
    """The positions of the rows that the toolkit packs."""
    for about, prompt, responses in (
        ("a pair", 5, [3, 4]),
        ("one response", 7, [2]),
        ("responses of one token", 5, [1, 1, 1]),
        ("a ranking", 20, [4, 9, 1, 6]),
    ):
        example = Encoded([7] * prompt, [[8] * n for n in responses], "an exercise")
        yield Case(about, (prompt, responses), pack([example]).input_ids.numel())


@exercise("speed-ex-7")
def entropy_gradient() -> Iterator[Case]:
    """What autograd gives."""
    generator = torch.Generator().manual_seed(0)
    for about, vocabulary, size, scale in (
        ("five tokens", 5, 3, 1.0),
        ("a sure model", 8, 4, 5.0),
        ("one weight", 4, 1, 1.0),
    ):
        W = scale * torch.randn(vocabulary, size, dtype=torch.float64, generator=generator)
        h = torch.randn(size, dtype=torch.float64, generator=generator)
        x = h.clone().requires_grad_()
        log_p = (W @ x).log_softmax(0)
        (wanted,) = torch.autograd.grad(-(log_p.exp() * log_p).sum(), x)
        yield Case(about, (W, h), wanted)
