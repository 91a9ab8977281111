"""The lab's language: sums as prompts, nine styles of answer, and the true reward.

A prompt is ``"12+27="``. A response is an opening, a number and a closing, such as ``"39"``, ``"it is 39"`` or
``"the answer is 39 thank you"``. Responses differ in correctness, length and politeness; the true reward,
:func:`~pref_toolkit.lab.gold`, sees correctness alone.
"""

from __future__ import annotations

import random
import re
from typing import Literal

SMALLEST, LARGEST = 10, 79  # operands
OPENINGS = ("", "it is", "the answer is")
CLOSINGS = ("", "thanks", "thank you")
POLITE = frozenset({"thanks", "thank"})
Split = Literal["train", "test"]

_PROMPT = re.compile(r"([0-9]+)\+([0-9]+)=")


def operand_pairs(split: Split) -> list[tuple[int, int]]:
    """All operand pairs of a split, in order. The test split has 30 % of the sums; 12+27 and 27+12 count as one sum."""
    if split not in ("train", "test"):
        raise ValueError(f"split is 'train' or 'test', got {split!r}")
    unordered = [(a, b) for a in range(SMALLEST, LARGEST + 1) for b in range(a, LARGEST + 1)]
    random.Random(0).shuffle(unordered)  # the seed is part of the language, not of a run
    held_out = round(0.3 * len(unordered))
    members = unordered[:held_out] if split == "test" else unordered[held_out:]
    return sorted({pair for a, b in members for pair in ((a, b), (b, a))})


def prompts(n: int, seed: int = 0, split: Split = "train") -> list[str]:
    """``n`` prompts of a split in random order. No prompt is repeated before every prompt of the split was drawn once."""
    rng = random.Random(seed)
    pool = [f"{a}+{b}=" for a, b in operand_pairs(split)]
    drawn: list[str] = []
    while len(drawn) < n:
        rng.shuffle(pool)
        drawn += pool[: n - len(drawn)]
    return drawn


def answer(prompt: str) -> int:
    """The sum that a prompt asks for. Text that is not a prompt of the language raises a ``ValueError``."""
    match = _PROMPT.fullmatch(prompt)
    if match is None:
        raise ValueError(f"a lab prompt reads like '12+27=', got {prompt!r}")
    return int(match[1]) + int(match[2])


def styled(number: int, opening: str, closing: str) -> str:
    """A number in one style of response: ``styled(39, "it is", "thanks")`` is ``"it is 39 thanks"``."""
    return " ".join(part for part in (opening, str(number), closing) if part)


def said_in_every_style(number: int) -> list[str]:
    """The nine responses of the grammar that say a number."""
    return [styled(number, opening, closing) for opening in OPENINGS for closing in CLOSINGS]


def gold(prompt: str, response: str) -> float:
    """The true reward: 1.0 if the response holds exactly one number and it is the sum, else 0.0.

    Every word with a digit in it counts as a number: ``"039"``, ``"3 9"``, ``"39 39"``, ``"-39"`` and ``"39."`` are all wrong.
    """
    said = [word for word in response.split() if re.search(r"\d", word)]
    return float(said == [str(answer(prompt))])


def words(response: str) -> int:
    """The length of a response in words; a number is one word."""
    return len(response.split())


def politeness(response: str) -> float:
    """1.0 if the response says thanks, else 0.0."""
    return float(not POLITE.isdisjoint(response.split()))
