"""What a method that generates is: a function, a loss, a reference, and the settings that it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pref_toolkit.loops.config import LoopConfig
    from pref_toolkit.loops.session import Session

ASKED = ("judge", "judge_limit")
DRAWN = ("answers", "temperature", *ASKED)
MIXED = (*DRAWN, "mixture")
"""Of loops whose answers come from another view than the reference: one view alone makes no mixture."""
IN_ROUNDS = (*DRAWN, "rounds")
BESIDE_DATA = ("temperature", "rounds")
CHASED = ("slow_rate", "exchange_every")


@dataclass(frozen=True)
class Loop:
    """A method that generates.

    Args:
        run: what it does with a session.
        loss: a name in :data:`pref_toolkit.losses.METHODS` or :data:`pref_toolkit.losses.LOOP_LOSSES`.
        reference: the view that the loss compares with.
        paper: where it is from.
        reads: fields of :class:`pref_toolkit.loops.config.LoopConfig` that change what it does; the others are refused.
        streams: how many streams of preferences it learns from, at least; 0: it draws answers to prompts.
        answered: whether each prompt comes with an answer of the data.
        settings: of :class:`pref_toolkit.loops.config.LoopConfig`, where its defaults are others.
        hyperparameters: of the loss, where its defaults are others.
        fault: why settings and hyperparameters do not fit together, or None.
    """

    run: Callable[[Session], None]
    loss: str
    reference: str | None
    paper: str
    reads: tuple[str, ...]
    answered: bool = False
    streams: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    fault: Callable[[LoopConfig, Mapping[str, Any]], str | None] = lambda settings, own: None

    @property
    def asks(self) -> bool:
        """Whether it asks a judge."""
        return "judge" in self.reads

    @property
    def needs(self) -> str:
        """What it must be given, in words."""
        read = ("prompts", "preferences in order", "preferences in order of each domain")[self.streams]
        also = (("a judge", self.asks), ("answers beside the prompts", self.answered))
        return ", ".join([read, *(word for word, on in also if on)])
