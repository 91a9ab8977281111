"""Every derivation is proved, every line of it matters, and its last line is the loss that trains."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import torch
from scipy.special import expit

from pref_toolkit.logps import Logps
from pref_toolkit.losses import METHODS
from pref_toolkit.theory.derivations import ALL, Counts, DerivationError, printing
from pref_toolkit.theory.derivations.premises import Premises
from pref_toolkit.theory.derivations.proof import refute, substitute
from pref_toolkit.theory.derivations.ranking import l_target, with_target
from pref_toolkit.theory.derivations.symbols import l_l, l_w

LINES = [(name, k) for name in ALL for k in range(len(ALL[name].steps))]
PROVED = [(n, k) for n, k in LINES if ALL[n].steps[k].check == "proved"]
PROOFS = {}
DEFINED = [(n, k) for n, k in LINES if ALL[n].steps[k].check == "definition"]


def test_every_method_is_derived():
    assert set(METHODS) <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_step_is_proved(name):
    ALL[name].verify()


@pytest.fixture(autouse=True)
def what_was_proved_is_known(monkeypatch):
    """The lines before a false one are those of the derivation, and need not be proved again for each."""

    def known(statement, rules, assumed):
        key = statement, tuple(rules.items()), tuple(assumed.items())
        if key not in PROOFS:
            PROOFS[key] = refute(statement, rules, assumed)
        return PROOFS[key]

    monkeypatch.setattr("pref_toolkit.theory.derivations.derivation.refute", known)


def changed(name, k, statement):
    steps = list(ALL[name].steps)
    steps[k] = replace(steps[k], statement=statement)
    return replace(ALL[name], steps=tuple(steps))


def swapped(expr):
    """The expression with the chosen and the rejected response in each other's place."""
    names = {x.name: x for x in expr.free_symbols}
    other = {name: name[:-1] + {"w": "l", "l": "w"}[name[-1]] for name in names if name.endswith(("_w", "_l"))}
    partner = {names[name]: names.get(new, sp.Symbol(new, **names[name].assumptions0)) for name, new in other.items()}
    return expr.xreplace(partner)


def falsehoods(statement):
    """The statement with one fault in it, each of these that changes it.

    The right side with its sign flipped, doubled, halved and shifted by 1; with the sign of one summand flipped; with each
    symbol doubled; and with the chosen and the rejected response in each other's place.
    """
    left, right = statement.args
    if not isinstance(statement, sp.Equality):
        return [statement.func(-left, right, evaluate=False)]
    wrong = [right + 1] if right == 0 else [-right, 2 * right, right / 2, right + 1]
    wrong += [right - 2 * term for term in sp.Add.make_args(right) if right.is_Add]
    wrong += [right.xreplace({x: 2 * x}) for x in sorted(right.free_symbols, key=str) if not x.is_integer]
    wrong += [swapped(right)]
    return [sp.Eq(left, w, evaluate=False) for w in dict.fromkeys(wrong) if w not in (left, right)]


# Faults that leave a statement true, so that no prover can find them: for the link f(t) = -t, f(0) is 0, so are its
# negative, its double and its half, and the slope is the same at every margin; a divisor of 1 is the same at every length.
SURVIVORS = {("gpo", "correlation"): 5, ("spin", "correlation"): 5, ("sft", "response"): 4}


@pytest.mark.parametrize(("name", "k"), PROVED)
def test_a_false_step_is_named(name, k):
    with pytest.raises(DerivationError, match=rf"^{name}, step {k + 1} \("):
        changed(name, k, falsehoods(ALL[name].steps[k].statement)[0]).verify()


@pytest.mark.parametrize(("name", "choice"), [(n, None) for n in ALL] + [(n, c) for n in ALL for c in ALL[n].choices])
def test_every_fault_in_a_step_is_found(name, choice):
    """Faults are planted into every proved step. Those that are not found are true, and few."""
    derivation = ALL[name].choose(choice) if choice else ALL[name]
    premises, survivors = Premises(), 0
    for step in derivation.steps:
        if step.check == "definition":
            premises.define(*step.statement.args)
        elif step.check == "assumption":
            premises.assume(*step.statement.args)
        for false in falsehoods(step.statement) if step.check == "proved" else ():
            if refute(false, premises.rules, premises.assumed) is None:
                survivors += 1
                sides = [substitute(side, premises.rules) for side in false.args]
                rng = np.random.default_rng(0)
                point = {str(x): rng.uniform(0.1, 2, B) for side in sides for x in sorted(side.free_symbols, key=str)}
                np.testing.assert_allclose(*(number(side, point) for side in sides), rtol=1e-12, atol=1e-12)
    assert survivors == SURVIVORS.get((name, choice), 0)


@pytest.mark.parametrize(("name", "k"), DEFINED)
def test_a_changed_definition_breaks_a_later_step(name, k):
    """So each definition is needed, and none can drift from what is proved with it."""
    left, right = ALL[name].steps[k].statement.args
    with pytest.raises(DerivationError):
        changed(name, k, sp.Eq(left, 2 * right + 1, evaluate=False)).verify()


@pytest.mark.parametrize("name", ALL)
def test_what_is_shown_is_what_is_proved(name):
    shown = ALL[name]._repr_markdown_()
    assert all(c.isprintable() or c == "\n" for c in shown), "an escape such as that of \\beta: want a raw string"
    for step in ALL[name].steps:
        assert step.latex() in shown
        assert step.why in shown
        if isinstance(step.statement, str):
            assert step.check == "argument"
    marks = {"proved": "✓", "argument": "argued", "assumption": "assumed"}
    for check, mark in marks.items():
        assert shown.count(rf" {mark}}}") == sum(step.check == check for step in ALL[name].steps), mark


def test_the_readme_says_how_much_is_proved():
    text = " ".join((Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split())
    assert str(sum((d.counts() for d in ALL.values()), Counts())) in text


# A referee's list of the derivations that unfolded a definition, differentiated it and proved no more.
ONCE_WEAK = [
    "dpo",
    "ipo",
    "displacement",
    "r_dpo",
    "tdpo1",
    "mallows_dpo",
    "sppo",
    "simpo",
    "cpo",
    "dpo_nll",
    "dpop",
    "slic_hf",
    "click",
    "rrhf",
    "wpo",
    "nca",
    "plackett_luce",
    "s_dpo",
    "aot",
    "online_ipo",
    "exo",
    "rlhf",
]


@pytest.mark.parametrize("name", ALL)
def test_a_derivation_proves_more_than_its_definitions(name):
    assert ALL[name].counts().beyond >= (2 if name in ONCE_WEAK else 1)


@pytest.mark.parametrize("name", ALL)
def test_no_symbol_prints_as_a_word_of_code(name):
    """A name of several letters is a command of LaTeX, or stands in one."""
    statements = [step.statement for step in ALL[name].steps if not isinstance(step.statement, str)]
    for symbol in set().union(*(statement.free_symbols for statement in statements)):
        assert not re.search(r"(?<![\\A-Za-z{])[A-Za-z]{2,}", printing.latex(symbol)), symbol


@pytest.mark.parametrize(("name", "choice"), [(name, c) for name in ALL for c in ALL[name].choices])
def test_every_choice_of_an_open_function_is_proved(name, choice):
    ALL[name].choose(choice).verify()


# The last line against the implementation.

B = 50
SETTINGS = {
    "beta": 0.7,
    "gamma": 0.3,
    "tau": 0.4,
    "lam": 0.6,
    "delta": 2.0,
    "alpha": 0.3,
    "eps": 0.2,
    "beta_r": 0.4,
    "m": 0.5,
    "weight": 0.4,
    "lam_D": 0.4,
    "lam_U": 1.3,
}
THREE = {"plackett_luce", "rrhf", "s_dpo"}
ONE = {"kto", "bco", "sft"}


def inputs(name):
    """Everything a loss may read, float64, by the name of its argument."""
    rng = np.random.default_rng(0)
    k = 3 if name in THREE else 1 if name in ONE else 2
    n = rng.integers(1, 30, (B, k))
    policy = -n * rng.uniform(0.05, 3, (B, k))
    head = np.broadcast_to(n.min(axis=1, keepdims=True), n.shape)
    scores = -np.sort(-rng.normal(0, 2, (B, k)))
    return {
        "policy": policy,
        "reference": policy + rng.normal(0, 2, (B, k)),
        "tokens": n,
        "policy_first": policy * head / n,
        "reference_first": policy * head / n + rng.normal(0, 1, (B, k)),
        "head_tokens": head,
        "scores": scores,
        "rewards": scores,
        "win_probabilities": rng.uniform(0, 1, (B, k)),
        "desirable": rng.random(B) < 0.4,
        "kl": rng.normal(2, 6, 40),
        "shift": np.array(0.3),
        "sequence_kl": rng.exponential(2, (B, k)),
        "log_weights": rng.normal(0, 0.5, (B, k)),
        "dispersion": rng.exponential(1, B),
    }


# Where each symbol of a loss is found: an argument and its column.
COLUMNS = {
    f"{symbol}_{k}": (argument, column)
    for symbol, argument in {
        "l": "policy",
        "r": "reference",
        "n": "tokens",
        "s": "scores",
        "h": "policy_first",
        "k": "reference_first",
        "K": "sequence_kl",
        "w": "log_weights",
        "P": "win_probabilities",
    }.items()
    for k, column in {"w": 0, "l": 1, "1": 0, "2": 1, "3": 2}.items()
} | {"l": ("policy", 0), "r": ("reference", 0)}


def values(x, settings):
    """Numbers for every symbol of a derivation's last line."""
    found = {s: x[argument][:, column] for s, (argument, column) in COLUMNS.items() if column < x[argument].shape[1]}
    found |= {h: v for h, v in settings.items() if not isinstance(v, str)}
    found |= {"phi": x["dispersion"], "s": np.where(x["desirable"], 1, -1), "z_0": max(0, x["kl"].mean())}
    if "lam_D" in settings:
        found["lam"] = np.where(x["desirable"], settings["lam_D"], settings["lam_U"])
    if "delta" not in settings:
        found["delta"] = x["shift"]
    if x["policy"].shape[1] == 2:
        found["Delta"] = x["scores"][:, 0] - x["scores"][:, 1]
        ratios = x["reference"][:, 0] - x["reference"][:, 1]
        rank = np.argsort(np.argsort(x["policy"][:, 0] - x["policy"][:, 1]))
        found["m_ref"] = np.sort(ratios)[rank]
    return found


NUMPY = [{"sigma": expit, "relu": lambda t: np.maximum(t, 0), "indicator": lambda t: np.heaviside(t, 0)}, "numpy"]


def number(expr, found):
    expr = expr.replace(lambda e: isinstance(e, sp.Derivative | sp.Subs), lambda e: e.doit())
    names = sorted(expr.free_symbols, key=str)
    return np.broadcast_to(sp.lambdify(names, expr, NUMPY)(*(found[str(n)] for n in names)), B)


def derivations_of_losses():
    """Each method, and each of its choices with the derivation that makes it."""
    for name, method in METHODS.items():
        if name not in ALL:
            continue  # test_every_method_is_derived says so
        derivation = ALL[name]
        open_function = next((h for h, v in method.hyperparameters.items() if v in derivation.choices), None)
        if open_function is None:
            yield pytest.param(name, derivation, {}, id=name)
        for choice in derivation.choices:
            yield pytest.param(name, derivation.choose(choice), {open_function: choice}, id=f"{name}-{choice}")


@pytest.mark.parametrize(("name", "derivation", "chosen"), list(derivations_of_losses()))
def test_the_last_line_is_the_loss_and_its_gradient(name, derivation, chosen):
    method, x = METHODS[name], inputs(name)
    settings = {h: SETTINGS[h] for h in method.hyperparameters if h not in chosen} | chosen
    tensors = {a: torch.tensor(v) for a, v in x.items()}
    moved = [a for a in ("policy", "policy_first", "sequence_kl", "scores", "rewards") if a in method.needs]
    for argument in moved:
        tensors[argument].requires_grad_()
    records = dict(tensors)
    for argument in ("policy", "reference"):
        records[argument] = Logps(tensors[argument], tensors["tokens"])
        records[f"{argument}_first"] = Logps(tensors[f"{argument}_first"], tensors["head_tokens"])

    loss = method.loss(*(records[need] for need in method.needs), **settings)
    found = values(x, settings)
    np.testing.assert_allclose(loss.detach(), number(derivation.loss, found), rtol=1e-12, atol=1e-12)

    slopes = dict(zip(moved, torch.autograd.grad(loss.sum(), [tensors[a] for a in moved], allow_unused=True)))
    arguments = derivation.loss_arguments
    assert len(arguments) >= (1 if name in ONE else 2)
    for symbol, slope in zip(arguments, derivation.gradient):
        argument, column = COLUMNS[str(symbol)]
        argument = "rewards" if argument == "scores" and "rewards" in method.needs else argument
        np.testing.assert_allclose(slopes[argument][:, column], number(slope, found), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["slic_hf", "click"])
def test_so_is_the_line_of_a_separate_target(name):
    method, x = METHODS[name], inputs(name)
    settings = {h: SETTINGS[h] for h in method.hyperparameters}
    policy = torch.tensor(x["policy"], requires_grad=True)
    tokens = torch.arange(1, B + 1)[:, None]
    target = (-0.7 * tokens).double().requires_grad_()
    loss = method.loss(Logps(policy, torch.tensor(x["tokens"])), Logps(target, tokens), **settings)
    by_pair, by_target = torch.autograd.grad(loss.sum(), (policy, target))

    steps, rules = ALL[name].steps, ALL[name].definitions
    proved = {s.statement.lhs: substitute(s.statement.rhs, rules) for s in steps if s.check == "proved"}
    found = values(x, settings) | {
        str(l_target): target.detach()[:, 0].numpy(),
        r"n_{\mathrm{target}}": tokens[:, 0].numpy(),
    }
    np.testing.assert_allclose(loss.detach(), number(proved[with_target], found), rtol=1e-12, atol=1e-12)
    for symbol, slope in ((l_w, by_pair[:, 0]), (l_l, by_pair[:, 1]), (l_target, by_target[:, 0])):
        expected = number(proved[sp.Derivative(with_target, symbol)], found)
        np.testing.assert_allclose(slope, expected, rtol=1e-10, atol=1e-10)
