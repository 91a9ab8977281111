"""A prompt as a loop has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A prompt that is answered.

    Args:
        text: as a judge and a file of rows show it.
        ids: as the policy reads it.
        where: file and line it came from.
        answer: ids of the data's own answer, if it has one.
        prompt: as the data has it, text or chat messages; None: the text.
    """

    text: str
    ids: list[int]
    where: str
    answer: list[int] | None = None
    prompt: Any = None
