"""Cases of the graded exercises of ``book/methods/beyond_pairs.md``."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from pref_toolkit import losses
from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.logps import Logps

double = torch.float64


@exercise("beyond-pairs-ex-6")
def reference_point() -> Iterator[Case]:
    """KTO's z0 from a table of log-ratios, with values summed by hand."""
    reference = torch.tensor([[-9.0, -7.0, -8.0], [-6.0, -9.0, -7.0], [-5.0, -8.0, -9.0]], dtype=double)
    for about, rows in (
        # [i, j]: log-ratio of answer j after prompt i; [0, 1], [1, 2] and [2, 0] are read
        ("a policy that likes every answer better", ((5.0, 1.0, 4.0), (4.0, 5.0, 2.0), (1.5, 4.0, 5.0))),
        ("log-ratios of both signs", ((5.0, 3.0, -4.0), (-4.0, 5.0, -1.0), (1.0, -4.0, 5.0))),
        ("a mean below zero", ((5.0, 1.0, 4.0), (4.0, 5.0, -3.0), (-2.0, 4.0, 5.0))),
        ("policy = reference", ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))),
    ):
        wanted = max(0.0, (rows[0][1] + rows[1][2] + rows[2][0]) / 3)
        yield Case(about, (reference + torch.tensor(rows, dtype=double), reference), wanted)
    two = torch.tensor([[3.0, 0.5], [0.25, 3.0]], dtype=double)
    yield Case("two answers", (two - 20, torch.full_like(two, -20)), (0.5 + 0.25) / 2)


@exercise("beyond-pairs-ex-7")
def pulls() -> Iterator[Case]:
    """Pulls of S-DPO, by differentiating the toolkit's loss and, with two responses, by DPO's formula."""
    generator = torch.Generator().manual_seed(0)
    for about, shape, scale, beta in (
        ("one rejected response", (4, 2), 3.0, 0.5),
        ("four rejected responses", (3, 5), 2.0, 1.0),
        ("a small beta", (3, 5), 2.0, 0.1),
        ("log-ratios of hundreds of nats", (4, 4), 300.0, 1.0),
    ):
        rho = scale * torch.randn(*shape, dtype=double, generator=generator)
        yield Case(about, (rho, beta), _by_differentiation(rho, beta))
    margin = 4 * math.log(3)
    up = 0.25 * 0.25  # beta sigmoid(-beta D) with odds of 3
    yield Case("a margin of 4 log 3 at beta 1/4", (torch.tensor([[margin, 0.0]]).double(), 0.25), [[up, -up]])


def _by_differentiation(rho: torch.Tensor, beta: float) -> torch.Tensor:
    l_ = rho.clone().requires_grad_()
    ones = torch.ones_like(rho)
    loss = losses.s_dpo(Logps(l_, ones), Logps(torch.zeros_like(rho), ones), beta=beta)
    (slope,) = torch.autograd.grad(loss.sum(), l_)
    return -slope
