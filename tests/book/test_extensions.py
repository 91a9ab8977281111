"""What our Sphinx extensions make of a page, without a build."""

from __future__ import annotations

import re
import sys

import pytest
from sources import BOOK, Page, contents

sys.path.insert(0, str(BOOK / "_assets" / "sphinx"))
import book_map
import no_script_maths
import notebooks
import spellings


def test_the_table_of_chapters_has_each_with_a_sentence_of_its_own() -> None:
    table = book_map.table(BOOK)
    for chapter in [
        p for p in map(Page, contents()) if p.name.split("/")[0] in ("foundations", "methods", "loops", "practice")
    ]:
        row = re.search(rf"\{{doc\}}`{chapter.name}`\n  - (.+\.)\n  - (\d*)\n  - (.+)", table)
        assert row, chapter.name
        assert row[1] in " ".join(chapter.text.split()) and not row[1].startswith("**API")
        assert re.fullmatch(r"(\d h )?\d\d( min)?", row[3]), row[3]


def test_lines_for_the_page_only_are_left_out() -> None:
    code = """from myst_nb import glue
x = 1
for k in range(3):
    glue(f"a_{k}", k, display=False)
if x:
    y = 2
    glue(
        "b", y, display=False
    )
glue("c", x, display=False)"""
    assert notebooks.without_glue(code) == "x = 1\nif x:\n    y = 2"
    assert notebooks.without_glue('from myst_nb import glue\nglue("c", 1)') == ""


@pytest.mark.parametrize(
    "text, typed",
    [
        ("normalise the behaviour", {"normalize", "behavior"}),
        ("over-optimisation", {"overoptimisation", "overoptimization"}),
        ("we analyse a labelled centre", {"analyze", "labeled", "center"}),
    ],
)
def test_the_other_spelling_is_found(text: str, typed: set[str]) -> None:
    assert typed <= set(spellings.other_spellings(text))


def test_a_formula_without_a_script() -> None:
    page = '<div class="math notranslate nohighlight" id="x">\n<span class="eqno">(3.1)</span>\\[a &lt; b\\]</div>'
    shown = no_script_maths.FORMULA.sub(no_script_maths.twice, page)
    assert '<span class="eqno">(3.1)</span><span class="pt-tex">\\[a &lt; b\\]</span><noscript><math' in shown
    assert "<mo>&#x0003C;</mo>" in shown and shown.count("(3.1)") == 1
    tagged = no_script_maths.mathml(r"\begin{equation*} \frac{1}{2} \tag{4 ✓} \end{equation*}", True)
    assert "<mfrac>" in tagged and tagged.endswith(" (4 ✓)") and "tag" not in tagged
