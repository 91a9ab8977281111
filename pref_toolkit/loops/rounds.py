"""Learning in rounds: the policy as it is draws and is judged once for many updates, and is their reference.

With DPO's loss this is iterative DPO (best against worst of the answers); with RRHF's, re-ranking (Yuan et al. 2023,
arXiv:2304.05302, whose paper draws once).
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from pref_toolkit.data.tokens import Encoded
from pref_toolkit.loops.draws import Draws
from pref_toolkit.loops.session import Session
from pref_toolkit.training.dataset import indices

Examples = Callable[[Session, int], list[Encoded]]
"""What a round trains on, by its number."""


def in_rounds(session: Session, examples_of: Examples) -> None:
    """Each round: the policy becomes ``previous``, the optimiser forgets, and the round's examples are trained on."""
    run, policy, trainer = session.run, session.policy, session.trainer
    length = ceil(session.total / session.settings.rounds)
    policy.copy("policy", "previous")  # a checkpoint holds it, and so it must be there to be restored
    examples: list[Encoded] = []
    ends = range(length, session.total, length)
    for step in run.steps(session.total, save_at=ends, policy=policy, trainer=trainer):
        number, place = divmod(step, length)
        if place == 0:
            policy.copy("policy", "previous")
            trainer.forget()
        if place == 0 or not examples:
            examples = examples_of(session, number)
        batch = [examples[i] for i in indices(place, session.config, len(examples))]
        run.log(step, trainer.update(batch, session.config.rate(place)) | {"round": number})


def drawn(session: Session, number: int) -> Draws:
    """Answers of ``previous`` to the round's prompts: as many as its updates take examples, in files of a batch each."""
    length = ceil(session.total / session.settings.rounds)
    parts = [
        session.drawn(
            f"round-{number + 1}/{n:06d}", session.prompts(number * length + n), number * length + n, view="previous"
        )
        for n in range(length)
    ]
    return Draws(
        [a for part in parts for a in part.asked],
        [a for part in parts for a in part.answers],
        [t for part in parts for t in part.texts],
        [s for part in parts for s in part.scores],
    )
