"""Cases of the graded exercises of ``book/loops/online.md``."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pref_toolkit import losses
from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.logps import Logps
from pref_toolkit.theory.bandits import bradley_terry, rlhf_optimum
from pref_toolkit.theory.exact_loops import mixture, nash_policy

double = torch.float64
CYCLE = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]], dtype=double)
START = torch.tensor([0.6, 0.3, 0.1], dtype=double)
EVEN = torch.full((3,), 1 / 3, dtype=double)


@exercise("online-ex-6")
def nash_md_step() -> Iterator[Case]:
    """The step is the optimum of RLHF with the mixture as reference, its chance to win as reward, and beta = 1 / eta."""
    for about, policy, reference, chance, eta, tau in (
        ("from the reference", START, START, CYCLE, 0.5, 0.1),
        ("from another policy, a large share of the reference", EVEN, START, CYCLE, 2.0, 0.4),
        ("from a rest point", nash_policy(CYCLE, START, 0.2, 0.2), START, CYCLE, 1.0, 0.2),
        ("two responses", EVEN[:2] * 1.5, START[:2] / 0.9, CYCLE[:2, :2], 0.3, 1.0),
    ):
        opponent = mixture(policy, reference, eta * tau)
        wanted, _ = rlhf_optimum(opponent, chance @ opponent, 1 / eta)
        yield Case(about, (policy, reference, chance, eta, tau), wanted)


@exercise("online-ex-7")
def mean_gradient() -> Iterator[Case]:
    """Online DPO's, from the toolkit's loss and autograd over every pair of draws."""
    reward = torch.tensor([0.0, 1.0, 2.0], dtype=double)
    chance = bradley_terry(reward)
    for about, policy, reference, preferred, beta in (
        ("at the reference", START, START, chance, 0.5),
        ("away from it", EVEN, START, chance, 0.5),
        ("at the optimum", rlhf_optimum(START, reward, 0.5)[0], START, chance, 0.5),
        ("preferences in a cycle", EVEN, START, CYCLE, 2.0),
    ):
        yield Case(about, (policy, reference, preferred, beta), _gradient(policy, reference, preferred, beta))


def _gradient(policy: Tensor, reference: Tensor, chance: Tensor, beta: float) -> Tensor:
    logits = policy.log().requires_grad_()
    pairs = torch.cartesian_prod(*2 * [torch.arange(len(policy))])
    weights = 2 * policy[pairs].prod(1) * chance[pairs[:, 0], pairs[:, 1]]
    records = (Logps(logp[pairs], torch.ones_like(pairs)) for logp in (logits.log_softmax(-1), reference.log()))
    return torch.autograd.grad((weights * losses.dpo(*records, beta=beta)).sum(), logits)[0]
