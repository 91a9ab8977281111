"""A method lives in three places: a function, a row of the test table, a section of a chapter with facts box and derivation.

``test_losses.py`` checks the second; here is the third.
"""

import re
from pathlib import Path

import pytest

from pref_toolkit.losses import METHODS

BOOK = Path(__file__).parents[2] / "book"


@pytest.mark.parametrize("name", METHODS)
def test_the_chapter_of_a_method_has_its_facts_and_derivation(name):
    chapter = METHODS[name].chapter
    contents = (BOOK / "_toc.yml").read_text(encoding="utf-8")
    assert re.search(rf"file: {chapter}$", contents, re.M), f"{chapter} is not in book/_toc.yml"
    text = (BOOK / f"{chapter}.md").read_text(encoding="utf-8")
    assert f'\ntables.facts(METHODS["{name}"])\n```\n' in text, f"book/{chapter}.md has no facts box of {name}"
    derivation = f'\nderivation = derivations.ALL["{name}"]\nderivation.verify()\nderivation\n```\n'
    assert derivation in text, f"book/{chapter}.md does not verify and show the derivation of {name}"
