"""What the documentation shows is run: every example in a docstring of the package, and the README's Python."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

from pref_toolkit import losses
from pref_toolkit.logps import Logps
from pref_toolkit.losses import METHODS

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "pref_toolkit").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
CALLED = [method.loss for method in METHODS.values()] + [losses.find_method, losses.log_ratios, losses.margin]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0 and found.failed == 0


def examples_of(thing):
    return [e for e in doctest.DocTestParser().get_examples(thing.__doc__) if e.want]


@pytest.mark.parametrize("function", CALLED, ids=lambda function: function.__name__)
def test_an_example_shows_a_value_of_the_function(function):
    assert any(f"{function.__name__}(" in example.source for example in examples_of(function))


@pytest.mark.parametrize("record", [Logps, losses.Method], ids=lambda record: record.__name__)
def test_an_example_shows_what_a_record_holds(record):
    assert examples_of(record)


def test_a_false_example_would_be_seen(capsys):
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "false", None, None)
    assert doctest.DocTestRunner().run(example).failed == 1
    assert "Expected:\n    3\nGot:\n    2\n" in capsys.readouterr().out


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    """Each comment is the value of its line."""
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    known: dict = {}
    exec(snippet, known)
    for line, value in re.findall(r"^(\S.*?)  # (.+)$", snippet, re.M):
        assert repr(eval(line, known)) == value
