"""Cases of the graded exercises of ``book/foundations/lab_world.md``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pref_toolkit.course.cases import Case, exercise


@exercise("lab-world-ex-6")
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


@exercise("lab-world-ex-7")
def spend() -> Iterator[Case]:
    """Chances on the frontier, built from a tilt that is known, and what they cost."""
    generator = np.random.default_rng(0)
    several = generator.uniform(0.05, 0.8, size=20)
    for about, p, tilt in (
        ("prompts of all kinds", several, 1.0),
        ("few nats", several, 0.05),
        ("many nats", several, 6.0),
        ("one easy and one hard prompt", np.array([0.99, 0.001]), 3.0),
        ("a single prompt", np.array([0.3]), 2.0),
    ):
        odds = p / (1 - p) * np.exp(tilt)
        a = odds / (1 + odds)
        kl = np.mean(a * np.log(a / p) + (1 - a) * np.log((1 - a) / (1 - p)))
        yield Case(about, (p, float(kl)), a, rtol=1e-5)
    yield Case("no nats", (several, 0.0), several, atol=1e-5)
    yield Case("more than being always right costs", (several, 10.0), np.ones(20))
