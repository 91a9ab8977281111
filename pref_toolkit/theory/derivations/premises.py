"""What a derivation may use: each name defined once, before it is used and not by itself, and assumptions that can hold."""

from __future__ import annotations

import sympy as sp
from sympy.core.function import AppliedUndef

from pref_toolkit.theory.derivations.proof import Refused, fresh, normal, substitute

SIGNS = ("positive", "negative", "nonnegative", "nonpositive", "nonzero", "integer")
"""What a name may promise about its value. Every value is real, or else it is not defined there."""


def _names(expr: sp.Basic) -> set[sp.Basic]:
    """The symbols and the functions without a definition of their own that an expression reads."""
    return set(expr.free_symbols) | {applied.func for applied in expr.atoms(AppliedUndef)}


class Premises:
    """The definitions and assumptions of a derivation, taken in one after another.

    ``rules`` holds the value of each defined name, in names that are not defined; ``assumed`` the right side of each
    assumption by the normal form of its left side.
    """

    def __init__(self) -> None:
        self.rules: dict[sp.Expr, sp.Expr] = {}
        self.assumed: dict[sp.Expr, sp.Expr] = {}
        self._defined: set[sp.Basic] = set()
        self._formal: set[sp.Basic] = set()
        self._read: set[sp.Basic] = set()

    def read(self, statement: sp.Basic) -> None:
        """A statement that reads names: from here on they have the meaning that they have by now."""
        self._read |= _names(statement)

    def define(self, name: sp.Expr, value: sp.Expr) -> None:
        """Let ``name`` stand for ``value``.

        Raises:
            Refused: if the name has a meaning already, or the value is not known to keep what the name promises.
        """
        applied = isinstance(name, AppliedUndef)
        formal = set(name.args)
        if not (isinstance(name, sp.Symbol) or (applied and all(isinstance(x, sp.Symbol) for x in name.args))):
            raise Refused(f"{name} is not a symbol or a function of symbols")
        if applied and len(formal) < len(name.args):
            raise Refused(f"{name} names one argument twice")
        head = name.func if applied else name
        if head in self._defined:
            raise Refused(f"{name} is defined a second time")
        if head in _names(value):
            raise Refused(f"{name} is defined by itself")
        if head in self._read:
            raise Refused(f"{name} is used before it is defined")
        if both := (formal & self._defined) or ({head} & self._formal):
            raise Refused(f"{both.pop()} is a defined name and the argument of a function")
        for promise in SIGNS:
            if getattr(name, f"is_{promise}") and not self._keeps(value, promise):
                raise Refused(f"{name} is said to be {promise}, which SymPy cannot see of its value")
        if value.is_real is False:
            raise Refused(f"the value of {name} is not real")
        self._read |= _names(value) - formal
        self._defined.add(head)
        self._formal |= formal
        self.rules[name] = substitute(value, self.rules)

    def assume(self, left: sp.Expr, right: sp.Expr) -> None:
        """Take an equality for granted.

        Raises:
            Refused: if it is seen to hold nowhere, by itself or beside the assumptions before it.
        """
        self.read(left)
        self.read(right)
        left, right = (normal(substitute(side, self.rules)) for side in (left, right))
        beside = normal((left - right).xreplace(dict(self.assumed)))
        if (left - right).is_nonzero or beside.is_nonzero:
            raise Refused(f"{sp.Eq(left, right, evaluate=False)} cannot hold")
        self.assumed[left] = normal(right.xreplace(dict(self.assumed)))

    def _keeps(self, value: sp.Expr, promise: str) -> bool:
        # Names in the value keep their own promises, so the value may be read before its names are put in or after.
        written, unfolded = fresh(value), substitute(value, self.rules)
        return any(getattr(v, f"is_{promise}") for v in (written, unfolded, sp.factor(unfolded)))
