"""Cases of the graded exercises of ``book/methods/reference_free.md``."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, localcontext

import torch

from pref_toolkit.course.cases import Case, exercise


def exact_log_odds(total: float, tokens: int) -> Decimal:
    """``x - log(1 - e^x)`` of the mean ``x = total / tokens``, in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        mean = Decimal(total) / tokens
        return mean - (1 - mean.exp()).ln()


@exercise("reference-free-ex-6")
def log_odds_ratio() -> Iterator[Case]:
    """ORPO's log-odds ratio from sums and lengths, against decimal arithmetic in 60 digits."""
    for about, sums, tokens in (
        ("responses of unequal lengths", [[-12.0, -15.0], [-9.0, -3.0]], [[4, 10], [6, 12]]),
        ("one token each", [[-0.1, -2.0], [-3.0, -0.7]], [[1, 1], [1, 1]]),
        ("responses of thousands of nats", [[-9000.0, -4000.0], [-30.0, -8000.0]], [[9, 4], [10, 8]]),
        ("means that are nearly 0", [[-4e-18, -3e-3], [-2e-9, -6e-15]], [[4, 3], [2, 6]]),
    ):
        exact = [
            exact_log_odds(w, n_w) - exact_log_odds(rejected, n_l) for (w, rejected), (n_w, n_l) in zip(sums, tokens)
        ]
        wanted = torch.tensor([float(x) for x in exact], dtype=torch.float64)
        yield Case(about, (torch.tensor(sums, dtype=torch.float64), torch.tensor(tokens)), wanted)


@exercise("reference-free-ex-7")
def orpo_passes() -> Iterator[Case]:
    """Passes of ORPO that cost as much as SFT and DPO, against a count of the passes one by one."""
    same = [100, 100], [200, 200], [200, 200]
    mixed = [10, 300, 50], [400, 20, 80], [30, 250, 90]
    for about, lengths, sft, dpo, stored in (
        ("one pass each, prompts and responses of one length", same, 1, 1, False),
        ("pairs of different lengths", mixed, 2, 1, False),
        ("three passes of DPO", mixed, 1, 3, False),
        ("three passes of DPO with stored log-probabilities", mixed, 1, 3, True),
        ("no supervised stage", mixed, 0, 2, True),
    ):
        cost, one_pass = 0, 0
        for prompt, chosen, rejected in zip(*lengths):
            read = (prompt + chosen) + (prompt + rejected)
            one_pass += read + 2 * read
            for _ in range(sft):
                cost += (prompt + chosen) + 2 * (prompt + chosen)
            for k in range(dpo):
                cost += read + 2 * read + (read if k == 0 or not stored else 0)
        yield Case(about, (*(torch.tensor(x) for x in lengths), sft, dpo, stored), cost / one_pass)
