"""Pictures: readable in both modes, named for those who cannot see them, and no heavier than they must be."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from pref_toolkit import figures

PAGES = {"white": "#ffffff", "dark": "#121212"}
X = np.linspace(0, 1, 50)


def luminance(colour: str) -> float:
    channels = [v / 255 for v in bytes.fromhex(colour[1:])]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def picture(**curves: Any) -> Any:
    fig, ax = figures.figure()
    figures.lines(ax, X, curves or {"a": X}, xlabel="x (nats)", ylabel="y (nats)")
    return fig


def draw(ax: Any, power: float) -> None:
    figures.lines(ax, X, {"fixed": X, "moving": X**power}, xlabel="x (nats)", ylabel="y (nats)")


def knob(**changes: Any) -> str:
    given = {"label": "power", "say": lambda p: f"power {p}", "alt": "Two curves."} | changes
    return str(figures.slider(given.pop("draw", draw), given.pop("values", [1, 2, 3]), **given))


def elements(markup: str) -> list[ElementTree.Element]:
    markup = re.sub(r"<style>.*?</style>|<script>.*?</script>|<input[^>]*>", "", markup, flags=re.S)
    return list(ElementTree.fromstring(f"<page>{markup}</page>").iter())


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("colour", figures.PALETTE)
def test_every_colour_is_seen_on_both_pages(colour: str, page: str) -> None:
    assert contrast(colour, PAGES[page]) >= 3


def test_curves_differ_by_more_than_colour() -> None:
    assert len(set(map(str, figures.DASHES))) == len(figures.DASHES) >= len(figures.PALETTE)


def test_text_takes_the_ink_of_the_page() -> None:
    markup = str(figures.show(picture(a=X, b=X**2), alt="Two curves."))
    assert "currentColor" in markup
    fixed = set(re.findall(r"#[0-9a-fA-F]{6}\b", markup.split("</style>", 1)[1]))
    assert {c.upper() for c in fixed} <= {c.upper() for c in figures.PALETTE}, (
        "no other colour is written into the picture"
    )


@pytest.mark.parametrize("alt", ["", "  "])
def test_a_picture_without_alt_text_is_refused(alt: str) -> None:
    with pytest.raises(ValueError, match="alt text"):
        figures.show(picture(), alt=alt)
    with pytest.raises(ValueError, match="alt text"):
        knob(alt=alt)


def test_alt_text_is_spoken_and_escaped() -> None:
    markup = str(figures.show(picture(), alt='p < q & "so on"'))
    (named,) = [e for e in elements(markup) if e.get("role") == "img"]
    assert named.get("aria-label") == 'p < q & "so on"'
    assert all(e.get("aria-hidden") == "true" for e in elements(markup) if e.tag.endswith("svg"))


@pytest.mark.parametrize("labels", [("", "y"), ("x", "")])
def test_an_axis_without_a_label_is_refused(labels: tuple[str, str]) -> None:
    _, ax = figures.figure()
    xlabel, ylabel = labels
    for fill in (
        lambda: figures.lines(ax, X, {"a": X}, xlabel=xlabel, ylabel=ylabel),
        lambda: figures.bars(ax, ["a"], {"s": [1]}, xlabel=xlabel, ylabel=ylabel),
        lambda: figures.points(ax, {"s": (1, 1)}, xlabel=xlabel, ylabel=ylabel),
    ):
        with pytest.raises(ValueError, match="unit"):
            fill()


def test_what_is_drawn_is_what_was_given() -> None:
    _, ax = figures.figure()
    figures.lines(ax, X, {"a": X, "b": X**2}, xlabel="x", ylabel="y", spread={"b": 0.1 * X})
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), X**2)
    (band,) = ax.collections
    below, above = X**2 - 0.1 * X, X**2 + 0.1 * X
    np.testing.assert_allclose(band.get_datalim(ax.transData).extents, (0, below.min(), 1, above.max()), atol=1e-12)
    _, ax = figures.figure()
    figures.bars(ax, ["a", "b"], {"policy": [0.2, 0.8], "optimum": [0.5, 0.5]}, xlabel="response", ylabel="probability")
    assert [bar.get_height() for bar in ax.patches] == [0.2, 0.8, 0.5, 0.5]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b"]
    _, ax = figures.figure()
    figures.points(ax, {"dpo": (1.0, 2.0)}, xlabel="KL (nats)", ylabel="reward")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1.0, 2.0]])


def test_identifiers_are_unique_on_a_page_and_nothing_refers_to_nowhere() -> None:
    page = knob() + str(figures.show(picture(), alt="One.")) + str(figures.show(picture(b=X**3), alt="Another."))
    ids = Counter(re.findall(r' id="([^"]+)"', page))
    assert max(ids.values()) == 1
    used = re.findall(r"(?:url\(#|href=\"#| for=\")([^)\"]+)", page)
    assert used and set(used) <= set(ids)


def test_a_slider_has_one_frame_for_each_value_and_stores_the_rest_once() -> None:
    one, five = knob(values=[1, 2]), knob(values=[1, 2, 3, 4, 5])
    moving = [e for e in elements(five) if e.get("data-frame")]
    assert sorted(int(k) for e in moving for k in e.get("data-frame").split()) == [0, 1, 2, 3, 4]
    assert [e.get("data-frame") for e in moving if e.get("class") == "on"] == ["0"]
    assert len(five) - len(one) < 0.2 * len(one), "axes, labels and fixed curves must not be repeated"


def test_a_slider_starts_where_it_is_told_and_says_so() -> None:
    markup = knob(start=2, say=lambda p: f"power {p} </script>")
    assert re.search(r'<input type="range"[^>]* min="0" max="2" step="1" value="2"', markup)
    assert 'aria-valuetext="power 3 &lt;/script&gt;"' in markup
    assert [e.get("data-frame") for e in elements(markup) if e.get("class") == "on"] == ["2"]
    assert markup.count("</script>") == 1, "what is said cannot end the script"


def test_all_frames_share_their_axes() -> None:
    seen: list[Any] = []

    def spread(ax: Any, top: float) -> None:
        figures.lines(ax, X, {"a": top * X}, xlabel="x", ylabel="y")
        seen.append(ax)

    knob(draw=spread, values=[1, 10])
    assert seen[0].get_ylim() == seen[1].get_ylim()
    assert seen[0].get_ylim()[1] >= 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"values": [1]}, "2 or more values"), ({"start": 3}, "start among them"), ({"label": " "}, "wants a label")],
)
def test_a_slider_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        knob(**changes)


def test_panels_are_pictures_of_their_own_under_one_name() -> None:
    figs, axes = figures.figure(2)
    for ax in axes:
        figures.lines(ax, X, {"a": X}, xlabel="x", ylabel="y")
    found = elements(str(figures.show(figs, alt="Two panels.")))
    assert len([e for e in found if e.tag.endswith("svg")]) == 2
    assert len([e for e in found if e.get("aria-label")]) == 1
    moving = [
        e for e in elements(knob(draw=lambda axes, p: [draw(ax, p) for ax in axes], panels=2)) if e.get("data-frame")
    ]
    assert sorted(e.get("data-frame") for e in moving) == ["0", "0", "1", "1", "2", "2"]


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert str(figures.show(picture(), alt="One.")) == str(figures.show(picture(), alt="One."))
    assert knob() == knob()


def test_a_legend_that_a_chapter_makes_itself_follows_the_page() -> None:
    fig, ax = figures.figure()
    figures.lines(ax, X, {"a": X}, xlabel="x (nats)", ylabel="y (nats)")
    ax.legend()
    shown = str(figures.show(fig, alt="A line."))
    assert not re.search(r"#ffffff|#000000|\bwhite\b", shown, flags=re.I)
    (legend,) = re.findall(r'<g id="legend_1">(.*)', shown, flags=re.S) or [shown]
    assert "currentColor" in legend
