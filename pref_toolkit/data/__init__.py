"""Rows -> checked examples -> token ids."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pref_toolkit.data.examples import DataError, Example
from pref_toolkit.data.report import Finding, Report
from pref_toolkit.data.rows import name, read
from pref_toolkit.data.tokens import Encoded, NothingFits, encode, encode_prompt

__all__ = [
    "DataError",
    "Encoded",
    "Example",
    "Finding",
    "Report",
    "check",
    "encode",
    "encode_prompt",
    "prepare",
    "read",
]


def prepare(
    source: Any, tokenizer: Any, *, max_length: int | None = 1024, on_bad_row: str = "stop"
) -> tuple[list[Encoded], Report]:
    """Read rows and encode them. The report names every row that was refused, left out or changed.

    The arguments are those of ``read`` and ``encode``.

    Raises:
        DataError: for the reasons of ``read`` and ``encode``, or if no row remains.
    """
    report = Report()
    examples = read(source, on_bad_row=on_bad_row, report=report)
    encoded = encode(examples, tokenizer, max_length=max_length, report=report, on_bad_row=on_bad_row)
    if not encoded:
        reasons = ", ".join(f"{kind} {n}" for kind, n in report.counts.items())
        raise DataError(f"no examples left in {name(source)}: {reasons}")
    return encoded, report


def check(source: Any, tokenizer: Any = None, *, max_length: int | None = 1024) -> Report:
    """Check all rows and report every fault, instead of stopping at the first.

    Without a tokenizer, lengths in tokens are not checked.

    Raises:
        DataError: if ``source`` cannot be opened or has no rows, or the tokenizer has no EOS.
    """
    report = Report()
    examples = read(source, on_bad_row="skip", report=report)
    if tokenizer is not None:
        with suppress(NothingFits):  # the report names every row that is too long
            encode(examples, tokenizer, max_length=max_length, report=report, on_bad_row="skip")
    return report
