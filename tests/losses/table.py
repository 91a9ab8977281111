"""The table every loss is tested by: one row per method, written from the papers in NumPy.

Nothing here imports the implementation, so a loss that agrees with its row agrees with a second, independent reading of
the paper. Adding a method means adding a row: ``test_losses.py`` fails for a method without one, and runs every
property it holds over every row.

Inputs ``x`` carry, for B prompts with K responses, ``x.l`` and ``x.r`` (B, K) log-probabilities under policy and
reference in nats, ``x.n`` (B, K) token counts, and whatever else a loss reads, under the name of its argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

Formula = Callable[..., Any]
Change = Callable[[SimpleNamespace], Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    """What a method must be.

    Args:
        formula: the loss ``(x, **hyperparameters) -> (B,)``.
        start: its value at policy = reference or, for a loss without a reference, at two equal responses.
        needs: the arguments it must be given, in order.
        defaults: hyperparameters and the values the paper, or the fact sheet, gives them.
        other: a second setting of the hyperparameters, so that no property holds only at the defaults.
        unchanged: changes of the inputs that leave the loss as it is, by name.
        optional: arguments it may be given.
    """

    formula: Formula
    start: Formula
    needs: tuple[str, ...]
    defaults: Mapping[str, Any]
    other: Mapping[str, Any]
    unchanged: Mapping[str, Change]
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limit:
    """``method`` at ``setting`` is ``scale`` times ``becomes`` at ``as_setting``, on the inputs of ``given``."""

    why: str
    method: str
    setting: Mapping[str, Any]
    becomes: str
    as_setting: Mapping[str, Any]
    given: Change = lambda x: {}
    then: Change = lambda x: {}
    """Further changes of the inputs for ``becomes`` only."""
    scale: float = 1.0


def draw(rng: np.random.Generator, examples: int = 64, responses: int = 2) -> SimpleNamespace:
    """Log-probabilities of 1 to 30 tokens at .05 to 3 nats a token, the reference some tens of per cent away."""
    n = rng.integers(1, 31, (examples, responses))
    l = -n * rng.uniform(0.05, 3, n.shape)  # noqa: E741  the papers' letter
    return SimpleNamespace(
        l=l, r=l * np.exp(0.2 * rng.standard_normal(n.shape)), n=n, target=-rng.uniform(1, 50, examples)
    )


def sp(t):
    """Softplus: ``-log sigmoid(-t)``."""
    return np.logaddexp(0, t)


def margin(x):
    return (x.l[:, 0] - x.r[:, 0]) - (x.l[:, 1] - x.r[:, 1])


def mean(x):
    return (x.l / x.n).T


def dpo(x, beta):
    return sp(-beta * margin(x))


def ipo(x, tau):
    return (margin(x) - 0.5 / tau) ** 2


def hinge_dpo(x, gamma):
    return np.maximum(0, 1 - gamma * margin(x))


def slic_hf(x, delta, lam):
    target = getattr(x, "target", x.l[:, 0])
    return np.maximum(0, delta - x.l[:, 0] + x.l[:, 1]) - lam * target


def simpo(x, beta, gamma):
    w, l = mean(x)  # noqa: E741
    return sp(-(beta * (w - l) - gamma))


def log_odds(t):
    return t - np.log(-np.expm1(t))


def orpo(x, lam):
    w, l = mean(x)  # noqa: E741
    return -w + lam * sp(-(log_odds(w) - log_odds(l)))


POLICY = ("policy",)
BOTH = ("policy", "reference")

# Changes of the inputs; each returns only what it changes.
per_prompt: Change = lambda x: {"l": x.l + np.linspace(-9, 9, len(x.l))[:, None]}
with_reference: Change = lambda x: {"l": x.l + 3 * np.cos(x.n), "r": x.r + 3 * np.cos(x.n)}
lengths: Change = lambda x: {"n": x.n[:, ::-1] + 4}
repeated: Change = lambda x: {"l": 2 * x.l, "n": 2 * x.n}

MARGIN = {
    "the same nats on both responses": per_prompt,
    "the same nats under policy and reference": with_reference,
    "other token counts": lengths,
}
MEANS = {"every token twice": repeated}

ROWS: dict[str, Row] = {
    "dpo": Row(dpo, lambda x, beta: np.log(2), BOTH, {"beta": 0.1}, {"beta": 0.7}, MARGIN),
    "ipo": Row(ipo, lambda x, tau: 1 / (4 * tau**2), BOTH, {"tau": 0.1}, {"tau": 0.7}, MARGIN),
    "hinge_dpo": Row(hinge_dpo, lambda x, gamma: 1, BOTH, {"gamma": 0.05}, {"gamma": 0.7}, MARGIN),
    "slic_hf": Row(
        slic_hf,
        lambda x, delta, lam: delta - lam * getattr(x, "target", x.l[:, 0]),
        POLICY,
        {"delta": 1.0, "lam": 0.1},
        {"delta": 3.0, "lam": 0.6},
        {"other token counts": lengths},
        optional=("target",),
    ),
    "simpo": Row(
        simpo,
        lambda x, beta, gamma: np.log1p(np.exp(gamma)),
        POLICY,
        {"beta": 2.0, "gamma": 1.0},
        {"beta": 0.7, "gamma": 0.3},
        MEANS,
    ),
    "orpo": Row(
        orpo, lambda x, lam: -x.l[:, 0] / x.n[:, 0] + lam * np.log(2), POLICY, {"lam": 0.1}, {"lam": 0.7}, MEANS
    ),
}

LIMITS = [
    Limit(
        "equal lengths n and no target margin: DPO without a reference, beta / n",
        "simpo", {"beta": 2.0, "gamma": 0.0}, "dpo", {"beta": 0.25},
        given=lambda x: {"n": np.full_like(x.n, 8)}, then=lambda x: {"r": 0 * x.r},
    ),
    Limit(
        "no supervised term: the hinge on the policy alone, gamma = 1 / delta, times delta",
        "slic_hf", {"delta": 4.0, "lam": 0.0}, "hinge_dpo", {"gamma": 0.25}, then=lambda x: {"r": 0 * x.r}, scale=4.0,
    ),
]  # fmt: skip
