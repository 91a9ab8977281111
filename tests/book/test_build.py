"""The sources of the book: every chapter is whole, and a false claim cannot be built."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sources import BOOK, ROOT, Page, called, contents, keyword

from pref_toolkit.losses import METHODS

PAGES = [Page(name) for name in contents()]
TEMPLATE = Page("_assets/chapter_template")
CHAPTERS = [page for page in PAGES if page.name.split("/")[0] in ("foundations", "methods", "loops", "practice")]

SECTIONS = {
    "foundations": ["Objectives", "Derivation", "What the sources get wrong", "Exercises", "Summary"],
    "methods": [
        "Objectives",
        "Where .+",
        "The facts",
        "Derivation",
        "Gradient",
        "A bandit with a known optimum",
        "In ten lines",
        "In the lab",
        "What the sources get wrong",
        "Exercises",
        "Summary",
    ],
    "practice": ["Objectives", "Exercises", "Summary"],
}
SECTIONS["loops"] = SECTIONS["methods"]
# The map of methods derives nothing: it places every method and links to its chapter.
MAP = {"methods/family_map": ["Objectives", "The map", "Exercises", "Summary"]}

JUPYTER_BOOK = str(Path(sys.executable).with_name("jupyter-book"))

chapters = pytest.mark.parametrize("chapter", [*CHAPTERS, TEMPLATE], ids=lambda page: page.name)


def pattern(name: ast.expr) -> str:
    """What a glued name can be, as a regular expression: an f-string may fill its fields with anything."""
    parts = name.values if isinstance(name, ast.JoinedStr) else [name]
    return "".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+" for part in parts)


def test_every_source_page_is_in_the_table_of_contents() -> None:
    here = {str(path.relative_to(BOOK).with_suffix("")) for path in BOOK.rglob("*.md")}
    assert {page for page in here if not page.startswith("_")} == set(contents())


@chapters
def test_chapter_is_a_notebook(chapter: Page) -> None:
    assert chapter.header["jupytext"]["text_representation"]["format_name"] == "myst"
    assert chapter.header["kernelspec"]["name"] == "python3"
    assert chapter.cells


@chapters
def test_chapter_has_its_sections_in_order(chapter: Page) -> None:
    headings = iter(chapter.headings)
    folder = "methods" if chapter is TEMPLATE else chapter.name.split("/")[0]
    for wanted in MAP.get(chapter.name, SECTIONS[folder]):
        assert any(re.fullmatch(wanted, heading) for heading in headings), (
            f"no section {wanted!r} after those before it"
        )


@chapters
def test_exercises_are_of_every_kind_and_solved(chapter: Page) -> None:
    exercises = re.findall(r"^(`{3,}|:{3,})\{exercise\} (.+)\n:label: (\S+)", chapter.text, flags=re.M)
    kinds = [re.search("pencil|graded|open", title, flags=re.I) for _, title, _ in exercises]
    counts = [sum(1 for k in kinds if k and k[0].lower() == kind) for kind in ("pencil", "graded", "open")]
    assert [count >= least for count, least in zip(counts, (2, 2, 1))] == [True] * 3, counts
    for _, title, label in exercises:
        solution = re.search(
            rf"\{{solution(-start)?\}} {label}\n:class: dropdown\n(.*?)\{{solution-end\}}", chapter.text, re.S
        )
        assert solution, f"no folded solution to {label}"
        if "graded" in title.lower():
            assert re.search(r"\{code-cell\}.*?\bassert", solution[2], flags=re.S), f"nothing grades {label}"


@chapters
def test_every_picture_has_alt_text(chapter: Page) -> None:
    for call in chapter.calls:
        if called(call) in ("figures.show", "figures.slider"):
            alt = keyword(call, "alt")
            assert alt is not None and ast.unparse(alt).strip("'\"f "), ast.unparse(call)
    assert not re.search(r"!\[\]\(", chapter.text)
    assert not any("matplotlib" in cell for cell in chapter.cells), "figures.py is the only importer of matplotlib"


@chapters
def test_numbers_in_prose_come_from_code(chapter: Page) -> None:
    typed = re.findall(r".*(?<![\w.])\d+(?:\.\d+|(?: per cent| ?%)).*", chapter.prose)
    assert not typed, "glue these numbers, or set them in mathematics or code if they are definitions"
    glued = [pattern(call.args[0]) for call in chapter.calls if called(call) == "glue"]
    used = set(re.findall(r"\{glue:\w+\}`([^`:]+)", chapter.text))
    unused = [name for name in glued if not any(re.fullmatch(name, text) for text in used)]
    assert not unused, f"glued and never used: {unused}"


@chapters
def test_nothing_is_left_to_be_filled_in(chapter: Page) -> None:
    assert not re.search(r"@@|TODO|FIXME|XXX", chapter.text)


@chapters
def test_toolkit_code_is_included_not_pasted(chapter: Page) -> None:
    for method in METHODS.values():
        assert not any(re.search(rf"^def {method.name}\(", cell, flags=re.M) for cell in chapter.cells)


FALSE_STEP = """
from dataclasses import replace
import sympy as sp
steps = list(derivation.steps)
k = max(i for i, step in enumerate(steps) if step.check == "proved" and isinstance(step.statement, sp.Equality))
steps[k] = replace(steps[k], statement=sp.Eq(steps[k].statement.lhs, 2 * steps[k].statement.rhs + 1, evaluate=False))
derivation = replace(derivation, steps=tuple(steps))
derivation.verify()
"""


def clean_environment() -> dict[str, str]:
    """What a user's shell gives, on one core."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "", "NO_COLOR": "1"}


def build(book: Path, *changes: tuple[str, str]) -> tuple[int, str]:
    """A book of the template alone, with pieces of it replaced, as far as it builds: exit status and what was said."""
    for name in ("_config.yml", "references.bib"):
        shutil.copy(BOOK / name, book)
    shutil.copytree(BOOK / "_assets" / "sphinx", book / "_assets" / "sphinx", dirs_exist_ok=True)
    static = shutil.ignore_patterns("mathjax")
    shutil.copytree(BOOK / "_assets" / "static", book / "_assets" / "static", ignore=static, dirs_exist_ok=True)
    (book / "reference").mkdir(exist_ok=True)
    for page in ("notation", "api_losses"):
        shutil.copy(BOOK / "reference" / f"{page}.md", book / "reference")
    (book / "_toc.yml").write_text(
        "{format: jb-book, root: chapter, chapters: [{file: reference/notation}, {file: reference/api_losses}]}"
    )
    text = TEMPLATE.text
    for true, false in changes:
        assert true in text
        text = text.replace(true, false, 1)
    (book / "chapter.md").write_text(text, encoding="utf-8")
    command = [JUPYTER_BOOK, "build", str(book), "-W", "-n", "--keep-going"]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment())
    return done.returncode, re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)


def test_the_template_builds_and_its_references_must_hold(tmp_path: Path) -> None:
    status, said = build(tmp_path)
    assert status == 0, said
    # Cells are unchanged and come from the first build's cache.
    status, said = build(
        tmp_path, ("glue:text}`template_value", "glue:text}`template_x"), ("losses.margin`", "losses.x`")
    )
    assert status != 0
    assert "template_x" in said and "pref_toolkit.losses.x" in said
    assert "Executing notebook" not in said


@pytest.mark.parametrize(
    ("true", "false", "error"),
    [
        ("assert torch.isclose(value, log_z)", "assert torch.isclose(value, 1.01 * log_z)", "AssertionError"),
        ("derivation.verify()", FALSE_STEP, "DerivationError: dpo, step"),
    ],
    ids=["wrong number", "false step"],
)
def test_a_false_claim_fails_the_build(tmp_path: Path, true: str, false: str, error: str) -> None:
    status, said = build(tmp_path, (true, false))
    assert status != 0
    assert error in said


def test_the_book_also_builds_with_sphinx_alone(tmp_path: Path) -> None:
    """So that the pinned Jupyter Book is a convenience and no trap. Executed cells are taken from the last build."""
    cache = BOOK / "_build" / ".jupyter_cache"
    if not cache.is_dir():
        pytest.skip("the book has not been built: run `make book`")
    book = tmp_path / "book"
    shutil.copytree(BOOK, book, ignore=shutil.ignore_patterns("html", ".doctrees", "jupyter_execute", "notebooks"))
    (tmp_path / "pref_toolkit").symlink_to(ROOT / "pref_toolkit")  # chapters include its source
    jupyter_book = [JUPYTER_BOOK, "config", "sphinx", str(book)]
    subprocess.run(jupyter_book, check=True, capture_output=True, env=clean_environment())
    sphinx = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-b", "html"]
    sphinx += ["-D", f"nb_execution_cache_path={book / '_build' / '.jupyter_cache'}", str(book), str(tmp_path / "html")]
    extensions = {"PYTHONPATH": str(book / "_assets" / "sphinx")}  # the one thing that conf.py does not say
    done = subprocess.run(sphinx, capture_output=True, text=True, env=clean_environment() | extensions)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Executing notebook" not in done.stdout + done.stderr
    assert {str(p.relative_to(tmp_path / "html").with_suffix("")) for p in (tmp_path / "html").rglob("*.html")} >= set(
        contents()
    )
