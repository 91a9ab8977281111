"""The supervised model that comes with the toolkit, and the script that made it."""

import hashlib
import json
import math
import random

import pytest
import torch
from safetensors.torch import load_file

from pref_toolkit import lab
from pref_toolkit.lab.evaluation import chances_of_being_right
from pref_toolkit.lab.language import said_in_every_style
from pref_toolkit.lab.make import ERROR, make, written
from pref_toolkit.training.generation import generate


@pytest.fixture(scope="module")
def supervised():
    return lab.load()


def test_load_gives_the_shipped_weights_and_each_time_a_copy_of_its_own(supervised):
    model, _ = supervised
    shipped = load_file(lab.MODEL_PATH / "model.safetensors")
    weights = model.state_dict()
    assert weights.keys() == shipped.keys()
    assert all(torch.equal(weights[name], shipped[name]) for name in shipped)
    other, _ = lab.load()
    with torch.no_grad():
        other.lm_head.weight.zero_()
    assert model.lm_head.weight.abs().sum() > 0


def test_the_provenance_is_that_of_the_shipped_file():
    provenance = json.loads((lab.MODEL_PATH / "provenance.json").read_text())
    assert provenance["sha256"] == hashlib.sha256((lab.MODEL_PATH / "model.safetensors").read_bytes()).hexdigest()
    assert provenance["cpu_seconds"] < 60
    assert sum(f.stat().st_size for f in lab.MODEL_PATH.iterdir()) < 1_500_000


def test_it_is_right_on_a_little_more_than_half_of_the_unseen_prompts(supervised):
    model, tokenizer = supervised
    asked = lab.prompts(500, 0, "test")
    said = generate(model, tokenizer, asked, max_new_tokens=12, seed=0)
    right = sum(map(lab.gold, asked, said)) / 500
    chances = torch.tensor(chances_of_being_right(model, tokenizer, asked))
    assert 0.53 < chances.mean() < 0.63
    assert right == pytest.approx(float(chances.mean()), abs=4 * math.sqrt(0.25 / 500))
    assert chances.std() > 0.03  # prompts differ in difficulty


def test_it_speaks_the_grammar(supervised):
    model, tokenizer = supervised
    asked = lab.prompts(500, 1, "test")
    said = generate(model, tokenizer, asked, max_new_tokens=12, seed=0)
    numbers = [[int(w) for w in text.split() if w.isdigit()] for text in said]
    correct_form = sum(len(n) == 1 and text in said_in_every_style(n[0]) for text, n in zip(said, numbers))
    assert correct_form >= 0.98 * 500


def test_making_it_twice_gives_the_same_file(tmp_path):
    first, second = (make(tmp_path / name, steps=3) for name in ("first", "second"))
    assert first["sha256"] == second["sha256"]
    assert make(tmp_path / "third", steps=3, seed=1)["sha256"] != first["sha256"]
    for name in ("model.safetensors", "tokenizer.json", "config.json", "provenance.json"):
        assert (tmp_path / "first" / name).is_file()


def test_the_shipped_tokenizer_and_shape_are_those_the_script_makes(tmp_path):
    make(tmp_path, steps=1)
    for name in ("tokenizer.json", "config.json"):
        made, shipped = (json.loads((directory / name).read_text()) for directory in (tmp_path, lab.MODEL_PATH))
        assert {**made, "transformers_version": None} == {**shipped, "transformers_version": None}


def test_teachers_err_as_often_as_stated():
    rng = random.Random(0)
    wrong = sum(lab.gold("12+27=", written("12+27=", rng)) == 0 for _ in range(4000)) / 4000
    assert wrong == pytest.approx(ERROR, abs=0.03)
