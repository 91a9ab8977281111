"""The benchmarks count what they say they count, compare equals, and run to their end."""

from __future__ import annotations

import json
from dataclasses import replace

import arithmetic
import memory
import pytest
import torch
import workload
from contestants import CONTESTANTS
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


def test_a_contestant_that_computes_something_else_is_named(base):
    run = pytest.importorskip("run")
    built = {"ours": CONTESTANTS["ours"].build(base, MAX_LENGTH)}
    errors = run.check(base, built, EXAMPLES, MAX_LENGTH)
    assert errors["ours"]["loss_error"] < 5e-6 and errors["ours"]["gradient_error"] < 1e-5
    next(v for n, v in built["ours"].model.named_parameters() if "lora_B" in n).data += 0.01
    with pytest.raises(SystemExit, match="ours computes something else"):
        run.check(base, built, EXAMPLES, MAX_LENGTH)


def test_the_gpu_script_runs_to_its_end_on_a_cpu(tmp_path, monkeypatch, capsys):
    import gpu

    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)  # without TRL, which takes long to import
    output = tmp_path / "bench.json"
    arguments = ["--shape", "tiny", "--device", "cpu", "--pairs", "2", "--rounds", "2", "--max-length", "40"]
    gpu.main([*arguments, "--output", str(output)])
    result = json.loads(output.read_text())
    assert set(result["contestants"]) == {"ours", "ours, stored", "ours, checkpointing", "ours, simpo"}
    assert all(one["pairs_per_second"] > 0 for one in result["contestants"].values())
    assert result["contestants"]["ours"]["first_loss"] == pytest.approx(
        result["contestants"]["ours, stored"]["first_loss"], abs=1e-5
    )
    assert "pairs/s" in capsys.readouterr().out


def test_without_a_gpu_one_sentence_says_so(monkeypatch):
    import gpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu.main([])


def test_memory_is_measured_in_a_process_of_its_own():
    batch = {"profile": "hh", "seed": 0, "first": 1, "count": 2, "max_length": MAX_LENGTH}
    peak = memory.peak_above_model("ours", "tiny", VOCABULARY, batch, threads=1)
    assert 2**16 < peak < 2**28
    with pytest.raises(RuntimeError, match="measuring the memory of 'nobody'"):
        memory.peak_above_model("nobody", "tiny", VOCABULARY, batch, threads=1)
