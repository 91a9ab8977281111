"""What a graded exercise is: cases, each with arguments and the value that a right answer gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

NO_VALUE = object()


@dataclass(frozen=True)
class Case:
    """One call of a reader's function.

    Give ``wanted``, or ``fault`` where many values are right.

    Args:
        about: what this case tries, in a few words, such as ``"a response that is never drawn"``.
        arguments: what the function is called with.
        wanted: the value of a right answer: a number, a tensor or array, a tuple of them, a string or a bool.
        fault: function of the returned value: one sentence that says what is wrong with it, or ``""``.
        rtol: largest relative difference from ``wanted``.
        atol: largest absolute difference from ``wanted``.
    """

    about: str
    arguments: tuple[Any, ...]
    wanted: Any = NO_VALUE
    fault: Callable[[Any], str] | None = None
    rtol: float = 1e-6
    atol: float = 1e-9

    def __post_init__(self) -> None:
        if (self.wanted is NO_VALUE) == (self.fault is None):
            raise ValueError(f"case {self.about!r} wants one of `wanted` and `fault`")


EXERCISES: dict[str, Callable[[], Iterator[Case]]] = {}
"""Label of each graded exercise that was imported, and the function that yields its cases."""


def exercise(label: str) -> Callable[[Callable[[], Iterator[Case]]], Callable[[], Iterator[Case]]]:
    """Enter a generator of cases under the label that the exercise has in its chapter, such as ``"ipo-ex-6"``."""

    def enter(cases: Callable[[], Iterator[Case]]) -> Callable[[], Iterator[Case]]:
        if label in EXERCISES:
            raise ValueError(f"two exercises are called {label}")
        EXERCISES[label] = cases
        return cases

    return enter
