"""Prose and docstrings are in British English: optimise, behaviour, labelled, learnt."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from sources import ROOT, Page, contents

ENDINGS = re.compile(r"\w{2,}(iz(e|ed|es|er|ers|ing|ation|ations)|yz(e|ed|es|ing))")
AS_IN_BRITISH = re.compile(r"tokenizers?|(re|over|under)?siz(e|ed|es|ing)|priz(e|ed|es)|seiz(e|ed|es|ing)")
WORDS = re.compile(
    r"(behavi|col|fav|flav|hon|neighb|lab)or(s|ed|ing|able|hood)?|center(s|ed|ing)?|grays?|judgments?|catalogs?|defense"
    r"|(label|model|cancel|signal|travel)(ed|ing|er|ers)|learned|artifacts?|toward"
)


def american(text: str) -> list[str]:
    """American words of a text. A paper's title stands between asterisks and stays as it is."""
    words = re.findall(r"[a-z]+", re.sub(r"\*[A-Z][^*]*\*", "", text).lower())
    return [w for w in words if WORDS.fullmatch(w) or (ENDINGS.fullmatch(w) and not AS_IN_BRITISH.fullmatch(w))]


def texts() -> Iterator[tuple[str, str]]:
    """What readers read: the prose of each page, the captions of its figures, and the toolkit's docstrings."""
    for name in contents():
        yield name, Page(name).prose
        yield f"{name}, captions", "\n".join(re.findall(r"^    caption: \|\n(.*)$", Page(name).text, flags=re.M))
    for page in ("README", "CONTRIBUTING"):
        yield page, Page(f"../{page}").prose
    for path in sorted((ROOT / "pref_toolkit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (docstring := ast.get_docstring(node)):
                said = re.sub(r"``.*?``|`[^`]*`|^\s*(>>>|\.\.\.).*$", "", docstring, flags=re.S | re.M)
                yield f"{path.relative_to(ROOT)}, {getattr(node, 'name', 'module')}", said


@pytest.mark.parametrize(
    "text, found",
    [
        ("We optimize a labeled color.", ["optimize", "labeled", "color"]),
        ("It analyzes the behavior of a learned model.", ["analyzes", "behavior", "learned"]),
        ("We optimise a labelled colour, and analyse what a tokenizer of this size has learnt.", []),
        ("Rafailov et al., *Direct Preference Optimization*.", []),
    ],
)
def test_american_words_are_found(text: str, found: list[str]) -> None:
    assert american(text) == found


def test_spelling_is_british() -> None:
    assert {where: words for where, text in texts() if (words := american(text))} == {}
