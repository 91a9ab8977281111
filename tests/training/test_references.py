"""The stored reference: what is found is what would be computed, whatever was changed, broken or interrupted in between."""

import hashlib
import logging
import os
import pickle
import shutil
import signal

import pytest
import torch
from parts import asked_of_the_reference, made, updates
from rounding import CLOSE, everything_in_float64
from safetensors.torch import load_file

from pref_toolkit import train
from pref_toolkit.data import prepare
from pref_toolkit.errors import Terminated
from pref_toolkit.losses import METHODS
from pref_toolkit.training import attention, references
from pref_toolkit.training.adapters import trainable, with_adapters
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.models import tiny
from pref_toolkit.training.policy import Policy
from pref_toolkit.training.references import Reference, Store, StoreError, identity, key
from pref_toolkit.training.run import Run
from pref_toolkit.training.watch import Watch

pytestmark = pytest.mark.usefixtures("float64")


def readings(rows, directory, *, change=lambda model, tokenizer: None, names=("sums",), route="auto", max_length=1024):
    """How many examples were found, what is said of all, and what a fresh computation says."""
    model, tokenizer = tiny()
    model = change(model, tokenizer) or model
    encoded, _ = prepare(rows, tokenizer, max_length=max_length)
    policy = Policy.to_train(model, tokenizer, TrainConfig(lora_rank=2, route=route), 2048)
    store = Store(directory, identity(policy, None))
    found = store.read({key(e) for e in encoded}, names)
    said, fresh = Reference(policy, None, names, store), Reference(policy, None, names)
    said.keep(encoded, names, lambda: None)
    fresh.keep(encoded, names, lambda: None)
    return len(found), said.stored, fresh.stored


def assert_same(said, fresh):
    assert said.keys() == fresh.keys()
    for k in said:
        assert said[k].keys() == fresh[k].keys()
        for name in said[k]:
            assert said[k][name] == pytest.approx(fresh[k][name], rel=CLOSE), name


@pytest.fixture(scope="module")
def filled_once(rows, tmp_path_factory):
    directory = tmp_path_factory.mktemp("store")
    with everything_in_float64():
        found, said, _ = readings(rows, directory)
    assert found == 0 and len(said) == 12
    return directory


@pytest.fixture
def filled(filled_once, tmp_path):
    """A store that knows all rows."""
    return shutil.copytree(filled_once, tmp_path / "store")


def swap_two_values(model, tokenizer):
    with torch.no_grad():
        weight = model.model.layers[2].mlp.up_proj.weight
        weight[0, :2] = weight[0, :2].flip(0)


def another_epsilon(model, tokenizer):
    model.config.rms_norm_eps = 0.5
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 0.5


def another_end(model, tokenizer):
    tokenizer.eos_token = "<pad>"


def moved_adapters(model, tokenizer):
    """Trained adapters on the same base: its reference is the base all the same."""
    policy = with_adapters(model, rank=4, alpha=None, dropout=0.0)
    for weight in trainable(policy).values():
        torch.nn.init.normal_(weight, std=0.3)
    return policy


# What is changed -> how, and how many of the twelve are then found; a lower max_length cuts some of them.
CHANGES = {
    "nothing": ({}, 12),
    "two values of a weight": ({"change": swap_two_values}, 0),
    "configuration": ({"change": another_epsilon}, 0),
    "precision": ({"change": lambda model, tokenizer: model.bfloat16()}, 0),
    "adapters": ({"change": moved_adapters}, 12),
    "tokenizer": ({"change": another_end}, 0),
    "reading": ({"names": ("first_sums", "sums")}, 0),
    "route": ({"route": "rows"}, 0),
    "max_length": ({"max_length": 44}, None),
}


@pytest.mark.parametrize("what", CHANGES)
def test_after_a_change_it_is_found_only_if_it_is_still_true(what, rows, filled):
    settings, expected = CHANGES[what]
    found, said, fresh = readings(rows, filled, **settings)
    assert found == expected if expected is not None else 0 < found < 12
    assert_same(said, fresh)


def test_rows_are_found_in_any_order_and_number(rows, filled):
    found, said, fresh = readings([*rows[8:], *rows[:2]], filled)
    assert found == len(said) == 6
    assert_same(said, fresh)
    found, said, fresh = readings([rows[0] | {"chosen": "else"}, rows[1] | {"prompt": "else"}, *rows[2:]], filled)
    assert found == 10 and len(said) == 12
    assert_same(said, fresh)


def test_responses_that_change_places_are_another_example(rows, filled):
    found, said, fresh = readings([r | {"chosen": r["rejected"], "rejected": r["chosen"]} for r in rows], filled)
    assert found == 0
    assert_same(said, fresh)


@pytest.mark.parametrize("what", ["versions", "code", "matmul precision", "mixed precision", "device", "attention"])
def test_what_cannot_be_changed_here_is_in_the_identity(what, rows, filled, monkeypatch):
    usual = references.identity
    monkeypatch.setitem(globals(), "identity", lambda *arguments: usual(*arguments) | {what: "another"})
    assert what in usual(Policy.to_train(*tiny(), TrainConfig(lora_rank=2), 64), None)
    assert readings(rows, filled)[0] == 0


def test_the_code_that_scores_is_in_the_identity(rows, filled, monkeypatch):
    read = references.Path.read_bytes
    monkeypatch.setattr(
        references.Path, "read_bytes", lambda path: read(path) + (b"\n" if path.name == "scoring.py" else b"")
    )
    assert readings(rows, filled)[0] == 0


def test_the_way_of_attention_is_in_the_identity(rows, filled, tmp_path, monkeypatch):
    by_segment = attention.by_segment

    def another_way(segments, device):
        return by_segment(segments, device)

    monkeypatch.setattr(attention, "by_segment", another_way)
    assert readings(rows, filled)[0] == 0
    eager = lambda model, _: model.set_attn_implementation("eager")
    found = [readings(rows[:2], tmp_path, change=c, route="rows")[0] for c in (lambda *_: None, lambda *_: None, eager)]
    assert found == [0, 2, 0]


def test_precision_in_the_identity():
    """That of the reference and of its products, whichever way a user set it; the adapters' is another matter."""
    policy = Policy.to_train(*tiny(), TrainConfig(lora_rank=2), 64)
    facts = lambda: identity(policy, None)
    before = facts()
    for weight in policy.weights().values():
        weight.data = weight.data.bfloat16()
    assert facts() == before
    matmul = torch.backends.cuda.matmul
    usual, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    try:
        assert facts() != before
    finally:
        matmul.fp32_precision = usual


class Canary:
    def __reduce__(self):
        return (os.mkdir, ("canary",))


def a_pickle(path):
    """One whose name is the hash of its content, as a store's file has."""
    content = pickle.dumps(Canary())
    path.unlink()
    (path.parent / f"{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)


def anothers(path):
    """The file of another reference, whole."""
    facts = path.parent.name
    store = Store(path.parent.parent, {"weights": "other"})
    store.write({bytes(32): {"sums": torch.zeros(2)}})
    path.unlink()
    for other in store.directory.glob("*.safetensors"):
        other.rename(path.parent.parent / facts / other.name)


DAMAGE = {
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one bit flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "emptied": lambda path: path.write_bytes(b""),
    "a pickle": a_pickle,
    "another reference's": anothers,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_said_and_computed_again(damage, rows, filled, caplog, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (path,) = filled.glob("*/*.safetensors")
    DAMAGE[damage](path)
    found, said, fresh = readings(rows, filled)
    assert found == 0 and "is computed again: " in caplog.text
    assert_same(said, fresh)
    caplog.clear()
    assert readings(rows, filled)[0] == 12 and "computed again" not in caplog.text
    assert not (tmp_path / "canary").exists()


def test_a_file_that_cannot_be_read_is_said_and_left(tmp_path, caplog, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    store = Store(tmp_path, {})
    store.write({bytes(32): {"sums": torch.zeros(2)}})
    (path,) = tmp_path.glob("*/*.safetensors")
    monkeypatch.setattr(references, "sha256", refused)
    assert store.read({bytes(32)}, ["sums"]) == {}
    told = f"stored reference {path} cannot be read and is computed again: Permission denied"
    assert caplog.messages == [told] and path.exists()


def test_a_damaged_file_that_cannot_be_deleted_is_no_obstacle(rows, filled, caplog, monkeypatch):
    (path,) = filled.glob("*/*.safetensors")
    DAMAGE["emptied"](path)
    unlink = references.Path.unlink

    def refused(other, missing_ok=False):
        if other == path:
            raise PermissionError(13, "Permission denied", str(path))
        unlink(other, missing_ok)

    monkeypatch.setattr(references.Path, "unlink", refused)
    found, said, fresh = readings(rows, filled)
    assert found == 0 and f"stored reference {path} is computed again: " in caplog.text
    assert_same(said, fresh)


def test_what_is_read_or_scored_carries_only_itself(rows, filled):
    """Not, as a view would when it is sent to another process, all that was read or scored with it."""
    found, said, fresh = readings(rows, filled)
    assert found == 12
    for r in [*said.values(), *fresh.values()]:
        assert r["sums"].untyped_storage().nbytes() == r["sums"].nbytes == 16


def _write_forty_times(directory, name, together):
    """A writer with the same process number as the others, as in containers; the last one is killed within its second file."""
    process, os.getpid = os.getpid(), lambda: 1
    store, whole = Store(directory, {"weights": "w"}), references.Path.write_bytes

    def half(path, content):
        whole(path, content[: len(content) // 2])
        os.kill(process, signal.SIGKILL)

    together.wait()
    for n in range(40):
        if (name, n) == (2, 1):
            references.Path.write_bytes = half
        store.write({bytes([name, n] * 16): {"sums": torch.tensor([float(name), float(n)])}})


def test_processes_that_write_at_once_do_not_disturb_each_other(forkserver, tmp_path):
    together = forkserver.Barrier(3)
    started = [forkserver.Process(target=_write_forty_times, args=(tmp_path, name, together)) for name in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0, -signal.SIGKILL]
    keys = {bytes([name, n] * 16): [name, n] for name in range(3) for n in range(40)}
    store = Store(tmp_path, {"weights": "w"})
    found = {k: r["sums"].tolist() for k, r in store.read(set(keys), ["sums"]).items()}
    assert found == {k: [name, n] for k, (name, n) in keys.items() if name < 2 or n < 1}
    assert len(list(store.directory.glob(".partial-*"))) == 1


def test_two_runs_at_once_add_to_each_other(rows, tmp_path):
    """And a file that is being written is none yet."""
    one, other = Store(tmp_path, {"weights": "w"}), Store(tmp_path, {"weights": "w"})
    keys = [bytes([n] * 32) for n in range(3)]
    one.write({keys[0]: {"sums": torch.tensor([0.0, 1.0])}, keys[1]: {"sums": torch.tensor([2.0])}})
    other.write({keys[1]: {"sums": torch.tensor([2.0])}, keys[2]: {"sums": torch.tensor([3.0, 4.0, 5.0])}})
    partial = one.directory / ".partial-1-of.safetensors"
    partial.write_bytes(b"half")
    found = Store(tmp_path, {"weights": "w"}).read(set(keys), ["sums"])
    assert [found[k]["sums"].tolist() for k in keys] == [[0, 1], [2], [3, 4, 5]] and partial.exists()


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(references.Path, "write_bytes", full)
    with pytest.raises(StoreError, match=rf"could not be stored in {tmp_path}.*: .*No space left"):
        Store(tmp_path, {}).write({bytes(32): {"sums": torch.zeros(2)}})


# In training

STORED = ["dpo", "ld_dpo", "mallows_dpo", "kto", "bco"]


@pytest.mark.parametrize("method", STORED)
def test_a_run_with_a_stored_reference_is_the_one_with_a_live_one(method, rows_for, quick, tmp_path, caplog):
    """Losses and weights of four updates, over two passes; the first run fills the store, the second reads it."""
    caplog.set_level(logging.INFO, "pref_toolkit")
    runs = []
    for store in (None, str(tmp_path), str(tmp_path)):
        settings = quick(max_steps=4, learning_rate=1e-2, samples=0, reference_store=store)
        runs.append(train(*tiny(), rows_for(method), method, settings))
    told = caplog.text
    assert "stored, 0 of 10 found" in told and "stored, 10 of 10 found" in told
    for run in runs[1:]:
        for step, live in zip(run.steps, runs[0].steps):
            assert step["loss"] == pytest.approx(live["loss"], rel=CLOSE)
        for one, other in zip(trainable(run.model).values(), trainable(runs[0].model).values()):
            assert (one - other).abs().max() <= CLOSE


def test_what_is_stored_is_not_asked_again(rows, quick, tmp_path):
    """By other hyperparameters, another method, or a longer run."""
    settings = quick(held_out=0, samples=0, reference_store=str(tmp_path))
    train(*tiny(), rows, "dpo", settings)

    def asked(method, **hyperparameters):
        policy, trainer, data = made(rows, method, settings, **hyperparameters)
        seen = asked_of_the_reference(policy)
        trainer.prepare(data.training)
        assert len(list(updates(trainer, data, 2))) == 2
        return seen

    assert asked("dpo", beta=0.5) == asked("ipo") == asked("simpo") == []
    assert asked("ld_dpo") == [("first_sums", "sums", 12)]


def test_whole_distributions_keep_the_reference_live(rows, quick, tmp_path, caplog):
    caplog.set_level(logging.INFO, "pref_toolkit")
    name = next(name for name, m in METHODS.items() if "sequence_kl" in m.needs)
    train(*tiny(), rows, name, quick(samples=0, reference_store=str(tmp_path)))
    assert f"reference: live, {name} reads its whole distributions" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_stopped_while_it_stores_keeps_what_it_has(rows, quick, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "pref_toolkit")
    monkeypatch.setattr(references, "AT_ONCE", 4)
    settings = {"samples": 0, "reference_store": str(tmp_path / "store"), "output": str(tmp_path / "run")}
    with pytest.raises(Terminated) as stopped, Run.open(quick(**settings)) as run:
        policy, trainer, data = made(rows, "dpo", run.config)
        run.begin(policy, trainer.objective, data, Watch(trainer, data))

        def told_to_stop():
            os.kill(os.getpid(), signal.SIGTERM)
            run.stop_if_told()

        trainer.prepare(data.training, told_to_stop)
    assert stopped.value.code == 143
    assert len(train(*tiny(), rows, config=quick(**settings, resume=True)).steps) == 2
    assert "stored, 4 of 10 found" in caplog.text
    files = [load_file(path) for path in (tmp_path / "store").glob("*/*.safetensors")]
    assert sorted(len(file["keys"]) for file in files) == [2, 4, 4]
