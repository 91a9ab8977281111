"""Schematic pictures: refused where a reader could not make them out, and equal to what the toolkit computes."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest
import torch

from pref_toolkit import diagrams, figures
from pref_toolkit.data.batches import pack
from pref_toolkit.figures import Arrow, Box
from pref_toolkit.training.attention import by_segment

TOKENS = ["BOS", "1", "2", "+", "2", "7", "=", "it", "is", "3", "9", "EOS"]
SHOWN = ["it", "is", "3", "9", "EOS"]
LOGPS = -torch.arange(55.0).view(11, 5) / 4
DRAWN = {
    "pipeline": diagrams.pipeline,
    "log_probability": lambda: diagrams.log_probability(TOKENS, 7, SHOWN, LOGPS),
    "packed_row": diagrams.packed_row,
}


@pytest.fixture(params=DRAWN)
def drawn(request: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], str, str]:
    """The figures of a diagram, its alt text and its markup."""
    seen: list[tuple[list[Any], str]] = []
    show = figures.show

    def look(figs: Any, *, alt: str) -> Any:
        seen.append((figs, alt))
        return show(figs, alt=alt)

    monkeypatch.setattr(figures, "show", look)
    markup = str(DRAWN[request.param]())
    ((figs, alt),) = seen
    return figs, alt, markup


def extents(fig: Any) -> tuple[dict[str, Any], list[Any]]:
    """Boxes of the texts and of the cells of a panel, in points."""
    (ax,) = fig.axes
    texts = [t for t in ax.texts if t.get_text()]
    return {f"{k} {t.get_text()}": t.get_window_extent() for k, t in enumerate(texts)}, [
        patch.get_window_extent() for patch in ax.patches
    ]


def overlap(a: Any, b: Any) -> bool:
    return bool(min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5)


def test_a_diagram_is_readable(drawn: tuple[list[Any], str, str]) -> None:
    """Text of 10 points on a panel as wide as a phone, inside the panel, on no other text and across no outline."""
    figs, alt, markup = drawn
    assert len(alt) > 80 and markup.count("<svg") == len(figs)
    assert {c.upper() for c in re.findall(r"#[0-9a-fA-F]{6}\b", markup)} <= {c.upper() for c in figures.PALETTE}
    for fig in figs:
        assert fig.get_figwidth() <= 312 / 96
        texts, cells = extents(fig)
        assert all(text.get_fontsize() >= 10 for text in fig.axes[0].texts if text.get_text())
        for (one, a), (other, b) in combinations(texts.items(), 2):
            assert not overlap(a, b), (one, other)
        for name, a in texts.items():
            for cell in cells:
                inside = cell.x0 <= a.x0 and a.x1 <= cell.x1 and cell.y0 - 2 <= a.y0 and a.y1 <= cell.y1 + 2
                assert inside or not overlap(a, cell), name


def test_the_same_diagram_is_the_same_bytes() -> None:
    assert str(diagrams.packed_row()) == str(diagrams.packed_row())


@pytest.mark.parametrize("title", diagrams.PIPELINES)
def test_every_arrow_of_a_pipeline_joins_two_boxes_and_no_two_boxes_overlap(title: str) -> None:
    boxes, arrows = diagrams.PIPELINES[title]
    assert all({arrow.start, arrow.end} <= set(boxes) for arrow in arrows)
    assert ("reward" in boxes) == ("RLHF" in title)
    for a, b in combinations(boxes.values(), 2):
        assert any(s[1] <= t[0] or t[1] <= s[0] for s, t in zip(a.spans, b.spans))


PAIR = {"a": Box("a", 0.8, 2.5, 1.0), "b": Box("b", 0.8, 0.5, 1.0)}


@pytest.mark.parametrize(
    ("boxes", "arrows", "message"),
    [
        ({"a": Box("much too long for it", 1, 1, 0.5)}, [], "takes"),
        ({"a": Box("two\nlines", 1, 1, 1.0, 0.2)}, [], "takes"),
        ({"a": Box("far away", 5, 1)}, [], "leaves its panel"),
        ({"a": Box("a", 1, 1), "b": Box("b", 1.5, 1.2)}, [], "'a' and 'b' overlap"),
        (PAIR, [Arrow("a", "c")], "ends at 'c'"),
        (PAIR, [Arrow("c", "a")], "ends at 'c'"),
        (PAIR, [Arrow("a", "b", at=2.0)], "would miss a box"),
        (PAIR, [Arrow("a", "b", "a text that goes on beyond the right edge of it")], "leaves its panel"),
    ],
    ids=["wide text", "high text", "outside", "overlap", "no end", "no start", "beside", "long label"],
)
def test_what_cannot_be_read_is_refused(boxes: dict[str, Box], arrows: list[Arrow], message: str) -> None:
    _, ax = figures.schematic()
    with pytest.raises(ValueError, match=message):
        figures.boxes_and_arrows(ax, boxes, arrows)


@pytest.mark.parametrize(
    ("end", "tail", "tip"),
    [
        (Box("b", 0.8, 0.5, 1.0), (0.8, 1.275), (0.8, 0.725)),
        (Box("b", 0.8, 3.0, 1.0), (0.8, 1.725), (0.8, 2.775)),
        (Box("b", 2.5, 1.5, 1.0), (1.3, 1.5), (2.0, 1.5)),
        (Box("b", 2.5, 3.0, 1.0), (1.3, 1.5), (2.0, 3.0)),
    ],
    ids=["down", "up", "right", "slanted"],
)
def test_an_arrow_goes_from_edge_to_edge(end: Box, tail: tuple[float, float], tip: tuple[float, float]) -> None:
    _, ax = figures.schematic()
    figures.boxes_and_arrows(ax, {"a": Box("a", 0.8, 1.5, 1.0), "b": end}, [Arrow("a", "b", "to")])
    (arrow,) = [text for text in ax.texts if not text.get_text()]
    assert arrow.xyann == pytest.approx(tail) and arrow.xy == pytest.approx(tip)


def test_a_grid_is_the_matrix_from_the_top() -> None:
    _, ax = figures.schematic()
    matrix = [[True, False], [True, True], [False, True]]
    figures.grid(ax, matrix, x=0.5, y=3.0, size=0.2)
    filled = [patch.get_facecolor()[3] > 0 for patch in ax.patches]
    assert filled == [cell for row in matrix for cell in row]
    assert ax.patches[0].get_xy() == pytest.approx((0.5, 2.8)) and ax.patches[-1].get_xy() == pytest.approx((0.7, 2.4))


def test_the_masks_are_what_attention_sees() -> None:
    """Of values that are one-hot, attention gives the weight of each key: more than 0 where the mask lets it look."""
    made = diagrams.layouts()
    assert [sum(len(names) for names, _, _ in rows) for rows in made.values()] == [10, 9, 6]
    ((names, positions, mask),) = made["one row, prompt once"]
    batch = pack([diagrams.packed_examples()])
    assert batch.segments is not None
    size = len(names)
    values = torch.eye(size)[None, None]
    query, key = torch.randn(2, 1, 1, size, size, generator=torch.Generator().manual_seed(0)).unbind()
    weights = by_segment(batch.segments, torch.device("cpu"))(query, key, values, None)[0, :, 0]
    assert torch.equal(weights > 0, mask)
    assert names == ["x1", "x2", "x3", "a1", "a2", "b1"] and positions == [0, 1, 2, 3, 4, 3]


def test_every_layout_shows_a_response_the_same_tokens() -> None:
    """Whatever the layout: the names that a token sees, with the positions from its own one back to the first."""
    for rows in diagrams.layouts().values():
        seen = {}
        for names, positions, mask in rows:
            for name, row in zip(names, mask):
                seen[name] = [(names[j], positions[j]) for j in row.nonzero()[:, 0].tolist()]
        assert seen["a2"] == [("x1", 0), ("x2", 1), ("x3", 2), ("a1", 3), ("a2", 4)]
        assert seen["b1"] == [("x1", 0), ("x2", 1), ("x3", 2), ("b1", 3)]
        assert all(name != "·" for name, _ in seen["a2"] + seen["b1"] + seen.get("·", []))


def test_the_log_probability_is_the_sum_of_the_gathered() -> None:
    markup = str(diagrams.log_probability(TOKENS, 7, SHOWN, LOGPS))
    total = sum(float(LOGPS[t, SHOWN.index(TOKENS[t + 1])]) for t in range(6, 11))
    assert f"add up to {total:.2f} nats" in markup


@pytest.mark.parametrize(
    "changed",
    [{"prompt": 0}, {"prompt": 12}, {"vocabulary": ["it", "is", "3", "9", "thanks"]}, {"logps": LOGPS[1:]}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_log_probability_of_no_sense_is_refused(changed: dict[str, Any]) -> None:
    given = {"tokens": TOKENS, "prompt": 7, "vocabulary": SHOWN, "logps": LOGPS}
    with pytest.raises(ValueError, match="want "):
        diagrams.log_probability(**(given | changed))
