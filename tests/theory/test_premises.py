"""A derivation may not use a name before, twice, or for what it is not, nor assume what cannot hold."""

import pytest
import sympy as sp

from pref_toolkit.theory.derivations import Derivation, DerivationError, Step
from pref_toolkit.theory.derivations.derivation import argue, assume, define, equal, positive

x, y, u, v = sp.symbols("x y u v", real=True)
a, b, Z = sp.symbols("a b Z", positive=True)
n = sp.Symbol("n", integer=True, positive=True)
K = sp.Symbol("K", integer=True, positive=True)
i = sp.Symbol("i", integer=True)
f, g = (sp.Function(name, real=True) for name in "fg")
p, q = (sp.Function(name, positive=True) for name in "pq")
total = sp.Sum(p(i), (i, 1, K))


def verify(*steps):
    Derivation("name", "title", steps).verify()


# The false statements are a referee's, or of the same kind; an earlier prover took them for proved.
REFUSED = {
    "a formal argument that is defined": (
        [define(u, 5, ""), define(f(u), u**3, ""), equal(f(x), 125, "")],
        "the argument",
    ),
    "a formal argument, defined afterwards": ([define(f(u), u**3, ""), define(u, 5, "")], "the argument of a function"),
    "one argument twice": ([define(f(u, u), u, "")], "names one argument twice"),
    "a function at a point": ([define(f(0), 1, "")], "is not a symbol or a function of symbols"),
    "two definitions": (
        [define(Z, 1, ""), equal(Z, 1, ""), define(Z, 2, ""), equal(Z, 2, "")],
        "step 3 .*defined a second time",
    ),
    "two definitions of a function": ([define(f(u), u, ""), define(f(v), 2 * v, "")], "defined a second time"),
    "a definition by itself": ([define(x, x + 1, "")], "x is defined by itself"),
    "a function by itself": ([define(f(u), f(u - 1) + 1, "")], "is defined by itself"),
    "a circle": ([define(x, y, ""), define(y, x + 1, "")], "y is used before it is defined"),
    "a value from before": ([define(x, Z, ""), define(Z, 2, ""), equal(x, 2, "")], "Z is used before it is defined"),
    "a proof from before": ([positive(Z, ""), define(Z, -1, "")], "Z is used before it is defined"),
    "an assumption from before": ([assume(x, 1, ""), define(x, 2, "")], "x is used before it is defined"),
    "a negative value of a positive name": ([define(Z, -1, "")], "Z is said to be positive"),
    "a product of it": (
        [define(Z, -b, ""), equal(sp.log(Z * a), sp.log(Z) + sp.log(a), "")],
        "Z is said to be positive",
    ),
    "a value of unknown sign": ([define(Z, 1 - a, "")], "Z is said to be positive, which SymPy cannot see"),
    "a function of unknown sign": ([define(p(u), u, "")], "is said to be positive"),
    "a sum that may be empty": ([define(x, sp.Sum(1, (i, 1, K - 1)), "")], "may be empty or reversed"),
    "a half as an integer": ([define(n, sp.Rational(1, 2), "")], "n is said to be integer"),
    "a value that is not real": ([define(x, sp.I, "")], "the value of x is not real"),
    "two values assumed": ([assume(x, 1, ""), assume(x, 2, "")], "step 2 .*cannot hold"),
    "a multiple assumed": ([assume(x, 1, ""), assume(2 * x, 3, "")], "step 2 .*cannot hold"),
    "a negative value assumed": ([assume(a, -1, "")], "cannot hold"),
    "a sum of positive terms, assumed 0": ([assume(total, 0, "")], "cannot hold"),
    "two values of a sum": ([assume(total, 1, ""), assume(2 * total, 4, "")], "step 2 .*cannot hold"),
    "an assumption against a definition": ([define(x, 2, ""), assume(x, 3, "")], "step 2 .*cannot hold"),
}
TAKEN = {
    "a name in the value of the next": [define(x, u + 1, ""), define(y, x**2, ""), equal(y, u**2 + 2 * u + 1, "")],
    "one argument of two functions": [define(f(u), u**2, ""), define(g(u), f(u) + u, ""), equal(g(3), 12, "")],
    "a sign that the value shows": [define(Z, a + b**2, ""), positive(Z, "")],
    "a sign that a sum shows": [define(Z, total, ""), define(q(i), p(i) / Z, ""), equal(q(2) * total, p(2), "")],
    "a sign that a name promises": [define(a, 2 * b, ""), define(Z, a * b, ""), equal(Z, 2 * b**2, "")],
    "two assumptions": [assume(x, 1, ""), assume(y, x + 1, ""), equal(x + y, 3, "")],
    "an assumption twice": [assume(total, 1, ""), assume(2 * total, 2, ""), equal(total, 1, "")],
    "a definition that an assumption reads": [define(x, total, ""), assume(x, 1, ""), equal(total**2, 1, "")],
}


@pytest.mark.parametrize("steps, why", REFUSED.values(), ids=REFUSED)
def test_a_derivation_that_says_two_things_is_refused(steps, why):
    with pytest.raises(DerivationError, match=why):
        verify(*steps)


@pytest.mark.parametrize("steps", TAKEN.values(), ids=TAKEN)
def test_and_one_that_does_not_is_taken(steps):
    verify(*steps)


@pytest.mark.parametrize("check", ["proven", "Proved", "", None])
def test_a_check_is_one_of_four(check):
    with pytest.raises(ValueError, match="the check of a step is one of definition, assumption, proved, argument, got"):
        Step(sp.Eq(x, y), "why", check)


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        (sp.true, "proved"),
        (sp.Ne(x, y), "proved"),
        (sp.Lt(x, y), "proved"),
        (x, "proved"),
        ("x = y", "proved"),
        (sp.Gt(x, y), "definition"),
        ("x = y", "assumption"),
        (3, "argument"),
    ],
)
def test_a_statement_has_a_form_that_its_check_can_have(statement, check):
    with pytest.raises(ValueError, match=f"the statement of a step that is {check} is "):
        Step(statement, "why", check)


def test_steps_are_counted_by_what_stands_behind_them():
    steps = (
        define(f(u), sp.log(u**2 * a) + u, ""),
        equal(f(u), u + sp.log(a * u**2), "the definition"),
        equal(sp.Derivative(3 * f(u), u), 3 + 6 / u, "the definition, differentiated and multiplied out"),
        equal(f(x), x + sp.log(a) + 2 * sp.log(sp.Abs(x)), "logarithms"),
        positive(a + b, "a sign"),
        argue("x", ""),
        assume(x, 1, ""),
    )
    counts = Derivation("name", "title", steps).counts()
    assert (counts.proved, counts.beyond, counts.argued, counts.assumed) == (4, 2, 1, 1)
    assert str(counts + counts) == "8 steps proved, 4 of them beyond the definitions; 2 argued in words; 2 assumed"
    assert str(counts) in Derivation("name", "title", steps)._repr_markdown_()
