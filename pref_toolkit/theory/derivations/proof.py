"""Proofs that an equality is an identity.

A proof substitutes the definitions and reduces left minus right to a normal form, which must be 0. Every rewriting holds
wherever the expression is defined, so a false statement never passes. A true statement fails if the normal form cannot
show it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef

from pref_toolkit.theory.derivations.symbols import indicator, relu, sigma

Rules = Mapping[sp.Expr, sp.Expr]


def substitute(expr: sp.Basic, rules: Rules) -> sp.Basic:
    """``expr`` with every defined name replaced by its definition.

    A rule for ``f(x, y)`` with symbols as arguments defines the function: it also replaces ``f(a, b)``.
    """
    for name, value in rules.items():
        if isinstance(name, AppliedUndef):
            expr = expr.replace(name.func, sp.Lambda(name.args, value))
    return expr.xreplace({name: value for name, value in rules.items() if not isinstance(name, AppliedUndef)})


_INDEX = sp.Symbol("_index", integer=True)


def _pull_out(function: sp.Expr, limits: Sequence[sp.Tuple]) -> sp.Expr:
    """A sum as a combination of sums. No term of these has a factor or a summand that is free of the index.

    Raises:
        NotImplementedError: for a sum over two indices that is not a product of sums over one index.
    """
    (index, low, high), *outer = limits  # SymPy writes a sum of sums as one, the innermost index first
    own = sp.Dummy(integer=True)  # different from the index of any inner sum
    result = sp.Integer(0)
    for term in sp.Add.make_args(sp.expand(normal(function.xreplace({index: own})))):
        outside, inside = term.as_independent(own, as_Add=False)
        if inside.has(sp.Sum):
            raise NotImplementedError(f"a sum over {index} and another index does not factor")
        total = sp.Sum(inside.xreplace({own: _INDEX}), (_INDEX, low, high)) if inside != 1 else high - low + 1
        result += outside * total
    return _pull_out(result, outer) if outer else result


def _as_exponential(base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
    """``base**exponent``, as an exponential if the exponent is not a number, so that all powers have one form."""
    if exponent.is_number or not base.is_positive:
        return base**exponent
    return sp.exp(sp.expand(exponent * sp.expand_log(sp.log(base))))


def _sign(t: sp.Expr) -> int:
    """The sign of ``t``, 1 or -1, if the assumptions on its symbols decide it; else 0."""
    # SymPy does not know that exp(x) < 1 for x < 0. A number between 0 and 1 is 1 / (1 + u) with u > 0.
    small = {e: 1 / (1 + sp.Dummy(positive=True)) for e in t.atoms(sp.exp) if e.args[0].is_negative}
    t = sp.factor(t.xreplace(small))
    return 1 if t.is_positive else -1 if t.is_negative else 0


def _log_of_factors(t: sp.Expr) -> sp.Expr:
    """``log t`` as a sum over the factors of ``t``. Because ``t > 0``, one factor of unknown sign is allowed."""
    result = sp.Integer(0)
    sign = 1
    unknown = []
    for factor in sp.Mul.make_args(sp.factor(sp.expand(t))):
        base, exponent = factor.as_base_exp()
        known = _sign(base)
        if base == sp.E:
            result += exponent
        elif known > 0 or exponent.is_even or (known < 0 and exponent.is_odd):
            sign *= -1 if exponent.is_odd and known < 0 else 1
            size = sp.expand(known * base) if known else sp.Abs(base)
            result += exponent * sp.expand_log(sp.log(size), factor=size.is_Number)
        else:
            unknown.append(factor)
    base, exponent = sp.Mul(*unknown).as_base_exp()
    if len(unknown) == 1 and exponent.is_odd:  # because t > 0, this factor has the sign of the product of the others
        return result + exponent * sp.log(sp.expand(sign * base))
    return result + sp.log(sign * sp.Mul(*unknown))


def normal(expr: sp.Expr) -> sp.Expr:
    """The normal form: logarithms of products as sums, sums over an index split into terms, common factors cancelled."""
    expr = sp.expand(expr.replace(sp.Pow, _as_exponential), log=False)
    expr = expr.replace(lambda e: isinstance(e, sp.Sum), lambda e: _pull_out(e.function, e.limits))
    expr = expr.replace(sp.log, _log_of_factors)
    expr = expr.replace(sp.Abs, lambda t: sp.Abs(sp.factor(t)))
    return sp.cancel(sp.together(sp.expand(expr)))


def opened(expr: sp.Expr) -> sp.Expr:
    """``expr`` with derivatives evaluated, points substituted, sigma and relu written out. Sums stay: evaluation is slow."""
    expr = expr.replace(lambda e: isinstance(e, sp.Derivative | sp.Subs), lambda e: e.doit())
    return expr.replace(lambda e: isinstance(e, sigma | relu | indicator), lambda e: e.doit())


def _real(side: Callable[..., Any], point: Sequence[float]) -> float | None:
    """The value of ``side`` at ``point``, or None outside the domain of a logarithm or a power."""
    try:
        value = side(*point)
    except (ValueError, TypeError):  # math functions raise a TypeError for a complex number
        return None
    return None if isinstance(value, complex) else value


def counterexample(left: sp.Expr, right: sp.Expr, points: int = 8) -> str | None:
    """A random point at which two expressions differ, in words; None if no such point is found."""
    if left.has(sp.Sum, AppliedUndef) or right.has(sp.Sum, AppliedUndef):
        return None
    draw = random.Random(0)
    names = sorted(left.free_symbols | right.free_symbols, key=str)
    sides = [sp.lambdify(names, side, "math") for side in (left, right)]
    for _ in range(points):
        point = [draw.uniform(0.2, 0.95) * (-1 if n.is_negative else 1) for n in names]
        point = [draw.choice([v, -v]) if n.is_nonnegative is None else v for n, v in zip(names, point)]
        where = ", ".join(f"{n} = {v:.3g}" for n, v in zip(names, point))
        try:
            a, b = (_real(side, point) for side in sides)
        except ArithmeticError:
            continue  # division by 0, or a value beyond the range of a float
        if a is None and b is None:
            continue
        if a is None or b is None:
            return f"at {where} only the {'right' if a is None else 'left'} side is a real number"
        if abs(a - b) > 1e-9 * (1 + abs(a) + abs(b)):
            return f"at {where} the left side is {a:.6g} and the right side {b:.6g}"
    return None


def refute(statement: sp.Basic, rules: Rules, assumed: Rules) -> str | None:
    """The reason why ``statement`` is not proved; None if it is proved.

    Args:
        statement: an equality or an inequality.
        rules: definitions: a symbol or an applied function, and its value.
        assumed: assumed equalities, such as probabilities that sum to one. Each left side, in normal form, is replaced by
            its right side.
    """
    left, right = (substitute(side, rules) for side in (statement.lhs, statement.rhs))
    if not isinstance(statement, sp.Equality):
        gap = sp.factor(left - right)
        sign = {sp.Gt: gap.is_positive, sp.Ge: gap.is_nonnegative}[statement.func]
        return None if sign else "SymPy cannot see the sign of left minus right"
    left, right = opened(left), opened(right)
    if not assumed and (why := counterexample(left, right)):  # a random point need not satisfy an assumption
        return why
    try:
        gap = normal(left - right).xreplace(dict(assumed))
        if normal(gap) == 0:
            return None
    except NotImplementedError as beyond:
        return str(beyond)
    return f"left minus right does not reduce to 0 but to {sp.sstr(gap)[:200]}"
