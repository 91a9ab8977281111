"""A derivation is data: steps of (statement, why, check). The printed object is the proved object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from itertools import takewhile
from typing import Any, Literal, get_args

import sympy as sp

from pref_toolkit.theory.derivations import printing
from pref_toolkit.theory.derivations.premises import Premises
from pref_toolkit.theory.derivations.proof import Refused, Rules, differentiated, refute, substitute
from pref_toolkit.theory.derivations.symbols import L

Check = Literal["definition", "assumption", "proved", "argument"]


class DerivationError(Exception):
    """A step of a derivation is not proved."""


@dataclass(frozen=True)
class Step:
    """One line of a derivation.

    Args:
        statement: a SymPy equality or inequality. An argument may also be LaTeX, because nothing checks it.
        why: the reason, in words.
        check: ``proved`` by SymPy from the lines above; a ``definition`` of its left side; an ``assumption``, an equality
            that the proofs below may use; or an ``argument`` of analysis or prose, which SymPy does not check.

    Raises:
        ValueError: if the check is none of these four, or the statement is not of a form that it can have.
    """

    statement: Any
    why: str
    check: Check

    def __post_init__(self) -> None:
        if self.check not in get_args(Check):
            raise ValueError(
                f"the check of a step is one of {', '.join(get_args(Check))}, got {self.check!r} ({self.why})"
            )
        forms = {"proved": (sp.Equality, sp.StrictGreaterThan, sp.GreaterThan), "argument": (str, sp.Basic)}
        if not isinstance(self.statement, forms.get(self.check, sp.Equality)):
            kinds = "an equality, > or >=" if self.check == "proved" else "LaTeX or a SymPy object"
            want = "an equality" if self.check not in forms else kinds
            raise ValueError(
                f"the statement of a step that is {self.check} is {want}, got {self.statement!r} ({self.why})"
            )

    def latex(self) -> str:
        """The statement as LaTeX, printed from the proved object."""
        if isinstance(self.statement, str):
            return self.statement
        return printing.latex(self.statement)


def define(name: sp.Expr, value: sp.Expr, why: str) -> Step:
    """A definition: ``name`` stands for ``value`` in all later steps."""
    return Step(sp.Eq(name, value, evaluate=False), why, "definition")


def assume(left: sp.Expr, right: sp.Expr, why: str) -> Step:
    """An equality that later proofs may use and that is not proved."""
    return Step(sp.Eq(left, right, evaluate=False), why, "assumption")


def equal(left: sp.Expr, right: sp.Expr, why: str) -> Step:
    """An identity, to be proved."""
    return Step(sp.Eq(left, right, evaluate=False), why, "proved")


def positive(left: sp.Expr, why: str) -> Step:
    """``left > 0``, to be proved."""
    return Step(sp.Gt(left, 0, evaluate=False), why, "proved")


def nonnegative(left: sp.Expr, why: str) -> Step:
    """``left >= 0``, to be proved."""
    return Step(sp.Ge(left, 0, evaluate=False), why, "proved")


def argue(latex: str, why: str) -> Step:
    """A step of analysis or prose. It is printed as an argument, and nothing checks it."""
    return Step(latex, why, "argument")


@dataclass(frozen=True)
class Counts:
    """How much of a derivation is proved.

    Args:
        proved: steps that SymPy proves.
        beyond: of these, the steps that say more than the definitions: with the definitions put in, differentiated and
            multiplied out, the two sides still differ; it takes algebra of sums, fractions, logarithms or exponentials to
            make them one. All inequalities are among them.
        argued: steps of analysis or prose, which nothing checks.
        assumed: steps that are taken for granted.
    """

    proved: int = 0
    beyond: int = 0
    argued: int = 0
    assumed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other))))

    def __str__(self) -> str:
        steps = "step" if self.proved == 1 else "steps"
        return (
            f"{self.proved} {steps} proved, {self.beyond} of them beyond the definitions; {self.argued} argued in words; "
            f"{self.assumed} assumed"
        )


_MARK = {"definition": "", "assumption": "assumed", "proved": "✓", "argument": "argued"}


@dataclass(frozen=True)
class Derivation:
    """A named sequence of steps, from the origin of a method to its formula and the gradient of the formula.

    Args:
        name: the method's name in ``METHODS``, or the name of a result.
        title: the result, in words.
        steps: the lines, in order.
        assumptions: assumptions in words, in addition to the steps that are assumptions.
        choices: definitions of a function that the steps leave open, by the name that the loss gives to each choice.
    """

    name: str
    title: str
    steps: tuple[Step, ...]
    assumptions: tuple[str, ...] = ()
    choices: Mapping[str, Step] = field(default_factory=dict)

    def choose(self, name: str) -> Derivation:
        """This derivation with its open function defined by the choice ``name``."""
        return replace(self, steps=(self.choices[name], *self.steps), choices={})

    def verify(self) -> None:
        """Prove every step with the check ``proved``.

        Raises:
            DerivationError: for the first step that is not proved, with the reason.
        """
        premises = Premises()
        for number, step in enumerate(self.steps, start=1):
            try:
                why = self._admit(step, premises)
            except Refused as refused:
                why = str(refused)
            if why:
                raise DerivationError(f"{self.name}, step {number} ({step.why}): {sp.sstr(step.statement)}: {why}")

    @staticmethod
    def _admit(step: Step, premises: Premises) -> str | None:
        """The reason why a step does not stand after the ones before it; None if it does."""
        if step.check == "definition":
            premises.define(step.statement.lhs, step.statement.rhs)
        elif step.check == "assumption":
            premises.assume(step.statement.lhs, step.statement.rhs)
        elif step.check == "proved":
            premises.read(step.statement)
            return refute(step.statement, premises.rules, premises.assumed)
        return None

    @property
    def definitions(self) -> Rules:
        """The value of every defined name, in terms of names that are not defined."""
        premises = Premises()
        for step in self.steps:
            if step.check == "definition":
                premises.define(step.statement.lhs, step.statement.rhs)
        return premises.rules

    def counts(self) -> Counts:
        """How many steps are proved, argued and assumed.

        Example:
            >>> from pref_toolkit.theory.derivations import ALL
            >>> print(ALL["bradley_terry"].counts())
            11 steps proved, 10 of them beyond the definitions; 1 argued in words; 0 assumed
        """
        rules = self.definitions
        proved = [step.statement for step in self.steps if step.check == "proved"]
        return Counts(
            proved=len(proved),
            beyond=sum(not isinstance(s, sp.Equality) or not _is_definition(s, rules) for s in proved),
            argued=sum(step.check == "argument" for step in self.steps),
            assumed=sum(step.check == "assumption" for step in self.steps),
        )

    def _last(self, wanted: sp.Expr) -> sp.Expr | None:
        found = [s.statement.rhs for s in self.steps if s.check == "proved" and s.statement.lhs == wanted]
        return substitute(found[-1], self.definitions) if found else None

    @property
    def _loss_name(self) -> sp.Expr | None:
        return next((name for name in self.definitions if name.func == L), None)

    @property
    def loss(self) -> sp.Expr | None:
        """The proved formula in named symbols: the right side of the last step about the loss. None without a loss."""
        return None if self._loss_name is None else self._last(self._loss_name)

    @property
    def loss_arguments(self) -> tuple[sp.Symbol, ...]:
        """The variables of the loss: ``(l_w, l_l)`` for a pair; none without a loss."""
        return () if self._loss_name is None else self._loss_name.args

    @property
    def gradient(self) -> tuple[sp.Expr, ...]:
        """The proved derivative of the loss by each of its arguments, ``(dL/dl_w, dL/dl_l)`` for a pair."""
        return tuple(self._last(sp.Derivative(self._loss_name, x)) for x in self.loss_arguments)

    def _repr_markdown_(self) -> str:
        """The definitions it opens with as a list, then a formula for each step, its number and its mark at the right."""
        lines = [f"**{self.title}**", ""]
        lines += [f"- {text}" for text in self.assumptions]
        lines += [f"- `{name}`: ${choice.latex()}$. {choice.why}" for name, choice in self.choices.items()]
        opening = list(takewhile(lambda step: step.check == "definition", self.steps))
        lines += [f"- ({number}) ${step.latex()}$. {step.why}" for number, step in enumerate(opening, start=1)]
        for number, step in enumerate(self.steps[len(opening) :], start=len(opening) + 1):
            tag = f"{number} {_MARK[step.check]}".strip()
            # Not $$: Sphinx puts a formula of several lines into a split, where a tag is an error.
            equation = [r"\begin{equation*}", rf"{step.latex()} \tag{{{tag}}}", r"\end{equation*}"]
            lines += ["", step.why, "", *equation]
        return "\n".join([*lines, "", f"*✓ marks a step that SymPy proves. {self.counts()}.*"])


def _is_definition(statement: sp.Equality, rules: Rules) -> bool:
    """Whether the two sides are one expression as soon as the definitions are put in, differentiated and multiplied out."""
    return sp.expand(differentiated(substitute(statement.lhs - statement.rhs, rules)), log=False) == 0
