"""Every loop by name: what it does, which loss it takes, and what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pref_toolkit.errors import Complaint
from pref_toolkit.loops import policy_gradient
from pref_toolkit.loops.config import LoopConfig
from pref_toolkit.loops.fast_slow import fast_slow
from pref_toolkit.loops.iterative import anchored, duelled, iterative, reranked
from pref_toolkit.loops.online import online
from pref_toolkit.loops.rso import rso
from pref_toolkit.loops.spin import generations, spin

if TYPE_CHECKING:
    from pref_toolkit.loops.session import Session


@dataclass(frozen=True)
class Loop:
    """A method that generates.

    Args:
        run: what it does with a session.
        loss: a name in :data:`pref_toolkit.losses.METHODS` or :data:`pref_toolkit.losses.LOOP_LOSSES`.
        reference: the view that the loss compares with.
        paper: where it is from.
        asks: whether it asks a judge.
        streams: how many streams of preferences it learns from, at least; 0: it draws answers to prompts.
        answered: whether each prompt comes with an answer of the data.
        settings: of :class:`pref_toolkit.loops.config.LoopConfig`, where its defaults are others.
        hyperparameters: of the loss, where its defaults are others.
        fault: why settings and hyperparameters do not fit the loop, or None.
    """

    run: Callable[[Session], None]
    loss: str
    reference: str | None
    paper: str
    asks: bool = True
    answered: bool = False
    streams: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    fault: Callable[[LoopConfig, Mapping[str, Any]], str | None] = policy_gradient.fault_elsewhere

    @property
    def needs(self) -> str:
        """What it must be given, in words."""
        read = ("prompts", "preferences in order", "preferences in order of each domain")[self.streams]
        also = (("a judge", self.asks), ("answers beside the prompts", self.answered))
        return ", ".join([read, *(word for word, on in also if on)])


def gradient(paper: str, *, answers: int = 4, greedy: bool = False, **hyperparameters: Any) -> Loop:
    """A policy gradient."""
    return Loop(
        policy_gradient.policy_gradient,
        *("policy_gradient", "start", paper),
        settings={"answers": answers, "greedy": greedy},
        hyperparameters=hyperparameters,
        fault=policy_gradient.fault,
    )


BESIDE_DATA: dict[str, Any] = {"asks": False, "answered": True, "settings": {"answers": 1}}

LOOPS = {
    "online_dpo": Loop(online, "dpo", "start", "Guo et al. 2024, arXiv:2402.04792"),
    "online_ipo": Loop(online, "ipo", "start", "Calandriello et al. 2024, arXiv:2403.08635"),
    "ipo_md": Loop(
        online, "ipo", "start", "Calandriello et al. 2024, arXiv:2403.08635, section 4", settings={"mixture": 0.25}
    ),
    "iterative_dpo": Loop(iterative, "dpo", "previous", "Xiong et al. 2023, arXiv:2312.11456"),
    "iterative_sppo": Loop(
        duelled, "sppo", "previous", "Wu et al. 2024, arXiv:2405.00675, algorithm 1", settings={"answers": 5}
    ),
    "iterative_click": Loop(
        anchored, "click", "previous", "Zheng et al. 2023, arXiv:2306.03350", answered=True, settings={"answers": 4}
    ),
    "rerank": Loop(reranked, "rrhf", "start", "Yuan et al. 2023, arXiv:2304.05302", settings={"answers": 4}),
    "rso": Loop(rso, "hinge_dpo", "start", "Liu et al. 2023, arXiv:2309.06657", settings={"answers": 8, "rounds": 1}),
    "self_play": Loop(spin, "spin", "previous", "Chen et al. 2024, arXiv:2401.01335", **BESIDE_DATA),
    "generations": Loop(generations, "spin", "previous", "a proposal without a paper", **BESIDE_DATA),
    "ofs_dpo": Loop(fast_slow, "chase_fast", "start", "Qi et al. 2024, arXiv:2406.05534", asks=False, streams=1),
    "cofs_dpo": Loop(fast_slow, "chase_fast", "start", "Qi et al. 2024, arXiv:2406.05534", asks=False, streams=2),
    "reinforce": gradient("Williams 1992", baseline="none"),
    "remax": gradient("Li et al. 2023, arXiv:2310.10505", answers=1, greedy=True, baseline="none"),
    "rloo": gradient("Ahmadian et al. 2024, arXiv:2402.14740", baseline="others"),
    "grpo": gradient(
        "Shao et al. 2024, arXiv:2402.03300", baseline="group", divide="deviation", per="token", kl="k3", kl_in="loss"
    ),
}
"""Loops by name. A few functions and the losses make them."""


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
