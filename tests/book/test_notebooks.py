"""The notebooks behind the download arrow: they read well in plain Jupyter, and run from any folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sources import BOOK, BUILT, Page, contents

CHAPTERS = [page for page in map(Page, contents()) if "kernelspec" in page.header]
FOLDER = BUILT / "_notebooks"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the book has not been built: run `make book`")
chapters = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda page: page.name)
kinds = pytest.mark.parametrize("kind", ["student", "full"])

UNDEFINED = [Path(sys.executable).with_name("ruff"), "check", "--isolated", "--select", "F821,E9"]
"""Finds names that are used and not defined."""

RAW = [
    (r"\{[a-z][\w:-]*\}`", "a role"),
    (r"^\s*(`{3,}|:{3,}|~{3,})\{", "a directive"),
    (r"^\s*:{3,}", "a colon fence"),
    (r"^:\w+: ", "an option of a directive"),
    (r"\bglue\(|myst_nb", "a line for the page only"),
    (r"\]\(\)|\]\(#", "a dead link"),
]


def read(chapter: Page, kind: str) -> list[dict[str, Any]]:
    cells = json.loads((FOLDER / kind / f"{chapter.name}.ipynb").read_text("utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def markdown(cells: list[dict[str, Any]]) -> str:
    """The text of the Markdown cells, without examples of code."""
    text = "\n\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^( *)```\w*$.*?^\1```$", "", text, flags=re.M | re.S)


@chapters
def test_the_page_offers_both(chapter: Page) -> None:
    page = (BUILT / f"{chapter.name}.html").read_text("utf-8")
    for kind in ("student", "full"):
        (href,) = re.findall(rf'href="([^"]*_notebooks/{kind}/[^"]*)"', page)
        assert (BUILT / f"{chapter.name}.html").parent.joinpath(href).resolve().is_file()


@kinds
@chapters
def test_it_reads_well(chapter: Page, kind: str) -> None:
    cells = read(chapter, kind)
    assert cells[0]["source"].startswith("# ") and "Install the toolkit first" in cells[1]["source"]
    code = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
    for pattern, what in RAW:
        found = re.search(pattern, markdown(cells) + code if "glue" in pattern else markdown(cells), flags=re.M)
        assert not found, f"{what} in the notebook: {found[0]!r}"


@kinds
@chapters
def test_its_links_lead_to_notebooks_that_are_there(chapter: Page, kind: str) -> None:
    here = (FOLDER / kind / chapter.name).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", markdown(read(chapter, kind))):
        assert re.match("https?:", target) or (here / target).is_file(), target


@chapters
def test_solutions_are_folded_or_left_out(chapter: Page) -> None:
    student, full = read(chapter, "student"), read(chapter, "full")
    exercises = len(re.findall(r"^`{3,}\{exercise\}", chapter.text, flags=re.M))
    assert len(re.findall(r"^### Exercise \d+\.\d+: ", markdown(student), flags=re.M)) == exercises
    assert markdown(full).count("**Solution to Exercise") == exercises and "Solution to" not in markdown(student)
    asked = [cell["source"] for cell in student if cell["cell_type"] == "code"]
    assert sum(s == "# your answer" or ("import check\n" in s and "\n    ...\n" in s) for s in asked) == exercises
    for answer in re.findall(r"^assert (check\(.*\))$", chapter.text, flags=re.M):
        assert not any(f"assert {answer}" in source for source in asked) and any(answer in source for source in asked)
    solving = [cell for cell in full if "solution" in cell["metadata"].get("tags", [])]
    answers = re.findall(r"\{solution-start\}.*?\{solution-end\}", chapter.text, flags=re.S)
    assert len(solving) == sum(answer.count("```{code-cell}") for answer in answers)
    assert all(cell["metadata"]["jupyter"]["source_hidden"] for cell in solving)


@chapters
def test_the_full_one_has_every_cell_of_the_page(chapter: Page) -> None:
    code = [cell["source"] for cell in read(chapter, "full") if cell["cell_type"] == "code"][1:]
    page = [
        cell for cell in chapter.cells if re.sub(r"(?m)^(\s*glue\(.*\)|from myst_nb import glue)$", "", cell).strip()
    ]
    assert len(code) == len(page)
    for ours, theirs in zip(code, page):
        assert set(ours.split("\n")) <= {*theirs.split("\n"), ""}


@kinds
@chapters
def test_every_name_is_defined_before_it_is_used(chapter: Page, kind: str) -> None:
    """So that what the notebook has runs without what it leaves out."""
    notebook = FOLDER / kind / f"{chapter.name}.ipynb"
    done = subprocess.run([*UNDEFINED, notebook], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@chapters
def test_no_cell_needs_an_answer(chapter: Page, tmp_path: Path) -> None:
    """A student's notebook runs with its exercises open: no other cell uses what they ask for."""
    cells = [cell for cell in read(chapter, "student") if "\n    ...\n" not in cell["source"]]
    notebook = json.loads((FOLDER / "student" / f"{chapter.name}.ipynb").read_text(encoding="utf-8"))
    open_ones = tmp_path / "open.ipynb"
    open_ones.write_text(json.dumps(notebook | {"cells": cells}), encoding="utf-8")
    done = subprocess.run([*UNDEFINED, open_ones], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["index", "loops/fast_slow", "methods/dpo_gradients"])
def test_it_runs_from_another_folder(name: str, tmp_path: Path) -> None:
    """Some short ones. The page ran the same cells; `make run-notebooks` runs all."""
    target = tmp_path / "chapter.ipynb"
    target.write_bytes((FOLDER / "student" / f"{name}.ipynb").read_bytes())
    execute = [Path(sys.executable).with_name("jupyter-execute"), target.name]
    done = subprocess.run(execute, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_no_notebook_is_of_a_page_that_is_gone() -> None:
    there = {str(p.relative_to(FOLDER / "full").with_suffix("")) for p in (FOLDER / "full").rglob("*.ipynb")}
    assert there == {page.name for page in CHAPTERS} and BOOK.is_dir()
