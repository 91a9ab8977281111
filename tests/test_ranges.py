"""What a type says of a value: the same words for a method's hyperparameters and for the settings of a run."""

from typing import Annotated, Literal

import pytest

from pref_toolkit.ranges import AtLeast, Range, wanted

Rate = Annotated[float, Range(0, closed=True, high=1)]
Count = Annotated[int, AtLeast(1)]

ALLOWED = [
    *((Rate, value) for value in (0, 0.0, 0.999)),
    *((Annotated[float, Range(0, closed=False)], value) for value in (1e-300, 3, 1e300)),
    *((Count, value) for value in (1, 10**30)),
    *((Count | None, value) for value in (1, None)),
    *((Literal["a", "b"] | None, value) for value in ("a", None)),
    *((bool, value) for value in (True, False)),
    *((str | None, value) for value in ("", None)),
]
REFUSED = [
    *((Rate, value, "a finite number >= 0 and < 1") for value in (-1e-9, 1, 1.0, float("nan"), True, "0.5", None)),
    *((Annotated[float, Range(0, closed=False)], value, "a finite number > 0") for value in (0, float("inf"))),
    *((Count, value, "at least 1 and whole") for value in (0, -1, 2.5, 2.0, float("nan"), True, "2", None)),
    *((Count | None, value, "at least 1 and whole") for value in (0, 2.5, False)),
    *((Literal["a", "b"] | None, value, "one of a, b") for value in ("c", 1, ["a"])),
    *((bool, value, "of type bool") for value in (1, None)),
    *((str | None, value, "of type str") for value in (1, b"a")),
]


@pytest.mark.parametrize("kind, value", ALLOWED, ids=str)
def test_a_value_of_the_type_is_allowed(kind, value):
    assert wanted(kind, value) is None


@pytest.mark.parametrize("kind, value, sentence", REFUSED, ids=str)
def test_another_value_is_refused_in_words(kind, value, sentence):
    assert wanted(kind, value) == sentence
