"""Cases of the graded exercises of ``book/methods/anchors.md``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import permutations

import torch
from torch import Tensor

from pref_toolkit import losses
from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.theory import bandits

double = torch.float64


@exercise("anchors-ex-6")
def differences() -> Iterator[Case]:
    """AOT's differences, from the cheapest of all matchings: the least sum of squares."""
    for about, m, m_ref in (
        ("three pairs whose order is a cycle", [1.0, 2.0, 0.0], [0.5, 0.0, 4.0]),
        ("two pairs that cross", [0.0, 3.0], [3.0, 0.0]),
        ("one pair", [2.0], [-1.0]),
        ("five pairs", [0.3, -2.0, 5.0, 1.0, -0.5], [1.5, 0.2, -3.0, 7.0, 0.9]),
    ):
        policy, reference = torch.tensor(m, dtype=double), torch.tensor(m_ref, dtype=double)
        matchings = [policy - reference[list(order)] for order in permutations(range(len(m)))]
        yield Case(about, (policy, reference), min(matchings, key=lambda d: float((d**2).sum())))


@cache
def _descended(reward: tuple[float, ...], scale: float) -> tuple[Tensor, Tensor]:
    chance = bandits.bradley_terry(scale * torch.tensor(reward))
    flat = torch.full((len(reward),), 1 / len(reward), dtype=double)
    path = bandits.minimise(
        losses.apo_zero,
        bandits.every_pair(chance),
        flat,
        steps=2000,
        learning_rate=0.05,
        optimiser=bandits.amsgrad,
        beta=1.0,
    )
    return chance, path[-1]


@exercise("anchors-ex-7")
def rest() -> Iterator[Case]:
    """APO-zero's minimum, by descent on all pairs."""
    for about, reward, scale in (
        ("four responses", (2.0, 1.0, 0.0, -1.0), 1.0),
        ("two responses", (0.5, 0.0), 1.0),
        ("one that beats the others", (3.0, 0.0, 0.1, -0.2), 1.0),
        ("preferences that are less clear", (-1.0, 2.0, 1.0, 0.0, -2.0), 0.3),
    ):
        chance, policy = _descended(reward, scale)
        yield Case(about, (chance,), policy, rtol=0, atol=2e-3)
