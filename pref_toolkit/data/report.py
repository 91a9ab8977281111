"""What happened to the rows: every one that was refused, left out or changed, counted and located."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

REFUSED, LEFT_OUT, CHANGED = "refused", "left out", "changed"

# Refused: the row is malformed. Left out: well formed, but nothing can be learnt from it.
# Changed: kept, but not as it was written, or doubtful.
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
PLACES_SHOWN = 8  # in the summary; `findings` keeps them all


@dataclass(frozen=True)
class Finding:
    """One thing found at one row; as text, ``"pairs.jsonl:6: field 'chosen' is null, want non-empty text"``."""

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
    """Findings in the order they were made. As text: one line a kind, the gravest first."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def add(self, kind: str, where: str, detail: str) -> None:
        """Note one finding. `kind` is a key of `SEVERITY`; `where` is a row, ``"pairs.jsonl:6"``."""
        if kind not in SEVERITY:
            raise KeyError(f"unknown kind of finding {kind!r}")
        self.findings.append(Finding(kind, where, detail))

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind; kinds never found are absent."""
        return dict(Counter(finding.kind for finding in self.findings))

    @property
    def faults(self) -> list[Finding]:
        """The findings that cost a row: refused and left out."""
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
