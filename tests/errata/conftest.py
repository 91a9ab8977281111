"""After the tests of the ledger pytest prints it: id, kind, source, and the value by the source beside the right one."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def ran_here(report: object) -> bool:
    return str(getattr(report, "nodeid", "")).split("::")[0].endswith(f"{HERE.name}/test_errata.py")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for of_outcome in terminalreporter.stats.values() for report in of_outcome]
    if not any(map(ran_here, reports)):
        return
    from pref_toolkit.errata import ERRATA

    terminalreporter.section(f"the ledger of errata: {len(ERRATA)} entries")
    terminalreporter.write_line(f"{'id':4} {'kind':8} {'theirs':>12} {'ours':>12}  source")
    for entry in ERRATA:
        theirs, ours = entry.numbers()
        terminalreporter.write_line(f"{entry.id:4} {entry.kind:8} {theirs:12.6g} {ours:12.6g}  {entry.source}")
