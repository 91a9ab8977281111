"""Cases of the graded exercises of ``book/methods/dpo.md``."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.theory import bandits

double = torch.float64


@exercise("dpo-ex-6")
def loss_and_pulls() -> Iterator[Case]:
    """Loss and pull of each pair, token by token in plain Python."""
    generator = torch.Generator().manual_seed(0)
    for about, lengths, scale, beta in (
        ("responses of one length", [[4, 4], [4, 4]], 1.0, 0.1),
        ("padding of -inf", [[5, 2, 3], [1, 5, 4]], 1.0, 0.1),
        ("another beta", [[5, 2, 3], [1, 5, 4]], 1.0, 0.5),
        ("margins of thousands of nats", [[5, 3, 2], [5, 2, 3]], 4000.0, 0.5),
    ):
        sizes = torch.tensor(lengths)
        is_response = torch.arange(5) < sizes[..., None]
        policy, reference = (
            -scale * torch.rand(*sizes.shape, 5, generator=generator, dtype=double).masked_fill(~is_response, torch.inf)
            for _ in range(2)
        )
        margins = []
        for b in range(sizes.shape[1]):
            chosen, rejected = (
                sum(float(policy[k, b, t] - reference[k, b, t]) for t in range(lengths[k][b])) for k in (0, 1)
            )
            margins.append(beta * (chosen - rejected))
        loss = [max(-t, 0) + math.log1p(math.exp(-abs(t))) for t in margins]
        pull = [beta / (1 + math.exp(t)) if t < 700 else 0.0 for t in margins]
        wanted = torch.tensor(loss, dtype=double), torch.tensor(pull, dtype=double)
        yield Case(about, (policy, reference, is_response, beta), wanted)


@exercise("dpo-ex-7")
def minimiser() -> Iterator[Case]:
    """DPO's minimum on weighted pairs: the optimum of RLHF for the scores that Newton's method fits."""
    reference = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=double)
    fitting = bandits.bradley_terry(torch.tensor([0.0, 1.0, -0.5, 1.5]))
    circle = torch.full((4, 4), 0.5, dtype=double)
    for i in range(4):
        circle[i, (i + 1) % 4], circle[(i + 1) % 4, i] = 0.8, 0.2
    everyone = torch.ones(4, 4, dtype=double)
    place = torch.arange(4)
    neighbours = ((place[:, None] - place).abs() == 1).double()
    often = everyone.clone()
    often[0, 1] = often[1, 0] = 20
    for about, chance, asked, beta in (
        ("Bradley-Terry, all pairs", fitting, everyone, 0.5),
        ("Bradley-Terry, another beta", fitting, everyone, 1.5),
        ("a circle, all pairs", circle, everyone, 0.5),
        ("a circle, neighbours only", circle, neighbours, 0.5),
        ("a circle, one pair more often", circle, often, 0.5),
    ):
        scores = _fitted(chance, asked)
        wanted = bandits.rlhf_optimum(reference, scores, beta)[0]
        yield Case(about, (reference, chance, asked, beta), wanted, rtol=1e-3, atol=1e-5)


def _fitted(chance: Tensor, asked: Tensor) -> Tensor:
    """Scores of the weighted Bradley-Terry likelihood, with mean 0."""
    scores = torch.zeros(len(chance), dtype=double)
    for _ in range(30):
        p = torch.sigmoid(scores[:, None] - scores)
        slope = (asked * (p - chance)).sum(1)
        bend = asked * p * (1 - p)
        scores = scores - torch.linalg.pinv(torch.diag(bend.sum(1)) - bend) @ slope
    return scores
