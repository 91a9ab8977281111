"""Rows -> checked examples -> token ids."""

from __future__ import annotations

from pref_toolkit.data.examples import DataError, Example
from pref_toolkit.data.report import Finding, Report
from pref_toolkit.data.rows import read
from pref_toolkit.data.tokens import Encoded, check, encode, encode_prompt, prepare

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
