"""Cases of the graded exercises of ``book/methods/ranking.md``."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.theory import bandits

double = torch.float64


@exercise("ranking-ex-6")
def kept() -> Iterator[Case]:
    """RSO's acceptance, the share it keeps and what is kept, from the optimum of RLHF: the best response is always kept."""
    for about, reference, reward, beta in (
        ("three responses", [0.5, 0.35, 0.15], [0.0, 1.0, 2.0], 1.0),
        ("the same at another beta", [0.5, 0.35, 0.15], [0.0, 1.0, 2.0], 0.3),
        ("negative rewards, the best one first", [0.2, 0.5, 0.1, 0.2], [-1.0, -3.0, -2.5, -1.5], 0.5),
        ("rewards whose exponential overflows", [0.6, 0.3, 0.1], [998.0, 1000.0, 999.0], 0.5),
        ("two responses that are equally good", [0.7, 0.2, 0.1], [0.0, 4.0, 4.0], 2.0),
    ):
        ref, r = torch.tensor(reference, dtype=double), torch.tensor(reward, dtype=double)
        optimum, _ = bandits.rlhf_optimum(ref, r, beta)
        tilt = optimum / ref
        acceptance = tilt / tilt.max()
        yield Case(about, (ref, r, beta), (acceptance, 1 / tilt.max(), optimum))


@exercise("ranking-ex-7")
def penalties() -> Iterator[Case]:
    """RRHF's matrix of penalties, one pair at a time."""
    generator = torch.Generator().manual_seed(0)

    def case(about: str, sums: list[float], tokens: list[int], scores: list[float]) -> Case:
        k = len(sums)
        wanted = torch.zeros(k, k, dtype=double)
        for i in range(k):
            for j in range(k):
                if scores[i] < scores[j]:
                    wanted[i, j] = max(0.0, sums[i] / tokens[i] - sums[j] / tokens[j])
        return Case(about, (torch.tensor(sums, dtype=double), torch.tensor(tokens), torch.tensor(scores)), wanted)

    yield case("three responses, best first", [-9.0, -4.0, -6.0], [3, 4, 3], [0.9, 0.5, 0.1])
    yield case("a sum and a mean that disagree", [-20.0, -12.0], [10, 4], [0.0, 1.0])
    yield case("columns in another order", [-4.0, -9.0, -6.0], [4, 3, 3], [0.1, 0.9, 0.5])
    yield case("equal scores", [-4.0, -9.0, -6.0], [4, 3, 3], [0.5, 0.5, 0.1])
    sums = torch.rand(5, generator=generator, dtype=double).mul(-60)
    tokens, scores = torch.randint(5, 40, (5,), generator=generator), torch.randn(5, generator=generator)
    yield case("five responses of different lengths", sums.tolist(), tokens.tolist(), scores.tolist())
