"""Loops from the command line."""

import json

import pytest

from pref_toolkit.cli import main

SHORT = ["--model=tiny", "--max-steps=2", "--batch-size=2", "--samples=0", "--sample-tokens=4", "--lora-rank=2"]


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_judges.py").write_text(
        "def longest(prompts, answers):\n    return [[len(a) for a in own] for own in answers]\n"
    )
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
