"""Cases of the graded exercises of ``book/loops/self_play.md``."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.theory.exact_loops import spin_update

double = torch.float64


@exercise("self-play-ex-6")
def rounds() -> Iterator[Case]:
    """Exact rounds of SPIN, each against the present policy alone."""
    for about, start, data, lam, number in (
        ("one round that arrives", [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], 1.0, 1),
        ("no round", [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], 2.0, 0),
        ("three rounds", [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], 2.0, 3),
        ("two rounds that overshoot", [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], 0.4, 2),
        ("a response that the start hardly writes", [1 - 1e-300, 1e-300], [0.5, 0.5], 3.0, 2),
    ):
        policy = torch.tensor(start, dtype=double)
        first, p = policy, torch.tensor(data, dtype=double)
        for _ in range(number):
            policy = spin_update(policy, p, lam)
        yield Case(about, (first, p, lam, number), policy)


@exercise("self-play-ex-7")
def weights() -> Iterator[Case]:
    """Multiplicative weights in products of probabilities: the last policy and the average of those before it."""
    cycle = [[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]
    order = [[0.5, 0.9, 0.8], [0.1, 0.5, 0.7], [0.2, 0.3, 0.5]]
    for about, table, start, beta, steps in (
        ("one step", cycle, [0.5, 0.3, 0.2], 2.0, 1),
        ("a cycle", cycle, [0.5, 0.3, 0.2], 5.0, 40),
        ("an order", order, [0.1, 0.2, 0.7], 1.0, 10),
        ("a small beta, whose exponential overflows", order, [0.1, 0.2, 0.7], 1e-3, 1),
    ):
        chance, policy = torch.tensor(table, dtype=double), torch.tensor(start, dtype=double)
        first, total = policy, torch.zeros(3, dtype=double)
        for _ in range(steps):
            total = total + policy
            wins = chance @ policy
            policy = policy * torch.exp((wins - wins.max()) / beta)
            policy = policy / policy.sum()
        yield Case(about, (chance, first, beta, steps), (policy, total / steps))
