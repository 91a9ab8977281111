"""Checkpoints: a continued run is the uninterrupted one, and half a file is never taken for a whole."""

import json
import os
import random
import shutil
import signal
import time
from functools import cache
from pathlib import Path

import pytest
import torch

from pref_toolkit import TrainConfig, train
from pref_toolkit.training import checkpoints, files
from pref_toolkit.training.adapters import trainable
from pref_toolkit.training.models import tiny


def state_of(history):
    head = {} if history.reward_head is None else {"head": history.reward_head.weight.detach().clone()}
    return head | {name: value.detach().clone() for name, value in trainable(history.model).items()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# Beside DPO, one method for each thing that a run must find again: a running mean, a pass over the data, a reward head, and
# scoring twice with the same dropout.
WITH_DROPOUT = {"lora_dropout": 0.3, "learning_rate": 1e-3}
STOPS = [
    ("dpo", (4,)),
    ("dpo", (3, 4)),
    ("dpo", (1, 7)),
    *((m, (4,)) for m in ("bco", "mallows_dpo", "bradley_terry", "aot")),
]


@pytest.fixture(scope="module")
def eight_steps(rows_for, quick, tmp_path_factory):
    """A run that is not interrupted, by method. 10 training examples in batches of 4: the third update begins a second pass."""

    @cache
    def run(method):
        output = str(tmp_path_factory.mktemp("straight"))
        return train(*tiny(), rows_for(method), method, quick(**WITH_DROPOUT, output=output, max_steps=8))

    return run


@pytest.mark.parametrize("method, stops", STOPS)
def test_eight_steps_are_eight_steps_however_often_interrupted(method, stops, eight_steps, rows_for, quick, tmp_path):
    straight, rows = eight_steps(method), rows_for(method)
    settings = WITH_DROPOUT | {"output": str(tmp_path)}
    for n, stop in enumerate((*stops, 8)):
        torch.manual_seed(n)  # a continued run must not lean on whatever state it finds
        history = train(*tiny(), rows, method, quick(**settings, max_steps=stop, resume=n > 0))
    assert_same_bits(state_of(straight), state_of(history))
    same = lambda row: {k: v for k, v in row.items() if k not in ("seconds", "kl")}
    assert [same(r) for r in straight.steps] == [same(r) for r in history.steps]
    assert straight.before == history.before and straight.after == history.after


CHANGES = {
    "seed": {"seed": 1},
    "learning_rate": {"learning_rate": 1e-2},
    "batch_size": {"batch_size": 3},
    "lora_rank": {"lora_rank": 4},
    "hyperparameter beta": {"beta": 0.2},
}


@pytest.fixture(scope="module")
def finished_once(rows, quick, tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    train(*tiny(), rows, config=quick(output=str(directory)))
    return directory


@pytest.fixture
def finished(finished_once, tmp_path):
    """The directory of a run that is done."""
    return str(shutil.copytree(finished_once, tmp_path / "run"))


@pytest.mark.parametrize("name", CHANGES)
def test_another_run_is_not_continued(name, finished, rows, quick):
    change = dict(CHANGES[name])
    hyperparameters = {k: change.pop(k) for k in list(change) if k == "beta"}
    with pytest.raises(ValueError, match=f"cannot be continued, these differ: .*{name}: "):
        train(*tiny(), rows, config=quick(output=finished, resume=True, **change), **hyperparameters)


def test_other_data_or_weights_are_not_continued(finished, rows, quick):
    resume = quick(output=finished, resume=True)
    with pytest.raises(ValueError, match="data: "):
        train(*tiny(), [*rows[:-1], rows[-1] | {"chosen": "else"}], config=resume)
    model, tokenizer = tiny()
    with torch.no_grad():
        weight = model.model.embed_tokens.weight
        weight[[5, 6]] = weight[[6, 5]]
    with pytest.raises(ValueError, match="base weights: "):
        train(model, tokenizer, rows, config=resume)


DAMAGE = {
    "deleted": lambda path: path.unlink(),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one bit flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["policy.safetensors", "trainer.safetensors", "rng.safetensors", "manifest.json"])
def test_a_damaged_checkpoint_is_skipped_and_named(file, damage, tmp_path):
    write_two(tmp_path)
    DAMAGE[damage](tmp_path / "step-00000002" / file)
    if (file, damage) == ("manifest.json", "one bit flipped"):  # the last bit of a JSON text: "}" becomes "|"
        assert (tmp_path / "step-00000002" / file).read_bytes().endswith(b"|")
    found = checkpoints.newest(tmp_path)
    assert found.step == 1
    assert "step-00000002" in found.skipped[0] and file in found.skipped[0]


def write_two(directory):
    for step in (1, 2):
        tensors = {name: {"w": torch.full((3,), float(step))} for name in ("policy", "trainer", "rng")}
        checkpoints.save(directory, step, tensors, {"method": "dpo"}, keep=2)


def test_a_manifest_cannot_point_outside_its_directory(tmp_path):
    write_two(tmp_path)
    path = tmp_path / "step-00000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../step-00000001/policy.safetensors"] = manifest["files"]["policy.safetensors"]
    path.write_text(json.dumps(manifest))
    assert checkpoints.newest(tmp_path).step == 1


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    write_two(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(ValueError, match=r"step-00000003 of 12 bytes could not be written .*No space left"):
        checkpoints.save(tmp_path, 3, {"policy": {"w": torch.zeros(3)}}, {}, keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
    assert checkpoints.newest(tmp_path).step == 2


def test_old_checkpoints_go_only_after_the_new_one_verifies(tmp_path, monkeypatch):
    write_two(tmp_path)

    def unreadable(path, *_):
        raise ValueError("policy.safetensors is not what the manifest says")

    monkeypatch.setattr(checkpoints, "read", unreadable)
    with pytest.raises(ValueError):
        checkpoints.save(tmp_path, 3, {"policy": {"w": torch.zeros(3)}}, {}, keep=1)
    monkeypatch.undo()
    assert checkpoints.newest(tmp_path).step == 2


def _train_slowly_saving(rows, output, steps, ready):
    """The child of the kill test: every sync of a file takes 5 ms, so that most of the time is spent in saves."""
    sync = files.sync

    def slow_sync(path):
        if "checkpoints" in path.parts:
            ready.set()
        time.sleep(0.005)
        sync(path)

    files.sync = slow_sync
    torch.set_num_threads(1)
    begun = (Path(output) / "run.json").exists()
    config = TrainConfig(
        output=output, resume=begun, max_steps=steps, batch_size=2, held_out=0, lora_rank=2, save_every=1, samples=0
    )
    train(*tiny(), rows, config=config)


def test_killed_at_ten_random_moments_of_saving_it_resumes_each_time(rows, forkserver, tmp_path):
    """After each SIGKILL the newest checkpoint is whole; in the end the run equals one that was never killed."""
    moments = random.Random(0)
    reached = []
    for _ in range(10):
        ready = forkserver.Event()
        child = forkserver.Process(target=_train_slowly_saving, args=(rows, str(tmp_path / "killed"), 10_000, ready))
        child.start()
        while not ready.wait(1):
            assert child.is_alive()
        time.sleep(moments.uniform(0, 0.25))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        found = checkpoints.newest(tmp_path / "killed" / "checkpoints")
        reached.append(found.step if found else 0)
    assert reached == sorted(reached) and reached[-1] > 0
    total = reached[-1] + 2
    for name in ("killed", "whole"):
        ready = forkserver.Event()  # held here while the child uses it
        child = forkserver.Process(target=_train_slowly_saving, args=(rows, str(tmp_path / name), total, ready))
        child.start()
        child.join()
        assert child.exitcode == 0
    ends = [checkpoints.newest(tmp_path / name / "checkpoints") for name in ("killed", "whole")]
    assert ends[0].step == ends[1].step == total
    for file in ("policy", "trainer", "rng"):
        assert_same_bits(ends[0].tensors[file], ends[1].tensors[file])
