"""The places in which a method lives: each forgotten one fails a test, and CONTRIBUTING lists them all.

A loss that is in the table of methods and nowhere else shows it: each check must fail for it.
"""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from pref_toolkit.logps import Logps
from pref_toolkit.losses import METHODS, Method, dpo
from pref_toolkit.losses.method import Positive

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"


@pytest.mark.parametrize("name", METHODS)
def test_the_chapter_of_a_method_has_its_facts_and_derivation(name):
    chapter = METHODS[name].chapter
    contents = (BOOK / "_toc.yml").read_text(encoding="utf-8")
    assert re.search(rf"file: {chapter}$", contents, re.M), f"{chapter} is not in book/_toc.yml"
    text = (BOOK / f"{chapter}.md").read_text(encoding="utf-8")
    assert f'\nfigures.facts(METHODS["{name}"])\n```\n' in text, f"book/{chapter}.md has no facts box of {name}"
    derivation = f'\nderivation = derivations.ALL["{name}"]\nderivation.verify()\nderivation\n```\n'
    assert derivation in text, f"book/{chapter}.md does not verify and show the derivation of {name}"


def forgotten(policy: Logps, reference: Logps, *, beta: Positive = 0.1):
    """A loss that nothing else knows of: ``-log sigmoid(beta D)``."""
    return dpo(policy, reference, beta=beta)


# Place, as CONTRIBUTING names it -> the tests that fail if a method is not there: file, function, arguments.
PLACES = {
    "pref_toolkit/losses/": [
        ("losses/test_losses.py", "test_the_docstring_holds_every_part", ["forgotten"]),
        ("test_examples.py", "test_an_example_shows_a_value_of_the_function", [forgotten]),
    ],
    "tests/losses/table.py": [("losses/test_losses.py", "test_the_table_has_a_row_for_every_method_and_no_other", [])],
    "tests/peers/test_trl.py": [("peers/test_trl.py", "test_every_method_is_compared_or_known_to_be_missing", [])],
    "pref_toolkit/theory/derivations/": [("theory/test_derivations.py", "test_every_method_is_derived", [])],
    "book/": [("losses/test_places.py", "test_the_chapter_of_a_method_has_its_facts_and_derivation", ["forgotten"])],
    "pref_toolkit/lab/table.json": [("lab/test_table.py", "test_every_method_is_tried_and_reported_on_every_seed", [])],
}
CHECKS = [check for checks in PLACES.values() for check in checks]


def check_of(file, function, monkeypatch):
    path = ROOT / "tests" / file
    monkeypatch.syspath_prepend(path.parent)
    spec = importlib.util.spec_from_file_location(f"{path.stem}_of_places", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where its dataclasses look themselves up
    spec.loader.exec_module(module)
    return getattr(module, function)


@pytest.mark.parametrize(
    "file, function, arguments", CHECKS, ids=lambda part: str(part) if "test_" in str(part) else ""
)
def test_a_method_that_is_not_there_fails_a_test(file, function, arguments, monkeypatch):
    check = check_of(file, function, monkeypatch)
    monkeypatch.setitem(METHODS, "forgotten", Method(forgotten, "Nobody 2024", "none", "methods/dpo"))
    with pytest.raises(AssertionError):
        check(*arguments)


def test_contributing_lists_the_places_and_says_how_many():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (count, places) = re.search(r"\*\*Add a method in (\w+) places\.\*\*.*?\n(1\. .*?)\n\n", text, re.S).groups()
    assert re.findall(r"^\d\. `(.+?)`", places, re.M) == list(PLACES)
    assert count == {5: "five", 6: "six", 7: "seven"}[len(PLACES)]
    assert all((ROOT / place).exists() for place in PLACES)
