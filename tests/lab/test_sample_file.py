"""The sample of the lab's pairs in data/ is what its README says and what its script makes."""

import json
import runpy
import sys
from pathlib import Path

from pref_toolkit import lab
from pref_toolkit.data import check

DATA = Path(__file__).parents[2] / "data"
SAMPLE = DATA / "lab_pairs.jsonl"


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_its_rows_are_pairs_of_the_train_split_without_a_fault():
    rows = rows_of(SAMPLE)
    assert len(rows) == 200
    assert all(list(row) == ["prompt", "chosen", "rejected"] for row in rows)
    assert {row["prompt"] for row in rows} <= set(lab.prompts(4000, 0, "train"))
    assert not check(SAMPLE, lab.load()[1]).findings


def test_its_script_makes_it_again(tmp_path, monkeypatch):
    """Nearly: on another processor a rounding may tip a sample."""
    made = tmp_path / "made.jsonl"
    monkeypatch.setattr(sys, "argv", ["make_lab_pairs.py", str(made)])
    runpy.run_path(str(DATA / "make_lab_pairs.py"), run_name="__main__")
    assert sum(a == b for a, b in zip(rows_of(made), rows_of(SAMPLE), strict=True)) >= 190


def test_the_readme_of_data_names_every_file():
    text = (DATA / "README.md").read_text()
    assert [file.name for file in DATA.glob("[!R]*") if file.name not in text] == []
