"""Answers that a policy drew to prompts, with what a judge said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pref_toolkit.data.tokens import Encoded


@dataclass(frozen=True)
class Asked:
    """A prompt that is answered.

    Args:
        text: as a judge and a file of rows show it.
        ids: as the policy reads it.
        where: file and line it came from.
        answer: ids of the data's own answer, if it has one.
    """

    text: str
    ids: list[int]
    where: str
    answer: list[int] | None = None


@dataclass(frozen=True)
class Draws:
    """``B`` prompts with ``K`` answers each.

    Args:
        asked: the prompts.
        answers: ids of the answers. They are trained on as they are, never tokenised again.
        texts: the answers as text.
        scores: the judge's; empty if none was asked.
    """

    asked: Sequence[Asked]
    answers: list[list[list[int]]]
    texts: list[list[str]]
    scores: list[list[float]] = field(default_factory=list)

    @classmethod
    def joined(cls, parts: Sequence[Draws]) -> Draws:
        """Several draws as one, in order."""
        together = lambda name: [own for part in parts for own in getattr(part, name)]
        return cls(*(together(name) for name in ("asked", "answers", "texts", "scores")))

    def only(self, kept: Sequence[Sequence[int]]) -> Draws:
        """Of each prompt's answers those at these places."""
        some = lambda values: [[own[i] for i in places] for own, places in zip(values, kept)]
        return Draws(self.asked, some(self.answers), some(self.texts), some(self.scores))

    def rows(self) -> list[dict[str, Any]]:
        """Rows for a file: ``check-data`` accepts them if they have scores. ``tokens`` are the answers' ids."""
        rows: list[dict[str, Any]] = [
            {"prompt": asked.text, "responses": texts, "tokens": ids}
            for asked, texts, ids in zip(self.asked, self.texts, self.answers)
        ]
        return [row | {"scores": scores} for row, scores in zip(rows, self.scores)] if self.scores else rows

    @classmethod
    def of_rows(cls, asked: Sequence[Asked], rows: Sequence[dict[str, Any]]) -> Draws:
        """What :meth:`rows` gave."""
        scores = [row["scores"] for row in rows if "scores" in row]
        return cls(asked, [row["tokens"] for row in rows], [row["responses"] for row in rows], scores)

    def ranked(self) -> list[Encoded]:
        """All answers, best first, with their scores. Equal scores keep the order in which they were drawn."""
        out = []
        for asked, ids, scores in zip(self.asked, self.answers, self.scores):
            order = sorted(range(len(ids)), key=lambda i: -scores[i])
            best_first = tuple(scores[i] for i in order)
            out.append(Encoded(asked.ids, [ids[i] for i in order], asked.where, scores=best_first))
        return out

    def pairs(self) -> list[Encoded]:
        """The best answer against the worst."""
        return [Encoded(e.prompt, [e.responses[0], e.responses[-1]], e.where) for e in self.ranked()]

    def beaten(self) -> list[Encoded]:
        """The data's own answer against the drawn one, which is called the worse."""
        drawn = zip(self.asked, self.answers)
        return [Encoded(asked.ids, [asked.answer, ids[0]], asked.where) for asked, ids in drawn if asked.answer]

    def measured(self) -> dict[str, float | int | None]:
        """What a line of metrics says of them: the mean score, the mean length in tokens, and their number."""
        lengths = [len(answer) for ids in self.answers for answer in ids]
        scores = [score for row in self.scores for score in row]
        mean = sum(scores) / len(scores) if scores else None
        return {
            "score": mean,
            "drawn_tokens": sum(lengths) / len(lengths),
            "drawn": len(lengths),
            "judged": len(scores),
        }
