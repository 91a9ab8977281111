"""Statistical rejection sampling: draw many answers, keep some as if the RLHF optimum had drawn them, learn from those.

Source: Liu et al. 2023, arXiv:2309.06657, section 3 and algorithm 1.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from math import exp
from typing import TYPE_CHECKING, Any

from pref_toolkit.loops.rounds import in_rounds

if TYPE_CHECKING:
    from pref_toolkit.data.tokens import Encoded
    from pref_toolkit.loops.config import LoopConfig
    from pref_toolkit.loops.session import Session


def accepted(rewards: Sequence[float], number: int, beta: float, rng: random.Random) -> list[int]:
    """Which of the candidates are kept: each is kept with probability ``exp((r - r_max) / beta)``, until enough are.

    ``r_max`` is the largest reward of the candidates that are left. Of many candidates from ``ref`` the first that is kept has
    the distribution ``ref(y) exp(r(y) / beta) / Z``. As ``beta`` goes to 0 the best candidates are kept, best first.

    Args:
        rewards: of the candidates.
        number: how many to keep, at most as many as there are candidates.
        beta: the temperature of the optimum, in units of the reward.
        rng: decides.

    >>> accepted([0.0, 3.0, 1.0], 2, 0.01, random.Random(0))
    [1, 2]
    """
    left = list(range(len(rewards)))
    kept: list[int] = []
    while len(kept) < number:
        highest = max(rewards[i] for i in left)
        for i in list(left):
            if rng.random() < exp((rewards[i] - highest) / beta):
                kept.append(i)
                left.remove(i)
                if len(kept) == number:
                    break
    return kept


def fault(settings: LoopConfig, hyperparameters: Mapping[str, Any]) -> str | None:
    """Why the sampler cannot keep so many answers, or None."""
    if settings.kept > settings.answers:
        return f"kept={settings.kept} answers are more than the answers={settings.answers} that are drawn"
    return None


def rso(session: Session) -> None:
    """Each round learns the best against the worst of the accepted answers, all of them drawn by the start."""
    settings = session.settings

    def examples(number: int) -> list[Encoded]:
        draws, rng = session.round_drawn(number, "start"), random.Random(f"{session.config.seed} {number}")
        return draws.only(
            [accepted(scores, settings.kept, settings.acceptance, rng) for scores in draws.scores]
        ).pairs()

    in_rounds(session, examples)
