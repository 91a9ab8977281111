"""The published recipes: the command line reads every file, trains with it, and the book's table shows what the files say."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from pref_toolkit import TrainConfig, train
from pref_toolkit.cli import build_parser
from pref_toolkit.losses import find

sys.path.insert(0, str(Path(__file__).parent / "book"))
from sources import ROOT, Page

FILES = sorted((ROOT / "configs" / "recipes").glob("*.yaml"))
QUICK = ["--model=tiny", "--max_steps=2", "--batch_size=2", "--held_out=0", "--lora_rank=2", "--samples=0"]
every_recipe = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def settings(file: Path) -> dict[str, object]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def test_there_are_recipes() -> None:
    assert len(FILES) >= 9


@every_recipe
def test_the_command_line_reads_it(file: Path) -> None:
    argv = ["train", "--config", str(file), "--model", "tiny", "--data", "pairs.jsonl"]
    arguments = build_parser(argv).parse_args(argv).train
    for name, value in settings(file).items():
        assert arguments[name] == value, name
    method = find(arguments.method, arguments.weights)
    method.check(**{name: arguments[name] for name in method.hyperparameters})


@every_recipe
def test_it_says_where_its_values_are_from(file: Path) -> None:
    """Six facts in the head of the file, and a comment behind every setting but the method and its weights."""
    text = file.read_text(encoding="utf-8")
    facts = dict(re.findall(r"^# (\w+): (.+)$", text, flags=re.M))
    assert {"recipe", "model", "data", "trained", "schedule", "source"} <= set(facts)
    assert re.search(r"commit [0-9a-f]{7}|arXiv:\d{4}\.\d{5}", facts["source"])
    for name in settings(file):
        assert name == "method" or re.search(rf"^{name}: .+ # .+$", text, flags=re.M), f"{name} has no source"


@every_recipe
def test_it_trains(file: Path) -> None:
    """With the settings that the command line reads, on pairs so few that it takes a second."""
    argv = ["train", "--config", str(file), *QUICK]
    arguments = build_parser(argv).parse_args(argv).train
    config = TrainConfig(**{field.name: arguments[field.name] for field in fields(TrainConfig)})
    method = find(arguments.method, arguments.weights)
    strengths = {name: arguments[name] for name in method.hyperparameters}
    rows = [{"prompt": f"question {i}", "chosen": f"yes {i}", "rejected": "no " * (1 + i % 3)} for i in range(6)]
    history = train("tiny", None, rows, method.name, config, arguments.weights, **strengths)
    assert len(history.steps) == 2
    assert all(step["gradient_norm"] > 0 and math.isfinite(step["loss"]) for step in history.steps)


def test_the_chapter_shows_what_the_files_say() -> None:
    """The cell of the chapter that reads the files, run on its own."""
    (cell,) = [cell for cell in Page("practice/recipes").cells if "def recipe(" in cell]
    space: dict[str, object] = {}
    exec(cell, space)
    shown = {row["file"]: row for row in space["recipes"]}  # type: ignore[attr-defined]
    assert list(shown) == [file.stem for file in FILES]
    for file in FILES:
        for name, value in settings(file).items():
            assert shown[file.stem][name] == value


def test_no_value_of_a_recipe_is_typed_into_the_chapter() -> None:
    """Learning rates are nowhere in the text: they are read from the files."""
    text = Page("practice/recipes").text
    rates = {f"{float(settings(file)['learning_rate']):g}" for file in FILES}  # type: ignore[arg-type]
    typed = {f"{float(number):g}" for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?e-\d+", text)}
    assert not rates & typed
