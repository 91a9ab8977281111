"""The one record of a preference: a prompt with K responses, best first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pref_toolkit.errors import Complaint

Message = dict[str, Any]


class DataError(Complaint):
    """The data cannot be used. One sentence: where (file, line, field), what is wrong, and what to do."""


@dataclass(frozen=True)
class Example:
    """A prompt and its K responses, best response first.

    Args:
        prompt: text, or the chat messages before the answer.
        responses: K texts, or K tuples of chat messages whose first is the assistant's. A pair has K=2, a ranking
            K>2, a labelled answer K=1.
        where: the row it came from, counted from 1: ``"pairs.jsonl:6"``, or ``"dataset:6"`` without a file.
        scores: one number a response, in the responses' order, so descending. None where the row gave none.
        desirable: the label of a K=1 row. None otherwise.
        win_probabilities: like scores: the chance in [0, 1] that each response beats one of the model's own.
        target: a supervised response besides the K, where the row gave one.
    """

    prompt: str | tuple[Message, ...]
    responses: tuple[str | tuple[Message, ...], ...]
    where: str
    scores: tuple[float, ...] | None = None
    desirable: bool | None = None
    win_probabilities: tuple[float, ...] | None = None
    target: str | tuple[Message, ...] | None = None
