"""The prover proves what is true and nothing else."""

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
]


@pytest.mark.parametrize("statement", TRUE, ids=str)
def test_what_is_true(statement):
    assert refute(statement, {}, {}) is None


@pytest.mark.parametrize("statement", FALSE, ids=str)
def test_what_is_false(statement):
    assert refute(statement, {}, {})
    # Points are not tried where something is assumed: the normal form alone is enough.
    assert refute(statement, {}, {sp.Symbol("assumed"): sp.Integer(1)})


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
