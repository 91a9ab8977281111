"""Self-play fine-tuning: the data's answer is to beat the one that the policy drew in the round before.

No judge is asked. A round trains on its own pairs and those of the round before, as the authors' code does. The reference is
the policy as the round began. Source: Chen et al. 2024, arXiv:2401.01335, algorithm 1.
"""

from __future__ import annotations

from dataclasses import replace

from pref_toolkit.data.tokens import Encoded
from pref_toolkit.loops.rounds import drawn, in_rounds
from pref_toolkit.loops.session import Session


def spin(session: Session) -> None:
    """Rounds of self-play. With ``settings.last_lam`` the last round has another ``lam``."""
    objective = session.trainer.objective

    def examples(session: Session, number: int) -> list[Encoded]:
        last = number == session.settings.rounds - 1
        if last and session.settings.last_lam is not None:
            session.trainer.objective = replace(
                objective, settings={**objective.settings, "lam": session.settings.last_lam}
            )
        before = drawn(session, number - 1).beaten() if number else []
        return [*before, *drawn(session, number).beaten()]

    in_rounds(session, examples)
