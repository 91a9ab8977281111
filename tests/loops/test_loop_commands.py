"""Loops from the command line."""

import json
import re

import pytest

from pref_toolkit.cli import main
from pref_toolkit.loops.presets import LOOPS

SHORT = ["--model=tiny", "--max-steps=2", "--batch-size=2", "--samples=0", "--sample-tokens=4", "--lora-rank=2"]

BAD_JUDGES = """
import os, time

def until_mended(judge):
    whole = lambda prompts, answers: [[len(a) for a in own] for own in answers]
    return lambda prompts, answers: (whole if os.path.exists("mended") else judge)(prompts, answers)

@until_mended
def raises(prompts, answers):
    raise RuntimeError("no connection")

hangs = until_mended(lambda prompts, answers: time.sleep(3600))
nan = until_mended(lambda prompts, answers: [[float("nan")] * len(own) for own in answers])
short = until_mended(lambda prompts, answers: [[1.0] for _ in answers])
few = until_mended(lambda prompts, answers: [[1.0, 2.0]])
"""


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_judges.py").write_text(
        "def longest(prompts, answers):\n    return [[len(a) for a in own] for own in answers]\n"
    )
    (tmp_path / "bad_judges.py").write_text(BAD_JUDGES)
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Count to {n}."}) + "\n" for n in range(4)))
    return path


def test_a_users_prompts_and_judge(prompts, tmp_path):
    flags = ["--method=online_dpo", f"--data={prompts}", "--judge=my_judges:longest", "--answers=3", "--output=run"]
    assert main(["train", *SHORT, *flags]) == 0
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "made" / "draws" / "000001.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 2 and all(
        row["scores"] == [len(a) for a in row["responses"]] and len(row["scores"]) == 3 for row in rows
    )
    assert main(["check-data", str(tmp_path / "run" / "made" / "draws" / "000001.jsonl")]) == 0


@pytest.mark.parametrize("loop", [name for name, loop in LOOPS.items() if not loop.streams])
def test_check_data_accepts_what_a_loop_drew(loop, prompts, tmp_path, capsys):
    if LOOPS[loop].answered:
        prompts.write_text(
            "".join(json.dumps({"prompt": f"{n} + 1 =", "answer": f" {n + 1}"}) + "\n" for n in range(4))
        )
    flags = [f"--method={loop}", f"--data={prompts}", "--output=run"]
    assert main(["train", *SHORT, *flags, *(["--judge=my_judges:longest"] if LOOPS[loop].asks else [])]) == 0
    made = [path for path in tmp_path.glob("run/made/**/*.jsonl") if path.stem != "unjudged"]
    assert made
    for path in made:
        assert main(["check-data", str(path)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--method=online_dpo"], "online_dpo asks a judge: name one with judge=module:function"),
        (["--method=online_dppo"], "no method 'online_dppo': did you mean 'online_dpo'?"),
        (["--method=rso", "--answerz=3"], "unrecognized arguments: --answerz; did you mean 'answers'?"),
        (["--method=rso", "--kept=1", "--judge=my_judges:longest"], "kept must be at least 2 and whole, got 1"),
    ],
)
def test_a_mistake_is_one_sentence(prompts, flags, sentence, capsys):
    assert main(["train", *SHORT, f"--data={prompts}", "--output=run", *flags]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"pref-toolkit: {sentence}"


@pytest.mark.parametrize(
    "judge, sentence",
    [
        ("raises", "the judge failed: RuntimeError: no connection"),
        ("hangs", r"the judge took longer than judge_limit=0\.2 seconds"),
        ("nan", r"the judge gave a score that is not finite to 'Count to \d\.': \[nan, nan\]"),
        ("short", r"the judge gave 1 scores for the 2 answers to 'Count to \d\.'"),
        ("few", "the judge gave scores for 1 prompts and was asked about 2"),
    ],
)
@pytest.mark.parametrize("method", ["online_dpo", "iterative_dpo"])
def test_a_judge_that_fails_is_one_sentence_and_costs_no_draw(prompts, tmp_path, method, judge, sentence, capsys):
    flags = [f"--method={method}", f"--data={prompts}", "--output=run", f"--judge=bad_judges:{judge}"]
    limit = ["--judge-limit=0.2"] if judge == "hangs" else []
    assert main(["train", *SHORT, *flags, *limit]) == 2
    assert re.fullmatch(f"pref-toolkit: {sentence}", capsys.readouterr().err.strip().splitlines()[-1])
    made = tmp_path / "run" / "made"
    drawn = [json.loads(line) for line in (made / "unjudged.jsonl").read_text().splitlines()]
    assert [len(row["responses"]) for row in drawn] == [2, 2]
    (tmp_path / "mended").touch()
    assert main(["train", *SHORT, *flags, "--resume"]) == 0  # with the same answers
    (first, *_) = sorted(made.glob("*/000000.jsonl"))
    judged = [json.loads(line) for line in first.read_text().splitlines()]
    assert [row["responses"] for row in judged] == [row["responses"] for row in drawn]


def test_the_bar_says_how_many_tokens_come_in_a_second(prompts, capsys):
    flags = [f"--data={prompts}", "--judge=my_judges:longest"]
    for method, name in (("online_dpo", "online_dpo"), ("iterative_dpo", "draws of round 1")):
        assert main(["train", *SHORT, *flags, f"--method={method}", f"--output={method}"]) == 0
        assert re.search(rf"{name}:[^\r\n]*tok/s=[1-9]", capsys.readouterr().err)


@pytest.mark.parametrize("method, own", [("ofs_dpo", []), ("cofs_dpo", ["--memory=2"])])
def test_streams_of_preferences(method, own, tmp_path, monkeypatch, capsys):
    """A user's files are read in order, and the run can be continued, loaded and scored on the same files."""
    monkeypatch.chdir(tmp_path)
    first = [{"prompt": f"{n} + 1 =", "chosen": f"{n + 1}", "rejected": f"{n}"} for n in range(4)]
    second = [{"prompt": f"{n} + 1 =", "chosen": "many", "rejected": f"{n + 1}"} for n in range(4)]
    for name, rows in {"first": first, "second": second}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert main(["check-data", f"{name}.jsonl", "--method=dpo"]) == 0
    several = method == "cofs_dpo"
    data = "--data=first.jsonl,second.jsonl" if several else "--data=first.jsonl"
    flags = [
        f"--method={method}",
        data,
        "--output=run",
        "--held-out=0",
        "--exchange-every=1",
        "--learning-rate=0.01",
        *own,
    ]
    assert main(["train", *SHORT, *flags, "--max-steps=4"]) == 0
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["domain"] for row in steps] == ([0, 0, 1, 1] if several else [0] * 4)
    assert {"slow_loss", "fast_dpo", "slow_dpo", "exchanged"} <= steps[0].keys()
    weights = json.loads((tmp_path / "run" / "run.json").read_text()).get("domain_weights")
    assert weights is None or sum(weights) == 1
    assert (weights is not None) == several
    assert not list((tmp_path / "run").glob("made/**/*.jsonl"))  # nothing is drawn
    assert main(["evaluate", "--model=run", "--data=first.jsonl"]) == 0
    capsys.readouterr()
    assert main(["train", *SHORT, *flags, "--max-steps=4", "--resume", "--judge=my_judges:longest"]) == 2
    assert capsys.readouterr().err.startswith(
        f"pref-toolkit: {method} does not read judge, which is a setting of online_dpo"
    )


def test_one_file_is_no_sequence_of_domains(prompts, capsys):
    pairs = prompts.with_name("pairs.jsonl")
    pairs.write_text(json.dumps({"prompt": "1 + 1 =", "chosen": "2", "rejected": "3"}) + "\n")
    assert main(["train", *SHORT, "--method=cofs_dpo", f"--data={pairs}", "--output=run"]) == 2
    sentence = "this loop learns from 2 domains or more in sequence, as in first.jsonl,second.jsonl"
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"pref-toolkit: {sentence}"
