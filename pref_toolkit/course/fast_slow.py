"""Cases of the graded exercises of ``book/loops/fast_slow.md``."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from scipy.optimize import brentq

from pref_toolkit import losses
from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.logps import Logps

double = torch.float64


def pull(margin: float, chance: float, beta: float, alpha: float) -> float:
    """How hard the fast module's mean loss pulls its margin up where the slow module has the same margin."""
    at = torch.tensor([margin], dtype=double, requires_grad=True)
    zero = torch.zeros_like(at)
    start, opponent = Logps.pair(zero, zero), Logps.pair(at.detach(), zero)
    backwards = lambda record: Logps(record.sums.flip(1), record.tokens)
    policy = Logps.pair(at, zero)
    won = losses.chase_fast(policy, start, opponent, beta=beta, alpha=alpha)
    lost = losses.chase_fast(*map(backwards, (policy, start, opponent)), beta=beta, alpha=alpha)
    (slope,) = torch.autograd.grad((chance * won + (1 - chance) * lost).sum(), at)
    return -float(slope)


@exercise("fast-slow-ex-6")
def resting_margin() -> Iterator[Case]:
    """The margin at which both modules rest, by the root of the mean gradient."""
    for about, chance, beta, alpha in (
        ("no race: DPO's own", 0.9, 0.5, 0.0),
        ("a small race", 0.9, 0.5, 0.1),
        ("another beta", 0.7, 0.1, 0.3),
        ("the second response is preferred", 0.2, 1.0, 0.2),
    ):
        root = brentq(pull, -200.0, 200.0, args=(chance, beta, alpha), xtol=1e-12)
        yield Case(about, (chance, beta, alpha), torch.tensor(root, dtype=double), rtol=1e-6)


@exercise("fast-slow-ex-7")
def regret() -> Iterator[Case]:
    """The running sum of expected losses above the least, from the losses of both labels."""
    generator = torch.Generator().manual_seed(0)
    for about, steps, beta in (("one step", 1, 0.5), ("a stream", 50, 0.5), ("large margins", 20, 100.0)):
        margins = 3 * torch.randn(steps, dtype=double, generator=generator)
        chances = 0.05 + 0.9 * torch.rand(steps, dtype=double, generator=generator)
        zero = torch.zeros_like(margins)
        start, policy = Logps.pair(zero, zero), Logps.pair(margins, zero)
        lost = Logps(policy.sums.flip(1), policy.tokens)
        mean = chances * losses.dpo(policy, start, beta=beta) + (1 - chances) * losses.dpo(lost, start, beta=beta)
        least = torch.distributions.Bernoulli(chances).entropy()
        yield Case(about, (margins, chances, beta), (mean - least).cumsum(0), rtol=1e-9)
