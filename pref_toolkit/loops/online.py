"""Online learning: each update draws answers to new prompts, asks the judge, and learns best against worst.

With DPO's loss this is online DPO (Guo et al. 2024, arXiv:2402.04792); with IPO's, online IPO, and with a mixture of policy and
reference as the one who answers, IPO-MD (Calandriello et al. 2024, arXiv:2403.08635).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pref_toolkit.loops.session import Session


def online(session: Session) -> None:
    """Draw, judge, update, as often as the run has updates."""
    run, trainer = session.run, session.trainer
    for step in run.steps(session.total, policy=session.policy, trainer=trainer):
        draws = session.drawn(f"draws/{step:06d}", session.prompts(step), step)
        row = trainer.update(draws.pairs(), session.config.rate(step))
        run.log(step, row | draws.measured())
