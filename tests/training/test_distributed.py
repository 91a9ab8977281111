"""Two processes make the updates of one, whether each holds all weights (DDP) or a part of them (FSDP)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import CLOSE, everything_in_float64, rounding
from safetensors.torch import load_file
from two_processes import short

from pref_toolkit import TrainConfig, train
from pref_toolkit.data.batches import packed_length
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.training import checkpoints, processes
from pref_toolkit.training.models import tiny

# Its runs are made once, and by as many processes as there may be cores.
pytestmark = pytest.mark.xdist_group("distributed")
ROOT = Path(__file__).parents[2]
# One for each thing that processes must bring together: nothing but gradients, a running mean, answers after other prompts, a
# loss over the whole update, whole distributions, a reward head.
METHODS = ["dpo", "bco", "kto", "aot", "tdpo2", "bradley_terry"]
# Five examples for two processes, and forwards so short that one process makes more of them than the other.
SETTINGS = {
    **{"batch_size": 5, "max_steps": 3, "held_out": 3, "samples": 1, "sample_tokens": 4, "lora_rank": 2},
    **{"tokens_per_forward": 60, "learning_rate": 1e-3},
}


def launch(kind, *arguments):
    """As a user would, on two CPUs."""
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(ROOT / "configs" / f"{kind}.yaml"),
        "--num_processes=2",
        "--main_process_port=0",  # a free one
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def pair(request, rows_for, tmp_path_factory):
    """Directory and facts of all runs, made by two processes."""
    directory = tmp_path_factory.mktemp(request.param)
    runs = [(m, m, m, rows_for(m), SETTINGS, None) for m in METHODS]
    dropout = SETTINGS | {"lora_dropout": 0.3, "samples": 0}
    rows = rows_for("dpo")
    runs += [
        ("stored", "stored", "dpo", rows, SETTINGS | {"reference_store": str(directory / "store")}, None),
        ("straight", "straight", "dpo", rows, dropout | {"max_steps": 4}, None),
        ("stopped", "split", "dpo", rows, dropout | {"max_steps": 4}, 1),
        ("continued", "split", "dpo", rows, dropout | {"max_steps": 4, "resume": True}, None),
        ("too few", "too few", "dpo", rows, SETTINGS | {"batch_size": 1}, None),
    ]
    launch(request.param, str(ROOT / "tests/training/two_processes.py"), str(directory), json.dumps(runs))
    return request.param, directory, json.loads((directory / "facts.json").read_text())


@pytest.fixture(scope="module")
def alone(rows_for, tmp_path_factory):
    """The same methods in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("alone")
    with everything_in_float64():
        made = {m: train(*short(), rows_for(m), m, TrainConfig(**SETTINGS, output=str(output / m))) for m in METHODS}
    torch.set_num_threads(threads)
    return output, made


def assert_close(directory, other):
    """Adapters, as saved for use."""
    for name in [
        "adapter_model",
        *(["reward_head"] if (directory / "adapter/reward_head.safetensors").exists() else []),
    ]:
        one, two = (load_file(d / "adapter" / f"{name}.safetensors") for d in (directory, other))
        assert one.keys() == two.keys()
        for key in one:
            assert (one[key] - two[key]).abs().max() <= CLOSE, key
        assert max(value.abs().max() for key, value in one.items() if "lora_A" not in key) > 1e-3


@pytest.mark.parametrize("number", [1, 2, 8])
@pytest.mark.parametrize("each", [1, 4, 8])
def test_shares_have_about_as_many_positions(number, each):
    """All examples once, in their order; by turns, the slowest of eight processes would take 1.4 times the mean."""
    random = np.random.default_rng(0)
    slowest = []
    for _ in range(50):
        prompts, *responses = np.exp(random.normal([[4.4], [3.4], [3.4]], 0.9, (3, number * each))).astype(int) + 1
        examples = [
            Encoded([1] * p, [[1] * a, [1] * b], where=str(n)) for n, (p, a, b) in enumerate(zip(prompts, *responses))
        ]
        own = processes.shares(examples, number)
        assert sorted([e for share in own for e in share], key=examples.index) == examples
        assert all(share == sorted(share, key=examples.index) for share in own) and all(own)
        positions = [sum(map(packed_length, share)) for share in own]
        # No process would have been given an example while it had more than the mean.
        assert max(positions) <= sum(positions) / number + max(map(packed_length, examples))
        slowest.append(max(positions) * number / sum(positions))
    assert each == 1 or np.mean(slowest) < 1.1


def test_fewer_examples_than_processes_leave_some_without():
    example = Encoded([1], [[2], [3]], where="")
    assert processes.shares([example], 3) == [[example], [], []]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_make_the_updates_of_one(method, pair, alone):
    kind, directory, facts = pair
    output, made = alone
    assert facts[method]["processes"] == 2
    assert facts[method]["kind"] == {"ddp": "MULTI_CPU", "fsdp": "FSDP"}[kind]
    # Embeddings and output layer are whole after a forward without gradient, the layers are not.
    assert facts[method]["share"] == 1.0 if kind == "ddp" else 0.5 <= facts[method]["share"] < 0.6
    assert_close(output / method, directory / method)
    numbers = lambda row: {k: v for k, v in row.items() if v is not None and k != "seconds"}
    written = [json.loads(line) for line in (directory / method / "metrics.jsonl").read_text().splitlines()]
    assert len(written) == 3
    for one, two, line in zip(made[method].steps, facts[method]["steps"], written):
        assert numbers(two) == pytest.approx(numbers(one), abs=CLOSE, rel=CLOSE) and line == two
    assert numbers(facts[method]["after"]) == pytest.approx(numbers(made[method].after), abs=CLOSE, rel=CLOSE)
    assert facts[method]["samples"] == made[method].samples


def test_the_reference_s_store_is_shared(pair, alone):
    _, directory, _ = pair
    assert len(list((directory / "store").glob("*/*.safetensors"))) == 1
    assert_close(alone[0] / "dpo", directory / "stored")


def test_when_one_process_is_terminated_all_stop_and_go_on_together(pair):
    """Dropout on: each process finds its own random state again."""
    _, directory, facts = pair
    assert facts["stopped"] == {"end": "143"}
    assert [row["step"] for row in facts["continued"]["steps"]] == [0, 1, 2, 3]
    straight, split = (checkpoints.newest(directory / d / "checkpoints") for d in ("straight", "split"))
    assert straight.step == split.step == 4
    for file in ("policy", "trainer", "rng"):
        one, two = straight.tensors[file], split.tensors[file]
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one), file
    assert {"0/cpu", "1/cpu"} == set(straight.tensors["rng"])


def test_an_update_has_an_example_for_each_process(pair):
    assert pair[2]["too few"] == {"end": "batch_size must be at least the 2 processes that share an update"}


def test_the_command_line_in_two_processes(rows, tmp_path):
    """One of them writes and prints, and both make the first update that one process makes."""
    data, output = tmp_path / "pairs.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = SETTINGS | {"max_steps": 1}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    told = launch("ddp", "-m", "pref_toolkit", "train", "--model=tiny", f"--data={data}", f"--output={output}", *flags)
    assert told.count("held-out examples") == 1 and (output / "report.html").exists()
    (first,) = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    alone = train(*tiny(), rows, config=TrainConfig(**settings)).steps[0]
    # The model's four layers, each with six sums over states, one over the MLP and one over keys; logits, softmax; and back.
    terms = 2 * (4 * (6 * 128 + 384 + 60) + 128 + 259)
    assert first["gradient_norm"] == pytest.approx(alone["gradient_norm"], rel=rounding(terms, 1))
    assert (first["tokens"], first["loss"]) == (alone["tokens"], alone["loss"])
