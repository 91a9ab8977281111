"""Arrays -> Axes: how this project draws. The only module that imports matplotlib.

A figure is made with :func:`figure`, filled with :func:`lines`, :func:`bars` or :func:`points`, and shown with
:func:`show` (one picture) or :func:`slider` (one picture for each value of a knob). Both give inline SVG that takes its
text colour from the page, so one picture reads on white and on black, in the book, in a notebook and in a report.
Nothing here computes a loss: numbers come in, pictures go out.
"""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle, zip_longest
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pref_toolkit.losses import Method
from pref_toolkit.losses.disagreements import Disagreement

PALETTE = ("#1F83C4", "#D55E00", "#009E73", "#BF6FA0", "#7F7F7F")
"""Colour-blind-safe mid-tones after Okabe and Ito: each is at least 3:1 against the white page and the dark one."""

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
"""Line styles in step with :data:`PALETTE`, so no curve is told by its colour alone."""

INK = "#010203"  # Stands for the page's own text colour: written to the SVG as currentColor.

STYLE: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "pref_toolkit",
    "svg.id": None,
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.titlesize": 11,
    "legend.fontsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#7F7F7F",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 2.0,
    "path.simplify": True,
    "path.simplify_threshold": 0.2,
}


def figure(panels: int = 1, *, width: float | None = None, height: float = 3.3) -> tuple[Any, Any]:
    """An empty picture in the project's style.

    Args:
        panels: number of axes. Several stand side by side where there is room, and below one another on a phone.
        width: of each panel, inches; 5.8, or 3.5 if there are several.
        height: of each panel, inches.

    Returns:
        the ``Figure`` and its ``Axes``; with several panels a list of each, one figure to a panel.
    """
    made = []
    with matplotlib.rc_context(STYLE):
        for _ in range(panels):
            fig = Figure(figsize=(width or (5.8 if panels == 1 else 3.5), height), layout="constrained")
            FigureCanvasSVG(fig)
            made.append((fig, fig.subplots()))
    if panels == 1:
        return made[0]
    return [fig for fig, _ in made], [ax for _, ax in made]


def _label(ax: Axes, xlabel: str, ylabel: str) -> None:
    if not xlabel or not ylabel:
        raise ValueError("every axis wants a label with its unit, for example 'margin (nats)'")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)


def lines(
    ax: Axes,
    x: ArrayLike,
    curves: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    spread: Mapping[str, ArrayLike] | None = None,
) -> None:
    """One line for each named curve, told apart by colour and by dashes.

    Args:
        ax: where to draw.
        x: ``(N,)`` positions.
        curves: name of each curve and its ``(N,)`` heights. A single curve gets no legend.
        xlabel: what ``x`` is, with its unit.
        ylabel: what the heights are, with their unit.
        spread: half-widths ``(N,)`` of a band around the curve of that name.

    Raises:
        ValueError: if a label is empty.
    """
    with matplotlib.rc_context(STYLE):
        _label(ax, xlabel, ylabel)
        for (name, y), colour, dash in zip(curves.items(), cycle(PALETTE), cycle(DASHES)):
            ax.plot(np.asarray(x), np.asarray(y), color=colour, linestyle=dash, label=name)
            if spread and name in spread:
                low, high = np.asarray(y) - np.asarray(spread[name]), np.asarray(y) + np.asarray(spread[name])
                ax.fill_between(np.asarray(x), low, high, color=colour, alpha=0.2, linewidth=0)
        if len(curves) > 1:
            ax.legend()


def bars(
    ax: Axes,
    names: Sequence[str],
    heights: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
) -> None:
    """Bars side by side: for every name on the axis, one bar of each series.

    Args:
        ax: where to draw.
        names: ``N`` labels along the axis.
        heights: name of each series and its ``(N,)`` heights. A single series gets no legend.
        xlabel: what the names are.
        ylabel: what the heights are, with their unit.

    Raises:
        ValueError: if a label is empty.
    """
    with matplotlib.rc_context(STYLE):
        _label(ax, xlabel, ylabel)
        at, width = np.arange(len(names)), 0.8 / len(heights)
        hatches = cycle(["", "///", "...", "xxx", "\\\\\\"])
        for k, ((name, y), colour, hatch) in enumerate(zip(heights.items(), cycle(PALETTE), hatches)):
            offset = (k - (len(heights) - 1) / 2) * width
            face = "none" if hatch else colour  # a hatch over a tint would lose the tint in SVG
            ax.bar(at + offset, np.asarray(y), width * 0.92, color=face, edgecolor=colour, hatch=hatch, label=name)
        ax.set_xticks(at, list(names))
        ax.grid(axis="x", visible=False)
        if len(heights) > 1:
            ax.legend()


def points(
    ax: Axes,
    places: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    xlabel: str,
    ylabel: str,
) -> None:
    """One marker shape for each named set of points.

    Args:
        ax: where to draw.
        places: name of each set and its ``(N,)`` x and ``(N,)`` y. A single set gets no legend.
        xlabel: what x is, with its unit.
        ylabel: what y is, with its unit.

    Raises:
        ValueError: if a label is empty.
    """
    with matplotlib.rc_context(STYLE):
        _label(ax, xlabel, ylabel)
        for (name, (x, y)), colour, marker in zip(places.items(), cycle(PALETTE), cycle("osD^v")):
            ax.plot(np.atleast_1d(x), np.atleast_1d(y), marker, color=colour, markersize=7, label=name)
        if len(places) > 1:
            ax.legend()


@dataclass(frozen=True)
class Picture:
    """Ready-made HTML. A notebook shows it as it is; a report writes ``str(picture)`` into its page."""

    markup: str

    def __str__(self) -> str:
        return self.markup

    def _repr_html_(self) -> str:
        return self.markup


def show(fig: Figure | Sequence[Figure], *, alt: str) -> Picture:
    """A picture as inline SVG that follows the page's light or dark mode.

    Args:
        fig: what :func:`figure` made: a figure, or several that are the panels of one picture.
        alt: what the picture shows, for someone who cannot see it: say what is compared and what comes out.

    Raises:
        ValueError: if ``alt`` is empty.
    """
    figs = [fig] if isinstance(fig, Figure) else fig
    return Picture(f'<div class="pt-figure">{_CSS}{_panels([[f] for f in figs], alt)}</div>')


def slider(
    draw: Callable[[Any, Any], None],
    values: Sequence[Any],
    *,
    label: str,
    say: Callable[[Any], str],
    alt: str,
    start: int = 0,
    panels: int = 1,
    width: float | None = None,
    height: float = 3.3,
) -> Picture:
    """A picture with a knob: one frame for each value, all drawn now, one of them visible.

    The knob is a native range input: arrow keys, Home and End move it, and a screen reader speaks what ``say`` returns.
    All frames share one set of axis limits. What the frames have in common is stored once.

    Args:
        draw: called as ``draw(ax, value)`` on empty axes (on a list of them if there are several panels).
        values: what the knob runs through, in order; at least two.
        label: the knob's name, for example ``"β (per nat)"``.
        say: one short line for a value, computed from it, for example ``lambda b: f"β = {b:.2f}"``.
        alt: what the picture shows, for someone who cannot see it.
        start: index of the value shown first.
        panels: number of axes, as in :func:`figure`.
        width: of each panel, inches, as in :func:`figure`.
        height: of each panel, inches.

    Raises:
        ValueError: if ``alt`` or ``label`` is empty, there are fewer than two values, or ``start`` is no index of them.
    """
    if len(values) < 2 or not 0 <= start < len(values):
        raise ValueError(
            f"a slider wants 2 or more values and a start among them, got {len(values)} values and start={start}"
        )
    if not label.strip():
        raise ValueError("a slider wants a label: the name of what it changes, with its unit")
    drawn: list[Sequence[Figure]] = []
    for value in values:
        fig, ax = figure(panels, width=width, height=height)
        with matplotlib.rc_context(STYLE):
            draw(ax, value)
        drawn.append([fig] if panels == 1 else fig)
    frames = [list(panel) for panel in zip(*drawn)]
    for panel in frames:
        for same in zip(*(fig.axes for fig in panel)):
            same_x, same_y = [ax.get_xlim() for ax in same], [ax.get_ylim() for ax in same]
            for ax in same:
                ax.set_xlim(min(a for a, _ in same_x), max(b for _, b in same_x))
                ax.set_ylim(min(a for a, _ in same_y), max(b for _, b in same_y))
    spoken = [say(value) for value in values]
    picture = _panels(frames, alt, start)
    name = "pt-" + sha256(f"{label} {spoken} {picture}".encode()).hexdigest()[:10]
    script = _SLIDER_JS % (json.dumps(name), json.dumps(spoken).replace("</", "<\\/"))
    return Picture(
        f'<div class="pt-figure" id="{name}">{_CSS}{picture}'
        f'<p class="pt-knob"><label for="{name}-knob">{html.escape(label)}</label> '
        f'<input type="range" id="{name}-knob" min="0" max="{len(values) - 1}" step="1" value="{start}" '
        f'autocomplete="off" aria-valuetext="{html.escape(spoken[start])}"> '
        f'<output for="{name}-knob">{html.escape(spoken[start])}</output></p><script>{script}</script></div>'
    )


def _defaults(method: Method) -> str:
    return ", ".join(f"{name} = {value}" for name, value in method.hyperparameters.items())


def facts(method: Method) -> Picture:
    """A row of the table of methods as an HTML table: loss, what it reads, hyperparameters with defaults, source."""
    rows = {
        "name": f"<code>{method.name}</code>",
        "loss per example": f"<code>{html.escape(method.formula)}</code>",
        "reads": method.reads,
        "hyperparameters": _defaults(method) or "none",
        "source": html.escape(f"{method.paper}, {method.equation}"),
    }
    body = "".join(f'<tr><th scope="row">{name}</th><td>{fact}</td></tr>' for name, fact in rows.items())
    return Picture(f'<table class="pt-facts"><tbody>{body}</tbody></table>')


def lab_table(*methods: str) -> Picture:
    """Rows of the lab's table of methods, the most accurate first; all of them if none is named.

    Mean and standard deviation over the seeds, see ``pref_toolkit.lab.table``.

    Raises:
        KeyError: for a method that has no row.
    """
    from pref_toolkit.lab import table  # its package loads a model's library, which most figures do without

    rows = table.summary()
    chosen = sorted(methods or rows, key=lambda name: -rows[name]["accuracy"][0])
    columns: dict[str, tuple[str, int, str]] = {
        "right (%)": ("accuracy", 100, ".1f"),
        "wins (%)": ("win_rate", 100, ".1f"),
        "KL (nats)": ("kl", 1, ".3f"),
        "below the frontier (points)": ("distance", 100, ".1f"),
        "length (tokens)": ("length_change", 1, "+.2f"),
        "chosen (nats)": ("chosen_change", 1, "+.2f"),
        "rejected (nats)": ("rejected_change", 1, "+.2f"),
    }

    def cell(value: tuple[float, float] | None, scale: int, form: str) -> str:
        if value is None:
            return "<td>–</td>"
        mean, spread = scale * value[0], scale * value[1]
        return f"<td>{mean:{form}}".replace("-", "−") + f" ± {spread:{form.lstrip('+')}}</td>"

    def line(name: str) -> str:
        setting = ", ".join(f"{k.replace('learning_rate', 'rate')} {v}" for k, v in rows[name]["setting"].items())
        values = "".join(cell(rows[name][measure], scale, form) for measure, scale, form in columns.values())
        return f'<tr><th scope="row"><code>{name}</code></th>{values}<td>{setting}</td></tr>'

    head = "".join(f'<th scope="col">{title}</th>' for title in ("method", *columns, "setting"))
    body = "".join(map(line, chosen))
    return Picture(f'<table class="pt-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


@dataclass(frozen=True)
class Table:
    """A table as MyST Markdown, so that its links are checked and its words are found by the book's search."""

    markdown: str

    def _repr_markdown_(self) -> str:
        return self.markdown


def _table(widths: str, *rows: Sequence[str]) -> Table:
    """The first row is the header. On a phone it is hidden, and each row stands alone."""
    lines = [":::{list-table}", ":header-rows: 1", ":class: pt-stack", f":widths: {widths}", ""]
    lines += ["* - " + "\n  - ".join(row) for row in rows]
    return Table("\n".join([*lines, ":::"]))


def methods_table(methods: Mapping[str, Method]) -> Table:
    """Every method: name and a link to its chapter, loss, what it reads and may read, defaults, source."""
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


def disagreements_table(disagreements: Mapping[str, Disagreement]) -> Table:
    """Where sources disagree: the methods, what the toolkit computes, what else goes by the name, both with a number."""
    rows = []
    for entry in disagreements.values():
        ours, theirs = entry.numbers()
        names = ", ".join(f"`{name}`" for name in entry.methods)
        rows.append(
            (names, f"**{_number(ours)}** {_words(entry.ours)}", f"**{_number(theirs)}** {_words(entry.theirs)}")
        )
    return _table("16 42 42", ("method", "ours", "the other"), *rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _words(text: str) -> str:
    """Plain text in Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>$|~])", r"\\\1", text)


# Sent with every picture, because a notebook or a report has no style sheet of ours.
_CSS = (
    "<style>.pt-panels{display:flex;flex-wrap:wrap;justify-content:center;gap:.5rem}"
    ".pt-figure svg{max-width:100%;height:auto}.pt-figure [data-frame]{display:none}"
    ".pt-figure [data-frame].on{display:inline}.pt-knob{display:flex;flex-wrap:wrap;gap:.3em 1em;align-items:center}"
    ".pt-knob input{flex:1 1 12em;min-height:2em}</style>"
)

# It only shows what the toolkit drew: no formula lives here.
_SLIDER_JS = """(function (name, spoken) {
  var box = document.getElementById(name), knob = box.querySelector("input"), said = box.querySelector("output");
  knob.addEventListener("input", function () {
    box.querySelectorAll("[data-frame]").forEach(function (g) {
      g.classList.toggle("on", g.getAttribute("data-frame").split(" ").indexOf(knob.value) !== -1);
    });
    said.textContent = spoken[knob.value];
    knob.setAttribute("aria-valuetext", spoken[knob.value]);
  });
})(%s, %s);"""


def _tree(fig: Figure) -> Element:
    """The figure as SVG without metadata, names and surplus digits, its ink turned into the page's text colour."""
    with matplotlib.rc_context(STYLE):
        buffer = io.StringIO()
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace("xlink:href", "href")
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text, count=2)
    text = re.sub(r' d="[^"]+"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    root = ElementTree.fromstring(text)
    for element in root.iter():
        if element.tag == "g":
            element.attrib.pop("id", None)
        element.text = element.tail = None if element.tag != "style" else element.text
    return root


def _panels(frames: Sequence[Sequence[Figure]], alt: str, start: int = 0) -> str:
    """The panels of a picture, each given as its frames, under one alt text."""
    if not alt.strip():
        raise ValueError("a figure wants alt text: one sentence that says what it shows")
    svgs = "".join(_markup([_tree(fig) for fig in panel], start) for panel in frames)
    return f'<div class="pt-panels" role="img" aria-label="{html.escape(alt)}">{svgs}</div>'


def _markup(frames: Sequence[Element], start: int) -> str:
    """One ``<svg>`` for all frames: definitions first and once, then what is common, then what differs."""
    definitions: dict[str, str] = {}
    for frame in frames:
        for parent in list(frame.iter()):
            for block in parent.findall("defs"):
                parent.remove(block)
                # Matplotlib's own <style> would restyle the whole page; the svg element below carries it instead.
                definitions |= {e.attrib["id"]: _text(e) for e in block if e.tag != "style"}
    body = "".join(_merge(list(same), start) for same in zip_longest(*frames))
    box = frames[0].attrib["viewBox"]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" aria-hidden="true" '
        f'style="width:{float(box.split()[2]) / 72:.2f}in;stroke-linejoin:round;stroke-linecap:butt">'
        f"<defs>{''.join(definitions.values())}</defs>{body}</svg>"
    )
    # The same glyph has the same id in every picture of a page; the content's hash tells them apart.
    own = sha256(svg.encode()).hexdigest()[:8]
    return re.sub(r'(url\(#|href="#| id=")', rf"\g<1>{own}-", svg)


def _merge(same: list[Element | None], start: int) -> str:
    """One place in every frame: written once where all agree, else each version marked with its frames."""
    texts = ["" if e is None else _text(e) for e in same]
    if len(set(texts)) == 1:
        return texts[0]
    if all(e is not None and e.tag == "g" and len(e) and e.attrib == same[0].attrib for e in same):  # type: ignore[union-attr]
        inner = "".join(_merge(list(children), start) for children in zip_longest(*same))  # type: ignore[arg-type]
        return _text(Element("g", same[0].attrib)).replace(" />", ">") + inner + "</g>"  # type: ignore[union-attr]
    versions: dict[str, list[int]] = {}
    for k, text in enumerate(texts):
        versions.setdefault(text, []).append(k)
    written = ""
    for text, of in versions.items():
        shown = ' class="on"' if start in of else ""
        written += f'<g data-frame="{" ".join(map(str, of))}"{shown}>{text}</g>'
    return written


def _text(element: Element) -> str:
    return ElementTree.tostring(element, encoding="unicode")
