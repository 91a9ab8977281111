"""Cases of the graded exercises of ``book/foundations/rlhf_optimum.md``."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.theory import bandits

REF = np.array([0.35, 0.25, 0.08, 0.20, 0.117, 0.003])
TRUTH = np.array([1.0, 1.0, 0.9, 0.0, 0.2, -0.5])


@exercise("rlhf-optimum-ex-6")
def beta_for() -> Iterator[Case]:
    """The price that goes with a budget, from optima whose price is known."""
    rare = np.array([0.999, 0.001]), np.array([0.0, 1.0])
    for about, ref, reward, beta in (
        ("the six responses of the page", REF, TRUTH, 0.3),
        ("a small budget", REF, TRUTH, 20.0),
        ("a budget near the largest", REF, TRUTH, 0.03),
        ("rewards of thousands", REF, 5000 * TRUTH, 1500.0),
        ("rewards of a millionth", REF, 1e-6 * TRUTH, 3e-7),
        ("a right response that is rare", *rare, 0.15),
    ):
        best, _ = bandits.rlhf_optimum(ref, reward, beta)
        yield Case(about, (ref, reward, bandits.kl(best, ref).item()), beta, rtol=1e-4, atol=0)
    yield Case("a budget of 0", (REF, TRUTH, 0.0), math.inf)
    yield Case("more than a policy that is always right costs", (REF, TRUTH, 0.6), 0.0)


@exercise("rlhf-optimum-ex-7")
def slope() -> Iterator[Case]:
    """The gradient of RLHF's objective by the logits, by autograd."""
    generator = np.random.default_rng(0)
    for about, logits, ref, reward, beta in (
        ("a policy that is not the reference", generator.normal(size=6), REF, TRUTH, 0.3),
        ("another beta", generator.normal(size=6), REF, TRUTH, 2.0),
        ("the policy is the reference, with logits shifted by 5", np.log(REF) + 5, REF, TRUTH, 0.3),
        ("two responses", np.array([0.0, 1.0]), np.array([0.75, 0.25]), np.array([0.0, 2.0]), 1.0),
        ("a probability that underflows", np.array([0.0, -900.0, 1.0]), np.full(3, 1 / 3), np.arange(3.0), 0.5),
        ("logits of a thousand", np.array([1000.0, 999.0, 998.0]), np.full(3, 1 / 3), np.arange(3.0), 0.5),
    ):
        leaf = torch.tensor(logits, requires_grad=True)
        log_pi = leaf.log_softmax(-1)
        gain = torch.tensor(reward) - beta * (log_pi - torch.tensor(ref).log())
        (wanted,) = torch.autograd.grad(log_pi.exp() @ gain, leaf)
        yield Case(about, (logits, ref, reward, beta), wanted)
