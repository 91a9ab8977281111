"""Every loop on a tiny model: it learns, is killed and goes on, and asks the judge no more often for that."""

import math
import os
import re
import signal

import pytest
import torch

from pref_toolkit.errors import Complaint, Terminated
from pref_toolkit.loops.presets import LOOPS, settings_of
from pref_toolkit.loops.train import train
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.models import tiny

ROWS = [{"prompt": f"{n} + 1 =", "chosen": f"{n + 1}", "rejected": f"{n}"} for n in range(8)]
CONFIG = {"max_steps": 6, "batch_size": 2, "lora_rank": 2, "sample_tokens": 4, "samples": 2, "save_every": 2}
every_loop = pytest.mark.parametrize("name", LOOPS)


class Counting:
    """A judge who likes long answers with many different characters, and keeps whom it was asked about."""

    def __init__(self):
        self.calls = []

    def __call__(self, prompts, answers):
        self.calls.append((tuple(prompts), tuple(map(tuple, answers))))
        return [[len(set(a)) + len(a) / 10 for a in own] for own in answers]


def told_to_stop(tokenizer, decoded):
    """The process gets SIGTERM when the tokenizer has decoded so many answers: while a draw is made."""
    decode, left = tokenizer.decode, [decoded]

    def counted(*given, **settings):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return decode(*given, **settings)

    tokenizer.decode = counted


def run(name, judge, stop_after=0, **changes):
    model, tokenizer = tiny()
    told_to_stop(tokenizer, stop_after)
    asks = LOOPS[name].asks
    rounds = 1 if name == "rso" else 2
    settings = settings_of(name, rounds=rounds, **({"answers": 3} if asks else {}))
    config = TrainConfig(**CONFIG | changes)
    return train(model, tokenizer, ROWS, name, judge if asks else None, config, settings)


def weights(history):
    return {name: value.detach().clone() for name, value in history.policy.weights().items()}


@every_loop
def test_it_trains_and_says_what_it_drew(name):
    judge = Counting()
    history = run(name, judge)
    assert len(history.steps) == 6 and all(math.isfinite(row["loss"]) for row in history.steps)
    assert any(not torch.equal(w, torch.zeros_like(w)) for n, w in weights(history).items() if "lora_B" in n)
    assert bool(judge.calls) == LOOPS[name].asks


@every_loop
@pytest.mark.parametrize("stop_after", [3, 14])
def test_a_run_that_was_told_to_stop_goes_on_as_if_it_had_not_been(name, stop_after, tmp_path):
    unbroken, before, after = Counting(), Counting(), Counting()
    wanted = run(name, unbroken, output=str(tmp_path / "unbroken"))
    broken = str(tmp_path / "broken")
    with pytest.raises(Terminated):
        run(name, before, stop_after, output=broken)
    found = run(name, after, output=broken, resume=True)
    one, other = weights(wanted), weights(found)
    assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
    assert [*before.calls, *after.calls] == unbroken.calls
    drop = ("seconds",)
    same = lambda rows: [{k: v for k, v in row.items() if k not in drop} for row in rows]
    assert same(wanted.steps) == same(found.steps)


def test_a_judge_that_fails_costs_no_draw(tmp_path):
    def failing(prompts, answers):
        raise RuntimeError("no connection")

    with pytest.raises(Complaint, match=r"^the judge failed: RuntimeError: no connection"):
        run("online_dpo", failing, output=str(tmp_path / "run"))
    kept = (tmp_path / "run" / "made" / "unjudged.jsonl").read_text()
    assert kept.count('"responses"') == 2
    judge = Counting()
    assert len(run("online_dpo", judge, output=str(tmp_path / "run"), resume=True).steps) == 6


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"name": "online_dppo"}, "no loop 'online_dppo': did you mean 'online_dpo'?"),
        ({"judge": None}, "online_dpo asks a judge: name one with judge=module:function"),
        (
            {"name": "self_play", "asked": ["1 + 1 ="]},
            "dataset:1: this loop needs an answer beside the prompt: give pairs, or field 'answer'",
        ),
        ({"asked": []}, "no prompts in dataset"),
        ({"asked": [{"prompt": 3}]}, "dataset:1: field 'prompt' is a number, want text or chat messages"),
        ({"beta": -1.0}, "hyperparameter 'beta' of method 'dpo' must be a finite number > 0, got -1.0"),
    ],
)
def test_a_users_mistake_is_one_sentence(changes, sentence):
    given = {"asked": ROWS, "name": "online_dpo", "judge": Counting()} | changes
    asked, name, judge = (given.pop(key) for key in ("asked", "name", "judge"))
    with pytest.raises(Complaint, match="^" + re.escape(sentence) + "$"):
        train("tiny", None, asked, name, judge, TrainConfig(**CONFIG), **given)


def test_a_run_is_continued_with_the_same_settings_only(tmp_path):
    with pytest.raises(Terminated):
        run("online_dpo", Counting(), 8, output=str(tmp_path / "run"))
    with pytest.raises(Complaint, match="loop answers: 3 -> 4"):
        train(
            *tiny(), ROWS, "online_dpo", Counting(), TrainConfig(**CONFIG, output=str(tmp_path / "run"), resume=True),
            settings_of("online_dpo", rounds=2, answers=4),
        )  # fmt: skip
