"""SVG text -> HTML for a page: pictures with alt text, and sliders that move through the frames of a picture.

A frame of a picture is an SVG text. Common parts of the frames are stored once.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import zip_longest
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

INK = "#010203"
"""The colour in an SVG text that stands for the page's own text colour: it becomes ``currentColor``."""


@dataclass(frozen=True)
class Html:
    """Finished HTML. A notebook shows it as it is; a report writes ``str(html)`` into its page."""

    markup: str

    def __str__(self) -> str:
        return self.markup

    def _repr_html_(self) -> str:
        return self.markup


# Part of every picture, because notebooks and reports do not load the book's style sheet.
_CSS = (
    "<style>.pt-panels{display:flex;flex-wrap:wrap;justify-content:center;align-items:flex-start;gap:.5rem}"
    ".pt-figure svg{max-width:100%;height:auto}.pt-figure [data-frame]{display:none}"
    ".pt-figure [data-frame].on{display:inline}.pt-knob{display:flex;flex-wrap:wrap;gap:.3em 1em;align-items:center}"
    ".pt-knob input{flex:1 1 12em;min-height:2em}</style>"
)

# The script shows frames and computes nothing.
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


def picture(panels: Sequence[str], *, alt: str) -> Html:
    """The panels of a picture, side by side where there is room, under one alt text.

    Args:
        panels: the SVG text of each panel.
        alt: description of the picture for readers who cannot see it.

    Raises:
        ValueError: if ``alt`` is empty.
    """
    return Html(f'<div class="pt-figure">{_CSS}{_panels([[svg] for svg in panels], alt, 0)}</div>')


def slider(panels: Sequence[Sequence[str]], *, label: str, spoken: Sequence[str], alt: str, start: int) -> Html:
    """A picture of which one frame is visible, and a native range input that chooses the frame.

    Args:
        panels: for each panel the SVG texts of its frames, one for each position of the input.
        label: name of the input.
        spoken: description of each position, shown beside the input and spoken by a screen reader.
        alt: description of the picture for readers who cannot see it.
        start: initial position.

    Raises:
        ValueError: if ``alt`` is empty.
    """
    shown = _panels(panels, alt, start)
    name = "pt-" + sha256(f"{label} {spoken} {shown}".encode()).hexdigest()[:10]
    script = _SLIDER_JS % (json.dumps(name), json.dumps(spoken).replace("</", "<\\/"))
    return Html(
        f'<div class="pt-figure" id="{name}">{_CSS}{shown}'
        f'<p class="pt-knob"><label for="{name}-knob">{html.escape(label)}</label> '
        f'<input type="range" id="{name}-knob" min="0" max="{len(spoken) - 1}" step="1" value="{start}" '
        f'autocomplete="off" aria-valuetext="{html.escape(spoken[start])}"> '
        f'<output for="{name}-knob">{html.escape(spoken[start])}</output></p><script>{script}</script></div>'
    )


def _panels(panels: Sequence[Sequence[str]], alt: str, start: int) -> str:
    """The panels of a picture under one alt text. Each panel is a list of frames."""
    if not alt.strip():
        raise ValueError("a figure wants alt text: one sentence that says what it shows")
    svgs = "".join(_markup([_tree(frame) for frame in frames], start) for frames in panels)
    return f'<div class="pt-panels" role="img" aria-label="{html.escape(alt)}">{svgs}</div>'


def _tree(text: str) -> Element:
    """The SVG without metadata, names and surplus digits, with INK replaced by the page's text colour."""
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace("xlink:href", "href")
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text, count=2)
    text = re.sub(r' d="[^"]+"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    root = ElementTree.fromstring(text)
    for element in root.iter():
        if element.tag == "g":
            element.attrib.pop("id", None)
        element.text = element.tail = None if element.tag != "style" else element.text
    return root


def _markup(frames: Sequence[Element], start: int) -> str:
    """One ``<svg>`` for all frames: the definitions, then the elements, each common one written once."""
    definitions: dict[str, str] = {}
    for frame in frames:
        for parent in list(frame.iter()):
            for block in parent.findall("defs"):
                parent.remove(block)
                # Matplotlib's <style> would change the whole page, so the svg element below has its rules.
                definitions |= {e.attrib["id"]: _text(e) for e in block if e.tag != "style"}
    body = "".join(_merge(list(same), start) for same in zip_longest(*frames))
    box = frames[0].attrib["viewBox"]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" aria-hidden="true" '
        f'style="width:{float(box.split()[2]) / 72:.2f}in;stroke-linejoin:round;stroke-linecap:butt">'
        f"<defs>{''.join(definitions.values())}</defs>{body}</svg>"
    )
    # A glyph has the same id in every picture of a page, so ids get the hash of the picture as a prefix.
    own = sha256(svg.encode()).hexdigest()[:8]
    return re.sub(r'(url\(#|href="#| id=")', rf"\g<1>{own}-", svg)


def _merge(same: list[Element | None], start: int) -> str:
    """The elements at one place of all frames: written once if they are equal, else each version with its frames."""
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
