"""Cases of the graded exercises of ``book/practice/recipes.md``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import ttest_rel

from pref_toolkit.course.cases import Case, exercise


@exercise("recipes-ex-6")
def delta_optimum() -> Iterator[Case]:
    """The minimum of DPO's loss over all pairs, chosen from one distribution and rejected from another, by a minimiser."""
    thirds = [1 / 3, 1 / 3, 1 / 3]
    for about, reference, better, worse, beta in (
        ("a uniform reference", thirds, [0.5, 0.3, 0.2], [0.3, 0.3, 0.4], 1.0),
        ("a reference better than both", [0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.4, 0.3, 0.3], 1.0),
        ("another beta", [0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.4, 0.3, 0.3], 0.5),
        ("two equal sources", [0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2], 1.0),
    ):
        drawn, start = np.outer(better, worse), np.log(reference)

        def loss(logits: np.ndarray, drawn: np.ndarray = drawn, start: np.ndarray = start, beta: float = beta) -> float:
            rho = log_softmax(logits) - start
            return float((drawn * np.logaddexp(0, -beta * (rho[:, None] - rho[None, :]))).sum())

        best = np.exp(log_softmax(minimize(loss, start, options={"gtol": 1e-8}).x))
        given = (torch.tensor(p, dtype=torch.float64) for p in (reference, better, worse))
        yield Case(about, (*given, beta), best, rtol=1e-3)


@exercise("recipes-ex-7")
def paired_interval() -> Iterator[Case]:
    """SciPy's paired t-test has the same interval."""
    for about, ours, theirs in (
        ("three seeds", [65.5, 63.5, 64.5], [64.2, 62.3, 63.7]),
        ("seeds that differ more than the methods", [50.0, 60.0, 71.0], [49.0, 59.5, 69.0]),
        ("ten seeds", [61, 64, 60, 66, 63, 62, 65, 61, 60, 64], [60, 64, 61, 64, 62, 61, 66, 60, 58, 63]),
    ):
        low, high = ttest_rel(ours, theirs).confidence_interval(0.95)
        yield Case(about, (ours, theirs), (float(low + high) / 2, float(low), float(high)))
