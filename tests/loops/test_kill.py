"""A loop that is killed at two moments, which nothing can catch, goes on as if it had not been."""

import json
import os
import signal
from multiprocessing import get_context

import pytest
import torch

from pref_toolkit.loops.presets import LOOPS, settings_of
from pref_toolkit.loops.train import train
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.models import tiny

ROWS = [{"prompt": f"{n} + 1 =", "chosen": f"{n + 1}", "rejected": f"{n}"} for n in range(8)]
NEVER = 10**9


def killing_after(number, act):
    """``act``, in whose call of this number the process is killed."""
    left = [number]

    def counted(*given, **settings):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*given, **settings)

    return counted


def child(name, output, calls, judge_at, decode_at):
    """A run, killed while the judge answers its call of this number or while so many answers are decoded."""
    torch.set_num_threads(1)

    def scores(prompts, answers):
        return [[len(set(a)) + len(a) / 10 for a in own] for own in answers]

    dying = killing_after(judge_at, scores)

    def judge(prompts, answers):
        with open(calls, "a") as file:
            file.write(json.dumps([prompts, answers]) + "\n")
        return dying(prompts, answers)

    model, tokenizer = tiny()
    tokenizer.decode = killing_after(decode_at, tokenizer.decode)
    config = TrainConfig(
        output=output, resume=os.path.exists(os.path.join(output, "run.json")), max_steps=9, batch_size=2,
        lora_rank=2, sample_tokens=4, samples=0, save_every=2,
    )  # fmt: skip
    settings = settings_of(name, rounds=3)
    train(model, tokenizer, ROWS, name, judge if LOOPS[name].asks else None, config, settings)


def run(folder, name, run_name, judge_at=NEVER, decode_at=NEVER):
    """Run in a process of its own; its exit code."""
    given = (name, str(folder / run_name), str(folder / f"{run_name}.calls"), judge_at, decode_at)
    process = get_context("spawn").Process(target=child, args=given)
    process.start()
    process.join()
    return process.exitcode


def calls(folder, run_name):
    path = folder / f"{run_name}.calls"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("name", ["self_play", "online_dpo"])
def test_it_is_killed_while_it_draws_and_while_the_judge_answers(name, tmp_path):
    assert run(tmp_path, name, "whole") == 0
    assert run(tmp_path, name, "killed", decode_at=14) == -signal.SIGKILL  # while a draw is decoded
    drawing = calls(tmp_path, "killed")
    again = 0
    if LOOPS[name].asks:
        assert run(tmp_path, name, "killed", judge_at=2) == -signal.SIGKILL
        assert calls(tmp_path, "killed")[: len(drawing)] == drawing and len(calls(tmp_path, "killed")) > len(drawing)
        again = 1  # the call that was cut off, and no other
    before = calls(tmp_path, "killed")
    assert run(tmp_path, name, "killed") == 0
    after = calls(tmp_path, "killed")[len(before) :]
    assert before[len(before) - again :] == after[:again]
    assert [*before[: len(before) - again], *after] == calls(tmp_path, "whole")
    ends = [tmp_path / which / "adapter" / "adapter_model.safetensors" for which in ("whole", "killed")]
    assert ends[0].read_bytes() == ends[1].read_bytes()
