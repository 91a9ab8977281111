"""Cases of the graded exercises of ``book/practice/lab.md``."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, xlogy
from torch import Tensor
from torch.nn.functional import logsigmoid

from pref_toolkit.course.cases import Case, exercise


@exercise("lab-ex-6")
def unmask() -> Iterator[Case]:
    """Weights that make the choices most likely, by descent on the likelihood, and errors from its second derivatives."""
    from pref_toolkit import lab  # the import loads transformers, which few exercises need

    for about, annotator, seed in (
        ("an annotator without biases", lab.Annotator(error=0.2), 1),
        ("one who likes length", lab.Annotator(error=0.1, length_bias=0.5), 2),
        ("one who dislikes thanks", lab.Annotator(error=0.3, length_bias=0.2, politeness_bias=-1.0), 3),
        ("one who errs more often than not", lab.Annotator(error=0.7), 4),
    ):
        rows = lab.pairs(500, seed=seed, annotator=annotator, policy="off")
        facts = [
            [[f(row["prompt"], row[which]) for f in (lab.gold, _words, _thanks)] for which in ("chosen", "rejected")]
            for row in rows
        ]
        chosen, rejected = torch.tensor(facts, dtype=torch.float64).unbind(1)
        weights, errors = _most_likely(chosen - rejected)
        yield Case(about, (rows,), (weights, errors), rtol=1e-4, atol=1e-5)


def _words(prompt: str, response: str) -> int:
    return response.count(" ") + 1


def _thanks(prompt: str, response: str) -> bool:
    return "thank" in response


def _most_likely(difference: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``(d,)`` of a logistic regression on differences ``(n, d)`` whose first response was chosen, and errors."""

    def loss(weights: Tensor) -> Tensor:
        return -logsigmoid(difference @ weights).sum()

    weights = torch.zeros(difference.shape[1], dtype=torch.float64, requires_grad=True)
    descent = torch.optim.LBFGS(
        [weights], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def again() -> Tensor:
        descent.zero_grad()
        value = loss(weights)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    descent.step(again)  # type: ignore[arg-type]
    found = weights.detach()
    information = torch.autograd.functional.hessian(loss, found)  # type: ignore[no-untyped-call]
    return found, torch.linalg.inv(information).diagonal().sqrt()


@exercise("lab-ex-7")
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
