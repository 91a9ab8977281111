"""Cases of the graded exercises of ``book/practice/recipes.md``."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from scipy.stats import ttest_rel

from pref_toolkit import losses
from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.theory import bandits


@exercise("recipes-ex-6")
def delta_optimum() -> Iterator[Case]:
    """A run of descent on all pairs, chosen from one distribution and rejected from another."""
    thirds = [1 / 3, 1 / 3, 1 / 3]
    for about, reference, better, worse, beta in (
        ("a uniform reference", thirds, [0.5, 0.3, 0.2], [0.3, 0.3, 0.4], 1.0),
        ("a reference better than both", [0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.4, 0.3, 0.3], 1.0),
        ("another beta", [0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.4, 0.3, 0.3], 0.5),
        ("two equal sources", [0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2], 1.0),
    ):
        ref, a, b = (torch.tensor(p, dtype=torch.float64) for p in (reference, better, worse))
        every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
        drawn = bandits.Comparisons(every, torch.outer(a, b).flatten())
        path = bandits.minimise(
            losses.dpo, drawn, ref, steps=3000, learning_rate=0.1, optimiser=bandits.amsgrad, beta=beta
        )
        yield Case(about, (ref, a, b, beta), path[-1], rtol=1e-4)


@exercise("recipes-ex-7")
def paired_interval() -> Iterator[Case]:
    """SciPy's paired t-test has the same interval."""
    for about, ours, theirs in (
        ("three seeds", [65.5, 63.5, 64.5], [64.2, 62.3, 63.7]),
        ("seeds that differ more than the methods", [50.0, 60.0, 71.0], [49.0, 59.5, 69.0]),
        ("ten seeds", [61, 64, 60, 66, 63, 62, 65, 61, 60, 64], [60, 64, 61, 64, 62, 61, 66, 60, 58, 63]),
    ):
        found = ttest_rel(ours, theirs)
        low, high = found.confidence_interval(0.95)
        yield Case(about, (ours, theirs), ((low + high) / 2, float(low), float(high)))
