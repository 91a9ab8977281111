"""The benchmarks count what they say they count, compare equals, and run to their end."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace

import arithmetic
import gpu
import machine
import memory
import ours
import pytest
import torch
import transformers
import workload
from accelerate.state import AcceleratorState
from contestants import CONTESTANTS
from rounding import CLOSE, everything_in_float64, rounding
from torch.utils.flop_counter import FlopCounterMode

from pref_toolkit.data.tokens import Encoded

VOCABULARY, MAX_LENGTH = 300, 40
EXAMPLES = [
    Encoded(list(range(10, 22)), [[3, 4, 5, 6, 7], [8, 9]], where="a"),
    Encoded(list(range(30, 35)), [[11], [12, 13, 14]], where="b"),
]


@pytest.fixture(scope="module")
def base():
    return workload.base_model("tiny", VOCABULARY)


@pytest.fixture
def exact():
    """The same in float64, and all that is computed of it."""
    with everything_in_float64():
        yield workload.base_model("tiny", VOCABULARY, dtype=torch.float64)


# Two layers, each with six sums over states, one over the MLP and one over keys; then logits and softmax; and the way back.
ROUNDING = rounding(2 * (2 * (6 * 64 + 160 + MAX_LENGTH) + 64 + VOCABULARY), 1)


@pytest.fixture(autouse=True)
def a_small_model_may_round(monkeypatch):
    """What a processor makes of float32 is for the benchmark to judge, not for these tests."""
    monkeypatch.setitem(gpu.TOLERANCE, torch.float32, (ROUNDING, ROUNDING))


def test_positions_by_hand():
    # Rows of 17, 14, 6 and 8 tokens, all padded to 17; responses of 5, 2, 1 and 3.
    assert arithmetic.padded(EXAMPLES, scored="all") == arithmetic.Positions(68, 4 * 153, 68, 68)
    assert arithmetic.padded(EXAMPLES, scored="next").scored == 64
    assert arithmetic.padded(EXAMPLES, scored="responses").scored == 11
    # 12 + 4 + 1 and 5 + 0 + 2 tokens are read; a response sees its prompt and itself.
    looks = (78 + (48 + 10) + (12 + 1)) + (15 + 0 + (10 + 3))
    packed = arithmetic.packed(EXAMPLES, trimmed=False)
    assert packed == arithmetic.Positions(24, looks, 11, 24)
    assert arithmetic.packed(EXAMPLES).last == 11
    assert arithmetic.packed(EXAMPLES, shared=False).tokens == 24 + 12 + 5


def products(contestant, examples):
    """Operations of all matrix products of an update but attention's, as torch counts them."""
    contestant.step(examples)
    # Torch's counter knows every product but the one that adds in place.
    in_place = {torch.ops.aten.addmm_: lambda _, a, b, **kwargs: 2 * a[0] * a[1] * b[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        contestant.step(examples)
    counts = counter.get_flop_counts()["Global"]
    return sum(n for operation, n in counts.items() if "attention" not in str(operation))


def counted(name, examples, config):
    """The same from our count: attention is left out by letting nobody look."""
    contestant = CONTESTANTS[name]
    at = replace(contestant.positions(examples), looks=0)
    return replace(contestant, positions=lambda _: at).operations(config, examples)


@pytest.mark.parametrize("name", CONTESTANTS)
def test_the_count_is_what_torch_counts(base, name):
    if name.startswith("trl"):
        pytest.importorskip("trl")
    contestant = CONTESTANTS[name].build(base, MAX_LENGTH)
    if contestant.stored is not None:
        contestant.store(EXAMPLES)
    assert counted(name, EXAMPLES, base.config) == pytest.approx(products(contestant, EXAMPLES), rel=0.01)


def test_responses_of_other_rows_join_those_of_a_prompt():
    (first, second) = workload.with_more_responses(EXAMPLES, 4)
    assert first.responses == [*EXAMPLES[0].responses, *EXAMPLES[1].responses]
    assert second.prompt == EXAMPLES[1].prompt and second.responses[:2] == EXAMPLES[1].responses


def test_drawn_lengths_follow_the_profile_and_fit():
    drawn = workload.PROFILES["long answers"].draw(400, 1000, 512, seed=0)
    prompts = sorted(len(e.prompt) for e in drawn)
    assert 90 < prompts[200] < 135
    assert max(len(e.prompt) + len(r) for e in drawn for r in e.responses) <= 512
    assert drawn == workload.PROFILES["long answers"].draw(400, 1000, 512, seed=0)


def test_a_contestant_that_computes_something_else_is_named(exact):
    run = pytest.importorskip("run")
    built = {"ours": CONTESTANTS["ours"].build(exact, MAX_LENGTH)}
    errors = run.check(exact, built, EXAMPLES, MAX_LENGTH)
    assert errors["ours"]["loss_error"] < CLOSE and errors["ours"]["gradient_error"] < CLOSE
    next(v for n, v in built["ours"].model.named_parameters() if "lora_B" in n).data += 0.01
    with pytest.raises(SystemExit, match="ours computes something else"):
        run.check(exact, built, EXAMPLES, MAX_LENGTH)


def test_ours_is_held_to_a_closer_tolerance_than_trl(exact, monkeypatch):
    run = pytest.importorskip("run")
    built = {"ours": CONTESTANTS["ours"].build(exact, MAX_LENGTH)}
    true = built["ours"].step
    monkeypatch.setattr(built["ours"], "step", lambda examples: true(examples) + 1.5e-5)
    with pytest.raises(SystemExit, match="ours computes something else"):
        run.check(exact, built, EXAMPLES, MAX_LENGTH)
    assert run.check(exact, {"trl, gpu path": built["ours"]}, EXAMPLES, MAX_LENGTH)


def test_a_ratio_is_one_of_rounds_that_both_were_in():
    run = pytest.importorskip("run")
    often = {"seconds": [1.0, 1.0, 1.0, 9.0, 9.0], "operations": [1, 1, 1, 9, 9]}
    seldom = {"seconds": [3.0, 2.0, 4.0], "operations": [2, 2, 2]}
    found = run.comparisons({"ours": often, "trl, cpu": seldom})
    assert found["cpu"]["ratio"] == 3 and found["cpu"]["arithmetic"] == 2


def test_an_update_that_grows_is_one_update(base, monkeypatch):
    run = pytest.importorskip("run")
    sizes, true = [], ours.Ours.step
    monkeypatch.setattr(ours.Ours, "step", lambda self, examples: sizes.append(examples) or true(self, examples))
    found = run.by_size(base, VOCABULARY, MAX_LENGTH, [2, 4, 8])
    updates = [[e.where for e in batch] for batch in sizes][1:]
    assert [len(batch) for batch in updates] == [2, 2, 4, 2, 2, 4, 8]
    assert updates[0] + updates[1] == updates[2] and updates[2] + updates[5] == updates[6]
    assert len(set(updates[6])) == 8
    assert [row["pairs"] for row in found] == [2, 4, 8] and all(row["microseconds_per_token"] > 0 for row in found)


def test_responses_are_timed_in_an_order_that_turns(base, monkeypatch):
    run = pytest.importorskip("run")
    seen, true = [], ours.Ours.step
    monkeypatch.setattr(ours.Ours, "step", lambda self, e: seen.append(len(e[0].responses)) or true(self, e))
    run.by_responses(base, VOCABULARY, MAX_LENGTH, rounds=3)
    assert seen == [2, 2, 4, 8, 4, 8, 2, 8, 2, 4]


GPU = ["--shape", "tiny", "--device", "cpu", "--pairs", "2", "--rounds", "2", "--max-length", "40"]


def test_the_gpu_script_runs_to_its_end_on_a_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)  # without TRL
    output = tmp_path / "bench.json"
    gpu.main([*GPU, "--output", str(output)])
    result = json.loads(output.read_text())
    assert set(result["contestants"]) == {"ours", "ours, stored", "ours, checkpointing", "ours, simpo"}
    assert all(one["pairs_per_second"] > 0 for one in result["contestants"].values())
    assert result["contestants"]["ours"]["first_loss"] == pytest.approx(
        result["contestants"]["ours, stored"]["first_loss"], rel=ROUNDING
    )
    printed = capsys.readouterr()
    assert "pairs/s" in printed.out and "ours, simpo: building" in printed.err


def test_the_gpu_script_compares_with_trl(tmp_path):
    pytest.importorskip("trl")
    output = tmp_path / "bench.json"
    gpu.main([*GPU, "--output", str(output)])
    result = json.loads(output.read_text())
    assert result["contestants"].keys() == {name for names in gpu.NAMES.values() for name in names}
    assert result["comparisons"].keys() == gpu.NAMES.keys()
    assert all(one["ratio"] > 0 and one["gradient_difference"] <= ROUNDING for one in result["comparisons"].values())


def test_the_gpu_script_has_written_what_was_measured_before_it_is_ended(tmp_path, monkeypatch):
    """After each comparison, whole; what fails in every contestant is in it."""
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    true, output = ours.Ours.__init__, tmp_path / "bench.json"

    def ended(self, base, method, **options):
        if options.get("stored"):
            raise RuntimeError("no kernel for this device")
        if options.get("checkpointing"):
            raise KeyboardInterrupt
        true(self, base, method, **options)

    monkeypatch.setattr(ours.Ours, "__init__", ended)
    with pytest.raises(KeyboardInterrupt):
        gpu.main([*GPU, "--output", str(output)])
    result = json.loads(output.read_text())
    assert result["contestants"]["ours"]["pairs_per_second"] > 0
    assert result["contestants"]["ours, stored"] == {"failed": "RuntimeError: no kernel for this device"}
    assert "no kernel for this device" in gpu.table(result) and [*tmp_path.iterdir()] == [output]


def test_the_gpu_script_runs_from_its_source_without_git_and_what_it_does_not_use(tmp_path):
    """As on a machine with torch, transformers, peft and accelerate and nothing else of ours."""
    program = """
import importlib.metadata, sys
absent = ("datasets", "jsonargparse", "trl")
sys.modules |= dict.fromkeys(absent)
true = importlib.metadata.version
def version(name):
    if name in (*absent, "pref-toolkit", "pref_toolkit"):
        raise importlib.metadata.PackageNotFoundError(name)
    return true(name)
importlib.metadata.version = version
import gpu
gpu.main(sys.argv[1:])
"""
    output = tmp_path / "bench.json"
    paths = os.pathsep.join([str(machine.ROOT), str(machine.ROOT / "tests" / "benchmarks")])
    command = [sys.executable, "-c", program, *GPU, "--rounds", "1", "--output", str(output)]
    environment = {"PYTHONPATH": paths, "PATH": str(tmp_path), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
    result = json.loads(output.read_text())
    assert result["commit"] is result["versions"]["trl"] is None and not result["trl_installed"]
    assert len(result["contestants"]) == 4 and all("seconds" in one for one in result["contestants"].values())


@pytest.mark.parametrize("name", ["activation_checkpointing_enable", "gradient_checkpointing_enable"])
def test_trl_is_driven_by_either_name_of_checkpointing(base, monkeypatch, name):
    """transformers 5.17 has the one name, later versions both, of which one warns."""
    pytest.importorskip("trl")
    enable = transformers.PreTrainedModel.gradient_checkpointing_enable
    newer = getattr(transformers.PreTrainedModel, "activation_checkpointing_enable", enable)
    monkeypatch.delattr(transformers.PreTrainedModel, "activation_checkpointing_enable", raising=False)
    monkeypatch.setattr(transformers.PreTrainedModel, name, newer, raising=False)
    assert CONTESTANTS["trl, checkpointing"].build(base, MAX_LENGTH).step(EXAMPLES) > 0


def compared(base):
    names = ["ours", "ours, plain route"]
    arguments = argparse.Namespace(device="cpu", max_length=MAX_LENGTH)
    return gpu.compare(names, base, [EXAMPLES, EXAMPLES[::-1], EXAMPLES[:1]], arguments, rate=1e9)


def test_the_gpu_script_names_those_that_differ(base, monkeypatch):
    true = ours.Ours.step
    off = lambda self, examples: true(self, examples) + (self.scorer.route == "rows") * 2 * ROUNDING
    monkeypatch.setattr(ours.Ours, "step", off)
    found, differences = compared(base)
    assert "'ours, plain route' computes something else than 'ours'" in differences["wrong"]
    assert all(len(one["seconds"]) == 3 for one in found.values())


FAILURES = {
    "out of memory": (torch.cuda.OutOfMemoryError(), {"out_of_memory": True}),
    "an attribute that is missing": (AttributeError("no such\nattribute"), {"failed": "AttributeError: no such"}),
}


@pytest.mark.parametrize("last", [1, 3, 6])
@pytest.mark.parametrize("failure", FAILURES)
def test_the_gpu_script_goes_on_when_one_fails(base, monkeypatch, last, failure):
    true, steps = ours.Ours.step, []

    def short(self, examples):
        if self.scorer.route == "rows":
            steps.append(len(examples))
            if len(steps) == last:  # in the first update, while warming up, on the clock
                raise FAILURES[failure][0]
        return true(self, examples)

    monkeypatch.setattr(ours.Ours, "step", short)
    found, differences = compared(base)
    assert found["ours, plain route"] == FAILURES[failure][1] and len(steps) == last
    assert len(found["ours"]["seconds"]) == 3 and found["ours"]["pairs_per_second"] > 0
    assert "ratio" not in differences


def test_rates_are_medians_over_batches_after_all_of_them_ran_once(base, monkeypatch):
    clock = iter([9, 9, 9, 9, 9, 9, 1, 2, 4, 1, 8, 4])  # three batches without the clock; then each its two, in turn
    monkeypatch.setattr(gpu.machine, "seconds", lambda device, work, batch: work(batch) and next(clock))
    found, differences = compared(base)
    assert found["ours"]["seconds"] == [1, 1, 8] and found["ours, plain route"]["seconds"] == [2, 4, 4]
    assert found["ours"]["pairs_per_second"] == 2 / 1 and found["ours, plain route"]["pairs_per_second"] == 0.5
    assert differences["ratio"] == 2


def test_a_model_in_bf16_is_trained_by_trl_under_autocast():
    pytest.importorskip("trl")
    half = workload.base_model("tiny", VOCABULARY, dtype=torch.bfloat16)
    first, seen = {}, set()
    for name in ("ours", "trl, gpu path"):
        contestant = CONTESTANTS[name].build(half, MAX_LENGTH)
        factors = [module for path, module in contestant.model.named_modules() if path.endswith("lora_A.default")]
        for module in factors:
            module.register_forward_hook(lambda module, given, made: seen.add((module.weight.dtype, made.dtype)))
        first[name] = contestant.step(EXAMPLES), contestant.gradients()
    AcceleratorState._reset_state()  # or accelerate would go on in bf16 in the tests that follow
    assert seen == {(torch.float32, torch.bfloat16)}
    assert "wrong" not in gpu.differ(first, torch.bfloat16)


def test_without_a_gpu_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu.main([])


def test_memory_is_measured_in_a_process_of_its_own(monkeypatch):
    measure = lambda: memory.peak_above_model(
        "ours", "tiny", VOCABULARY, [EXAMPLES, EXAMPLES[:1]], MAX_LENGTH, threads=1
    )
    assert 2**16 < measure() < 2**28
    monkeypatch.setattr(memory.sys, "executable", "false")  # the command that fails
    with pytest.raises(RuntimeError, match="measuring the memory of 'ours'"):
        measure()
