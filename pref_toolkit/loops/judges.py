"""Judges: whoever says how good an answer is. A loop asks one, and never twice about the same draw."""

from __future__ import annotations

import importlib
import math
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from pref_toolkit.errors import Complaint

Judge = Callable[[list[str], list[list[str]]], Sequence[Sequence[float]]]
"""``judge(prompts, answers)``: ``B`` prompts as text, ``K`` answers to each; gives ``K`` numbers for each, higher is better."""


def load(name: str) -> Judge:
    """The judge ``module:function``, whose module may lie in the working directory; or the reward model of a run's directory.

    Raises:
        Complaint: if there is no such function, the module fails, or the run trained no reward model.

    >>> load("math:sqrt").__name__
    'sqrt'
    """
    module, colon, function = name.partition(":")
    if Path(name).is_dir():
        from pref_toolkit.loops.reward_judge import RewardJudge  # which loads transformers

        return RewardJudge(name)
    if not (module and colon and function):
        raise Complaint(
            f"a judge is a reward model's directory or module:function, as in my_judges:helpful, got {name!r}"
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        judge = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a user's module raises
        raise Complaint(f"judge {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(judge):
        raise Complaint(f"judge {name!r} is {type(judge).__name__} and no function")
    return judge  # type: ignore[no-any-return]


def judged(judge: Judge, prompts: list[str], answers: list[list[str]], limit: float) -> list[list[float]]:
    """The judge's numbers for each answer, checked.

    Args:
        judge: who is asked, once.
        prompts, answers: as :data:`Judge` reads them.
        limit: seconds that it may take; 0: as long as it likes.

    Raises:
        Complaint: in one sentence, if it raises, takes longer, or gives anything but a finite number for each answer.

    >>> judged(lambda prompts, answers: [[len(a) for a in own] for own in answers], ["2 + 2 ="], [["4", "four"]], 0)
    [[1.0, 4.0]]
    >>> judged(lambda prompts, answers: [[1.0]], ["2 + 2 ="], [["4", "four"]], 0)
    Traceback (most recent call last):
    pref_toolkit.errors.Complaint: the judge gave 1 scores for the 2 answers to '2 + 2 ='
    """
    given = _within(limit, judge, prompts, answers)
    try:
        rows = [list(row) for row in given]
    except TypeError:
        raise Complaint(f"the judge gave {type(given).__name__}, want a list of scores for each prompt") from None
    if len(rows) != len(prompts):
        raise Complaint(f"the judge gave scores for {len(rows)} prompts and was asked about {len(prompts)}")
    out: list[list[float]] = []
    for prompt, own, row in zip(prompts, answers, rows):
        shown = repr(prompt if len(prompt) <= 60 else prompt[:57] + "...")
        if len(row) != len(own):
            raise Complaint(f"the judge gave {len(row)} scores for the {len(own)} answers to {shown}")
        try:
            numbers = [float(score) for score in row]
        except (TypeError, ValueError):
            raise Complaint(f"the judge gave a score that is no number to {shown}: {row!r}") from None
        if not all(map(math.isfinite, numbers)):
            raise Complaint(f"the judge gave a score that is not finite to {shown}: {row!r}")
        out.append(numbers)
    return out


def _within(limit: float, judge: Judge, prompts: list[str], answers: list[list[str]]) -> Sequence[Sequence[float]]:
    result: list[Sequence[Sequence[float]]] = []
    raised: list[Exception] = []

    def ask() -> None:
        try:
            result.append(judge(list(prompts), [list(own) for own in answers]))
        except Exception as error:  # whatever a user's judge raises
            raised.append(error)

    # A thread that hangs cannot be ended, but it does not keep the process from ending.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(limit or None)
    if raised:
        raise Complaint(f"the judge failed: {type(raised[0]).__name__}: {raised[0]}") from raised[0]
    if not result:
        raise Complaint(f"the judge took longer than judge_limit={limit:g} seconds")
    return result[0]
