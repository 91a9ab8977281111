"""Every property of a loss, over every row of the table."""

from __future__ import annotations

import inspect
import itertools
import math
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
from table import LIMITS, LINKS, ROWS, derivative, draw, exo_target, ld_margin, same_rank

from pref_toolkit.logps import Logps
from pref_toolkit.losses import METHODS

EXTREMES = [0.0, -1e-12, -1e-6, -1.0, -50.0, -1e3, -1e4]
RECORDS = {
    "policy": ("l", "n"),
    "reference": ("r", "n"),
    "target": ("target_l", "target_n"),
    "policy_first": ("head_l", "head_n"),
    "reference_first": ("head_r", "head_n"),
}

# (method, hyperparameters, optional arguments given): the defaults, other settings, one of them with every option.
SETTINGS = [(name, setting, ()) for name, row in ROWS.items() for setting in (row.defaults, *row.others)]
SETTINGS += [(name, row.others[0], row.optional) for name, row in ROWS.items() if row.optional]
settings = pytest.mark.parametrize(
    "name, setting, options",
    SETTINGS,
    ids=["-".join([n, *(f"{k}={v}" for k, v in s.items()), *o]) for n, s, o in SETTINGS],
)
every_method = pytest.mark.parametrize("name", METHODS)


def changed(x: SimpleNamespace, **changes) -> SimpleNamespace:
    return SimpleNamespace(**vars(x) | changes)


def only(name: str, x: SimpleNamespace, options: tuple[str, ...]) -> SimpleNamespace:
    """The inputs without the optional ones that were not asked for."""
    left_out = {
        k
        for k in vars(x)
        for option in (*ROWS[name].optional, "target")
        if k.startswith(option)
        if option not in options
    }
    return SimpleNamespace(**{k: v for k, v in vars(x).items() if k not in left_out})


def inputs(name: str, options: tuple[str, ...] = (), responses: int | None = None) -> SimpleNamespace:
    """Random inputs, the same for a method each time."""
    rng = np.random.default_rng(crc32(name.encode()))
    x = only(name, draw(rng, responses=responses or ROWS[name].responses), options)
    return changed(x, **ROWS[name].prepare(x))


def extremes(name: str, options: tuple[str, ...], tokens: tuple[int, int]) -> SimpleNamespace:
    """Every combination of extreme sums under policy and reference, with extreme values of whatever else is read.

    For lists the combinations are of the four policy sums, the reference's are drawn.
    """
    rng = np.random.default_rng(0)
    K = ROWS[name].responses
    sums = np.array(list(itertools.product(EXTREMES, repeat=4 if K > 1 else 2)))
    B = len(sums)
    l, r = (sums, rng.choice(EXTREMES, (B, K))) if K == 4 else (sums[:, :K], sums[:, K:])  # noqa: E741
    n = np.resize(tokens, (B, K))
    some = {"target_l": rng.choice(EXTREMES, (B, 1)), "target_n": n[:, :1]}
    some |= {"head_l": rng.choice(EXTREMES, (B, K)), "head_r": rng.choice(EXTREMES, (B, K)), "head_n": 0 * n + n.min()}
    some |= {"win_probabilities": rng.choice([0, 1e-6, 0.5, 1], (B, K)), "desirable": rng.random(B) < 0.5}
    some |= {k: rng.choice([*EXTREMES, 1e-6, 1e4], (B, K)) for k in ("rewards", "scores")}
    some |= {"kl": rng.choice([-1e4, 1e4, 1.0], 50)}
    some |= {"sequence_kl": -rng.choice(EXTREMES, (B, K)), "dispersion": rng.choice([0, 1e-6, 1, 50], B)}
    some |= {"log_weights": rng.choice([*EXTREMES, 10.0], (B, K)), "shift": np.array(1e3)}
    x = only(name, SimpleNamespace(l=l, r=r, n=n, **some), options)
    if name == "odpo":
        x.scores = np.stack([rng.choice([1e-6, 1.0, 50.0, 1e4], B), 0 * l[:, 0]], axis=1)
    return x


def arguments(name: str, x: SimpleNamespace, dtype=torch.float64) -> dict:
    """The inputs as the records and tensors the loss reads, by name of the argument."""

    def tensor(key: str) -> torch.Tensor:
        value = np.ascontiguousarray(getattr(x, key)).reshape(np.shape(getattr(x, key)))
        if key in ("desirable", "n", "target_n", "head_n"):
            return torch.tensor(value)
        return torch.tensor(value, dtype=dtype, requires_grad=key in (*ROWS[name].moves, *ROWS[name].stopped))

    given = [a for a in (*ROWS[name].needs, *ROWS[name].optional) if hasattr(x, RECORDS.get(a, (a,))[0])]
    return {a: Logps(*map(tensor, RECORDS[a])) if a in RECORDS else tensor(a) for a in given}


def loss(name: str, x: SimpleNamespace, setting, dtype=torch.float64) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The implementation's losses and their gradient in each input that may carry one, by name."""
    given = arguments(name, x, dtype)
    found = METHODS[name].loss(**given, **setting)
    sums = {RECORDS[a][0]: given[a].sums for a in given if a in RECORDS}
    leaves = {k: v for k, v in (sums | given).items() if k in (*ROWS[name].moves, *ROWS[name].stopped)}
    gradients = torch.autograd.grad(found.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return found.detach(), dict(zip(leaves, gradients))


def values(*args, **kwargs) -> np.ndarray:
    return loss(*args, **kwargs)[0].numpy()


def test_the_table_has_a_row_for_every_method_and_no_other():
    assert set(ROWS) == set(METHODS)


@settings
def test_a_loss_agrees_with_the_formula_of_the_paper(name, setting, options):
    x = inputs(name, options)
    found = values(name, x, setting)
    assert found.shape == (len(x.l),)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, ROWS[name].formula(x, **setting), rtol=1e-12, atol=1e-12)


@settings
def test_a_loss_agrees_with_the_formula_of_the_paper_at_extremes(name, setting, options):
    x = extremes(name, options, (3, 7))
    if name == "orpo":  # the formula is infinite at 0
        x = rows(name, x, (x.l < 0).all(axis=1))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = ROWS[name].formula(x, **setting)
    found = values(name, x, setting)
    # An exponential goes on as its tangent above e^30, and no sooner.
    exponent = np.broadcast_to(ROWS[name].exponent(x, **setting), len(expected))
    in_range = exponent < 30
    assert in_range.mean() > 0.3
    # A loss may be a difference of exponentials that nearly cancel. Each is off by 2 ulp, and by the rounding of its exponent,
    # at most 30 ulp more, in either computation. No factor in front of them here is above 1.
    cancelling = 2 * (30 + 2) * np.finfo(float).eps * np.exp(exponent[in_range])
    # An exponential that is small itself is off by the rounding of its exponent, in one part of its factor.
    terms = np.broadcast_to(ROWS[name].terms(x, **setting), len(expected))[in_range]
    cancelling += 2 * x.l.shape[1] * np.finfo(float).eps * terms
    apart = np.abs(found[in_range] - expected[in_range])
    assert (apart <= 1e-10 * np.abs(expected[in_range]) + 1e-12 + cancelling).all(), apart.max()


@settings
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("tokens", [(1, 1), (1, 300)], ids=str)
def test_value_and_gradient_are_finite_at_extremes(name, setting, options, dtype, tokens):
    found, gradients = loss(name, extremes(name, options, tokens), setting, dtype)
    assert torch.isfinite(found).all()
    for gradient in gradients.values():
        assert torch.isfinite(gradient).all()


@settings
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_computed_in_float32(name, setting, options, dtype):
    x = inputs(name, options)
    rounded = SimpleNamespace(
        **{k: torch.tensor(v, dtype=dtype).float().numpy() if v.dtype == float else v for k, v in vars(x).items()}
    )
    found, _ = loss(name, x, setting, dtype)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(name, rounded, setting, torch.float32)[0], rtol=0, atol=0)


@settings
def test_the_gradient_is_that_of_the_formula(name, setting, options):
    """Against central differences of the NumPy formula; where the method stops a gradient it must be 0 instead."""
    x = inputs(name, options)
    _, gradients = loss(name, x, setting)
    step = 1e-4
    for key, gradient in gradients.items():
        start = getattr(x, key)
        expected = np.zeros(start.shape)
        for k in range(start.shape[1] if key in ROWS[name].moves else 0):
            sides = []
            for sign in (1, -1):
                moved = start.copy()
                moved[:, k] += sign * step
                sides.append(ROWS[name].formula(changed(x, **{key: moved}), **setting))
            expected[:, k] = (sides[0] - sides[1]) / (2 * step)
        if key in ROWS[name].stopped:
            expected[ROWS[name].stopped[key]] = 0
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7, err_msg=key)


def at_start(name: str, x: SimpleNamespace) -> SimpleNamespace:
    """The same inputs at policy = reference or, for a loss without a reference, at equal responses."""
    if "reference" in ROWS[name].needs:
        nothing = {"sequence_kl": 0 * x.l, "kl": 0 * x.kl, "shift": 0 * x.shift}
        return changed(x, r=x.l, head_r=x.head_l, **nothing)
    return changed(x, **{k: getattr(x, k)[:, :1].repeat(x.l.shape[1], axis=1) for k in ("l", "n", "rewards")})


@settings
def test_the_value_at_policy_equals_reference(name, setting, options):
    x = at_start(name, inputs(name, options))
    expected = np.broadcast_to(ROWS[name].start(x, **setting), len(x.l))
    np.testing.assert_allclose(values(name, x, setting), expected, rtol=1e-12, atol=1e-12)


@settings
def test_what_leaves_the_loss_unchanged(name, setting, options):
    x = inputs(name, options)
    before = values(name, x, setting)
    for why, change in ROWS[name].unchanged.items():
        after = values(name, changed(x, **change(x)), setting)
        np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-12, err_msg=why)


def rows(name: str, x: SimpleNamespace, which) -> SimpleNamespace:
    return SimpleNamespace(
        **{k: v if k in (*ROWS[name].shared, "kl", "shift") else v[which] for k, v in vars(x).items()}
    )


@settings
def test_a_loss_is_per_example(name, setting, options):
    """Each row's loss is its own; only a method that says so reads the batch, and even then not its order."""
    x = inputs(name, options)
    together = values(name, x, setting)
    alone = np.concatenate([values(name, rows(name, x, [b]), setting) for b in range(8)])
    if METHODS[name].batchwise:
        assert not np.allclose(alone, together[:8])
    else:
        np.testing.assert_allclose(alone, together[:8], rtol=1e-14)
    np.testing.assert_allclose(values(name, rows(name, x, np.s_[::-1]), setting), together[::-1], rtol=1e-14)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{limit.method} is {limit.becomes}: {limit.why}")
def test_a_limit_that_turns_one_method_into_another(limit):
    x = inputs(limit.method)
    x = changed(x, **limit.given(x))
    found = values(limit.method, x, limit.setting)
    there = values(limit.becomes, changed(x, **limit.then(x)), limit.as_setting)
    np.testing.assert_allclose(found, limit.scale * there, rtol=limit.tolerance, atol=limit.tolerance)
    assert found.std() > 0


@every_method
def test_needs_and_hyperparameters_are_those_of_the_fact_sheet(name):
    assert METHODS[name].name == name
    assert METHODS[name].needs == ROWS[name].needs
    assert METHODS[name].hyperparameters == dict(ROWS[name].defaults)
    for setting in ROWS[name].others:
        assert METHODS[name].check(**setting) == dict(setting)


@every_method
def test_an_unknown_keyword_raises(name):
    given = arguments(name, inputs(name))
    with pytest.raises(TypeError, match="unexpected keyword argument 'betta'"):
        METHODS[name].loss(**given, betta=0.1)
    with pytest.raises(TypeError, match="positional"):
        METHODS[name].loss(*given.values(), *[None for _ in ROWS[name].optional], 0.1)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "sft"])
def test_records_of_another_size_are_refused(name):
    """Three responses where a pair is wanted: an error that says so, never a number."""
    wrong = {1: 2, 2: 3, 4: 1}[ROWS[name].responses]
    with pytest.raises(ValueError, match=r"wants? .*K *(=|>=) *\d|must (hold K=1|have shape)"):
        METHODS[name].loss(**arguments(name, inputs(name, responses=wrong)))


@pytest.mark.parametrize("K", [1, 2, 4])
@pytest.mark.parametrize("given", [False, True])
def test_a_supervised_loss_reads_one_response_of_any_number(K, given):
    """So it may stand beside any other on the same records; the responses that it does not read get no gradient."""
    x = inputs("sft", ("target",) if given else (), responses=K)
    found, gradients = loss("sft", x, {"per": "response"})
    np.testing.assert_array_equal(found, -(x.target_l if given else x.l)[:, 0])
    expected = np.zeros(x.l.shape)
    expected[:, 0] = 0 if given else -1
    np.testing.assert_array_equal(gradients["l"], expected)
    with pytest.raises(ValueError, match="per must be response or token, got 'batch'"):
        METHODS["sft"].loss(**arguments("sft", x), per="batch")
    if given and K > 1:
        with pytest.raises(ValueError, match="target must hold K=1 response"):
            METHODS["sft"].loss(arguments("sft", x)["policy"], arguments("sft", x)["policy"])


def test_orpo_cannot_tell_copied_strings_apart_in_float32():
    """Both means are nearer to 0 than float32's epsilon: the odds are those of its clamp, and their gradient is 0."""
    near = {"l": np.array([[-1e-9, -1e-7]]), "n": np.ones((1, 2), int)}
    for dtype, expected in ((torch.float64, 0.1 * np.log1p(0.01)), (torch.float32, 0.1 * np.log(2))):
        policy = Logps(torch.tensor(near["l"], dtype=dtype, requires_grad=True), torch.tensor(near["n"]))
        value = METHODS["orpo"].loss(policy)
        assert value.item() == pytest.approx(expected, rel=1e-4)
        slope = torch.autograd.grad(value.sum(), policy.sums)[0][0, 1].item()
        assert slope == (0 if dtype == torch.float32 else pytest.approx(0.1 * 0.01 / 1.01 / 1e-7, rel=1e-4))


@every_method
def test_inputs_of_another_shape_are_refused_not_broadcast(name):
    given = arguments(name, inputs(name, ROWS[name].optional))
    for argument in set(given) - {"policy", "kl"}:
        if given.keys() == {"rewards"}:
            wrong = given["rewards"][:, :1]
        elif argument in RECORDS:
            wrong = Logps(given[argument].sums[:1], given[argument].tokens[:1])
        else:
            wrong = given[argument].reshape(1, -1)[:, :1]
        with pytest.raises(
            ValueError, match=rf"{argument} (must|and reference must)|wants ({argument}|K ?\W)|same responses"
        ):
            METHODS[name].loss(**given | {argument: wrong})


@every_method
def test_the_docstring_holds_every_part(name):
    doc = inspect.getdoc(METHODS[name].loss)
    arguments_part = re.search(r"^Args:\n(.*?)^Returns:", doc, re.S | re.M)
    assert arguments_part, "Args and Returns are missing"
    documented = re.findall(r"^    (\w+): ", arguments_part.group(1), re.M)
    assert documented == list(inspect.signature(METHODS[name].loss).parameters)
    if "reference" in METHODS[name].needs:
        assert re.search("At policy = reference(, where ``\\w+`` is 0,)? each is ", doc)
    else:
        assert re.search("There is no reference; at .+ each is ", doc)
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
        "min": sympy.Min,
        "stopgrad": lambda t: t,
        "sum_k": sympy.Function("sum_k"),
        "link": sympy.Function("link"),
        "g": sympy.Function("g"),
    }
    text = text.replace("K!", "factorial(K)")
    symbols = {name: sympy.Symbol(name, real=True) for name, value in known.items() if not isinstance(value, str)}
    read = (*standard_transformations, implicit_multiplication, implicit_application, convert_xor)
    expression = parse_expr(text, local_dict=functions | symbols, transformations=read)
    assert {str(s) for s in expression.free_symbols} <= set(known)
    called = {"sum_k": lambda terms: terms.sum(axis=0), "factorial": math.factorial}
    if "link" in known:
        called["link"] = LINKS[known["link"]]
    if "divergence" in known:
        called["g"] = derivative(known["divergence"], known["alpha"])
    used = sorted(map(str, expression.free_symbols))
    return sympy.lambdify([symbols[u] for u in used], expression, [called, "numpy"])(*(known[u] for u in used))


def symbols_of(name: str, x: SimpleNamespace, setting) -> dict:
    """What the symbols in the docstrings stand for."""
    K = x.l.shape[1]
    known = dict(setting) | {"K": K}
    if K == 1:
        s = np.where(x.desirable, 1, -1)
        lam = np.where(x.desirable, setting.get("lam_D"), setting.get("lam_U"))
        return known | {"rho": (x.l - x.r)[:, 0], "s": s, "lam": lam, "z0": max(0, x.kl.mean()), "shift": x.shift}
    if K > 2:
        rho = (x.l - x.r).T
        p = np.exp(setting.get("beta", 1) * rho)
        eps = setting.get("eps", 0.1)
        q = np.exp(exo_target(x, eps, setting.get("beta_r", 1)))
        known |= {"l_best": x.l[np.arange(len(x.l)), x.scores.argmax(axis=1)]} if hasattr(x, "scores") else {}
        return known | {"rho_w": rho[0], "rho_k": rho[1:], "p_k": p / p.sum(axis=0), "q_k": q}
    (l_w, l_l), (r_w, r_l), (n_w, n_l) = x.l.T, x.r.T, x.n.T
    known |= {"l_w": l_w, "l_l": l_l, "r_w": r_w, "r_l": r_l, "n_w": n_w, "n_l": n_l}
    known |= {"lbar_w": l_w / n_w, "lbar_l": l_l / n_l, "rho_w": l_w - r_w, "rho_l": l_l - r_l}
    known |= {"D": l_w - r_w - l_l + r_l, "phi": x.dispersion}
    known |= dict(zip(("s_w", "s_l"), x.rewards.T if "rewards" in ROWS[name].needs else x.scores.T))
    known |= dict(zip(("P_w", "P_l"), x.win_probabilities.T))
    known |= dict(zip(("K_w", "K_l"), x.sequence_kl.T)) | dict(zip(("w_w", "w_l"), x.log_weights.T))
    known |= dict(zip(("m", "m_ref"), same_rank(x))) if name == "aot" else {}
    target, tokens = (x.target_l[:, 0], x.target_n[:, 0]) if hasattr(x, "target_l") else (l_w, n_w)
    known |= {"l_target": target, "lbar_target": target / tokens}
    known |= {"c": {"response": 1, "token": tokens}[setting["per"]]} if "per" in setting else {}
    if "beta" in setting:
        known |= {"t": setting["beta"] * known["D"]}
        known |= {"b_w": setting["beta"] * known["rho_w"], "b_l": setting["beta"] * known["rho_l"]}
    return known | ({"D_ld": ld_margin(x, setting["alpha"])} if name == "ld_dpo" else {})


@settings
def test_the_formulas_of_the_docstring_are_true(name, setting, options):
    """The one-line formula and the value at the start, both evaluated as printed."""
    x = inputs(name, options)
    doc = inspect.getdoc(METHODS[name].loss)
    if ROWS[name].printed:
        printed = evaluate(METHODS[name].formula, **symbols_of(name, x, setting))
        np.testing.assert_allclose(printed, ROWS[name].formula(x, **setting), rtol=1e-9, atol=1e-12)
    x = at_start(name, x)
    start = re.search(r" each is (?:``)?(.+?)(?:``)?\.?\n", doc).group(1)
    printed = evaluate(start, **symbols_of(name, x, setting))
    np.testing.assert_allclose(*np.broadcast_arrays(printed, ROWS[name].start(x, **setting)), rtol=1e-12)
