"""Self-play fine-tuning: the data's answer is to beat the one that the policy drew; or each draw is to beat the last one.

No judge is asked. The reference is the policy as the round began. Source: Chen et al. 2024, arXiv:2401.01335, algorithm 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pref_toolkit.loops.draws import Draws
from pref_toolkit.loops.rounds import in_rounds

if TYPE_CHECKING:
    from pref_toolkit.data.tokens import Encoded
    from pref_toolkit.loops.session import Session


def spin(session: Session) -> None:
    """Rounds of self-play. With ``settings.last_lam`` the last round has another ``lam``.

    A round trains on its own pairs and those of the round before, as the authors' code does.
    """
    trainer, settings = session.trainer, session.settings
    last = (session.total - 1) // session.round_length  # of so few updates that rounds are left out, too

    def examples(number: int) -> list[Encoded]:
        if number == last and settings.last_lam is not None:
            changed = {**trainer.objective.settings, "lam": settings.last_lam}
            trainer.objective = replace(trainer.objective, settings=changed)
        before = session.round_drawn(number - 1, "previous").beaten() if number else []
        return [*before, *session.round_drawn(number, "previous").beaten()]

    in_rounds(session, examples)


def generations(session: Session) -> None:
    """Rounds on the same prompts: what the policy draws now is chosen, what it drew a round ago is rejected.

    In the first round the data's answer is chosen, as in :func:`spin`. Later rounds never look at the data.
    """

    def drawn(number: int) -> Draws:
        first, name = number * session.round_length, f"generation-{number + 1}"
        each = [(f"{name}/{n:06d}", session.prompts(n), first + n) for n in range(session.round_length)]
        return Draws.joined([session.drawn(*one, view="previous") for one in each])

    def examples(number: int) -> list[Encoded]:
        return drawn(number).over(drawn(number - 1)) if number else drawn(0).beaten()

    in_rounds(session, examples)
