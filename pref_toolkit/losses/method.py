"""What is known about a method besides its loss, and the table that holds it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar, get_type_hints

from torch import Tensor

from pref_toolkit.errors import Complaint
from pref_toolkit.ranges import Range, wanted

Positive = Annotated[float, Range(0, closed=False)]
NonNegative = Annotated[float, Range(0, closed=True)]
FlipRate = Annotated[float, Range(0, closed=True, high=0.5)]
"""A share of wrong labels, below one half; 0 is none."""
ErrorRate = Annotated[float, Range(0, closed=False, high=0.5)]
"""The same where a loss is infinite at 0."""
Between0And1 = Annotated[float, Range(0, closed=False, high=1)]


@dataclass(frozen=True)
class Method:
    """One row of the table of methods. Everything but the citation is read from the loss itself.

    Example:
        >>> from pref_toolkit.losses import METHODS
        >>> METHODS["dpo"].formula, METHODS["dpo"].needs, METHODS["dpo"].check(beta=0.5)
        ('-log sigmoid(beta D)', ('policy', 'reference'), {'beta': 0.5})
    """

    loss: Callable[..., Tensor]
    paper: str
    equation: str
    chapter: str
    batchwise: bool = False
    """Whether the rows of a batch depend on one another, so that an update's examples must be scored together."""

    @property
    def name(self) -> str:
        return self.loss.__name__

    @property
    def needs(self) -> tuple[str, ...]:
        """What the loss must be given, in order: ``("policy", "reference")`` for DPO."""
        return tuple(p.name for p in self._parameters(inspect.Parameter.POSITIONAL_OR_KEYWORD) if p.default is p.empty)

    @property
    def optional(self) -> tuple[str, ...]:
        """What the loss may be given beside what it needs."""
        return tuple(
            p.name for p in self._parameters(inspect.Parameter.POSITIONAL_OR_KEYWORD) if p.default is not p.empty
        )

    @property
    def reads(self) -> str:
        """Both in words: ``"policy, target if given"``."""
        return ", ".join([*self.needs, *(f"{name} if given" for name in self.optional)])

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Names and default values of the keyword-only arguments."""
        return {p.name: p.default for p in self._parameters(inspect.Parameter.KEYWORD_ONLY)}

    @property
    def kinds(self) -> dict[str, Any]:
        """Names and types of the hyperparameters, with their range."""
        hints = get_type_hints(self.loss, include_extras=True)
        return {name: hints[name] for name in self.hyperparameters}

    def settings_beside(self, argument: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The hyperparameters that are given to the loss together with an argument: all of them."""
        return dict(settings)

    @property
    def formula(self) -> str:
        """The loss in one line: the first literal of its docstring.

        Raises:
            Complaint: if there is none. ``python -OO`` strips all docstrings.
        """
        literal = re.search(r"``(.+?)``", self.loss.__doc__ or "")
        if literal is None:
            raise Complaint(
                f"method {self.name!r} has no formula: it is the first ``literal`` of the docstring, and python -OO "
                "strips docstrings"
            )
        return literal.group(1)

    def check(self, **given: Any) -> dict[str, Any]:
        """The hyperparameters with defaults filled in.

        Raises:
            ValueError: naming an unknown hyperparameter and the nearest known one, or a value out of its range.
        """
        kinds = self.kinds
        for name, value in given.items():
            if name not in self.hyperparameters:
                near = get_close_matches(name, self.hyperparameters, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self.hyperparameters) or 'none'}"
                raise Complaint(f"method {self.name!r} has no hyperparameter {name!r}: {hint}")
            if (must := wanted(kinds[name], value)) is not None:
                raise Complaint(f"hyperparameter {name!r} of method {self.name!r} must be {must}, got {value!r}")
        return self.hyperparameters | given

    def _parameters(self, kind: Any) -> list[inspect.Parameter]:
        return [p for p in inspect.signature(self.loss).parameters.values() if p.kind is kind]


METHODS: dict[str, Method] = {}
"""Every method by name, in the order of definition."""
LOOP_LOSSES: dict[str, Method] = {}
"""Losses that rows of data do not train, by name: they read what a loop alone has."""


def find_method(name: str) -> Method:
    """A method by name; a ValueError names the nearest if there is none.

    Example:
        >>> from pref_toolkit import losses
        >>> losses.find_method("ipo").hyperparameters
        {'tau': 0.1}
        >>> losses.find_method("dpoo")
        Traceback (most recent call last):
        pref_toolkit.errors.Complaint: no method 'dpoo': did you mean 'dpo'?
    """
    if name in METHODS:
        return METHODS[name]
    near = get_close_matches(name, METHODS, n=1)
    raise Complaint(
        f"no method {name!r}: " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METHODS)}")
    )


Loss = TypeVar("Loss", bound=Callable[..., Tensor])


def method(
    *, paper: str, equation: str, chapter: str, batchwise: bool = False, of_loops: bool = False
) -> Callable[[Loss], Loss]:
    """Enter a loss in :data:`~pref_toolkit.losses.METHODS`, or in :data:`~pref_toolkit.losses.LOOP_LOSSES` if it is of loops,
    with its source and the book chapter that derives it.
    """

    def enter(loss: Loss) -> Loss:
        table = LOOP_LOSSES if of_loops else METHODS
        table[loss.__name__] = Method(loss, paper, equation, chapter, batchwise)
        return loss

    return enter
