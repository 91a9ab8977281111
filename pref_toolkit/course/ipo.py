"""Cases of the graded exercises of ``book/methods/ipo.md``."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pref_toolkit import losses
from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.theory import bandits

double = torch.float64
# The table of the chapter: a beats both others a little more often than not, and b beats c clearly.
CHANCE = torch.tensor([[0.5, 0.55, 0.55], [0.45, 0.5, 0.95], [0.45, 0.05, 0.5]], dtype=double)


@exercise("ipo-ex-6")
def optimum_against() -> Iterator[Case]:
    """IPO's optimum when both responses of a pair are drawn from ``mu``, against a run of descent on the drawn pairs."""
    thirds = torch.full((3,), 1 / 3, dtype=double)
    every = bandits.every_pair(CHANCE)
    for about, reference, mu, tau in (
        ("all responses drawn equally often", thirds, thirds, 1.0),
        ("a third response that is rarely drawn", thirds, torch.tensor([0.46, 0.46, 0.08], dtype=double), 1.0),
        ("a reference that is not uniform", torch.tensor([0.6, 0.3, 0.1], dtype=double), thirds, 1.0),
        ("another tau", thirds, torch.tensor([0.2, 0.3, 0.5], dtype=double), 0.5),
    ):
        weights = every.weights * mu[every.responses].prod(1)
        drawn = bandits.Comparisons(every.responses, weights / weights.sum())
        path = bandits.minimise(losses.ipo, drawn, reference, steps=4000, learning_rate=0.3, tau=tau)
        yield Case(about, (reference, CHANCE, mu, tau), path[-1], rtol=1e-4)


@exercise("ipo-ex-7")
def least_squares() -> Iterator[Case]:
    """The parameters at which IPO's loss on linear logits is least, by its first-order condition."""
    generator = torch.Generator().manual_seed(0)
    for about, k, d, tau in (("five responses", 5, 2, 0.5), ("many features", 6, 4, 0.5), ("another tau", 5, 2, 0.1)):
        features = torch.randn(k, d, dtype=double, generator=generator)
        h0 = torch.randn(d, dtype=double, generator=generator)
        pairs = bandits.every_pair(bandits.bradley_terry(torch.randn(k, dtype=double, generator=generator)))

        w, l_ = pairs.responses.T
        rows = features[w] - features[l_]
        curvature = rows.T @ (pairs.weights[:, None] * rows)
        pull = rows.T @ pairs.weights / (2 * tau)
        yield Case(about, (features, h0, pairs, tau), h0 + torch.linalg.solve(curvature, pull))
