"""SymPy objects as LaTeX, with their terms in the usual order."""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy.printing.latex import LatexPrinter

from pref_toolkit.theory.derivations.symbols import LATEX_NAMES


class _Printer(LatexPrinter):
    def _as_ordered_terms(self, expr: sp.Expr, order: Any = None) -> list[sp.Expr]:
        return sorted(super()._as_ordered_terms(expr, order), key=lambda term: term.could_extract_minus_sign())

    def _print_log(self, expr: sp.Expr, exp: Any = None) -> str:
        (t,) = expr.args
        power = "" if exp is None else f"^{{{exp}}}"
        if t.is_Symbol or t.is_Function or t.is_Integer:
            return rf"\log{power} {self._print(t)}"
        return rf"\log{power}\left({self._print(t)}\right)"


def latex(statement: sp.Basic) -> str:
    """The statement as LaTeX, with positive terms first and without needless brackets in logarithms."""
    return _Printer({"symbol_names": LATEX_NAMES}).doprint(statement)
