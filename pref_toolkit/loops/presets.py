"""Every loop by name: what it does, which loss it takes, and what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pref_toolkit.errors import Complaint
from pref_toolkit.loops.config import LoopConfig
from pref_toolkit.loops.iterative import iterative, reranked
from pref_toolkit.loops.online import online
from pref_toolkit.loops.rso import rso
from pref_toolkit.loops.spin import spin

if TYPE_CHECKING:
    from pref_toolkit.loops.session import Session


@dataclass(frozen=True)
class Loop:
    """A method that generates.

    Args:
        run: what it does with a session.
        loss: a name in :data:`pref_toolkit.losses.METHODS`.
        reference: the view that the loss compares with.
        paper: where it is from.
        asks: whether it asks a judge; else each prompt comes with an answer.
        settings: of :class:`pref_toolkit.loops.config.LoopConfig`, where its defaults are others.
    """

    run: Callable[[Session], None]
    loss: str
    reference: str | None
    paper: str
    asks: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)


LOOPS = {
    "online_dpo": Loop(online, "dpo", "start", "Guo et al. 2024, arXiv:2402.04792"),
    "online_ipo": Loop(online, "ipo", "start", "Calandriello et al. 2024, arXiv:2403.08635"),
    "ipo_md": Loop(
        online, "ipo", "start", "Calandriello et al. 2024, arXiv:2403.08635, section 4", settings={"mixture": 0.25}
    ),
    "iterative_dpo": Loop(iterative, "dpo", "previous", "Xiong et al. 2023, arXiv:2312.11456"),
    "rerank": Loop(reranked, "rrhf", "start", "Yuan et al. 2023, arXiv:2304.05302", settings={"answers": 4}),
    "rso": Loop(rso, "hinge_dpo", "start", "Liu et al. 2023, arXiv:2309.06657", settings={"answers": 8, "rounds": 1}),
    "self_play": Loop(
        spin, "spin", "previous", "Chen et al. 2024, arXiv:2401.01335", asks=False, settings={"answers": 1}
    ),
}
"""Loops by name. Six functions and the losses of ``METHODS`` make them."""


def find(name: str) -> Loop:
    """A loop by name; a Complaint names the nearest if there is none."""
    if name not in LOOPS:
        near = get_close_matches(name, LOOPS, n=1)
        raise Complaint(
            f"no loop {name!r}: " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(LOOPS)}")
        )
    return LOOPS[name]


def settings_of(name: str, **given: Any) -> LoopConfig:
    """A loop's settings: those given, its own defaults, and the defaults of all.

    >>> settings_of("ipo_md").mixture
    0.25
    """
    return LoopConfig(**{**find(name).settings, **given})
