"""The record of a preference: a prompt with K responses, best first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pref_toolkit.errors import Complaint

Message = dict[str, Any]


class DataError(Complaint):
    """Data that cannot be used. The message is one sentence: the place (file, line, field), the fault and the remedy."""


@dataclass(frozen=True)
class Example:
    """A prompt and its K responses, best response first.

    Args:
        prompt: text, or the chat messages before the answer.
        responses: K texts, or K tuples of chat messages that begin with the assistant's. K is 2 for a pair, more for a
            ranking, 1 for a labelled answer.
        where: file and line of the row, counted from 1: ``"pairs.jsonl:6"``, or ``"dataset:6"`` without a file.
        scores: one number for each response, in the order of the responses and therefore descending; None if the row has
            none.
        desirable: the label of a row with K = 1; None for other rows.
        win_probabilities: for each response, the probability that it beats one of the model's own; None if the row has
            none.
        target: a supervised response in addition to the K; None if the row has none.
    """

    prompt: str | tuple[Message, ...]
    responses: tuple[str | tuple[Message, ...], ...]
    where: str
    scores: tuple[float, ...] | None = None
    desirable: bool | None = None
    win_probabilities: tuple[float, ...] | None = None
    target: str | tuple[Message, ...] | None = None
