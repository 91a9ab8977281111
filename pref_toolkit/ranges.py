"""Which values a setting may take, written in its type: ``Annotated[float, Range(0, closed=False)]``, ``Literal["a", "b"]``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """Where a number may lie: ``low < value < high``, with ``low`` itself if closed."""

    low: float
    closed: bool
    high: float = math.inf

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        # NaN fails every comparison, infinity the last one.
        return (value >= self.low if self.closed else value > self.low) and value < self.high

    def __str__(self) -> str:
        above = f"a finite number {'>=' if self.closed else '>'} {self.low:g}"
        return above if self.high == math.inf else f"{above} and < {self.high:g}"


@dataclass(frozen=True)
class AtLeast:
    """The whole numbers from ``low`` upwards."""

    low: int

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= self.low

    def __str__(self) -> str:
        return f"at least {self.low} and whole"


def wanted(kind: Any, value: Any) -> str | None:
    """What a setting of the type ``kind`` must be, or None if ``value`` is that.

    Example:
        >>> wanted(Annotated[int, AtLeast(1)] | None, 2.5)
        'at least 1 and whole'
        >>> wanted(Literal["stop", "skip"], "skip") is None
        True
    """
    if get_origin(kind) in (Union, UnionType):
        said = [wanted(member, value) for member in get_args(kind)]
        return None if None in said else said[0]
    if get_origin(kind) is Literal:
        return None if value in get_args(kind) else f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is Annotated:
        allowed = get_args(kind)[-1]
        return None if value in allowed else str(allowed)
    return None if isinstance(value, kind) else f"of type {kind.__name__}"


def fault_of(settings: Any) -> str | None:
    """Which field of a dataclass has a value out of its range, in one sentence, or None."""
    for name, kind in get_type_hints(type(settings), include_extras=True).items():
        value = getattr(settings, name)
        if (must := wanted(kind, value)) is not None:
            return f"{name} must be {must}, got {value!r}"
    return None
