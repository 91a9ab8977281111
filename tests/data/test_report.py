"""The report counts and places what was found, the gravest first."""

import pytest

from pref_toolkit.data import Report


def test_one_line_a_kind_the_gravest_first():
    report = Report()
    report.add("response cut", "f:3", "the end is lost")
    report.add("identical pair", "f:5", "chosen and rejected are the same text")
    report.add("null", "f:6", "field 'chosen' is null")
    report.add("null", "f:7", "field 'rejected' is null")
    report.add("identical pair", "f:9", "chosen and rejected are the same text")
    assert str(report).splitlines() == [
        "2 rows refused: null: f:6 (field 'chosen' is null), f:7 (field 'rejected' is null)",
        "2 rows left out: identical pair: f:5, f:9 (chosen and rejected are the same text)",
        "1 row kept but changed or doubtful: response cut: f:3 (the end is lost)",
    ]
    assert report.counts == {"response cut": 1, "identical pair": 2, "null": 2}
    assert [fault.where for fault in report.faults] == ["f:5", "f:6", "f:7", "f:9"]
    assert [finding.severity for finding in report.findings][:3] == ["changed", "left out", "refused"]


def test_a_long_list_is_counted_in_full_and_shown_in_part():
    report = Report()
    for line in range(1, 21):
        report.add("response cut", f"f:{line}", "the end is lost")
    assert str(report).startswith("20 rows kept")
    assert "f:8 and 12 more (the end is lost)" in str(report)
    assert len(report.findings) == 20


def test_nothing_found_is_an_empty_text():
    assert str(Report()) == "" and Report().faults == [] and Report().counts == {}


def test_an_unknown_kind_is_an_error():
    with pytest.raises(KeyError, match="unknown kind"):
        Report().add("odd", "f:1", "?")
