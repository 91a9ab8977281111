"""A derivation is data: steps of (statement, why, check). The printed object is the proved object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import sympy as sp

from pref_toolkit.theory.derivations import printing
from pref_toolkit.theory.derivations.proof import Rules, normal, refute, substitute
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
    """

    statement: Any
    why: str
    check: Check

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


_SHOWN = {
    "definition": "Definition.",
    "assumption": "Assumption.",
    "proved": "Proved.",
    "argument": "Argued in words, not checked by SymPy.",
}


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
        rules: dict[sp.Expr, sp.Expr] = {}
        assumed: dict[sp.Expr, sp.Expr] = {}
        for number, step in enumerate(self.steps, start=1):
            if step.check == "definition":
                rules[step.statement.lhs] = substitute(step.statement.rhs, rules)
            elif step.check == "assumption":
                assumed[normal(step.statement.lhs)] = step.statement.rhs
            elif step.check == "proved" and (why := refute(step.statement, rules, assumed)):
                raise DerivationError(f"{self.name}, step {number} ({step.why}): {sp.sstr(step.statement)}: {why}")

    @property
    def definitions(self) -> Rules:
        """The value of every defined name, in terms of names that are not defined."""
        rules: dict[sp.Expr, sp.Expr] = {}
        for step in self.steps:
            if step.check == "definition":
                rules[step.statement.lhs] = substitute(step.statement.rhs, rules)
        return rules

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
        lines = [f"**{self.title}**", ""]
        lines += [f"- {text}" for text in self.assumptions]
        lines += [f"- `{name}`: ${choice.latex()}$. {choice.why}" for name, choice in self.choices.items()]
        for number, step in enumerate(self.steps, start=1):
            tag = f"{self.name.replace('_', ' ')} {number}"
            # Not $$: Sphinx puts a formula of several lines into a split, where a tag is an error.
            equation = [r"\begin{equation*}", rf"{step.latex()} \tag{{{tag}}}", r"\end{equation*}"]
            lines += ["", f"*{_SHOWN[step.check]}* {step.why}", "", *equation]
        return "\n".join(lines)
