"""Methods in rounds that ask a judge: iterative DPO, SPPO, Click, and RRHF on answers that are drawn and ranked anew.

Sources: Xiong et al. 2023, arXiv:2312.11456 (iterative DPO); Wu et al. 2024, arXiv:2405.00675, algorithm 1 (SPPO); Zheng et al.
2023, arXiv:2306.03350 (Click; which good answer its authors pair with which bad one, nobody here could read); Yuan et al. 2023,
arXiv:2304.05302 (RRHF, whose paper draws once).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pref_toolkit.loops.rounds import in_rounds

if TYPE_CHECKING:
    from pref_toolkit.loops.session import Session


def iterative(session: Session) -> None:
    """Each round learns the best of its answers against the worst."""
    in_rounds(session, lambda number: session.round_drawn(number, "previous").pairs())


def duelled(session: Session) -> None:
    """Each round learns how often its best and its worst answer beat the prompt's others."""
    in_rounds(session, lambda number: session.round_drawn(number, "previous").duels())


def anchored(session: Session) -> None:
    """Each round learns the best of its answers against the worst, and the data's own answer besides."""
    in_rounds(session, lambda number: session.round_drawn(number, "previous").anchored())


def reranked(session: Session) -> None:
    """Each round learns the ranking of all its answers."""
    in_rounds(session, lambda number: session.round_drawn(number, "previous").ranked())
