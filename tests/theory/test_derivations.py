"""Every derivation is proved, every line of it matters, and its last line is the loss that trains."""

from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
import torch
from scipy.special import expit

from pref_toolkit.logps import Logps
from pref_toolkit.losses import METHODS
from pref_toolkit.theory.derivations import ALL, DerivationError

LINES = [(name, k) for name in ALL for k in range(len(ALL[name].steps))]
PROVED = [(n, k) for n, k in LINES if ALL[n].steps[k].check == "proved"]
DEFINED = [(n, k) for n, k in LINES if ALL[n].steps[k].check == "definition"]


def test_every_method_is_derived():
    assert set(METHODS) <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_step_is_proved(name):
    ALL[name].verify()


def changed(name, k, statement):
    steps = list(ALL[name].steps)
    steps[k] = replace(steps[k], statement=statement)
    return replace(ALL[name], steps=tuple(steps))


def falsehoods(statement):
    """The statement with a sign flipped, with a factor 2 and shifted by 1."""
    left, right = statement.args
    if not isinstance(statement, sp.Equality):
        return [statement.func(-left, right, evaluate=False)]
    wrong = [right + 1] if right == 0 else [-right, 2 * right, right + 1]
    return [sp.Eq(left, w, evaluate=False) for w in wrong]


@pytest.mark.parametrize(("name", "k"), PROVED)
def test_a_false_step_is_named(name, k):
    for statement in falsehoods(ALL[name].steps[k].statement):
        with pytest.raises(DerivationError, match=rf"^{name}, step {k + 1} \("):
            changed(name, k, statement).verify()


@pytest.mark.parametrize(("name", "k"), DEFINED)
def test_a_changed_definition_breaks_a_later_step(name, k):
    """So each definition is needed, and none can drift from what is proved with it."""
    left, right = ALL[name].steps[k].statement.args
    with pytest.raises(DerivationError):
        changed(name, k, sp.Eq(left, 2 * right + 1, evaluate=False)).verify()


@pytest.mark.parametrize("name", ALL)
def test_what_is_shown_is_what_is_proved(name):
    shown = ALL[name]._repr_markdown_()
    for step in ALL[name].steps:
        assert step.latex() in shown
        assert step.why in shown
        if isinstance(step.statement, str):
            assert step.check == "argument"
    assert shown.count("not checked by SymPy") == sum(step.check == "argument" for step in ALL[name].steps)


# The last line against the implementation.

rng = np.random.default_rng(0)
B = 50
N = rng.integers(1, 30, (B, 2))
POLICY = -N * rng.uniform(0.05, 3, (B, 2))
REFERENCE = POLICY * np.exp(0.2 * rng.standard_normal((B, 2)))
SETTINGS = {"beta": 0.7, "gamma": 0.3, "tau": 0.4, "lam": 0.6, "delta": 2.0}
VALUES = {
    "l_w": POLICY[:, 0],
    "l_l": POLICY[:, 1],
    "r_w": REFERENCE[:, 0],
    "r_l": REFERENCE[:, 1],
    "n_w": N[:, 0],
    "n_l": N[:, 1],
    **SETTINGS,
}
NUMPY = [{"sigma": expit, "relu": lambda t: np.maximum(t, 0), "indicator": lambda t: np.heaviside(t, 0)}, "numpy"]


def number(expr):
    """A formula at :data:`VALUES`, whose names are those of its symbols."""
    names = sorted(expr.free_symbols, key=str)
    return np.broadcast_to(sp.lambdify(names, expr, NUMPY)(*(VALUES[str(n)] for n in names)), B)


@pytest.mark.parametrize("name", METHODS)
def test_the_last_line_is_the_loss_and_its_gradient(name):
    policy = torch.tensor(POLICY, requires_grad=True)
    records = {
        "policy": Logps(policy, torch.tensor(N)),
        "reference": Logps(torch.tensor(REFERENCE), torch.tensor(N)),
    }
    method = METHODS[name]
    given = {h: SETTINGS[h] for h in method.hyperparameters}
    values = method.loss(*(records[need] for need in method.needs), **given)
    np.testing.assert_allclose(values.detach(), number(ALL[name].loss), rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(values.sum(), policy)
    expected = np.stack([number(g) for g in ALL[name].gradient], axis=1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-10)
