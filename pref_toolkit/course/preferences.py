"""Cases of the graded exercises of ``book/foundations/preferences.md``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from pref_toolkit.course.cases import Case, exercise

double = torch.float64


@exercise("preferences-ex-6")
def ranking_loss() -> Iterator[Case]:
    """The negative log-likelihood of a ranking, against products of fractions."""
    generator = torch.Generator().manual_seed(0)
    for about, b, k in (("two rankings of four", 2, 4), ("pairs", 3, 2), ("one long ranking", 1, 7)):
        scores = torch.randn(b, k, dtype=double, generator=generator)
        yield Case(about, (scores,), torch.tensor([_by_fractions(row) for row in scores.tolist()]))
    extreme = torch.tensor([[-1000.0, 1000.0, 0.0]], dtype=double, requires_grad=True)
    slope = torch.tensor([[-1.0, 1.0, 0.0]], dtype=double)

    def fault(got: Tensor) -> str:
        if got.shape != (1,) or not torch.allclose(got.detach(), torch.full((1,), 2000.0, dtype=got.dtype)):
            return f"got {got.tolist()}, wanted [2000.0]."
        found = _gradient(got)
        if torch.allclose(found, slope):
            return ""
        return f"the loss is right, but its gradient is {found.tolist()}, wanted {slope.tolist()}."

    yield Case("scores of -1000, 1000 and 0", (extreme,), fault=fault)


@exercise("preferences-ex-7")
def worst_circle() -> Iterator[Case]:
    """The largest circle of log-odds, by products of odds over every order of three responses."""
    lunch = np.array([[3, 4, 2], [2, 3, 4], [4, 2, 3]]) / 6
    yield Case("three friends' lunch", (lunch,), 3 * math.log(2))
    yield Case("the same circle the other way round", (lunch.T.copy(),), 3 * math.log(2))
    scores = np.array([1.0, 0.3, -0.5, 2.0])
    from_scores = 1 / (1 + np.exp(scores[None, :] - scores[:, None]))
    yield Case("made from scores", (from_scores,), 0.0)
    upper = np.triu(np.random.default_rng(0).uniform(0.1, 0.9, (5, 5)), 1)
    mixed = upper + np.tril(1 - upper.T, -1) + np.eye(5) / 2
    yield Case("five responses", (mixed,), _largest_circle(mixed))
    last = from_scores.copy()
    last[2, 3], last[3, 2] = 0.9, 0.1
    yield Case("only the last pair breaks the rule", (last,), _largest_circle(last))


def _by_fractions(scores: list[float]) -> float:
    weights = [math.exp(score) for score in scores]
    return -math.log(math.prod(weight / sum(weights[k:]) for k, weight in enumerate(weights)))


def _largest_circle(p: np.ndarray) -> float:
    return max(
        math.log(p[a, b] * p[b, c] * p[c, a] / (p[b, a] * p[c, b] * p[a, c]))
        for a, b, c in permutations(range(len(p)), 3)
    )


def _gradient(value: Tensor) -> Tensor:
    """Of the sum of ``value``, by the one leaf that it was computed from."""
    nodes = [value.grad_fn]
    for node in nodes:
        if node is not None:
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                (slope,) = torch.autograd.grad(value.sum(), leaf)
                return slope
            nodes.extend(following for following, _ in node.next_functions)
    raise ValueError("it has no gradient")
