"""The settings of a loop. A field here and a flag of ``pref-toolkit train`` are one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pref_toolkit.errors import Complaint
from pref_toolkit.ranges import AtLeast, Range, fault_of
from pref_toolkit.training.config import Count, NonNegative

Positive = Annotated[float, Range(0, closed=False)]


@dataclass(frozen=True)
class LoopConfig:
    """How a loop draws and judges. A loop refuses a setting that it does not read, if it is not its default.

    Args:
        answers: answers drawn to each prompt.
        temperature: of the draws; a policy gradient always draws at 1.
        mixture: share of the reference in the geometric mixture that answers are drawn from, token by token; 0: the policy.
        rounds: for loops in rounds, how many: each draws anew from the policy that the last one trained.
        last_lam: of ``spin``: the strength ``lam`` in the last round, if another; the authors ran .1 and then 5.
        kept: of ``rso``: answers kept of those drawn.
        acceptance: of ``rso``: the optimum's ``beta`` in the sampler, in the judge's units; near 0, best-of-n.
        greedy: of policy gradients: whether the score of a greedy answer, drawn and judged besides, is the baseline.
        updates: of policy gradients: updates on each draw.
        slow_rate: of ``ofs_dpo`` and ``cofs_dpo``: learning rate of the module that learns slowly, as a share of the other's.
        exchange_every: of both: updates after which the module with the lower loss takes the fast role.
        memory: of ``cofs_dpo``: pairs of each domain that are kept to choose the weights of the domains.
        judge: a reward model's directory, or ``module:function``, see :data:`pref_toolkit.loops.judges.Judge`; the lab has its
            own.
        judge_limit: seconds that the judge may take for one batch; 0: no limit.
    """

    answers: Count = 2
    temperature: Positive = 1.0
    mixture: Annotated[float, Range(0, closed=True, high=1)] = 0.0
    rounds: Count = 3
    last_lam: Positive | None = None
    kept: Annotated[int, AtLeast(2)] = 2
    acceptance: Positive = 0.5
    greedy: bool = False
    updates: Count = 1
    slow_rate: Annotated[float, Range(0, closed=False, high=1)] = 0.1
    exchange_every: Count = 10
    memory: Count = 64
    judge: str | None = None
    judge_limit: NonNegative = 600.0

    def __post_init__(self) -> None:
        if (fault := fault_of(self)) is not None:
            raise Complaint(fault)
