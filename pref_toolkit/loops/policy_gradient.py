"""Policy gradients: draw, judge, and step along the score of each answer times its advantage.

REINFORCE (Williams 1992), ReMax (Li et al. 2023, arXiv:2310.10505), RLOO (Ahmadian et al. 2024, arXiv:2402.14740) and GRPO
(Shao et al. 2024, arXiv:2402.03300) are this loop with settings of one loss, :func:`pref_toolkit.losses.policy_gradient`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pref_toolkit.loops.config import LoopConfig
    from pref_toolkit.loops.session import Session


def fault(settings: LoopConfig, hyperparameters: Mapping[str, Any]) -> str | None:
    """Why these settings make no policy gradient, or None."""
    if hyperparameters["baseline"] != "none" and settings.answers < 2:
        return f"a baseline of {hyperparameters['baseline']!r} wants answers >= 2, got {settings.answers}"
    if hyperparameters["baseline"] != "none" and settings.greedy:
        return f"a baseline of {hyperparameters['baseline']!r} cancels the greedy answer's score: set greedy to false"
    return None


def policy_gradient(session: Session) -> None:
    """Draw, judge, and make ``settings.updates`` updates on the draw."""
    run, trainer, settings = session.run, session.trainer, session.settings
    for step in run.steps(session.total, policy=session.policy, trainer=trainer):
        number = step // settings.updates
        draws = session.drawn(f"draws/{number:06d}", session.prompts(number), number)
        learnt = draws.less_greedy() if settings.greedy else draws
        row = trainer.update(learnt.ranked(), session.config.rate(step))
        run.log(step, row | draws.measured())
