"""The graded exercises: every one of the book has cases, which a right answer passes and a wrong one does not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from pref_toolkit.course import check, labels
from pref_toolkit.course.cases import EXERCISES, Case, exercise
from pref_toolkit.errors import Complaint

sys.path.insert(0, str(Path(__file__).parent / "book"))
from sources import BOOK

CHAPTERS = {path.stem: path.read_text(encoding="utf-8") for path in BOOK.rglob("*.md") if "_build" not in path.parts}
every_exercise = pytest.mark.parametrize("label", labels())


def chapter_of(label: str) -> str:
    return CHAPTERS[label.rpartition("-ex-")[0].replace("-", "_")]


@every_exercise
def test_the_page_has_the_exercise_a_stub_and_an_answer_that_passes(label: str) -> None:
    """The answer is run when the page is built, which fails if an `assert` does."""
    text = chapter_of(label)
    box = re.search(rf"^```\{{exercise\}} .*graded.*\n:label: {label}\n(.*?)^```$", text, flags=re.M | re.S | re.I)
    assert box, f"no graded exercise {label}"
    assert re.search(rf'^check\("{label}", \w+\)$', box[1], flags=re.M), "its box shows no stub with its check"
    answer = re.search(rf"\{{solution-start\}} {label}\n(.*?)\{{solution-end\}}", text, flags=re.S)
    assert answer and f'assert check("{label}", ' in answer[1]


@every_exercise
@pytest.mark.parametrize("wrong", [0.0, "", torch.full((2, 3), torch.nan), ()], ids=repr)
def test_a_value_of_no_sense_fails(label: str, wrong: object) -> None:
    verdict = check(label, lambda *arguments: wrong)
    assert not verdict and verdict.text.startswith(f"{label}, case 1 of ")


@every_exercise
def test_an_answer_of_one_case_is_no_answer_to_all(label: str) -> None:
    """What passes the first case without looking at its arguments fails later."""
    cases = list(EXERCISES[label]())
    assert len(cases) > 1 and len({case.about for case in cases}) == len(cases)
    if cases[0].fault is None:
        assert not check(label, lambda *arguments: cases[0].wanted)


def test_what_a_reader_is_told() -> None:
    def cases():  # type: ignore[no-untyped-def]
        yield Case("one", (1,), 2.0)
        yield Case("a list", ([3.0],), torch.tensor([6.0]))
        yield Case("two values", (2,), (4.0, "even"), rtol=1e-3)
        yield Case("any even one", (0,), fault=lambda got: "" if got % 2 == 0 else f"{got} is odd.")

    exercise("a-test-ex-1")(cases)
    try:
        told = {
            "a-test-ex-1 is not written yet.": lambda x: None,
            "a-test-ex-1, case 1 of 4 (one): got 1, wanted 2.": lambda x: x,
            "a-test-ex-1, case 1 of 4 (one): your function raised ZeroDivisionError: division by zero": lambda x: x / 0,
            "a-test-ex-1, case 1 of 4 (one): got shape (1,), wanted ().": lambda x: [2],
            "a-test-ex-1, case 1 of 4 (one): got 'two', wanted 2.": lambda x: "two",
            "a-test-ex-1, case 2 of 4 (a list): got [4], wanted [6].": lambda x: 2 if x == 1 else [4.0],
            "a-test-ex-1, case 3 of 4 (two values): value 2: got 'odd', wanted 'even'.": (
                lambda x: [6.0] if x == [3.0] else 2 if x == 1 else (4.001, "odd")
            ),
            "a-test-ex-1, case 4 of 4 (any even one): 3 is odd.": lambda x: {1: 2, 2: (4, "even"), 0: 3}.get(
                x if isinstance(x, int) else 9, [6.0]
            ),
            "a-test-ex-1: all 4 cases pass.": lambda x: {1: 2, 2: (4, "even"), 0: 8}.get(
                x if isinstance(x, int) else 9, [6.0]
            ),
        }
        for text, answer in told.items():
            verdict = check("a-test-ex-1", answer)
            assert repr(verdict) == text
            assert bool(verdict) == ("all" in text and "pass" in text)
        with pytest.raises(ValueError, match="two exercises are called a-test-ex-1"):
            exercise("a-test-ex-1")(cases)
    finally:
        del EXERCISES["a-test-ex-1"]


def test_an_answer_cannot_change_the_cases() -> None:
    def spoil(features, h0, pairs, tau):  # type: ignore[no-untyped-def]
        features.zero_(), h0.zero_()
        return h0

    assert check("ipo-ex-7", spoil).text == check("ipo-ex-7", spoil).text


def test_the_readme_shows_what_check_says() -> None:
    readme = (BOOK.parent / "README.md").read_text(encoding="utf-8")
    (call, said) = re.search(r"^>>> (check\(.*)\n(.*)$", readme, flags=re.M).groups()
    assert repr(eval(call, {"check": check, "torch": torch})) == said


def test_a_label_that_is_not_there() -> None:
    with pytest.raises(Complaint, match=r"no graded exercise is called 'ipo-ex-66'; did you mean 'ipo-ex-6'\?"):
        check("ipo-ex-66", abs)
    with pytest.raises(Complaint, match=r"no graded exercise is called '3\.2'; there are "):
        check("3.2", abs)


def test_a_case_says_what_is_right_in_one_way() -> None:
    with pytest.raises(ValueError, match="wants one of"):
        Case("neither", ())
    with pytest.raises(ValueError, match="wants one of"):
        Case("both", (), 1.0, lambda got: "")
