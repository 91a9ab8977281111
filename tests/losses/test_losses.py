"""Every property of a loss, over every row of the table."""

from __future__ import annotations

import inspect
import itertools
import re
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pytest
import sympy
import torch
from sympy.parsing.sympy_parser import (
    convert_xor,
    implicit_application,
    implicit_multiplication,
    parse_expr,
    standard_transformations,
)
from table import LIMITS, ROWS, draw

from pref_toolkit.logps import Logps
from pref_toolkit.losses import METHODS

EXTREMES = [0.0, -1e-12, -1e-6, -1.0, -50.0, -1e3, -1e4]

# (method, hyperparameters, optional arguments given): the defaults, another setting, that setting with every option.
SETTINGS = [(name, setting, ()) for name, row in ROWS.items() for setting in (row.defaults, row.other)]
SETTINGS += [(name, row.other, row.optional) for name, row in ROWS.items() if row.optional]
settings = pytest.mark.parametrize(
    "name, setting, options",
    SETTINGS,
    ids=["-".join([n, *(f"{k}={v}" for k, v in s.items()), *o]) for n, s, o in SETTINGS],
)
every_method = pytest.mark.parametrize("name", METHODS)


def inputs(name: str, options: tuple[str, ...] = (), **changes) -> SimpleNamespace:
    """Random inputs, the same for a method each time, with only the options that were asked for."""
    x = vars(draw(np.random.default_rng(crc32(name.encode()))))
    for option in set(ROWS[name].optional) - set(options):
        del x[option]
    return SimpleNamespace(**x | changes)


def arguments(name: str, x: SimpleNamespace, options: tuple[str, ...] = (), dtype=torch.float64) -> dict:
    """The inputs as the records and tensors the loss reads, by name."""
    n = torch.tensor(np.ascontiguousarray(x.n))
    tensors = {key: torch.tensor(np.asarray(value), dtype=dtype) for key, value in vars(x).items() if key != "n"}
    records = {"policy": Logps(tensors["l"].requires_grad_(), n), "reference": Logps(tensors["r"], n)}
    return {key: (tensors | records)[key] for key in (*ROWS[name].needs, *options)}


def loss(name: str, x: SimpleNamespace, setting, options=(), dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """The implementation's losses and their gradient in the policy's sums."""
    given = arguments(name, x, options, dtype)
    found = METHODS[name].loss(**given, **setting)
    (gradient,) = torch.autograd.grad(found.sum(), given["policy"].sums)
    return found.detach(), gradient


def values(*args, **kwargs) -> np.ndarray:
    return loss(*args, **kwargs)[0].numpy()


def grid(*tokens: int) -> SimpleNamespace:
    """Every combination of extreme sums for two responses under policy and reference."""
    sums = np.array(list(itertools.product(EXTREMES, repeat=4)))
    return SimpleNamespace(
        l=sums[:, :2], r=sums[:, 2:], n=np.broadcast_to(tokens, sums[:, :2].shape), target=sums[:, 2]
    )


def test_the_table_has_a_row_for_every_method_and_no_other():
    assert set(ROWS) == set(METHODS)


@settings
def test_a_loss_agrees_with_the_formula_of_the_paper(name, setting, options):
    x = inputs(name, options)
    found = values(name, x, setting, options)
    assert found.shape == (len(x.l),)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, ROWS[name].formula(x, **setting), rtol=1e-12, atol=1e-12)


@settings
def test_a_loss_agrees_with_the_formula_of_the_paper_at_extremes(name, setting, options):
    x = grid(3, 7)
    below_zero = (np.concatenate([x.l, x.r], axis=1) < 0).all(axis=1)  # ORPO's formula is infinite at 0
    x = SimpleNamespace(**{key: value[below_zero] for key, value in vars(x).items() if key != "target" or options})
    expected = ROWS[name].formula(x, **setting)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(values(name, x, setting, options), expected, rtol=1e-10, atol=1e-12)


@settings
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("tokens", [(1, 1), (1, 300)], ids=str)
def test_value_and_gradient_are_finite_at_extremes(name, setting, options, dtype, tokens):
    found, gradient = loss(name, grid(*tokens), setting, options, dtype)
    assert torch.isfinite(found).all()
    assert torch.isfinite(gradient).all()


@settings
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_computed_in_float32(name, setting, options, dtype):
    x = inputs(name, options)
    rounded = SimpleNamespace(
        **{key: v if key == "n" else torch.tensor(v, dtype=dtype).float().numpy() for key, v in vars(x).items()}
    )
    found, _ = loss(name, x, setting, options, dtype)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(name, rounded, setting, options, torch.float32)[0], rtol=0, atol=0)


@settings
def test_the_gradient_is_that_of_the_formula(name, setting, options):
    """Against central differences of the NumPy formula, so that a stopped gradient shows."""
    x = inputs(name, options)
    _, gradient = loss(name, x, setting, options)
    step = 1e-4
    for k in range(x.l.shape[1]):
        moved = []
        for sign in (1, -1):
            l = x.l.copy()  # noqa: E741
            l[:, k] += sign * step
            moved.append(ROWS[name].formula(SimpleNamespace(**vars(x) | {"l": l}), **setting))
        np.testing.assert_allclose(gradient[:, k], (moved[0] - moved[1]) / (2 * step), rtol=1e-6, atol=1e-7)


@settings
def test_the_value_at_policy_equals_reference(name, setting, options):
    x = inputs(name, options)
    if "reference" in ROWS[name].needs:
        x.r = x.l
    else:
        x.l, x.n = x.l[:, :1].repeat(2, axis=1), x.n[:, :1].repeat(2, axis=1)
    expected = np.broadcast_to(ROWS[name].start(x, **setting), len(x.l))
    np.testing.assert_allclose(values(name, x, setting, options), expected, rtol=1e-12, atol=1e-12)


@settings
def test_what_leaves_the_loss_unchanged(name, setting, options):
    x = inputs(name, options)
    for why, change in ROWS[name].unchanged.items():
        changed = SimpleNamespace(**vars(x) | change(x))
        np.testing.assert_allclose(
            values(name, changed, setting, options),
            values(name, x, setting, options),
            rtol=1e-9,
            atol=1e-12,
            err_msg=why,
        )


@settings
def test_a_loss_is_per_example(name, setting, options):
    x = inputs(name, options)
    together = values(name, x, setting, options)
    for b in (0, 17):
        alone = SimpleNamespace(**{key: value[b : b + 1] for key, value in vars(x).items()})
        np.testing.assert_allclose(values(name, alone, setting, options), together[b : b + 1], rtol=1e-14)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{limit.method} is {limit.becomes}: {limit.why}")
def test_a_limit_that_turns_one_method_into_another(limit):
    x = inputs(limit.method)
    x = SimpleNamespace(**vars(x) | limit.given(x))
    found = values(limit.method, x, limit.setting)
    there = values(limit.becomes, SimpleNamespace(**vars(x) | limit.then(x)), limit.as_setting)
    np.testing.assert_allclose(found, limit.scale * there, rtol=1e-12, atol=1e-12)
    assert found.std() > 0


@every_method
def test_needs_and_hyperparameters_are_those_of_the_fact_sheet(name):
    assert METHODS[name].name == name
    assert METHODS[name].needs == ROWS[name].needs
    assert METHODS[name].hyperparameters == dict(ROWS[name].defaults)
    assert METHODS[name].check(**ROWS[name].other) == dict(ROWS[name].other)


@every_method
def test_an_unknown_keyword_raises(name):
    given = arguments(name, inputs(name))
    with pytest.raises(TypeError, match="unexpected keyword argument 'betta'"):
        METHODS[name].loss(**given, betta=0.1)
    with pytest.raises(TypeError, match="positional"):
        METHODS[name].loss(*given.values(), *[None for _ in ROWS[name].optional], 0.1)


@every_method
def test_records_of_another_size_are_refused(name):
    """Three responses where a pair is wanted: an error that says so, never a number."""
    if not {"policy", "reference"} >= set(ROWS[name].needs):
        pytest.skip("reads more than pairs")
    three = Logps(torch.zeros(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="wants K=2 responses to each prompt, got K=3"):
        METHODS[name].loss(*[three for _ in ROWS[name].needs])


def test_another_number_of_pairs_is_refused_not_broadcast():
    one, three = Logps(torch.zeros(1, 2), torch.ones(1, 2)), Logps(torch.zeros(3, 2), torch.ones(3, 2))
    for name in METHODS:
        if METHODS[name].needs == ("policy", "reference"):
            with pytest.raises(ValueError, match=r"same responses, got shapes \(3, 2\) and \(1, 2\)"):
                METHODS[name].loss(three, one)


@every_method
def test_the_docstring_holds_every_part(name):
    doc = inspect.getdoc(METHODS[name].loss)
    arguments_part = re.search(r"^Args:\n(.*?)^Returns:", doc, re.S | re.M).group(1)
    documented = re.findall(r"^    (\w+): ", arguments_part, re.M)
    assert documented == list(inspect.signature(METHODS[name].loss).parameters)
    if "reference" in METHODS[name].needs:
        assert "At policy = reference each is" in doc
    else:
        assert "There is no reference; at" in doc
    assert re.search(r"^Raises:\n    \w+Error: ", doc, re.M)
    for fact in (METHODS[name].paper, METHODS[name].equation, METHODS[name].chapter):
        assert fact.strip()
    assert re.search(r"\d{4}", METHODS[name].paper)


def evaluate(text: str, **known) -> np.ndarray:
    """A formula of a docstring as a reader reads it: ``2 tau`` multiplies, ``log sigmoid(t)`` calls, ``^`` raises."""
    functions = {
        "sigmoid": lambda t: 1 / (1 + sympy.exp(-t)),
        "log_odds": lambda t: t - sympy.log(1 - sympy.exp(t)),
        "max": sympy.Max,
    }
    symbols = {name: sympy.Symbol(name, real=True) for name in known}
    read = (*standard_transformations, implicit_multiplication, implicit_application, convert_xor)
    expression = parse_expr(text, local_dict=functions | symbols, transformations=read)
    assert {str(s) for s in expression.free_symbols} <= set(known)
    return sympy.lambdify(list(symbols.values()), expression, "numpy")(*known.values())


@settings
def test_the_formulas_of_the_docstring_are_true(name, setting, options):
    """The one-line formula and the value at the start, both evaluated as printed."""
    x = inputs(name, options)
    doc = inspect.getdoc(METHODS[name].loss)
    start = re.search(r"each is (?:``)?(.+?)(?:``)?\.?\n", doc).group(1)

    def known() -> dict:
        (l_w, l_l), (r_w, r_l), (n_w, n_l) = x.l.T, x.r.T, x.n.T
        pair = {"l_w": l_w, "l_l": l_l, "r_w": r_w, "r_l": r_l, "lbar_w": l_w / n_w, "lbar_l": l_l / n_l}
        return pair | {"D": l_w - r_w - l_l + r_l, "l_target": getattr(x, "target", l_w)} | dict(setting)

    np.testing.assert_allclose(evaluate(METHODS[name].formula, **known()), ROWS[name].formula(x, **setting), rtol=1e-9)
    x.l, x.n = x.l[:, :1].repeat(2, axis=1), x.n[:, :1].repeat(2, axis=1)
    x.r = x.l
    np.testing.assert_allclose(
        np.broadcast_to(evaluate(start, **known()), len(x.l)), np.broadcast_to(ROWS[name].start(x, **setting), len(x.l))
    )
