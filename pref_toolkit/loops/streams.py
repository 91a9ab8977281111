"""Preferences -> streams: one of each source, in the order in which they came."""

from __future__ import annotations

from typing import Any

from pref_toolkit.data import Report
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import Complaint
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.dataset import Data, digest_of
from pref_toolkit.training.objective import Objective


class Streams(Data):
    """The data of a run that learns from streams of preferences, one domain after the other."""

    domains: list[list[Encoded]]

    def __str__(self) -> str:
        return f"{len(self.domains)} streams, {super().__str__()}"


def read(
    source: Any, least: int, tokenizer: Any, objective: Objective, config: TrainConfig, positions: int | None
) -> Streams:
    """Read and tokenise preferences.

    Args:
        source: preferences, see :mod:`pref_toolkit.data`; for several domains a sequence of such, or files with commas between.
        least: 1 for a single stream, 2 for two domains or more.
        tokenizer, objective, config, positions: as for :meth:`pref_toolkit.training.dataset.Data.of`.

    Raises:
        Complaint: if there are too few sources.
        DataError, ModelError: as for :meth:`pref_toolkit.training.dataset.Data.of`.
    """
    if least == 1:
        sources = [source]
    else:
        sources = source.split(",") if isinstance(source, str) else list(source)
        if len(sources) < least or any(isinstance(own, dict) for own in sources):
            raise Complaint(
                f"this loop learns from {least} domains or more in sequence, as in first.jsonl,second.jsonl"
            )
    parts = [Data.of(own, tokenizer, objective, config, positions) for own in sources]
    together = lambda name: [example for part in parts for example in getattr(part, name)]
    report = Report()
    report.findings = [finding for part in parts for finding in part.report.findings]
    longest, digest = max(part.longest for part in parts), digest_of([part.digest for part in parts])
    made = Streams(together("training"), together("held_out"), together("shown"), longest, report, digest, config)
    object.__setattr__(made, "domains", [part.training for part in parts])
    return made
