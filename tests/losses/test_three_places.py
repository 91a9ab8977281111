"""A method lives in three places: a function, a row of the test table, a section of a chapter.

``test_losses.py`` checks the second; here is the third. Some chapters are announced by their methods but not yet
written: a method of theirs is skipped, with that reason, until the chapter stands in ``book/_toc.yml``. From then on,
and for every other chapter from the start, a method that its chapter does not treat is a failure. Delete an entry of
``COMING`` when its chapter is in the book; a left-over entry fails as well.
"""

import re
from pathlib import Path

import pytest
import yaml

from pref_toolkit.losses import METHODS

BOOK = Path(__file__).parents[2] / "book"
COMING = {
    "methods/beyond_pairs",
    "methods/dpo_gradients",
    "methods/ipo",
    "methods/one_family",
    "methods/ranking",
    "methods/reference_free",
    "methods/token_level",
}


def files(node) -> set[str]:
    """Every ``file`` and ``root`` of a table of contents."""
    if isinstance(node, list):
        return set().union(*map(files, node))
    if isinstance(node, dict):
        return {node[key] for key in ("file", "root") if key in node} | set().union(*map(files, node.values()))
    return set()


def in_the_book() -> set[str]:
    toc = BOOK / "_toc.yml"
    if not toc.exists():
        pytest.skip("book/_toc.yml is not written yet")
    return files(yaml.safe_load(toc.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", METHODS)
def test_the_chapter_of_a_method_treats_it(name):
    chapter = METHODS[name].chapter
    if chapter not in in_the_book():
        assert chapter in COMING, f"{chapter} is not in book/_toc.yml"
        pytest.skip(f"{chapter} is not in book/_toc.yml yet")
    text = (BOOK / f"{chapter}.md").read_text(encoding="utf-8")
    treated = rf"losses\.{name}\b|:pyobject: {name}$|METHODS\[\"{name}\"\]"
    assert re.search(treated, text, re.M), f"book/{chapter}.md shows no losses.{name}"


def test_no_chapter_is_both_coming_and_in_the_book():
    assert not COMING & in_the_book()
