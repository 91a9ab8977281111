"""The prover proves what is true and nothing else."""

import re

import pytest
import sympy as sp

from pref_toolkit.theory.derivations.proof import refute
from pref_toolkit.theory.derivations.symbols import indicator, relu, sigma

x, y, u = sp.symbols("x y u", real=True)
a, b = sp.symbols("a b", positive=True)
K = sp.Symbol("K", integer=True, positive=True)
i, j = sp.symbols("i j", integer=True)
p = sp.Function("p", positive=True)
q = sp.Function("q", positive=True)


def eq(left, right):
    return sp.Eq(left, right, evaluate=False)


c = sp.Symbol("c", real=True)
F, G = (sp.Function(name, real=True) for name in "FG")


def over(index, term, low=1, high=K):
    return sp.Sum(term, (index, low, high))


TRUE = [
    eq(sigma(x) + sigma(-x), 1),
    eq(sp.log(sigma(x)) - sp.log(sigma(-x)), x),
    eq(sp.Derivative(sp.log(sigma(a * x)), x), a * sigma(-a * x)),
    eq(sp.log(1 + sp.exp(x)) - sp.log(1 + sp.exp(-x)), x),
    eq(sp.log(1 - sp.exp(-a)) - sp.log(1 / (1 - sp.exp(-a))), 2 * sp.log(1 - sp.exp(-a))),
    eq(sp.log(1 - sp.exp(-a)) + sp.log(1 + sp.exp(-a)), sp.log(1 - sp.exp(-2 * a))),
    eq(sp.log((1 - x) / a), sp.log(1 - x) - sp.log(a)),
    eq(sp.log(x**2), 2 * sp.log(sp.Abs(x))),
    eq(sp.log((x - y) ** 2 * a), sp.log(a) + 2 * sp.log(sp.Abs(y - x))),
    eq((a / b) ** x * sp.exp(x * sp.log(b)), a**x),
    eq(relu(x) - relu(-x), x),
    eq(relu(a * x), a * relu(x)),
    eq(sp.Derivative(relu(a * x), x), a * indicator(x)),
    eq(sp.Sum(2 * p(i) + 3, (i, 1, K)), 2 * sp.Sum(p(i), (i, 1, K)) + 3 * K),
    eq(sp.Sum(p(i) * sp.log(p(i) / q(i)), (i, 1, K)), -sp.Sum(p(i) * sp.log(q(i) / p(i)), (i, 1, K))),
    eq(sp.Sum(sp.Sum(p(i) * q(j), (j, 1, K)), (i, 1, K)), sp.Sum(p(i), (i, 1, K)) * sp.Sum(q(i), (i, 1, K))),
    sp.Gt(sigma(x), 0, evaluate=False),
    sp.Ge(relu(x), 0, evaluate=False),
    sp.Gt(sp.exp(a) - 1, 0, evaluate=False),
    sp.Gt(1 - sp.exp(-a * b), 0, evaluate=False),
]
FALSE = [
    eq(sigma(x) + sigma(-x), 2),
    eq(sp.log(sigma(x)) - sp.log(sigma(-x)), -x),
    eq(sp.Derivative(sp.log(sigma(a * x)), x), sigma(-a * x)),
    eq(sp.log(a + b), sp.log(a) + sp.log(b)),
    eq(sp.log(a - b), sp.log(b - a)),
    eq(sp.log(-a), sp.log(a)),
    eq(sp.log(x), sp.log(-x)),
    eq(sp.log(x**2), 2 * sp.log(x)),
    eq(sp.log(x**2), 2 * sp.log(-x)),
    eq(sp.log(x * y), sp.log(x) + sp.log(y)),
    eq(sp.log(x / y), sp.log(-x) - sp.log(-y)),
    eq(sp.log((-1) ** K), 0),
    eq(relu(-a * x), -a * relu(x)),
    eq(relu(x) + relu(y), relu(x + y)),
    eq(sp.Sum(p(i), (i, 1, K)), K),
    eq(sp.Sum(p(i) * q(i), (i, 1, K)), sp.Sum(p(i), (i, 1, K)) * sp.Sum(q(i), (i, 1, K))),
    eq(sp.Sum(p(i), (i, 1, K)), sp.Sum(p(i), (i, 2, K))),
    eq(sp.Sum(sp.Sum(p(j), (j, 1, K)), (i, 1, K)), sp.Sum(p(j), (j, 1, K))),
    eq(sp.Sum(sp.Sum(p(i * j), (j, 1, K)), (i, 1, K)), sp.Sum(p(i * j), (j, 1, K))),
    eq(sp.Sum(p(i) * sp.Sum(p(i * j), (j, 1, K)), (i, 1, K)), sp.Sum(p(i), (i, 1, K)) * sp.Sum(p(i * i), (i, 1, K))),
    sp.Gt(x, 0, evaluate=False),
    sp.Ge(-sigma(x), 0, evaluate=False),
    sp.Gt((x - y) ** 2, 0, evaluate=False),
    sp.Gt(sp.exp(a) - sp.exp(b), 0, evaluate=False),
    sp.Gt(sp.exp(a) - 2, 0, evaluate=False),
    sp.Gt(sp.exp(x) - 1, 0, evaluate=False),
]


@pytest.mark.parametrize("statement", TRUE, ids=str)
def test_what_is_true(statement):
    assert refute(statement, {}, {}) is None


@pytest.mark.parametrize("statement", FALSE, ids=str)
def test_what_is_false(statement):
    assert refute(statement, {}, {})
    # Points are not tried where something is assumed: the normal form alone is enough.
    assert refute(statement, {}, {sp.Symbol("assumed"): sp.Integer(1)})


# Statements with their definitions. The false ones are a referee's; an earlier prover took all of them for proved.
LADDER = {F(x): over(i, p(x) * q(i))}
CAPTURED = [
    (eq(F(i), over(i, p(i) * q(i))), LADDER),
    (eq(over(i, F(i)), K * over(i, p(i) * q(i))), LADDER),
    (eq(over(i, c), over(i, p(i))), {c: p(i)}),
    (eq(over(j, F(x)), K * x + over(j, p(j))), {F(x): x + p(j)}),
]
AS_IT_SHOULD = [
    (eq(F(i), p(i) * over(i, q(i))), LADDER),
    (eq(over(i, F(i)), over(i, p(i)) * over(i, q(i))), LADDER),
    (eq(over(i, c), K * p(i)), {c: p(i)}),
    (eq(over(j, F(x)), K * x + K * p(j)), {F(x): x + p(j)}),
    (eq(F(1), p(1) / over(j, p(j))), {F(i): p(i) / over(i, p(i))}),
    (eq(F(i + 1), p(i + 1) / over(j, p(j))), {F(i): p(i) / over(i, p(i))}),
    (eq(F(F(x)), x * over(i, q(i)) ** 2), {F(x): over(i, x * q(i))}),
    (eq(F(G(x)), x * over(i, q(i)) * over(j, p(j))), {F(x): over(i, x * q(i)), G(x): over(i, x * p(i))}),
    (eq(sp.Subs(x - 2 * y, (x, y), (y, x)), y - 2 * x), {}),
]


@pytest.mark.parametrize(("statement", "rules"), CAPTURED, ids=str)
def test_no_index_is_captured(statement, rules):
    assert refute(statement, rules, {})


@pytest.mark.parametrize(("statement", "rules"), AS_IT_SHOULD, ids=str)
def test_an_index_and_an_argument_are_only_names(statement, rules):
    assert refute(statement, rules, {}) is None


REFUSED = [
    # Where there is no slope
    (eq(sp.Subs(sp.Derivative(relu(x), x), x, 0), sp.Rational(1, 2)), "a slope at a kink"),
    (eq(sp.Subs(sp.Derivative(relu(x), x), x, 0), 0), "a slope at a kink"),
    (eq(indicator(sp.Integer(0)), sp.Rational(1, 2)), "a slope at a kink"),
    (eq(indicator(sp.log(a * b) - sp.log(a) - sp.log(b)), sp.Rational(1, 2)), "a slope at a kink"),
    (eq(sp.Subs(sp.Derivative(relu(2 * x - y), x), x, y / 2), 1), "a slope at a kink"),
    (eq(sp.Derivative(relu(x), (x, 2)), 0), "differentiate once"),
    (eq(sp.Derivative(sp.Abs(x), x), sp.Derivative(sp.Abs(x), x)), "a slope of Abs, Min, Max"),
    (eq(sp.Derivative(sp.Max(0, x), x), indicator(x)), "a slope of Abs, Min, Max"),
    # Where nothing is a real number
    (eq(sp.log(-1 - x**2), sp.log(-2 - 2 * x**2) - sp.log(2)), "nowhere a real number"),
    (eq(sp.log(-sigma(x)), sp.log(-sigma(x))), "nowhere a real number"),
    (eq(sp.log(-sp.exp(x) - a), sp.log(-sp.exp(x) - a)), "nowhere a real number"),
    (eq(sp.sqrt(-a - x**2) ** 3, (-a - x**2) * sp.sqrt(-a - x**2)), "nowhere a real number"),
    (eq(sp.log(sigma(x) - 1) + y, y + sp.log(sigma(x) - 1)), "nowhere a real number"),
    (eq(sp.Integer(1) / 0, sp.Integer(1) / 0), "nothing that the prover knows"),
    # Sums over nothing, and sums backwards
    (eq(sp.Sum(1, (i, K, 1)), 2 - K), "may be empty or reversed"),
    (eq(over(i, 1, 2), K - 1), "may be empty or reversed"),
    (eq(over(i, p(i), 1, K - 1), over(i, p(i)) - p(K)), "may be empty or reversed"),
    (eq(over(i, 1, sp.Rational(1, 2), K), K + sp.Rational(1, 2)), "may be empty or reversed"),
    (sp.Gt(over(i, p(i), 2), 0, evaluate=False), "may be empty or reversed"),
    # What it does not know
    (eq(sp.sin(x) ** 2 + sp.cos(x) ** 2, 1), "nothing that the prover knows"),
    (eq(sp.floor(x), x), "nothing that the prover knows"),
    (eq(sp.I * x, sp.I * x), "nothing that the prover knows"),
    (eq(0.5 * x, x / 2), "nothing that the prover knows"),
]


@pytest.mark.parametrize(("statement", "why"), REFUSED, ids=str)
@pytest.mark.parametrize("assumed", [{}, {sp.Symbol("assumed"): sp.Integer(1)}], ids=["", "assumed"])
def test_it_refuses_what_has_no_meaning(statement, why, assumed):
    assert re.search(why, refute(statement, {}, assumed))


def test_it_refuses_what_holds_at_no_point():
    """Unless something is assumed: a random point need not satisfy an assumption, so none is tried."""
    statement = eq(sp.log(x - 1) + sp.log(-x - 1), sp.log(-x - 1) + sp.log(x - 1))
    assert "no point was found" in refute(statement, {}, {})


def test_nothing_is_differentiated_by_a_defined_name_or_put_for_it():
    for statement in (eq(sp.Derivative(x**2, x), 2 * x), eq(sp.Subs(x**2, x, 3), 9)):
        assert refute(statement, {}, {}) is None
        assert "x is defined" in refute(statement, {x: 2 * y}, {})


def test_a_zero_factor_is_cancelled_as_the_module_says():
    """The two sides are equal wherever both are real numbers and no denominator is 0."""
    assert refute(eq((x**2 - y**2) / (x - y), x + y), {}, {}) is None


def test_definitions_are_put_in_before_derivatives_are_taken():
    f = sp.Function("f", real=True)
    rules = {y: 2 * x, f(u): u**2}
    assert refute(eq(sp.Derivative(f(x), x), y), rules, {}) is None
    assert refute(eq(f(y), 4 * x**2), rules, {}) is None
    assert refute(eq(f(y), 2 * x**2), rules, {})


def test_a_counterexample_is_shown():
    assert "at x = " in refute(eq(sigma(x), x), {}, {})


def test_so_is_a_point_where_only_one_side_is_defined():
    assert "only the left side is a real number" in refute(eq(sp.log(x**2), 2 * sp.log(x)), {}, {})
