"""A method lives in three places: a function, a row of the test table, a section of a chapter.

``test_losses.py`` checks the second; here is the third.
"""

import re
from pathlib import Path

import pytest

from pref_toolkit.losses import METHODS

BOOK = Path(__file__).parents[2] / "book"


@pytest.mark.parametrize("name", METHODS)
def test_the_chapter_of_a_method_treats_it(name):
    chapter = METHODS[name].chapter
    contents = (BOOK / "_toc.yml").read_text(encoding="utf-8")
    assert re.search(rf"file: {chapter}$", contents, re.M), f"{chapter} is not in book/_toc.yml"
    text = (BOOK / f"{chapter}.md").read_text(encoding="utf-8")
    treated = rf"losses\.{name}\b|:pyobject: {name}$|METHODS\[\"{name}\"\]"
    assert re.search(treated, text, re.M), f"book/{chapter}.md shows no losses.{name}"
