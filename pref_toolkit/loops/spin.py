"""Self-play fine-tuning: the data's answer is to beat the one that the policy drew in the round before.

No judge is asked. A round trains on its own pairs and those of the round before, as the authors' code does. The reference is
the policy as the round began. Source: Chen et al. 2024, arXiv:2401.01335, algorithm 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pref_toolkit.loops.rounds import in_rounds

if TYPE_CHECKING:
    from pref_toolkit.data.tokens import Encoded
    from pref_toolkit.loops.session import Session


def spin(session: Session) -> None:
    """Rounds of self-play. With ``settings.last_lam`` the last round has another ``lam``."""
    trainer, settings = session.trainer, session.settings

    def examples(number: int) -> list[Encoded]:
        if number == settings.rounds - 1 and settings.last_lam is not None:
            changed = {**trainer.objective.settings, "lam": settings.last_lam}
            trainer.objective = replace(trainer.objective, settings=changed)
        before = session.round_drawn(number - 1, "previous").beaten() if number else []
        return [*before, *session.round_drawn(number, "previous").beaten()]

    in_rounds(session, examples)
