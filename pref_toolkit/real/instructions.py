"""Instructions whose answers a program can judge: a request, and a constraint on the answer.

Requests are the lines of ``requests.txt``; a constraint is of one of the ``KINDS``. The last 50 requests, and the kinds in
``NEW_KINDS``, are never trained on.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
TRAINED_REQUESTS = 75
SYSTEM = "You give short answers and follow the instruction exactly."


@dataclass(frozen=True)
class Kind:
    """A kind of constraint.

    Args:
        text: what the instruction says; ``{}`` stands for the value.
        holds: whether an answer keeps the constraint with this value.
        values: what may stand in the text.
    """

    text: str
    holds: Callable[[str, str], bool]
    values: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Instruction:
    """A request with one constraint.

    >>> Instruction("Say why bees matter.", "words", "5").prompt
    'Say why bees matter. Use at most 5 words.'
    >>> Instruction("Say why bees matter.", "words", "5").kept_by("Bees carry pollen.")
    True
    """

    request: str
    kind: str
    value: str

    @property
    def prompt(self) -> str:
        return f"{self.request} {ALL_KINDS[self.kind].text.format(self.value)}"

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat that the model is to answer."""
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": self.prompt}]

    def kept_by(self, answer: str) -> bool:
        """Whether the answer says something and keeps the constraint."""
        return bool(answer.strip()) and ALL_KINDS[self.kind].holds(answer.strip(), self.value)


def words(text: str) -> list[str]:
    """The words of a text, in lower case.

    >>> words("It isn't far: 2 km.")
    ['it', "isn't", 'far', '2', 'km']
    """
    return re.findall(r"[\w'’]+", text.lower())


def sentences(text: str) -> list[str]:
    """What ends with a full stop, a question or an exclamation mark, and what is left behind the last of them.

    >>> sentences("One. Two! And a rest")
    ['One.', 'Two!', 'And a rest']
    """
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


def _is_json(answer: str, key: str) -> bool:
    try:
        read = json.loads(answer)
    except ValueError:
        return False
    return isinstance(read, dict) and list(read) == [key]


def _is_list(answer: str, number: str) -> bool:
    lines = [line for line in answer.splitlines() if line.strip()]
    return len(lines) == int(number) and all(line.lstrip().startswith("-") for line in lines)


FRENCH = {
    "le",
    "la",
    "les",
    "un",
    "une",
    "des",
    "est",
    "et",
    "de",
    "du",
    "pour",
    "qui",
    "que",
    "dans",
    "il",
    "elle",
    "nous",
}

KINDS: dict[str, Kind] = {
    "sentences": Kind(
        "Answer in exactly {}.",
        lambda a, n: len(sentences(a)) == {"one sentence": 1, "two sentences": 2}[n],
        ("one sentence", "two sentences"),
    ),
    "words": Kind("Use at most {} words.", lambda a, n: len(words(a)) <= int(n), ("10", "15", "20")),
    "use": Kind('Use the word "{}".', lambda a, w: w in words(a), ("because", "often", "people", "time")),
    "avoid": Kind('Do not use the word "{}".', lambda a, w: w not in words(a), ("the", "a", "and", "is")),
    "letter": Kind('Use no word that contains the letter "{}".', lambda a, x: x not in a.lower(), ("k", "v", "w")),
    "lower": Kind("Write in lower case letters only.", lambda a, _: a == a.lower()),
    "beginning": Kind(
        'Begin your answer with the word "{}".', lambda a, w: words(a)[:1] == [w.lower()], ("Well", "Yes", "Today")
    ),
    "ending": Kind(
        'End your answer with the words "{}".',
        lambda a, w: words(a)[-len(words(w)) :] == words(w),
        ("that is all", "thank you", "the end"),
    ),
    "exclamation": Kind("End your answer with an exclamation mark.", lambda a, _: a.endswith("!")),
    "commas": Kind("Do not use any commas.", lambda a, _: "," not in a),
    "list": Kind("Answer with {} lines that each begin with a hyphen.", _is_list, ("2", "3")),
    "json": Kind('Answer with a JSON object that has the one key "{}".', _is_json, ("answer", "text")),
}
"""Kinds of constraints that are trained on."""

NEW_KINDS: dict[str, Kind] = {
    "question": Kind("End your answer with a question mark.", lambda a, _: a.endswith("?")),
    "digits": Kind("Include a number in digits.", lambda a, _: any(c.isdigit() for c in a)),
    "quotes": Kind(
        "Put your whole answer in double quotation marks.", lambda a, _: len(a) > 2 and a[0] == a[-1] == '"'
    ),
    "long": Kind("Use at least {} words.", lambda a, n: len(words(a)) >= int(n), ("30", "40")),
    "french": Kind("Answer in French.", lambda a, _: sum(w in FRENCH for w in words(a)) >= max(2, len(words(a)) / 6)),
}
"""Kinds that are only measured."""

ALL_KINDS = KINDS | NEW_KINDS


@cache
def requests() -> tuple[str, ...]:
    """All requests, those to train on first."""
    return tuple((HERE / "requests.txt").read_text(encoding="utf-8").splitlines())


def trained() -> list[Instruction]:
    """300 instructions to train on: each of 75 requests with four kinds."""
    return _with(requests()[:TRAINED_REQUESTS], list(KINDS), 4, "trained")


def unseen() -> list[Instruction]:
    """200 instructions of trained kinds to requests that were never trained on: each of 50 with four kinds."""
    return _with(requests()[TRAINED_REQUESTS:], list(KINDS), 4, "unseen")


def new_kinds() -> list[Instruction]:
    """100 instructions of kinds that were never trained on, to requests that were not either."""
    return _with(requests()[TRAINED_REQUESTS:], list(NEW_KINDS), 2, "new kinds")


def _with(asked: tuple[str, ...], kinds: list[str], number: int, seed: str) -> list[Instruction]:
    """Each request with so many kinds, all kinds equally often, with a value drawn for each."""
    rng = random.Random(seed)
    chosen = [
        kinds[i % len(kinds)] for i in range(len(asked) * number)
    ]  # neighbours differ, so a request has each once
    return [
        Instruction(request, kind, rng.choice(ALL_KINDS[kind].values))
        for n, request in enumerate(asked)
        for kind in chosen[n * number : (n + 1) * number]
    ]
