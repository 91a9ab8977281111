"""Answers that a policy drew to prompts, with what a judge said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

from pref_toolkit.data.tokens import Encoded
from pref_toolkit.loops.asked import Asked


@dataclass(frozen=True)
class Draws:
    """``B`` prompts with ``K`` answers each.

    Args:
        asked: the prompts.
        answers: ids of the answers. They are trained on as they are, never tokenised again.
        texts: the answers as text.
        scores: the judge's; empty if none was asked.
        logps: log-probabilities with which the tokens were drawn, nats; empty if they were not asked for.
    """

    asked: Sequence[Asked]
    answers: list[list[list[int]]]
    texts: list[list[str]]
    scores: list[list[float]] = field(default_factory=list)
    logps: list[list[list[float]]] = field(default_factory=list)

    @classmethod
    def joined(cls, parts: Sequence[Draws]) -> Draws:
        """Several draws as one, in order."""
        together = lambda name: [own for part in parts for own in getattr(part, name)]
        return cls(*(together(name) for name in ("asked", "answers", "texts", "scores", "logps")))

    def only(self, kept: Sequence[Sequence[int]]) -> Draws:
        """Of each prompt's answers those at these places."""
        some = lambda values: [[own[i] for i in places] for own, places in zip(values, kept)]
        return Draws(self.asked, *(some(values) for values in (self.answers, self.texts, self.scores, self.logps)))

    def less_greedy(self) -> Draws:
        """Without the last answer of each prompt, whose score is taken off the others'."""
        gains = [[score - own[-1] for score in own] for own in self.scores]
        return replace(self, scores=gains).only([range(len(own) - 1) for own in self.answers])

    def rows(self) -> list[dict[str, Any]]:
        """Rows for a file that ``check-data`` accepts, once several answers have scores. ``tokens`` are the answers' ids.

        A single answer that nobody judges is the one that a loop of self-play calls the worse, so its label is False.
        """
        alone = not self.scores and all(len(own) == 1 for own in self.texts)
        said = lambda own: {"completion": own[0], "label": False} if alone else {"responses": own}
        rows: list[dict[str, Any]] = [
            {"prompt": asked.text, **said(texts), "tokens": ids}
            for asked, texts, ids in zip(self.asked, self.texts, self.answers)
        ]
        for name, values in (("scores", self.scores), ("logps", self.logps)):
            if values:
                rows = [row | {name: own} for row, own in zip(rows, values)]
        return rows

    @classmethod
    def of_rows(cls, asked: Sequence[Asked], rows: Sequence[dict[str, Any]]) -> Draws:
        """What :meth:`rows` gave."""
        column = lambda name: [row[name] for row in rows if name in row]
        texts = column("responses") or [[text] for text in column("completion")]
        return cls(asked, column("tokens"), texts, column("scores"), column("logps"))

    def ranked(self) -> list[Encoded]:
        """All answers, best first, with their scores. Equal scores keep the order in which they were drawn."""
        places = [sorted(range(len(own)), key=lambda i: -own[i]) for own in self.scores]
        best_first = self.only(places)
        logps = [tuple(map(tuple, own)) for own in best_first.logps] or repeat(None)
        rows = zip(self.asked, best_first.answers, best_first.scores, logps)
        return [Encoded(a.ids, ids, a.where, scores=tuple(s), drawn_logps=own) for a, ids, s, own in rows]

    def pairs(self) -> list[Encoded]:
        """The best answer against the worst."""
        return [Encoded(e.prompt, [e.responses[0], e.responses[-1]], e.where) for e in self.ranked()]

    def anchored(self) -> list[Encoded]:
        """The best answer against the worst, with the data's own answer as a supervised target."""
        return [replace(pair, target=asked.answer) for pair, asked in zip(self.pairs(), self.asked)]

    def duels(self) -> list[Encoded]:
        """The best answer against the worst, with the share of the prompt's other answers that each beats; a tie is half."""
        out = []
        for e in self.ranked():
            assert e.scores is not None
            s, others = e.scores, len(e.scores) - 1
            wins = [(sum(s[i] > r for r in s) + (s.count(s[i]) - 1) / 2) / others for i in (0, -1)]
            out.append(Encoded(e.prompt, [e.responses[0], e.responses[-1]], e.where, win_probabilities=tuple(wins)))
        return out

    def beaten(self) -> list[Encoded]:
        """The data's own answer against the drawn one, which is called the worse."""
        drawn = zip(self.asked, self.answers)
        return [Encoded(asked.ids, [asked.answer, ids[0]], asked.where) for asked, ids in drawn if asked.answer]

    def over(self, worse: Draws) -> list[Encoded]:
        """The drawn answer against that of another draw to the same prompts, which is called the worse."""
        both = zip(self.asked, self.answers, worse.answers)
        return [Encoded(asked.ids, [ids[0], others[0]], asked.where) for asked, ids, others in both]

    @property
    def tokens(self) -> int:
        """Tokens of all answers."""
        return sum(len(ids) for own in self.answers for ids in own)

    def measured(self) -> dict[str, float | int | None]:
        """What a line of metrics says of them: the mean score, the mean length in tokens, and their number."""
        number = sum(map(len, self.answers))
        scores = [score for row in self.scores for score in row]
        mean = sum(scores) / len(scores) if scores else None
        return {"score": mean, "drawn_tokens": self.tokens / number, "drawn": number, "judged": len(scores)}
