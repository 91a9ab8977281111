"""Learning in rounds: a round draws once, from the policy as it begins, and trains on that for many updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # so that the names of the loops are known without what they run on
    from pref_toolkit.data.tokens import Encoded
    from pref_toolkit.loops.session import Session


def in_rounds(session: Session, examples_of: Callable[[int], list[Encoded]]) -> None:
    """Each round: the policy becomes ``previous``, the optimiser forgets, and the round's examples are trained on.

    Args:
        session: the loop's.
        examples_of: what a round trains on, by its number.
    """
    run, policy, trainer, length = session.run, session.policy, session.trainer, session.round_length
    policy.copy("policy", "previous")  # a checkpoint holds it, so it must be there to be restored
    examples: list[Encoded] = []
    ends = range(length, session.total, length)
    for step in run.steps(session.total, save_at=ends, policy=policy, trainer=trainer):
        number, place = divmod(step, length)
        if place == 0:
            policy.copy("policy", "previous")
            trainer.forget()
        if place == 0 or not examples:  # a run that goes on inside a round reads what the round drew
            examples = examples_of(number)
        row = trainer.update(session.some(examples, place), session.config.rate(place))
        run.log(step, row | {"round": number})
