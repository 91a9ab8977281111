"""Facts about methods -> tables: HTML for a facts box or the lab's numbers, Markdown for tables with links."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pref_toolkit.errata import Erratum
from pref_toolkit.loops.method import Loop
from pref_toolkit.losses import Method
from pref_toolkit.losses.disagreements import Disagreement
from pref_toolkit.markup import Html


def _defaults(method: Method) -> str:
    return ", ".join(f"{name} = {value}" for name, value in method.hyperparameters.items())


def facts(method: Method) -> Html:
    """The facts box of a method, as HTML: loss, inputs, hyperparameters with defaults, source."""
    rows = {
        "name": f"<code>{method.name}</code>",
        "loss per example": f"<code>{html.escape(method.formula)}</code>",
        "reads": method.reads,
        "hyperparameters": _defaults(method) or "none",
        "source": html.escape(f"{method.paper}, {method.equation}"),
    }
    body = "".join(f'<tr><th scope="row">{name}</th><td>{fact}</td></tr>' for name, fact in rows.items())
    return Html(f'<table class="pt-facts"><tbody>{body}</tbody></table>')


def lab_table(*methods: str) -> Html:
    """Rows of the lab's table of methods, the most accurate first. Without names, all rows.

    Cells hold mean and standard deviation over the seeds, see :mod:`pref_toolkit.lab.table`.

    Raises:
        KeyError: for a method without a row.
    """
    from pref_toolkit.lab import table  # the import loads transformers, which the other tables do not need

    columns: Columns = {
        "right (%)": ("accuracy", 100, ".1f"),
        "wins (%)": ("win_rate", 100, ".1f"),
        "KL (nats)": ("kl", 1, ".3f"),
        "below the frontier (points)": ("distance", 100, ".1f"),
        "length (tokens)": ("length_change", 1, "+.2f"),
        "chosen (nats)": ("chosen_change", 1, "+.2f"),
        "rejected (nats)": ("rejected_change", 1, "+.2f"),
    }
    return _measured(table.summary(), methods, columns)


def loops_lab_table(*names: str) -> Html:
    """Rows of the lab's table of loops, the most accurate first. Without names, all rows.

    Cells hold mean and standard deviation over the seeds, see :mod:`pref_toolkit.lab.loops`.

    Raises:
        KeyError: for a name without a row.
    """
    from pref_toolkit.lab import loops

    columns: Columns = {
        "right (%)": ("accuracy", 100, ".1f"),
        f"right within {loops.AT:g} nats (%)": ("within", 100, ".1f"),
        "wins (%)": ("win_rate", 100, ".1f"),
        "KL (nats)": ("kl", 1, ".3f"),
        "length (tokens)": ("length", 1, ".2f"),
        "answers drawn": ("generations", 1, ",.0f"),
        "judge calls": ("judge_calls", 1, ",.0f"),
        "CPU seconds a round": ("cpu_seconds", 1, ".0f"),
    }
    return _measured(loops.summary(), names, columns)


def real_table(*names: str) -> Html:
    """What each method did to the real small model, see :mod:`pref_toolkit.real.experiment`.

    Raises:
        KeyError: for a name that was not run.
    """
    from pref_toolkit.real import experiment

    arms = experiment.load()["arms"]

    def right(found: Mapping[str, Any]) -> str:
        low, high = found["right"]["interval"]
        return f"{100 * found['right']['share']:.0f} [{100 * low:.0f}, {100 * high:.0f}]"

    def line(name: str) -> str:
        arm = arms[name]
        cells = [
            right(arm["unseen"]),
            right(arm["new_kinds"]),
            f"{100 * arm['unseen']['finished']['share']:.0f}",
            f"{arm['unseen']['length']:.0f}",
            f"{arm['kl']:.1f} ± {arm['kl_error']:.1f}",
            f"{arm['perplexity']:.1f}",
            *(f"{arm[f'{which}_change']:+.1f}".replace("-", "−") for which in ("chosen", "rejected")),
        ]
        values = "".join(f"<td>{cell}</td>" for cell in cells)
        return f'<tr><th scope="row">{name}</th>{values}</tr>'

    titles = [
        *("method", "right, unseen (%)", "right, new kinds (%)", "finished (%)", "length (tokens)", "KL (nats)"),
        *("perplexity", "chosen (nats)", "rejected (nats)"),
    ]
    return _titled(titles, map(line, names))


Columns = dict[str, tuple[str, int, str]]
"""Title of a column -> a measure, the factor it is shown with, and how its mean is written."""


def _measured(rows: Mapping[str, Mapping[str, Any]], names: Sequence[str], columns: Columns) -> Html:
    """Some rows of a summary over seeds, or all, with their settings; the most accurate first."""

    def cell(value: tuple[float, float] | None, scale: int, form: str) -> str:
        if value is None:
            return "<td>–</td>"
        mean, spread = scale * value[0], scale * value[1]
        told = f"{mean:{form}}".replace("-", "−")
        return f"<td>{told}</td>" if spread == 0 else f"<td>{told} ± {spread:{form.lstrip('+')}}</td>"

    def line(name: str) -> str:
        setting = ", ".join(f"{k.replace('learning_rate', 'rate')} {v}" for k, v in rows[name]["setting"].items())
        values = "".join(cell(rows[name][measure], scale, form) for measure, scale, form in columns.values())
        return f'<tr><th scope="row"><code>{name}</code></th>{values}<td>{setting}</td></tr>'

    chosen = sorted(names or rows, key=lambda name: -rows[name]["accuracy"][0])
    return _titled(("method", *columns, "setting"), map(line, chosen))


def _titled(titles: Iterable[str], lines: Iterable[str]) -> Html:
    """Rows of HTML below the titles of their columns; a phone scrolls them."""
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    return Html(f'<table class="pt-table"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>')


@dataclass(frozen=True)
class Table:
    """A table as MyST Markdown: Sphinx checks its links, and the book's search finds its words."""

    markdown: str

    def _repr_markdown_(self) -> str:
        return self.markdown


def _table(widths: str, *rows: Sequence[str]) -> Table:
    """A table whose first row is the header. A phone hides the header and stacks the cells of each row."""
    lines = [":::{list-table}", ":header-rows: 1", ":class: pt-stack", f":widths: {widths}", ""]
    lines += ["* - " + "\n  - ".join(row) for row in rows]
    return Table("\n".join([*lines, ":::"]))


def methods_table(methods: Mapping[str, Method]) -> Table:
    """A row for every method: name, link to its chapter, loss, required and optional inputs, defaults, source."""
    rows = []
    for name, method in methods.items():
        rows.append(
            (
                f"`{name}`, in {{doc}}`/{method.chapter}`",
                f"`{method.formula}`",
                _words(f"{method.reads}; {_defaults(method) or 'no hyperparameters'}"),
                _words(f"{method.paper}, {method.equation}"),
            )
        )
    return _table("20 34 22 24", ("method", "loss per example", "reads; defaults", "source"), *rows)


def loops_table(loops: Mapping[str, Loop]) -> Table:
    """A row for every loop: name, its loss and reference, what it needs, its own defaults, source."""
    rows = []
    for name, loop in loops.items():
        own = ", ".join(f"{key} = {value}" for key, value in {**loop.settings, **loop.hyperparameters}.items())
        reference = f", reference `{loop.reference}`" if loop.reference else ""
        rows.append(
            (
                f"`{name}`",
                f"`{loop.loss}`{reference}",
                _words(f"{loop.needs}; {own or 'no others'}"),
                _words(loop.paper),
            )
        )
    return _table("18 26 34 22", ("loop", "loss", "needs; defaults of its own", "source"), *rows)


def disagreements_table(disagreements: Mapping[str, Disagreement]) -> Table:
    """A row for every disagreement of sources: methods, the toolkit's loss, the other loss, and the value of each."""
    rows = []
    for entry in disagreements.values():
        ours, theirs = entry.numbers()
        names = ", ".join(f"`{name}`" for name in entry.methods)
        rows.append(
            (names, f"**{_number(ours)}** {_words(entry.ours)}", f"**{_number(theirs)}** {_words(entry.theirs)}")
        )
    return _table("16 42 42", ("method", "ours", "the other"), *rows)


def errata_table(errata: Iterable[Erratum]) -> Table:
    """A row for every entry of the ledger: id and day, source, what it says and what is right, and the value of each."""
    rows = []
    for entry in errata:
        theirs, ours = entry.numbers()
        rows.append(
            (
                f"**{entry.id}** {entry.kind}, {entry.seen}",
                _words(f"{entry.source}"),
                f"**{_number(theirs)}** {_words(entry.says)}",
                f"**{_number(ours)}** {_words(entry.right)}",
                _words(entry.quantity),
            )
        )
    return _table("10 20 28 24 18", ("entry", "source", "what it says", "what is right", "the two numbers"), *rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _words(text: str) -> str:
    """Plain text, escaped for Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>$|~])", r"\\\1", text)
