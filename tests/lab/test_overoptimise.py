"""Gold against proxy: the shipped numbers are what the command makes, and its judges are what they say."""

import json
import math

import pytest
import torch

from pref_toolkit import TrainConfig, lab, train
from pref_toolkit.lab import overoptimise


def test_every_run_is_there_and_made_as_today():
    made, header = overoptimise.load(), overoptimise.header()
    versions = ("versions",)  # of another build the numbers are others, and the file says which
    assert {k: v for k, v in header.items() if k not in versions} == {k: made[k] for k in header if k not in versions}
    found = [(row["seed"], row["judge"]) for row in made["rows"]]
    assert found == [(seed, judge) for seed in overoptimise.SEEDS for judge in ("head", "implicit")]
    for row in made["rows"]:
        assert [point["step"] for point in row["path"]] == [8, 16, 24, 32, 40]
        assert [point["n"] for point in row["best_of"]] == [1, 2, 4, 8, 16]


def test_the_best_of_n():
    scores, asked = [[0.0, 1.0] * 8, [3.0, 2.0] * 8], ["1+1=", "2+2="]
    said = [["3", "2"] * 8, ["5", "4"] * 8]
    one, two, *_ = overoptimise.best_of(scores, asked, said)
    assert one == {"n": 1, "kl": 0.0, "proxy": 1.5, "accuracy": 0.0}
    assert two == {"n": 2, "kl": math.log(2) - 0.5, "proxy": 2.0, "accuracy": 0.5}


def test_the_implicit_reward_is_that_of_dpo():
    """DPO's margin of a pair is the difference of its two rewards; equal answers have equal rewards."""
    rows = lab.pairs(8, seed=0)
    policy = train("lab", None, rows, "dpo", TrainConfig(max_steps=3, batch_size=4, samples=0, held_out=0)).policy
    judge = overoptimise.implicit(policy, beta=0.5)
    ((first, second, again),) = judge(
        [rows[0]["prompt"]], [[rows[0]["chosen"], rows[0]["rejected"], rows[0]["chosen"]]]
    )
    prompt = policy.tokenizer(rows[0]["prompt"]).input_ids
    answer = policy.tokenizer(rows[0]["chosen"] + "</s>", add_special_tokens=False).input_ids
    ids, logps = torch.tensor([prompt + answer]), {}
    for view in ("policy", "start"):
        with policy.view(view), torch.no_grad():
            logp = policy.model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        logps[view] = float(logp[len(prompt) - 1 :].sum())
    assert first == pytest.approx(0.5 * (logps["policy"] - logps["start"]), abs=1e-4)  # float32 sums of six tokens
    assert again == pytest.approx(first, abs=1e-4) and second != pytest.approx(first, abs=1e-4)


def test_the_command_makes_the_file(tmp_path, monkeypatch):
    small = {"PAIRS": 16, "BATCH": 8, "UPDATES": 2, "EVERY": 1, "PROMPTS": 6, "BEST_OF": (1, 2), "SEEDS": (1,)}
    for name, value in small.items():
        monkeypatch.setattr(overoptimise, name, value)
    monkeypatch.setattr(overoptimise, "FILE", tmp_path / "made.json")
    assert overoptimise.main() == 0
    made = json.loads((tmp_path / "made.json").read_text())
    assert [row["judge"] for row in made["rows"]] == ["head", "implicit"]
    for row in made["rows"]:
        assert [point["step"] for point in row["path"]] == [1, 2] and row["spread"] > 0
        assert all(math.isfinite(value) for point in row["path"] + row["best_of"] for value in point.values())
        assert row["best_of"][1]["proxy"] >= row["best_of"][0]["proxy"]
