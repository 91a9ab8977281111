"""Cases of the graded exercises of ``book/practice/lab.md``."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, xlogy

from pref_toolkit.course.cases import Case, exercise


@exercise("lab-ex-6")
def divide() -> Iterator[Case]:
    """Both costs, with the frontier as the least of the bounds that the prices give: no root is sought."""
    generator = np.random.default_rng(0)
    p = generator.uniform(0.2, 0.8, size=30)
    uneven = expit(logit(p) + generator.normal(0.4, 0.5, size=30))
    even = expit(logit(p) + 0.7)
    certain = np.concatenate([uneven[:-2], [1.0, 0.0]])
    for about, a, wording in (
        ("a policy that spends unevenly", uneven, 0.1),
        ("nothing spent on wording", uneven, 0.0),
        ("a policy that spends evenly", even, 0.2),
        ("a policy that is certain on two prompts", certain, 0.05),
    ):
        answer_term = np.mean(
            xlogy(a, a) - a * np.log(p) + xlogy(1 - a, 1 - a) - (1 - a) * np.log(1 - p),
        )
        reachable, best = _frontier(p, answer_term), _frontier(p, answer_term + wording)
        yield Case(
            about, (p, a, float(answer_term + wording)), (best - reachable, reachable - a.mean()), rtol=1e-4, atol=1e-6
        )


def _frontier(p: np.ndarray, kl: float) -> float:
    """No policy at this divergence is worth more than ``beta (kl + mean log Z)`` at any price; the frontier is the least."""

    def bound(log_beta: float) -> float:
        beta = math.exp(log_beta)
        log_z = np.logaddexp(np.log1p(-p), np.log(p) + 1 / beta)
        return float(beta * (kl + log_z.mean()))

    return float(minimize_scalar(bound, bounds=(-5, 8), method="bounded", options={"xatol": 1e-10}).fun)


@exercise("lab-ex-7")
def choose() -> Iterator[Case]:
    """Small sweeps whose noise and choice were worked out by hand."""
    for about, accuracy, kl, wanted in (
        # deviations 0.0141 in both rows, so the noise is 0.0141
        ("the cheaper one is within the noise", [[0.69, 0.71], [0.68, 0.70]], [[0.3, 0.3], [0.1, 0.1]], 1),
        ("the cheaper one is not within the noise", [[0.69, 0.71], [0.66, 0.68]], [[0.3, 0.3], [0.1, 0.1]], 0),
        # noise 0.0141 with one degree of freedom lost, 0.0100 without: a gap of 0.012 lies between
        ("two seeds lose a degree of freedom", [[0.69, 0.71], [0.678, 0.698]], [[0.3, 0.3], [0.1, 0.1]], 1),
        # deviations 0 and 0.0283: pooled 0.0200, their mean 0.0141; a gap of 0.017 lies between
        ("variances are averaged, not deviations", [[0.7, 0.7], [0.663, 0.703]], [[0.3, 0.3], [0.1, 0.1]], 1),
        ("the best is the cheapest", [[0.5, 0.52], [0.6, 0.62], [0.59, 0.61]], [[0.0, 0.0], [0.1, 0.2], [0.3, 0.4]], 1),
        ("divergences are averaged", [[0.6, 0.61], [0.6, 0.61]], [[0.1, 0.5], [0.2, 0.2]], 1),
    ):
        yield Case(about, (np.array(accuracy), np.array(kl)), wanted)
