"""Two modules that chase each other: their losses, the exchange of roles, a killed run, and the sum of several domains."""

import json
import os
import re
import signal

import numpy as np
import pytest
import sympy as sp
import torch

from pref_toolkit import losses
from pref_toolkit.errors import Complaint, Terminated
from pref_toolkit.logps import Logps
from pref_toolkit.loops.presets import settings_of
from pref_toolkit.loops.train import train
from pref_toolkit.theory.derivations import fast_slow as derived
from pref_toolkit.theory.derivations.symbols import alpha, beta, r_l, r_w
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.models import tiny
from pref_toolkit.training.run import Run
from pref_toolkit.training.trainer import Trainer

CONFIG = {
    "max_steps": 6,
    "batch_size": 2,
    "lora_rank": 2,
    "sample_tokens": 4,
    "samples": 2,
    "save_every": 2,
    "held_out": 0,
}
CONFIG |= {"learning_rate": 1e-2}
ONE = [{"prompt": f"{n} + 1 =", "chosen": f"{n + 1}", "rejected": f"{n}"} for n in range(8)]
TWO = [{"prompt": f"{n} + 1 =", "chosen": "many", "rejected": f"{n + 1}"} for n in range(8)]


def softplus(x):
    return np.logaddexp(0, x)


@pytest.mark.parametrize("a, b", [(0.0, 0.1), (0.1, 0.1), (0.7, 2.0)])
def test_the_losses_are_their_formula_and_hold_the_opponent(a, b):
    rng = np.random.default_rng(0)
    own, ref, other = rng.normal(-20, 3, (3, 5, 2))
    margin = lambda x, y: (x - y)[:, 0] - (x - y)[:, 1]
    records = [Logps.pair(*torch.tensor(x.T)) for x in (own, ref, other)]
    for x in records:
        x.sums.requires_grad_()
    for name, sign in (("chase_fast", 1), ("chase_slow", -1)):
        loss = losses.LOOP_LOSSES[name].loss(*records, beta=b, alpha=a)
        race = softplus(-sign * b * margin(own, other))
        np.testing.assert_allclose(loss.detach(), softplus(-b * margin(own, ref)) + sign * a * race, rtol=1e-12)
        (slope, held) = torch.autograd.grad(loss.sum(), [records[0].sums, records[2].sums], allow_unused=True)
        assert slope is not None and held is None


@pytest.mark.parametrize("fast", [True, False])
def test_autograd_agrees_with_the_derivation(fast):
    rng = np.random.default_rng(1)
    F, S, ref = rng.normal(-5, 1, (3, 2))
    at = dict(zip((derived.F_w, derived.F_l, derived.S_w, derived.S_l, r_w, r_l), (*F, *S, *ref))) | {
        alpha: 0.6,
        beta: 0.8,
    }
    sigma = lambda x: 1 / (1 + sp.exp(-x))
    D = ((derived.F_w if fast else derived.S_w) - r_w) - ((derived.F_l if fast else derived.S_l) - r_l)
    E = (derived.F_w - derived.S_w) - (derived.F_l - derived.S_l)
    pull = float((beta * sigma(-beta * D) + alpha * beta * sigma(-beta * E)).subs(at))
    own, other = (F, S) if fast else (S, F)
    records = [Logps.pair(*torch.tensor(x)[:, None]) for x in (own, ref, other)]
    records[0].sums.requires_grad_()
    loss = (losses.chase_fast if fast else losses.chase_slow)(*records, beta=0.8, alpha=0.6)
    (slope,) = torch.autograd.grad(loss.sum(), records[0].sums)
    np.testing.assert_allclose(slope, [[-pull, pull]], rtol=1e-12)


def test_they_are_no_methods_of_rows():
    assert not {"chase_fast", "chase_slow"} & set(losses.METHODS)


def run(name="ofs_dpo", rows=None, settings=None, **changes):
    given = rows if rows is not None else (ONE if name == "ofs_dpo" else [ONE, TWO])
    memory = {"memory": 4} if name == "cofs_dpo" else {}
    settings = settings_of(name, **{"exchange_every": 2, **memory, **(settings or {})})
    return train("tiny", None, given, name, None, TrainConfig(**CONFIG | changes), settings, beta=1.0)


def weights(history, view="policy"):
    return {name: value.detach().clone() for name, value in history.policy.weights(view).items()}


def test_both_modules_learn_and_the_fast_one_faster():
    history = run(settings={"slow_rate": 0.01, "exchange_every": 100})
    moved = [
        max(float(w.abs().max()) for n, w in weights(history, view).items() if "lora_B" in n)
        for view in ("policy", "opponent")
    ]
    assert moved[0] > 20 * moved[1] > 0
    assert not any(row["exchanged"] for row in history.steps)


def test_with_one_rate_the_modules_stay_one():
    """Where they agree their gradients differ by rounding and sign of the race only; no dropout is on."""
    history = run(settings={"slow_rate": 1 - 1e-12, "exchange_every": 100}, learning_rate=1e-4)
    one, other = weights(history), weights(history, "opponent")
    own = [(a - b).abs().max() for a, b in zip(one.values(), other.values())]
    assert max(own) < 1e-5  # six steps of 1e-4


def test_the_better_module_takes_the_fast_role(monkeypatch):
    """Its weights, moments and learning rate go with it; the views keep their names."""
    seen = []
    real = Trainer.exchange

    def noted(self, other):
        before = [[w.clone() for w in t.weights.values()] for t in (self, other)]
        moments = [self.optimizer.state[w]["exp_avg"].clone() for w in self.weights.values()]
        real(self, other)
        now = [[w.clone() for w in t.weights.values()] for t in (other, self)]
        seen.append(all(torch.equal(a, b) for x, y in zip(before, now) for a, b in zip(x, y)))
        there = [other.optimizer.state[w]["exp_avg"] for w in other.weights.values()]
        seen.append(all(torch.equal(a, b) for a, b in zip(moments, there)))

    monkeypatch.setattr(Trainer, "exchange", noted)
    contrary = [*ONE[:4], *({**r, "chosen": r["rejected"], "rejected": r["chosen"]} for r in ONE[:4])]
    history = run(rows=contrary, settings={"slow_rate": 0.1}, max_steps=16)
    exchanged = [n for n, row in enumerate(history.steps) if row["exchanged"]]
    assert exchanged and all(n % 2 == 1 for n in exchanged) and seen == [True] * (2 * len(exchanged))
    for n in exchanged:
        own = history.steps[n - 1 : n + 1]
        assert sum(row["slow_dpo"] for row in own) < sum(row["fast_dpo"] for row in own)
    rates = [row["learning_rate"] for row in history.steps]
    assert rates[exchanged[0]] != rates[exchanged[0] + 1]  # the fast role has the other module's rate now


@pytest.mark.parametrize("name", ["ofs_dpo", "cofs_dpo"])
@pytest.mark.parametrize("stop_at", [0, 2, 4])
def test_a_run_that_was_told_to_stop_goes_on_as_if_it_had_not_been(name, stop_at, tmp_path, monkeypatch):
    wanted = run(name, output=str(tmp_path / "whole"), max_steps=7, save_every=100)
    log = Run.log

    def told(self, step, row):
        log(self, step, row)
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched, pytest.raises(Terminated):
        patched.setattr(Run, "log", told)
        run(name, output=str(tmp_path / "broken"), max_steps=7, save_every=100)
    found = run(name, output=str(tmp_path / "broken"), max_steps=7, save_every=100, resume=True)
    for view in ("policy", "opponent"):
        one, other = weights(wanted, view), weights(found, view)
        assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
    same = lambda rows: [{k: v for k, v in row.items() if k not in ("seconds", "kl")} for row in rows]
    assert same(wanted.steps) == same(found.steps)


def dense(policy, view):
    """The update of each layer as one matrix."""
    adapter, own = policy.adapter(view), {}
    for name, module in policy.model.named_modules():
        if hasattr(module, "lora_A") and adapter in module.lora_A:
            own[name] = module.get_delta_weight(adapter)
    return own


def test_the_sum_of_updates_is_the_sum_of_the_dense_ones():
    policy = run("cofs_dpo").policy
    one, two = dense(policy, "domain-1"), dense(policy, "domain-2")
    before = torch.get_rng_state()
    active = policy.model.active_adapter
    trained = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    for pair in ((0.3, 0.7), (2.0, -1.0)):
        policy.combine({"domain-1": pair[0], "domain-2": pair[1]}, "mixed")
        together = dense(policy, "mixed")
        assert together.keys() == one.keys() and policy.rank("mixed") == policy.rank("domain-1") + policy.rank(
            "domain-2"
        )
        for name, update in together.items():
            # float32 sums of four products
            torch.testing.assert_close(update, pair[0] * one[name] + pair[1] * two[name], rtol=1e-5, atol=1e-7)
    assert torch.equal(before, torch.get_rng_state()) and policy.model.active_adapter == active
    assert trained == {n for n, p in policy.model.named_parameters() if p.requires_grad}


def test_several_domains_end_in_a_weighted_sum_that_can_be_saved(tmp_path):
    from pref_toolkit.training.policy import Policy

    history = run("cofs_dpo", output=str(tmp_path / "run"), lora_alpha=8)
    assert [row["domain"] for row in history.steps] == [0] * 3 + [1] * 3
    a, b = json.loads((tmp_path / "run" / "run.json").read_text())["domain_weights"]
    assert a + b == 1
    one, two, now = (dense(history.policy, view) for view in ("domain-1", "domain-2", "policy"))
    for name, update in now.items():
        torch.testing.assert_close(update, a * one[name] + b * two[name], rtol=1e-5, atol=1e-7)
    loaded = dense(Policy.load(str(tmp_path / "run")), "policy")
    assert all(torch.equal(loaded[name], update) for name, update in now.items())


@pytest.mark.parametrize(
    "name, rows, changes, sentence",
    [
        ("cofs_dpo", [ONE], {}, "this loop learns from 2 domains or more in sequence, as in first.jsonl,second.jsonl"),
        ("cofs_dpo", ONE, {}, "this loop learns from 2 domains or more in sequence, as in first.jsonl,second.jsonl"),
        ("ofs_dpo", ["1 + 1 ="], {}, None),
        (
            "ofs_dpo",
            ONE,
            {"alpha": -1.0},
            "hyperparameter 'alpha' of method 'chase_fast' must be a finite number >= 0, got -1.0",
        ),
    ],
)
def test_a_users_mistake_is_one_sentence(name, rows, changes, sentence):
    with pytest.raises(Complaint, match="^" + re.escape(sentence) + "$" if sentence else r"^dataset:1: [^\n]+$"):
        train(*tiny(), rows, name, None, TrainConfig(**CONFIG), **changes)


def test_settings_are_checked():
    with pytest.raises(Complaint, match="slow_rate must"):
        settings_of("ofs_dpo", slow_rate=0.0)
