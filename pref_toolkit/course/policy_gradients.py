"""Cases of the graded exercises of ``book/foundations/policy_gradients.md``."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.theory import groups

double = torch.float64


@exercise("policy-gradients-ex-6")
def leave_one_out() -> Iterator[Case]:
    """RLOO's advantages, one group and one draw after another."""
    generator = torch.Generator().manual_seed(0)
    for about, rewards in (
        (
            "two prompts of different rewards",
            torch.tensor([[1.0, 0.0, 0.0, 1.0], [11.0, 9.0, 10.0, 10.0]], dtype=double),
        ),
        ("groups of two", torch.tensor([[0.0, 1.0], [2.0, 2.0], [3.0, -1.0]], dtype=double)),
        ("many prompts", torch.randn(5, 8, dtype=double, generator=generator)),
    ):
        wanted = torch.zeros_like(rewards)
        for x, row in enumerate(rewards.tolist()):
            for k, own in enumerate(row):
                others = row[:k] + row[k + 1 :]
                wanted[x, k] = own - sum(others) / len(others)
        yield Case(about, (rewards,), wanted)


@exercise("policy-gradients-ex-7")
def difficulty() -> Iterator[Case]:
    """GRPO's factor on the gradient of p, from all groups of a bandit with one right and one wrong response."""
    for about, p, size in (
        ("a hard prompt, eight draws", 0.1, 8),
        ("an even prompt, eight draws", 0.5, 8),
        ("three draws", 0.2, 3),
        ("an easy prompt, five draws", 0.95, 5),
    ):
        policy = torch.tensor([p, 1 - p], dtype=double)
        found = groups.estimate(policy, [1.0, 0.0], size, "group", deviation=True)
        yield Case(about, (p, size), float(found.mean[0]) / (p * (1 - p)))
