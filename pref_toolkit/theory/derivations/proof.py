"""Proofs that an equality is an identity.

A proof substitutes the definitions and reduces left minus right to a normal form, which must be 0. A true statement fails
if the normal form cannot show it. What a proof says, and what it does not:

- The two sides are equal wherever both are real numbers and every denominator is other than 0: SymPy reads ``x / x`` as 1.
  A statement about a logarithm of something negative, or for which no point of this kind is found, is refused.
- A symbol without a definition is a constant. So a number that enters a loss without gradient is a symbol of its own.
- Nothing is proved at a kink, where ``relu`` has no slope, and nothing about a slope of ``Abs``, ``Min`` or ``Max``.
- A sum runs over at least one index. SymPy reads an empty or a reversed one in Karr's convention, which is not the book's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef

from pref_toolkit.theory.derivations.symbols import indicator, relu, sigma

Rules = Mapping[sp.Expr, sp.Expr]

KNOWN = (
    sp.Symbol, sp.Rational, sp.NumberSymbol, sp.Add, sp.Mul, sp.Pow, sp.exp, sp.log, sp.Abs, sp.Min, sp.Max, sp.Sum,
    sp.Derivative, sp.Subs, sp.Tuple, AppliedUndef, sigma, relu, indicator,
)  # fmt: skip
"""What a statement may be made of. Of anything else the prover does not know where it is defined."""


class Refused(Exception):
    """A statement about which nothing can be proved."""


@cache
def fresh(expr: sp.Basic) -> sp.Basic:
    """``expr`` with an index of its own in every sum, so that nothing that is put into it later can be captured.

    The same expression has the same indices each time.
    """

    def renamed(sum_: sp.Sum) -> sp.Sum:
        own: dict[sp.Symbol, sp.Symbol] = {}
        limits: list[tuple[sp.Expr, ...]] = []
        for index, low, high in reversed(sum_.limits):  # the outermost first: the bounds of an inner sum may read it
            bounds = low.xreplace(own), high.xreplace(own)
            own[index] = sp.Dummy(index.name, **index.assumptions0)
            limits.insert(0, (own[index], *bounds))
        return sp.Sum(sum_.function.xreplace(own), *limits)

    for sum_ in expr.atoms(sp.Sum):
        _check_limits(sum_)
    return expr.replace(lambda e: isinstance(e, sp.Sum), renamed)


def _check_limits(sum_: sp.Sum) -> None:
    for index, low, high in sum_.limits:
        if not (index.is_integer and low.is_integer and (high - low).is_nonnegative):
            raise Refused(f"the sum over {index} from {low} to {high} may be empty or reversed")


def substitute(expr: sp.Basic, rules: Rules) -> sp.Basic:
    """``expr`` with every defined name replaced by its definition.

    A rule for ``f(x, y)`` with symbols as arguments defines the function: it also replaces ``f(a, b)``. A derivative is by,
    and a ``Subs`` puts a value for, the symbol in what the definitions say.
    """
    for part in expr.atoms(sp.Derivative, sp.Subs):
        if defined := set(part.variables) & set(rules):
            raise Refused(f"{defined.pop()} is defined, so nothing is differentiated by it or put for it")
    expr = fresh(expr)
    for name, value in rules.items():
        if isinstance(name, AppliedUndef):
            expr = expr.replace(name.func, sp.Lambda(name.args, fresh(value)))
    return expr.xreplace({name: fresh(value) for name, value in rules.items() if not isinstance(name, AppliedUndef)})


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
    # SymPy does not know that exp(x) < 1 for x < 0, nor that it is above 1 for x > 0. Such numbers are 1 / (1 + u) and 1 + u
    # with u > 0.
    exponentials = t.atoms(sp.exp)
    small = {e: 1 / (1 + sp.Dummy(positive=True)) for e in exponentials if e.args[0].is_negative}
    large = {e: 1 + sp.Dummy(positive=True) for e in exponentials if e.args[0].is_positive}
    t = sp.factor(t.xreplace(small | large))
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


def differentiated(expr: sp.Expr) -> sp.Expr:
    """``expr`` with derivatives evaluated and points substituted. Sums stay: evaluation is slow.

    Raises:
        Refused: for a slope where there is none.
    """

    def slope(derivative: sp.Derivative) -> sp.Expr:
        bent = derivative.expr.atoms(sp.Abs, sp.Min, sp.Max, indicator)
        if any(e.free_symbols & set(derivative.variables) for e in bent):
            raise Refused(
                f"{derivative} is a slope of Abs, Min, Max or indicator: write it with relu, and differentiate once"
            )
        found = derivative.doit(deep=False)
        if any(d.expr.has(indicator) for d in found.atoms(sp.Derivative)):
            raise Refused(f"{derivative} is a slope of indicator: differentiate once")
        return found

    def at_point(subs: sp.Subs) -> sp.Expr:
        if subs.expr.has(sp.Derivative):  # of a function that is not defined
            return subs.doit()
        return subs.expr.xreplace(dict(zip(subs.variables, subs.point)))  # all at once: x and y may change places

    expr = expr.replace(lambda e: isinstance(e, sp.Derivative), slope)
    expr = expr.replace(lambda e: isinstance(e, sp.Subs), at_point)
    for step in expr.atoms(indicator):
        if normal(_written_out(step.args[0])) == 0:
            raise Refused("this is a slope at a kink, where there is none")
    return expr


def _written_out(expr: sp.Expr) -> sp.Expr:
    return expr.replace(lambda e: isinstance(e, sigma | relu | indicator), lambda e: e.doit())


def opened(expr: sp.Expr) -> sp.Expr:
    """``expr`` with derivatives evaluated, points substituted, sigma, relu and indicator written out."""
    return _written_out(differentiated(expr))


def _check_known(expr: sp.Expr) -> None:
    for part in sp.preorder_traversal(expr):
        if not isinstance(part, KNOWN):
            raise Refused(f"{part} is nothing that the prover knows")


def _check_domain(expr: sp.Expr) -> None:
    """That an expression can be a real number, as far as signs show it."""
    for part in expr.atoms(sp.log, sp.Pow):
        base = part.args[0] if isinstance(part, sp.log) else part.base
        if isinstance(part, sp.Pow) and part.exp.is_integer:
            continue
        if not base.is_positive and _sign(base) < 0:
            raise Refused(f"{part} is nowhere a real number")


def _real(side: Callable[..., Any], point: Sequence[float]) -> float | None:
    """The value of ``side`` at ``point``, or None outside the domain of a logarithm or a power."""
    try:
        value = side(*point)
    except (ValueError, TypeError):  # math functions raise a TypeError for a complex number
        return None
    return None if isinstance(value, complex) else value


def counterexample(left: sp.Expr, right: sp.Expr, points: int = 8) -> str | None:
    """A random point at which two expressions differ, in words; None if no such point is found.

    Points at which neither side is a real number do not count. If there are no others, that is the answer.
    """
    if left.has(sp.Sum, AppliedUndef) or right.has(sp.Sum, AppliedUndef):
        return None
    draw = random.Random(0)
    names = sorted(left.free_symbols | right.free_symbols, key=str)
    sides = [sp.lambdify(names, side, "math") for side in (left, right)]
    seen = 0
    for _ in range(10 * points):
        point = [draw.randint(1, 5) if n.is_integer else draw.uniform(0.2, 0.95) for n in names]
        point = [
            -v if n.is_negative or (n.is_nonnegative is None and draw.random() < 0.5) else v
            for n, v in zip(names, point)
        ]
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
        seen += 1
        if seen == points:
            return None
    return None if seen else "no point was found at which both sides are real numbers"


def refute(statement: sp.Basic, rules: Rules, assumed: Rules) -> str | None:
    """The reason why ``statement`` is not proved; None if it is proved.

    Args:
        statement: an equality or an inequality.
        rules: definitions: a symbol or an applied function, and its value.
        assumed: assumed equalities, such as probabilities that sum to one. Each left side, in normal form, is replaced by
            its right side.
    """
    try:
        left, right = (substitute(side, rules) for side in (statement.lhs, statement.rhs))
        for side in (left, right):
            _check_known(side)
            _check_domain(opened(side))
        if not isinstance(statement, sp.Equality):
            gap = sp.factor(differentiated(left - right))
            sign = {sp.Gt: gap.is_positive or _sign(gap) > 0, sp.Ge: gap.is_nonnegative}[statement.func]
            return None if sign else "SymPy cannot see the sign of left minus right"
        left, right = opened(left), opened(right)
        if not assumed and (why := counterexample(left, right)):  # a random point need not satisfy an assumption
            return why
        gap = normal(left - right).xreplace(dict(assumed))
        if normal(gap) == 0:
            return None
    except (Refused, NotImplementedError) as beyond:
        return str(beyond)
    return f"left minus right does not reduce to 0 but to {sp.sstr(gap)[:200]}"
