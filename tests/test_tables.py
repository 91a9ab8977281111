"""Tables say what the code says: every fact of every method, both numbers of every disagreement, the lab's numbers."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from pref_toolkit import tables
from pref_toolkit.errata import ERRATA
from pref_toolkit.loops.presets import LOOPS
from pref_toolkit.losses import METHODS
from pref_toolkit.losses.disagreements import DISAGREEMENTS
from pref_toolkit.markup import Html


def of_html(table: Html, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(str(table)).iter(tag))


@pytest.mark.parametrize("name", METHODS)
def test_facts_are_those_of_the_table(name: str) -> None:
    method = METHODS[name]
    cells = ["".join(cell.itertext()) for cell in of_html(tables.facts(method), "td")]
    assert cells[0] == name
    assert cells[1] == method.formula
    assert cells[2] == method.reads
    assert all(f"{k} = {v}" in cells[3] for k, v in method.hyperparameters.items())
    assert cells[4] == f"{method.paper}, {method.equation}"


def rows_of(table: tables.Table) -> list[list[str]]:
    """The cells of each row but the header, as text."""
    _, header, *rows = table._repr_markdown_().removesuffix("\n:::").split("\n* - ")
    found = [re.sub(r"\\(.)", r"\1", row).split("\n  - ") for row in rows]
    assert all(len(row) == len(header.split("\n  - ")) for row in found)
    return found


def test_the_table_of_methods_has_every_fact_of_every_method() -> None:
    rows = rows_of(tables.methods_table(METHODS))
    for method, (name, formula, given, source) in zip(METHODS.values(), rows, strict=True):
        assert name == f"`{method.name}`, in {{doc}}`/{method.chapter}`"
        assert formula == f"`{method.formula}`"
        assert given.startswith(f"{method.reads}; ")
        assert all(f"{k} = {v}" in given for k, v in method.hyperparameters.items())
        assert source == f"{method.paper}, {method.equation}"


def test_the_table_of_disagreements_has_both_numbers() -> None:
    rows = rows_of(tables.disagreements_table(DISAGREEMENTS))
    for entry, (names, ours, theirs) in zip(DISAGREEMENTS.values(), rows, strict=True):
        assert names.replace("`", "").split(", ") == list(entry.methods)
        for cell, words, number in zip((ours, theirs), (entry.ours, entry.theirs), entry.numbers(), strict=True):
            shown = re.fullmatch(r"\*\*(\S+)\*\* (.+)", cell)
            assert shown and shown[2] == words
            assert float(shown[1].replace(",", "")) == pytest.approx(number, rel=1e-3)


def test_the_table_of_errata_has_both_numbers() -> None:
    rows = rows_of(tables.errata_table(ERRATA))
    for entry, (name, source, theirs, ours, quantity) in zip(ERRATA, rows, strict=True):
        assert name == f"**{entry.id}** {entry.kind}, {entry.seen}"
        assert (source, quantity) == (str(entry.source), entry.quantity)
        for cell, words, number in zip((theirs, ours), (entry.says, entry.right), entry.numbers(), strict=True):
            shown = re.fullmatch(r"\*\*(\S+)\*\* (.+)", cell)
            assert shown and shown[2] == words
            assert float(shown[1].replace(",", "")) == pytest.approx(number, rel=1e-3)


def test_the_lab_table_has_a_row_for_each_method_the_most_accurate_first() -> None:
    from pref_toolkit.lab import table

    made = table.summary()
    rows = [["".join(cell.itertext()) for cell in row] for row in of_html(tables.lab_table(), "tr")]
    assert rows[0][0] == "method" and rows[0][-1] == "setting"
    assert [row[0] for row in rows[1:]] == sorted(made, key=lambda name: -made[name]["accuracy"][0])
    mean, spread = made["ipo"]["accuracy"]
    (ipo,) = [row for row in rows if row[0] == "ipo"]
    setting = made["ipo"]["setting"]
    assert ipo[1] == f"{100 * mean:.1f} ± {100 * spread:.1f}"
    assert ipo[-1] == f"tau {setting['tau']}, rate {setting['learning_rate']}"
    with pytest.raises(KeyError):
        tables.lab_table("no such method")


def test_the_lab_table_of_loops_has_a_row_for_each() -> None:
    from pref_toolkit.lab import loops

    made = loops.summary()
    rows = [["".join(cell.itertext()) for cell in row] for row in of_html(tables.loops_lab_table(), "tr")]
    assert [row[0] for row in rows[1:]] == sorted(made, key=lambda name: -made[name]["accuracy"][0])
    (dpo,) = [row for row in rows if row[0] == "dpo"]
    mean, spread = made["dpo"]["within"]
    assert dpo[2] == f"{100 * mean:.1f} ± {100 * spread:.1f}" and dpo[6:8] == [
        "0",
        "0",
    ]  # it draws nothing, asks nobody


@pytest.mark.parametrize("name", LOOPS)
def test_the_table_of_loops_says_what_they_are(name: str) -> None:
    (row,) = [row for row in tables.loops_table(LOOPS).markdown.split("* - ") if row.startswith(f"`{name}`")]
    loop = LOOPS[name]
    assert f"`{loop.loss}`" in row and loop.paper in row.replace("\\", "")
    assert ("a judge" in row) == loop.asks and ("answers beside the prompts" in row) == loop.answered
    assert ("preferences in order" in row) == bool(loop.streams)
    assert all(
        f"{key} = {value}" in row.replace("\\", "") for key, value in {**loop.settings, **loop.hyperparameters}.items()
    )


def test_the_real_models_table_says_what_was_measured() -> None:
    from pref_toolkit.real import experiment

    arms = experiment.load()["arms"]
    shown = str(tables.real_table("base", "dpo"))
    for name in ("base", "dpo"):
        (row,) = re.findall(rf'<tr><th scope="row">{name}</th>(.*?)</tr>', shown)
        cells = re.findall("<td>(.*?)</td>", row)
        assert cells[0].startswith(f"{100 * arms[name]['unseen']['right']['share']:.0f} [")
        assert cells[3] == f"{arms[name]['unseen']['length']:.0f}"
        assert float(cells[-1].replace("−", "-")) == round(arms[name]["rejected_change"], 1)
    with pytest.raises(KeyError):
        tables.real_table("ppo")
