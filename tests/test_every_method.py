"""Every method through the command line, from the rows its documentation names: in the lab and on transcripts."""

import functools
import json

import pytest
from transcripts import MADE

from pref_toolkit import lab
from pref_toolkit.cli import main
from pref_toolkit.data import Report, read
from pref_toolkit.lab import defaults
from pref_toolkit.losses import METHODS

BRIEF = ["--max-steps=1", "--batch-size=4", "--held-out=2", "--samples=1", "--sample-tokens=4", "--lora-rank=2"]


def in_the_form_of(method, prompt, chosen, rejected):
    """A pair as rows that a method reads, with scores and chances that no annotator gave."""
    needs = METHODS[method].needs
    if "desirable" in needs:
        return [{"prompt": prompt, "completion": text, "label": text is chosen} for text in (chosen, rejected)]
    if "win_probabilities" in needs:
        return [{"prompt": prompt, "responses": [chosen, rejected], "win_probabilities": [0.7, 0.3]}]
    if "scores" in needs:
        return [{"prompt": prompt, "responses": [chosen, rejected], "scores": [1.5, -0.5]}]
    return [{"prompt": prompt, "chosen": chosen, "rejected": rejected}]


@pytest.fixture(scope="module")
def short_pairs():
    examples = read(MADE, report=Report())
    short = (e for e in examples if len(str(e.prompt)) < 250 and max(map(len, map(str, e.responses))) < 150)
    return [(e.prompt, *e.responses) for _, e in zip(range(8), short)]


def facts(run):
    return json.loads((run / "run.json").read_text())


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_on_transcripts(method, short_pairs, tmp_path):
    data, run = tmp_path / "rows.jsonl", tmp_path / "run"
    rows = [row for pair in short_pairs for row in in_the_form_of(method, *pair)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = ["--model", "tiny", "--data", str(data), "--output", str(run)]
    assert main(["train", "--method", method, *where, *BRIEF]) == 0
    made = facts(run)
    assert made["identity"]["method"] == method and made["after"]["examples"] == 2
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1 and (run / "report.html").is_file()


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_in_the_lab(method, tmp_path, monkeypatch):
    monkeypatch.setattr(defaults, "PAIRS", 40)
    monkeypatch.setattr(lab, "evaluate", functools.partial(lab.evaluate, n=20))
    monkeypatch.setattr(lab, "evaluate_best_of", functools.partial(lab.evaluate_best_of, n=20))
    run = tmp_path / "run"
    assert main(["train", "--method", method, *BRIEF, "--output", str(run)]) == 0
    made = facts(run)
    assert made["identity"]["method"] == method and made["lab"]["n"] == 20
