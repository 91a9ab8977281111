"""Arrays -> pictures in the project's style. The only module that imports matplotlib.

:func:`figure` makes an empty figure, :func:`lines`, :func:`bars` and :func:`points` draw into it, and :func:`show` (one
picture) or :func:`slider` (one picture for each value of a knob) shows it. Pictures are inline SVG and take their text colour
from the page: one picture is readable on white and on black, in the book, in a notebook and in a report.

Schematic pictures begin with :func:`schematic`, whose axes count inches. :func:`boxes_and_arrows`, :func:`strip`, :func:`grid`
and :func:`note` draw into them, and refuse what a reader could not make out: a text that is wider than its box, boxes that
overlap, an arrow to nowhere. :mod:`pref_toolkit.diagrams` has the book's.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import ArrayLike

from pref_toolkit import markup
from pref_toolkit.markup import Html

PALETTE = ("#1F83C4", "#D55E00", "#009E73", "#BF6FA0", "#7F7F7F")
"""Colour-blind-safe mid-tones after Okabe and Ito: each is at least 3:1 against the white page and the dark one."""

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
"""Line styles, one for each colour of :data:`PALETTE`, so that curves differ by more than colour."""

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
    "text.color": markup.INK,
    "axes.edgecolor": markup.INK,
    "axes.labelcolor": markup.INK,
    "axes.titlecolor": markup.INK,
    "xtick.color": markup.INK,
    "ytick.color": markup.INK,
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
        panels: number of axes. Several panels stand side by side on a wide page, and below one another on a phone.
        width: width of each panel in inches; 5.8 for one panel, 3.5 for each of several.
        height: height of each panel in inches.

    Returns:
        the ``Figure`` and its ``Axes``; for several panels, a list of figures and a list of their axes.
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
    """Draw one line for each named curve. Lines differ by colour and by dashes.

    Args:
        ax: the axes to draw into.
        x: ``(N,)`` positions.
        curves: name of each curve and its ``(N,)`` heights. A single curve gets no legend.
        xlabel: name of ``x``, with its unit.
        ylabel: name of the heights, with their unit.
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
    """Draw bars side by side: for every name on the axis, one bar of each series.

    Args:
        ax: the axes to draw into.
        names: ``N`` labels along the axis.
        heights: name of each series and its ``(N,)`` heights. A single series gets no legend.
        xlabel: the kind of the names, such as ``"response"``.
        ylabel: name of the heights, with their unit.

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
    """Draw points, with one marker shape for each named set.

    Args:
        ax: the axes to draw into.
        places: name of each set and its ``(N,)`` x and ``(N,)`` y. A single set gets no legend.
        xlabel: name of x, with its unit.
        ylabel: name of y, with its unit.

    Raises:
        ValueError: if a label is empty.
    """
    with matplotlib.rc_context(STYLE):
        _label(ax, xlabel, ylabel)
        for (name, (x, y)), colour, marker in zip(places.items(), cycle(PALETTE), cycle("osD^v")):
            ax.plot(np.atleast_1d(x), np.atleast_1d(y), marker, color=colour, markersize=7, label=name)
        if len(places) > 1:
            ax.legend()


def show(fig: Figure | Sequence[Figure], *, alt: str) -> Html:
    """A picture as inline SVG that follows the page's light or dark mode.

    Args:
        fig: a figure from :func:`figure`, or several figures that are the panels of one picture.
        alt: description of the picture for readers who cannot see it: the comparison and its result.

    Raises:
        ValueError: if ``alt`` is empty.
    """
    figs = [fig] if isinstance(fig, Figure) else fig
    return markup.picture([_svg(f) for f in figs], alt=alt)


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
) -> Html:
    """A picture with a knob. There is one frame for each value, and the knob chooses the visible one.

    The knob is a native range input: arrow keys, Home and End move it, and a screen reader speaks the result of ``say``.
    All frames share their axis limits, and common parts of the frames are stored once.

    Args:
        draw: function that is called as ``draw(ax, value)`` with empty axes, or with a list of axes for several panels.
        values: values of the knob, in order; at least two.
        label: name of the knob, for example ``"β (per nat)"``.
        say: function from a value to a short line about it, for example ``lambda b: f"β = {b:.2f}"``.
        alt: description of the picture for readers who cannot see it.
        start: index of the first visible value.
        panels: number of axes, as in :func:`figure`.
        width: width of each panel in inches, as in :func:`figure`.
        height: height of each panel in inches.

    Raises:
        ValueError: if ``alt`` or ``label`` is empty, there are fewer than two values, or ``start`` is not an index of them.
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
    return markup.slider(
        [[_svg(fig) for fig in panel] for panel in frames],
        label=label,
        spoken=[say(value) for value in values],
        alt=alt,
        start=start,
    )


@dataclass(frozen=True)
class Box:
    """A box of a schematic picture, in inches from the lower left corner.

    Args:
        text: its lines, separated by line breaks.
        x, y: its centre.
        width, height: its size.
        tint: place in :data:`PALETTE` of the colour that fills it, thinned; None for no colour.
        dashed: whether its outline is dashed.
    """

    text: str
    x: float
    y: float
    width: float = 1.5
    height: float = 0.45
    tint: int | None = None
    dashed: bool = False

    @property
    def spans(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Its left and right, then its lower and upper end."""
        across, up = self.width / 2, self.height / 2
        return (self.x - across, self.x + across), (self.y - up, self.y + up)


@dataclass(frozen=True)
class Arrow:
    """An arrow between two boxes.

    Args:
        start, end: names of the boxes.
        text: what stands beside the arrow: right of an upright one, above a level one.
        at: where an upright arrow stands (x), or a level one (y); halfway along what the boxes share if not given.
    """

    start: str
    end: str
    text: str = ""
    at: float | None = None


def schematic(panels: int = 1, *, width: float = 3.1, height: float = 3.3) -> tuple[Any, Any]:
    """An empty picture without axes, whose units are inches. Of the default width, two panels fit on a page and one on a phone.

    Args:
        panels: number of panels, as in :func:`figure`.
        width: width of each panel in inches.
        height: height of each panel in inches.

    Returns:
        as :func:`figure`.
    """
    figs, axes = figure(panels, width=width, height=height)
    for fig, ax in [(figs, axes)] if panels == 1 else zip(figs, axes):
        fig.set_layout_engine("none")
        fig.set_dpi(72)  # that of an SVG, so that a text is measured as it will be drawn
        ax.set_position((0, 0, 1, 1))
        ax.set_axis_off()
        ax.set(xlim=(0, width), ylim=(0, height))
    return figs, axes


def boxes_and_arrows(ax: Axes, boxes: Mapping[str, Box], arrows: Sequence[Arrow] = ()) -> None:
    """Draw named boxes, and arrows between them. An arrow is upright or level if its boxes share a span that allows it.

    Args:
        ax: axes from :func:`schematic`.
        boxes: name of each box, and the box.
        arrows: from box to box.

    Raises:
        ValueError: if a text is larger than its box, two boxes overlap, an arrow ends at no box, or anything leaves the panel.
    """
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        if all(min(s[1], t[1]) - max(s[0], t[0]) > 1e-6 for s, t in zip(a.spans, b.spans)):
            raise ValueError(f"boxes {one!r} and {other!r} overlap")
    with matplotlib.rc_context(STYLE):
        for box in boxes.values():
            _box(ax, box)
        for arrow in arrows:
            for name in (arrow.start, arrow.end):
                if name not in boxes:
                    raise ValueError(f"an arrow ends at {name!r}, and there is no such box")
            tail, tip, upright = _ends(boxes[arrow.start], boxes[arrow.end], arrow.at)
            look = {"arrowstyle": "-|>", "color": markup.INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", tip, tail, arrowprops=look)
            if arrow.text:
                x, y = (tail[0] + tip[0]) / 2, (tail[1] + tip[1]) / 2
                _write(ax, arrow.text, x + 0.06 * upright, y + 0.05 * (not upright), beside=upright)


def strip(
    ax: Axes,
    tokens: Sequence[str],
    *,
    x: float,
    y: float,
    width: float,
    height: float = 0.26,
    tints: Sequence[int | None] | None = None,
) -> None:
    """Draw a row of cells, one for each token.

    Args:
        ax: axes from :func:`schematic`.
        tokens: the text of each cell, from left to right.
        x, y: the lower left corner of the first cell.
        width, height: size of each cell.
        tints: for each cell, a place in :data:`PALETTE` or None.

    Raises:
        ValueError: if a token is larger than its cell.
    """
    cells = {
        str(k): Box(token, x + (k + 0.5) * width, y + height / 2, width, height, tint)
        for k, (token, tint) in enumerate(zip(tokens, tints or [None] * len(tokens), strict=True))
    }
    boxes_and_arrows(ax, cells)


def grid(ax: Axes, cells: ArrayLike, *, x: float, y: float, size: float, tint: int = 0) -> None:
    """Draw a matrix of booleans as squares, filled where it is true. Row 0 is at the top.

    Args:
        ax: axes from :func:`schematic`.
        cells: ``(N, M)`` booleans.
        x, y: the upper left corner.
        size: side of a square.
        tint: place in :data:`PALETTE` of the filling.
    """
    with matplotlib.rc_context(STYLE):
        for i, row in enumerate(np.asarray(cells, dtype=bool)):
            for j, full in enumerate(row):
                corner = (x + j * size, y - (i + 1) * size)
                face = PALETTE[tint] if full else "none"
                ax.add_patch(Rectangle(corner, size, size, facecolor=face, edgecolor=PALETTE[4], linewidth=0.8))


def note(ax: Axes, text: str, *, x: float, y: float, beside: bool = False, bold: bool = False) -> None:
    """Write a text with its lower edge in the middle at ``(x, y)``, or, ``beside`` it, with the middle of its left edge.

    Raises:
        ValueError: if the text leaves the panel.
    """
    with matplotlib.rc_context(STYLE):
        _write(ax, text, x, y, beside=beside, weight="bold" if bold else "normal")


def _box(ax: Axes, box: Box) -> None:
    (left, _), (low, _) = box.spans
    look: dict[str, Any] = {"edgecolor": markup.INK, "linewidth": 1.0, "linestyle": "--" if box.dashed else "-"}
    if box.tint is not None:  # under the outline, which stays sharp
        face = PALETTE[box.tint]
        ax.add_patch(Rectangle((left, low), box.width, box.height, facecolor=face, alpha=0.3, linewidth=0))
    ax.add_patch(Rectangle((left, low), box.width, box.height, facecolor="none", **look))
    text = ax.text(box.x, box.y, box.text, ha="center", va="center", fontsize=10, linespacing=1.1)
    across, up = _size(text)
    if across > box.width or up > box.height:
        raise ValueError(f"{box.text!r} takes {across:.2f} x {up:.2f} inches, its box {box.width} x {box.height}")
    _inside(ax, text)


def _write(ax: Axes, text: str, x: float, y: float, *, beside: bool, weight: str = "normal") -> None:
    where: dict[str, Any] = {"ha": "left", "va": "center"} if beside else {"ha": "center", "va": "bottom"}
    _inside(ax, ax.text(x, y, text, fontsize=10, fontweight=weight, linespacing=1.1, **where))


def _size(text: Text) -> tuple[float, float]:
    extent, dpi = text.get_window_extent(), text.get_figure(root=True).dpi  # type: ignore[union-attr]
    return extent.width / dpi, extent.height / dpi


def _inside(ax: Axes, text: Text) -> None:
    panel, extent = ax.get_window_extent(), text.get_window_extent()
    if not (panel.contains(extent.x0 + 0.5, extent.y0 + 0.5) and panel.contains(extent.x1 - 0.5, extent.y1 - 0.5)):
        raise ValueError(f"{text.get_text()!r} leaves its panel")


def _ends(start: Box, end: Box, at: float | None) -> tuple[tuple[float, float], tuple[float, float], bool]:
    """Tail and tip of an arrow, and whether its text stands beside it."""
    for axis in (0, 1):  # 0: the boxes share a span across, so that the arrow is upright
        a, b = start.spans[axis], end.spans[axis]
        low, high = max(a[0], b[0]), min(a[1], b[1])
        if high - low > 1e-6:
            place = (low + high) / 2 if at is None else at
            if not low <= place <= high:
                raise ValueError(f"an arrow at {place} would miss a box; the two share {low:.2f} to {high:.2f}")
            (a0, a1), (b0, b1) = start.spans[1 - axis], end.spans[1 - axis]
            tail, tip = (a1, b0) if b0 >= a1 else (a0, b1)
            return ((place, tail), (place, tip), True) if axis == 0 else ((tail, place), (tip, place), False)
    side = 1 if end.x > start.x else -1
    return (start.x + side * start.width / 2, start.y), (end.x - side * end.width / 2, end.y), False


def _svg(fig: Figure) -> str:
    for legend in filter(None, (ax.get_legend() for ax in fig.axes)):  # one that was made outside STYLE has a white box
        legend.set_frame_on(False)
        for text in legend.get_texts():
            text.set_color(markup.INK)
    with matplotlib.rc_context(STYLE):
        buffer = io.StringIO()
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    return buffer.getvalue()
