"""Cases of the graded exercises of ``book/methods/simpo.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext

import torch
from torch import Tensor

from pref_toolkit.course.cases import Case, exercise

double = torch.float64


def not_optimal(r: list[float], n: list[int], beta: float) -> Callable[[Tensor], str]:
    """What defines the optimum: probabilities that sum to 1, and rewards ``beta log pi / n`` with the differences of ``r``."""

    def fault(got: Tensor) -> str:
        logp = torch.as_tensor(got, dtype=double)
        if logp.shape != (len(r),):
            return f"got shape {tuple(logp.shape)}, wanted {(len(r),)}."
        total = logp.exp().sum().item()
        if not abs(total - 1) < 1e-6:
            return f"the probabilities sum to {total:.4g}; a value should be the logarithm of a probability."
        apart = (beta * logp / torch.tensor(n) - torch.tensor(r, dtype=double)).numpy()
        if not apart.max() - apart.min() < 1e-6 * (1 + max(map(abs, r))):
            return f"beta log pi / n - r is to be one number, got {apart.min():.4g} to {apart.max():.4g}."
        return ""

    return fault


@exercise("simpo-ex-6")
def simpo_optimum() -> Iterator[Case]:
    """The policy at SimPO's minimum, judged by its first-order condition."""
    for about, r, n, beta in (
        ("the five responses of the text", [0.0, 1.0, 1.0, 1.0, 2.0], [2, 1, 3, 6, 3], 2.0),
        ("responses of one length", [0.5, -1.0, 2.0], [4, 4, 4], 2.0),
        ("another beta", [0.0, 1.0, -1.0, 0.5], [1, 2, 3, 4], 10.0),
        ("a response of 5000 tokens", [0.0, 1.0, 2.0], [3, 5, 5000], 2.0),
        ("rewards of hundreds", [300.0, -100.0, 290.0], [20, 1, 10], 2.0),
    ):
        yield Case(about, (torch.tensor(r, dtype=double), torch.tensor(n), beta), fault=not_optimal(r, n, beta))


@exercise("simpo-ex-7")
def with_nll() -> Iterator[Case]:
    """SimPO with a supervised term, against decimal arithmetic in 60 digits."""
    for about, sums, tokens, alpha, beta, gamma in (
        ("responses of unequal lengths", [[-12.0, -15.0], [-9.0, -3.0]], [[4, 10], [6, 12]], 1.0, 2.0, 1.0),
        ("no supervised term", [[-12.0, -15.0], [-9.0, -3.0]], [[4, 10], [6, 12]], 0.0, 2.0, 1.0),
        ("other strengths", [[-40.0, -30.0]], [[20, 30]], 0.3, 5.0, 2.5),
        ("responses of thousands of nats", [[-9000.0, -10.0], [-10.0, -9000.0]], [[9, 10], [10, 9]], 1.0, 2.0, 1.0),
    ):
        wanted = []
        with localcontext() as context:
            context.prec = 60
            for (w, rejected), (n_w, n_l) in zip(sums, tokens):
                mean_w, mean_l = Decimal(w) / n_w, Decimal(rejected) / n_l
                u = Decimal(beta) * (mean_w - mean_l) - Decimal(gamma)
                wanted.append(float((1 + (-u).exp()).ln() - Decimal(alpha) * mean_w))
        arguments = (torch.tensor(sums, dtype=double), torch.tensor(tokens), alpha, beta, gamma)
        yield Case(about, arguments, torch.tensor(wanted, dtype=double))
