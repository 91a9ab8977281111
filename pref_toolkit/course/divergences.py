"""Cases of the graded exercises of ``book/methods/divergences.md``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from pref_toolkit import losses
from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.theory import bandits

double = torch.float64


def _newton(reference: Tensor, reward: Tensor, beta: float) -> Tensor:
    """The optimum of reward less KL and half chi-squared: Newton's method on the conditions for log-ratios and multiplier."""
    k = len(reference)
    found = torch.zeros(k + 1, dtype=double)
    found[k] = (reference * reward).sum() - beta

    def conditions(x: Tensor) -> Tensor:
        rho, nu = x[:k], x[k]
        return torch.cat([beta * (rho.exp() + rho) + nu - reward, ((reference * rho.exp()).sum() - 1)[None]])

    for _ in range(200):
        slope = torch.zeros(k + 1, k + 1, dtype=double)
        slope[:k, :k] = torch.diag(beta * (found[:k].exp() + 1))
        slope[:k, k], slope[k, :k] = 1.0, reference * found[:k].exp()
        step = torch.linalg.solve(slope, conditions(found))
        found = found - step / max(1.0, float(step[:k].abs().max()))  # no log-ratio moves by more than a nat
    return reference * found[:k].exp()


@exercise("divergences-ex-6")
def chi_optimum() -> Iterator[Case]:
    """Chi-PO's optimum by Newton's method on all its conditions at once."""
    for about, reference, reward, beta in (
        ("three responses", [0.6, 0.3, 0.1], [0.0, 1.0, 2.0], 1.0),
        ("a rare response of high reward", [0.6, 0.399, 0.001], [0.0, 0.0, 3.0], 0.3),
        ("rewards all moved by a constant", [0.6, 0.3, 0.1], [7.0, 8.0, 9.0], 1.0),
        ("a strong pull", [0.25, 0.25, 0.25, 0.25], [-1.0, 0.0, 0.5, 3.0], 10.0),
        ("a weak pull", [0.2, 0.5, 0.3], [1.0, -2.0, 0.5], 0.05),
    ):
        ref, r = torch.tensor(reference, dtype=double), torch.tensor(reward, dtype=double)
        yield Case(about, (ref, r, beta), _newton(ref, r, beta), rtol=1e-5, atol=1e-7)


@cache
def _descended(
    reference: tuple[float, ...], reward: tuple[float, ...], tokens: tuple[int, ...], alpha: float
) -> Tensor:
    pairs = bandits.every_pair(bandits.bradley_terry(torch.tensor(reward)))
    return bandits.minimise(
        losses.r_dpo, pairs, reference, tokens=tokens, steps=1200, learning_rate=2.0, alpha=alpha, beta=1.0
    )[-1]


@exercise("divergences-ex-7")
def where_it_leads() -> Iterator[Case]:
    """The minimum of R-DPO's loss, by descent on all pairs."""
    for about, reference, reward, tokens, alpha in (
        ("a long response of high reward", (0.5, 0.3, 0.2), (0.0, 0.5, 1.0), (5, 10, 20), 0.05),
        ("no price", (0.5, 0.3, 0.2), (0.0, 0.5, 1.0), (5, 10, 20), 0.0),
        ("length is all that differs", (0.5, 0.3, 0.2), (0.0, 0.0, 0.0), (5, 10, 20), 0.1),
        ("another reference", (0.2, 0.2, 0.6), (1.0, 0.0, 0.5), (8, 2, 4), 0.1),
    ):
        ref, r, n = torch.tensor(reference, dtype=double), torch.tensor(reward, dtype=double), torch.tensor(tokens)
        yield Case(about, (ref, r, n, alpha, 1.0), _descended(reference, reward, tokens, alpha), rtol=1e-4)
