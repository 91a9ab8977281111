"""Every loop on a tiny model: it learns, is killed and goes on, and asks the judge no more often for that."""

import json
import math
import os
import re
import signal

import pytest
import torch

from pref_toolkit.errors import Complaint, Terminated
from pref_toolkit.loops.judges import load
from pref_toolkit.loops.presets import LOOPS, settings_of
from pref_toolkit.loops.train import train
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.models import tiny

ROWS = [{"prompt": f"{n} + 1 =", "chosen": f"{n + 1}", "rejected": f"{n}"} for n in range(8)]
CONFIG = {"max_steps": 6, "batch_size": 2, "lora_rank": 2, "sample_tokens": 4, "samples": 2, "save_every": 2}
every_loop = pytest.mark.parametrize(
    "name", [name for name, loop in LOOPS.items() if not loop.streams]
)  # see test_fast_slow


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
    wanted = {"answers": 3, "rounds": 1 if name == "rso" else 2}
    settings = settings_of(name, **{setting: wanted[setting] for setting in wanted.keys() & set(LOOPS[name].reads)})
    config = TrainConfig(**CONFIG | changes)
    return train(model, tokenizer, ROWS, name, judge if LOOPS[name].asks else None, config, settings)


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
def test_a_run_without_a_directory_is_the_same(name, tmp_path):
    judges = Counting(), Counting()
    kept, forgotten = run(name, judges[0], output=str(tmp_path / "run")), run(name, judges[1])
    one, other = weights(kept), weights(forgotten)
    assert all(torch.equal(one[n], other[n]) for n in one) and judges[0].calls == judges[1].calls


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


@pytest.mark.parametrize("name", ["remax", "grpo"])
def test_several_updates_on_a_draw_are_continued_too(name, tmp_path):
    settings = settings_of(name, updates=3)
    short = {name: value for name, value in CONFIG.items() if name != "save_every"}
    whole, broken = (str(tmp_path / place) for place in ("whole", "broken"))
    judges = [Counting(), Counting()]
    wanted = train(*tiny(), ROWS, name, judges[0], TrainConfig(**short, output=whole, save_every=4), settings)
    assert len(judges[0].calls) == 2  # for six updates
    rows = [json.loads(line) for line in (tmp_path / "whole/made/draws/000001.jsonl").read_text().splitlines()]
    assert all(list(map(len, row["logps"])) == list(map(len, row["tokens"])) for row in rows)
    model, tokenizer = tiny()
    told_to_stop(tokenizer, 9 if name == "remax" else 15)  # in the second draw
    with pytest.raises(Terminated):
        train(model, tokenizer, ROWS, name, judges[1], TrainConfig(**short, output=broken, save_every=4), settings)
    again = TrainConfig(**short, output=broken, save_every=4, resume=True)
    found = train(*tiny(), ROWS, name, judges[1], again, settings)
    one, other = weights(wanted), weights(found)
    assert all(torch.equal(one[n], other[n]) for n in one) and judges[1].calls == judges[0].calls


def test_the_clip_is_for_the_updates_after_the_first_on_a_draw():
    """In the first every ratio is 1."""
    settings = settings_of("rloo", updates=2)
    config = TrainConfig(**CONFIG | {"learning_rate": 1e-2})
    norms = [
        [row["gradient_norm"] for row in train(*tiny(), ROWS, "rloo", Counting(), config, settings, eps=eps).steps]
        for eps in (1e-3, 1e3)
    ]
    assert norms[0][0] == pytest.approx(norms[1][0], rel=1e-5)  # float32, and ratios that are 1 but for rounding
    assert norms[0][1] < 0.99 * norms[1][1]


def test_a_reward_model_is_a_judge(tmp_path):
    """The rewards of two answers that are the same are the same, whoever else is asked about."""
    from pref_toolkit.training.loop import train as train_rewards

    directory = str(tmp_path / "rewards")
    short = {name: CONFIG[name] for name in ("batch_size", "lora_rank", "sample_tokens", "samples")}
    train_rewards("tiny", None, ROWS, "bradley_terry", TrainConfig(**short, max_steps=3, output=directory))
    judge = load(directory)
    scores = judge(["1 + 1 =", "2 + 1 ="], [["2", "2", ""], ["3", "4", "5"]])
    assert scores[0][0] == pytest.approx(scores[0][1], rel=1e-5) and len({*scores[1]}) == 3  # float32 forwards
    history = train(
        *tiny(), ROWS, "online_dpo", None, TrainConfig(**CONFIG), settings_of("online_dpo", judge=directory)
    )
    assert len(history.steps) == 6 and all(math.isfinite(row["score"]) for row in history.steps)
    with pytest.raises(Complaint, match=r"holds no reward model: train one with --method bradley_terry$"):
        train_rewards("tiny", None, ROWS, "dpo", TrainConfig(**short, max_steps=1, output=str(tmp_path / "policy")))
        load(str(tmp_path / "policy"))


def test_a_reward_model_reads_chats_as_they_are(tmp_path):
    """With its own template, and not the text that the policy's template made of them."""
    from pref_toolkit.training.loop import train as train_rewards

    said = lambda text: [{"role": "assistant", "content": text}]
    chats = [[{"role": "user", "content": row["prompt"]}] for row in ROWS]
    rows = [{"prompt": chat, "chosen": said("yes"), "rejected": said("no")} for chat in chats]
    directory = str(tmp_path / "rewards")
    short = {name: CONFIG[name] for name in ("batch_size", "lora_rank", "sample_tokens", "samples")}
    train_rewards("tiny", None, rows, "bradley_terry", TrainConfig(**short, max_steps=1, output=directory))
    seen, judge = [], load(directory)

    def asked(prompts, answers):
        seen.extend(prompts)
        return judge(prompts, answers)

    asked.reads_chats = judge.reads_chats
    history = train(*tiny(), rows, "online_dpo", asked, TrainConfig(**CONFIG), settings_of("online_dpo"))
    assert len(history.steps) == 6 and list(seen[0]) in chats


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
            {"name": "self_play", "judge": None, "asked": ["1 + 1 ="]},
            "dataset:1: this loop needs an answer beside the prompt: give pairs, or field 'answer'",
        ),
        (
            {"name": "generations", "judge": None, "asked": ["1 + 1 ="]},
            "dataset:1: this loop needs an answer beside the prompt: give pairs, or field 'answer'",
        ),
        (
            {"name": "self_play", "judge": None, "asked": [*ROWS[:2], {"prompt": "1 + " * 900, "answer": "2"}]},
            "dataset:3: its prompt has 3601 tokens and max_length is 1024; raise max_length, or leave the row out",
        ),
        ({"asked": []}, "no prompts in dataset"),
        ({"asked": [{"prompt": 3}]}, "dataset:1: field 'prompt' is a number, want text or chat messages"),
        (
            {"name": "remax", "settings": {"answers": 3}, "baseline": "group"},
            "a baseline of 'group' cancels the greedy answer's score: set greedy to false",
        ),
        (
            {"name": "rso", "settings": {"kept": 9}},
            "kept=9 answers are more than the answers=8 that are drawn",
        ),
        ({"name": "self_play"}, "self_play asks no judge, and was given one"),
        ({"name": "grpo", "settings": {"answers": 1}}, "a baseline of 'group' wants answers >= 2, got 1"),
        (
            {"name": "iterative_click", "asked": ["1 + 1 ="]},
            "dataset:1: this loop needs an answer beside the prompt: give pairs, or field 'answer'",
        ),
        ({"beta": -1.0}, "hyperparameter 'beta' of method 'dpo' must be a finite number > 0, got -1.0"),
    ],
)
def test_a_users_mistake_is_one_sentence(changes, sentence):
    given = {"asked": ROWS, "name": "online_dpo", "judge": Counting()} | changes
    asked, name, judge = (given.pop(key) for key in ("asked", "name", "judge"))
    if "settings" in given:
        given["settings"] = settings_of(name, **given["settings"])
    with pytest.raises(Complaint, match="^" + re.escape(sentence) + "$"):
        train("tiny", None, asked, name, judge, TrainConfig(**CONFIG), **given)


def test_a_run_is_continued_with_the_same_settings_only(tmp_path):
    with pytest.raises(Terminated):
        run("online_dpo", Counting(), 8, output=str(tmp_path / "run"))
    with pytest.raises(Complaint, match="loop answers: 3 -> 4"):
        train(
            *tiny(), ROWS, "online_dpo", Counting(), TrainConfig(**CONFIG, output=str(tmp_path / "run"), resume=True),
            settings_of("online_dpo", answers=4),
        )  # fmt: skip
