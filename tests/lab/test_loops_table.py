"""The lab's table of loops is what its command makes, and says what it says."""

import json

import pytest

from pref_toolkit.lab import loops
from pref_toolkit.loops.presets import LOOPS


def test_every_row_is_there_with_every_seed():
    made = loops.load()["rows"]
    assert {(row["method"], row["seed"]) for row in made} == {
        (name, seed) for name in loops.NAMES for seed in loops.SEEDS
    }
    asking = {name for name, loop in LOOPS.items() if loop.asks}
    assert asking <= {*loops.NAMES}
    for row in made:
        steps = [point["step"] for point in row["path"]]
        assert len(steps) == 5 and steps[-1] == 100
        assert row["rounds"] > 1 or steps == [20, 40, 60, 80, 100]
        assert (row["judge_calls"] > 0) == (row["method"] in asking)
        assert row["judged"] == (row["generations"] if row["judge_calls"] else 0)


def test_the_table_can_be_made_again():
    header = loops.header()
    made = loops.load()
    assert {name: made[name] for name in ("updates", "responses", "base_steps", "model_sha256")} == {
        name: header[name] for name in ("updates", "responses", "base_steps", "model_sha256")
    }


@pytest.mark.parametrize("name", ["dpo", "remax", "self_play"])
def test_a_row_is_made_by_its_command(name, tmp_path, monkeypatch):
    """With few updates: what is counted is what was drawn and asked."""
    monkeypatch.setattr(loops, "UPDATES", 6)
    monkeypatch.setattr(loops, "EVERY", 3)
    monkeypatch.setattr(loops, "RESPONSES", 8)
    monkeypatch.setattr(loops, "SEEDS", (1,))
    path = tmp_path / "loops.json"
    path.write_text(json.dumps(loops.load() | loops.header() | {"rows": []}))
    monkeypatch.setattr(loops, "FILE", path)
    assert loops.main([name]) == 0
    (row,) = loops.load()["rows"]
    assert [point["step"] for point in row["path"]] == (
        [4, 6] if name == "self_play" else [3, 6]
    )  # a round is 2 updates
    drawn = {"dpo": 0, "remax": 6 * 8 * 2, "self_play": 6 * 4}[name]  # remax: one answer and the greedy one
    assert row["generations"] == drawn and row["judge_calls"] == (6 if name == "remax" else 0)


def test_a_row_that_there_is_not():
    assert loops.main(["rlooo"]) == 2


@pytest.mark.parametrize(
    "kl, best",
    [
        (0.0, 0.5),  # the start
        (0.01, 0.525),  # a quarter of the way to the first checkpoint
        (0.04, 0.6),
        (0.06, 0.65),  # half the way to the second
        (0.1, 0.7),
        (1.0, 0.7),  # the last one is worse, and nothing lies beyond
    ],
)
def test_accuracy_within_a_kl_is_the_best_on_the_lines_between_checkpoints(kl, best):
    path = [{"kl": 0.04, "accuracy": 0.6}, {"kl": 0.08, "accuracy": 0.7}, {"kl": 0.12, "accuracy": 0.5}]
    assert loops.within(path, kl, start=0.5) == pytest.approx(best)
    assert loops.within(path[::-1], 0.04, start=0.5) == pytest.approx(0.6)  # a run may come back


def test_a_row_from_a_base_is_compared_with_the_base():
    made, found = loops.load(), loops.summary()
    for name in ("self_play, base", "sft, base"):
        rows = [row for row in made["rows"] if row["method"] == name]
        begun = sum(made["starts"][str(row["seed"])]["base"] for row in rows) / len(rows)
        # Half of what it is right more often; the base answered other times for ``starts`` than for the wins, 3000 prompts.
        assert found[name]["win_rate"][0] == pytest.approx((1 + found[name]["accuracy"][0] - begun) / 2, abs=0.02)
        assert 0 <= found[name]["kl"][0] < 3 and found[name]["within"][0] >= begun
