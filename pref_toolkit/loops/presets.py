"""Every loop by name: what it does, which loss it takes, and what it reads and needs."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pref_toolkit.errors import Complaint
from pref_toolkit.loops import policy_gradient, rso
from pref_toolkit.loops.config import LoopConfig
from pref_toolkit.loops.fast_slow import fast_slow
from pref_toolkit.loops.iterative import anchored, duelled, iterative, reranked
from pref_toolkit.loops.method import ASKED, BESIDE_DATA, CHASED, IN_ROUNDS, MIXED, Loop
from pref_toolkit.loops.online import online
from pref_toolkit.loops.spin import generations, spin


def gradient(paper: str, *, answers: int = 4, greedy: bool = False, **hyperparameters: Any) -> Loop:
    """A policy gradient. It learns from the policy's own draws, so it reads neither ``temperature`` nor ``mixture``."""
    alone = ("greedy",) if hyperparameters["baseline"] == "none" else ()  # of a group, the mean is taken off again
    return Loop(
        policy_gradient.policy_gradient,
        *("policy_gradient", "start", paper),
        reads=("answers", "updates", *alone, *ASKED),
        settings={"answers": answers, "greedy": greedy},
        hyperparameters=hyperparameters,
        fault=policy_gradient.fault,
    )


LOOPS = {
    "online_dpo": Loop(online, "dpo", "start", "Guo et al. 2024, arXiv:2402.04792", reads=MIXED),
    "online_ipo": Loop(online, "ipo", "start", "Calandriello et al. 2024, arXiv:2403.08635", reads=MIXED),
    "ipo_md": Loop(
        *(online, "ipo", "start", "Calandriello et al. 2024, arXiv:2403.08635, section 4"),
        reads=MIXED,
        settings={"mixture": 0.25},
    ),
    "iterative_dpo": Loop(iterative, "dpo", "previous", "Xiong et al. 2023, arXiv:2312.11456", reads=IN_ROUNDS),
    "iterative_sppo": Loop(
        *(duelled, "sppo", "previous", "Wu et al. 2024, arXiv:2405.00675, algorithm 1"),
        reads=IN_ROUNDS,
        settings={"answers": 5},
    ),
    "iterative_click": Loop(
        *(anchored, "click", "previous", "Zheng et al. 2023, arXiv:2306.03350"),
        reads=IN_ROUNDS,
        answered=True,
        settings={"answers": 4},
    ),
    "rerank": Loop(
        *(reranked, "rrhf", "start", "Yuan et al. 2023, arXiv:2304.05302"),
        reads=(*MIXED, "rounds"),
        settings={"answers": 4},
    ),
    "rso": Loop(
        *(rso.rso, "hinge_dpo", "start", "Liu et al. 2023, arXiv:2309.06657"),
        reads=(*IN_ROUNDS, "kept", "acceptance"),
        settings={"answers": 8, "rounds": 1},
        fault=rso.fault,
    ),
    "self_play": Loop(
        *(spin, "spin", "previous", "Chen et al. 2024, arXiv:2401.01335"),
        reads=(*BESIDE_DATA, "last_lam"),
        answered=True,
        settings={"answers": 1},
    ),
    "generations": Loop(
        *(generations, "spin", "previous", "a proposal without a paper"),
        reads=BESIDE_DATA,
        answered=True,
        settings={"answers": 1},
    ),
    "ofs_dpo": Loop(fast_slow, "chase_fast", "start", "Qi et al. 2024, arXiv:2406.05534", reads=CHASED, streams=1),
    "cofs_dpo": Loop(
        *(fast_slow, "chase_fast", "start", "Qi et al. 2024, arXiv:2406.05534"), reads=(*CHASED, "memory"), streams=2
    ),
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

    Raises:
        Complaint: if one is given that the loop does not read, and it is not its default.

    >>> settings_of("ipo_md").mixture
    0.25
    >>> settings_of("ofs_dpo", memory=8)
    Traceback (most recent call last):
    pref_toolkit.errors.Complaint: ofs_dpo does not read memory, which is a setting of cofs_dpo
    """
    loop = find(name)
    settings, own = (LoopConfig(**{**loop.settings, **values}) for values in (given, {}))
    for setting, default in vars(own).items():
        if setting not in loop.reads and getattr(settings, setting) != default:
            readers = ", ".join(other for other, preset in LOOPS.items() if setting in preset.reads)
            raise Complaint(f"{name} does not read {setting}, which is a setting of {readers}")
    return settings
