"""Findings about rows: the place and the reason of every row that was refused, left out or changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

REFUSED, LEFT_OUT, CHANGED = "refused", "left out", "changed"

# Refused: the row is malformed. Left out: the row is well formed, but nothing can be learnt from it.
# Changed: the row is kept, but its text was changed or its content is doubtful.
SEVERITY = {
    "broken file": REFUSED,
    "line too long": REFUSED,
    "broken JSON": REFUSED,
    "encoding": REFUSED,
    "missing field": REFUSED,
    "null": REFUSED,
    "wrong type": REFUSED,
    "empty text": REFUSED,
    "forbidden character": REFUSED,
    "wrong shape": REFUSED,
    "chat template": REFUSED,
    "identical pair": LEFT_OUT,
    "prompt too long": LEFT_OUT,
    "identical tokens": LEFT_OUT,
    "unfit for the method": LEFT_OUT,
    "repeated response": CHANGED,
    "repeated prompt": CHANGED,
    "blank response": CHANGED,
    "tied scores": CHANGED,
    "unread field": CHANGED,
    "duplicate row": CHANGED,
    "contradicting pair": CHANGED,
    "contradicting label": CHANGED,
    "response cut": CHANGED,
    "boundary merge": CHANGED,
    "BOS or EOS in text": CHANGED,
    "control tokens in text": CHANGED,
}
PLACES_SHOWN = 8  # in the text of a report; `findings` has all places


@dataclass(frozen=True)
class Finding:
    """A finding about one row. Its text reads ``pairs.jsonl:6: field 'chosen' is null, want non-empty text``."""

    kind: str
    where: str
    detail: str

    @property
    def severity(self) -> str:
        """``"refused"``, ``"left out"`` or ``"changed"``."""
        return SEVERITY[self.kind]

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}"


class Report:
    """The findings about a data set. Its text has one line for each kind of finding, the most severe kinds first."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def add(self, kind: str, where: str, detail: str) -> None:
        """Add a finding. ``kind`` is a key of ``SEVERITY``; ``where`` is the place of a row, ``"pairs.jsonl:6"``."""
        if kind not in SEVERITY:
            raise KeyError(f"unknown kind of finding {kind!r}")
        self.findings.append(Finding(kind, where, detail))

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind that was found."""
        return dict(Counter(finding.kind for finding in self.findings))

    @property
    def faults(self) -> list[Finding]:
        """The findings about rows that were refused or left out."""
        return [finding for finding in self.findings if finding.severity != CHANGED]

    def __str__(self) -> str:
        labels = {REFUSED: "refused", LEFT_OUT: "left out", CHANGED: "kept but changed or doubtful"}
        kinds = sorted(self.counts, key=list(SEVERITY).index)
        return "\n".join(self._line(kind, labels[SEVERITY[kind]]) for kind in kinds)

    def _line(self, kind: str, label: str) -> str:
        found = [finding for finding in self.findings if finding.kind == kind]
        shown = found[:PLACES_SHOWN]
        one_detail = len({finding.detail for finding in found}) == 1
        places = ", ".join(f.where if one_detail else f"{f.where} ({f.detail})" for f in shown)
        more = f" and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
        reason = f" ({found[0].detail})" if one_detail else ""
        return f"{len(found)} {'row' if len(found) == 1 else 'rows'} {label}: {kind}: {places}{more}{reason}"
