"""What is known about a method besides its loss, and the table that holds it."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from torch import Tensor


@dataclass(frozen=True)
class Range:
    """Where a hyperparameter may lie: ``low < value`` (or ``low <= value`` if closed)."""

    low: float
    closed: bool

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and (value >= self.low if self.closed else value > self.low)

    def __str__(self) -> str:
        return f"a finite number {'>=' if self.closed else '>'} {self.low:g}"


Positive = Annotated[float, Range(0, closed=False)]
NonNegative = Annotated[float, Range(0, closed=True)]


@dataclass(frozen=True)
class Method:
    """One row of the table of methods. Everything but the citation is read from the loss itself."""

    loss: Callable[..., Tensor]
    paper: str
    equation: str
    chapter: str

    @property
    def name(self) -> str:
        return self.loss.__name__

    @property
    def needs(self) -> tuple[str, ...]:
        """What the loss must be given, in order: ``("policy", "reference")`` for DPO."""
        return tuple(p.name for p in self._parameters(inspect.Parameter.POSITIONAL_OR_KEYWORD) if p.default is p.empty)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Names and default values of the keyword-only arguments."""
        return {p.name: p.default for p in self._parameters(inspect.Parameter.KEYWORD_ONLY)}

    @property
    def formula(self) -> str:
        """The loss in one line: the first literal of its docstring."""
        return re.search(r"``(.+?)``", self.loss.__doc__ or "").group(1)  # type: ignore[union-attr]

    def check(self, **given: Any) -> dict[str, Any]:
        """The hyperparameters with defaults filled in.

        Raises:
            ValueError: naming an unknown hyperparameter and the nearest known one, or a value out of its range.
        """
        hints = get_type_hints(self.loss, include_extras=True)
        for name, value in given.items():
            if name not in self.hyperparameters:
                near = get_close_matches(name, self.hyperparameters, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self.hyperparameters) or 'none'}"
                raise ValueError(f"method {self.name!r} has no hyperparameter {name!r}: {hint}")
            allowed = get_args(hints[name])[-1]
            if isinstance(value, bool) or not isinstance(value, int | float) or value not in allowed:
                raise ValueError(f"hyperparameter {name!r} of method {self.name!r} must be {allowed}, got {value!r}")
        return self.hyperparameters | given

    def _parameters(self, kind: Any) -> list[inspect.Parameter]:
        return [p for p in inspect.signature(self.loss).parameters.values() if p.kind is kind]


METHODS: dict[str, Method] = {}
"""Every method by name, in the order of definition."""


Loss = TypeVar("Loss", bound=Callable[..., Tensor])


def method(*, paper: str, equation: str, chapter: str) -> Callable[[Loss], Loss]:
    """Enter a loss in :data:`METHODS`, with its source and the book chapter that derives it."""

    def enter(loss: Loss) -> Loss:
        METHODS[loss.__name__] = Method(loss, paper, equation, chapter)
        return loss

    return enter
