"""Grade an answer to an exercise of the book, from the page."""

from __future__ import annotations

import copy
import difflib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from pref_toolkit import course
from pref_toolkit.course.cases import EXERCISES, Case
from pref_toolkit.errors import Complaint

NOT_CHAPTERS = {"cases", "grading"}


@dataclass(frozen=True)
class Verdict:
    """What :func:`check` found. It is true if every case passed, and prints as its text."""

    passed: bool
    text: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return self.text


def check(label: str, answer: Callable[..., Any]) -> Verdict:
    """Call ``answer`` on the cases of an exercise, and stop at the first that fails.

    Args:
        label: label of the exercise, as its stub in the page has it: ``"ipo-ex-6"``.
        answer: the function that the exercise asks for.

    Returns:
        A verdict. Its text names the case that failed, what came out and what was wanted. It is false in an ``assert`` if a
        case failed or the function is not written yet, which is when it returns None or raises NotImplementedError.

    Raises:
        Complaint: if no graded exercise has this label.

    >>> from pref_toolkit.course import check
    >>> check("ipo-ex-6", lambda reference, chance, mu, tau: reference)
    ipo-ex-6, case 1 of 4 (all responses drawn equally often): got [0.3333, 0.3333, 0.3333], wanted [0.342, 0.378, 0.28].
    """
    cases = list(_cases(label))
    for k, case in enumerate(cases, start=1):
        fault = _fault(case, answer)
        if fault is None:
            return Verdict(False, f"{label} is not written yet.")
        if fault:
            return Verdict(False, f"{label}, case {k} of {len(cases)} ({case.about}): {fault}")
    return Verdict(True, f"{label}: all {len(cases)} cases pass.")


def labels() -> list[str]:
    """Labels of all graded exercises, in alphabetical order."""
    for module in pkgutil.iter_modules(course.__path__):
        if module.name not in NOT_CHAPTERS:
            import_module(f"{course.__name__}.{module.name}")
    return sorted(EXERCISES)


def _cases(label: str) -> Iterator[Case]:
    if label not in labels():
        near = difflib.get_close_matches(label, EXERCISES, n=1)
        raise Complaint(
            f"no graded exercise is called {label!r}; " + (f"did you mean {near[0]!r}?" if near else _all())
        )
    return EXERCISES[label]()


def _all() -> str:
    return f"there are {', '.join(labels())}"


def _fault(case: Case, answer: Callable[..., Any]) -> str | None:
    """What is wrong with the answer in this case: a sentence, "" if nothing is, None if there is no answer."""
    try:
        got = answer(*copy.deepcopy(case.arguments))
    except NotImplementedError:
        return None
    except Exception as error:  # whatever a reader's function raises belongs into the verdict
        return f"your function raised {type(error).__name__}: {error}"
    if got is None:
        return None
    if case.fault is None:
        return _difference(got, case.wanted, case.rtol, case.atol)
    try:
        return case.fault(got)
    except Exception as error:  # a value of another type than the exercise asks for
        return f"got {_short(got)}, which cannot be judged ({type(error).__name__}: {error})."


def _difference(got: Any, wanted: Any, rtol: float, atol: float) -> str:
    """ "" if the two agree, else a sentence with both."""
    if isinstance(wanted, tuple):
        if not isinstance(got, tuple | list) or len(got) != len(wanted):
            return f"got {_short(got)}, wanted {len(wanted)} values."
        found = [_difference(a, b, rtol, atol) for a, b in zip(got, wanted)]
        return next((f"value {k}: {fault}" for k, fault in enumerate(found, start=1) if fault), "")
    if isinstance(wanted, str):
        return "" if got == wanted else f"got {got!r}, wanted {wanted!r}."
    b = _numbers(wanted)
    try:
        a = _numbers(got)
    except (TypeError, ValueError, RuntimeError):
        return f"got {got!r}, wanted {_short(wanted)}."
    if a.shape != b.shape:
        return f"got shape {tuple(a.shape)}, wanted {tuple(b.shape)}."
    if torch.allclose(a, b, rtol=rtol, atol=atol):
        return ""
    return f"got {_short(got)}, wanted {_short(wanted)}."


def _numbers(value: Any) -> Tensor:
    value = value.detach() if isinstance(value, Tensor) else value
    return torch.as_tensor(value, dtype=torch.float64)


def _short(value: Any) -> str:
    """A value in one line, with four digits."""
    try:
        numbers = _numbers(value)
    except (TypeError, ValueError, RuntimeError):
        return repr(value)
    if numbers.ndim == 0:
        return f"{numbers.item():.4g}"
    if numbers.numel() > 12:
        return f"a tensor of shape {tuple(numbers.shape)} with mean {numbers.mean().item():.4g}"

    def listed(x: Any) -> str:
        return f"[{', '.join(map(listed, x))}]" if isinstance(x, list) else f"{x:.4g}"

    return listed(numbers.tolist())
