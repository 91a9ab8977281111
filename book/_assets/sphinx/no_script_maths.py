"""Mathematics for a reader without JavaScript: each formula a second time, as MathML, where no script runs.

MathJax still sets the formulas wherever it can. Without it, the TeX is hidden and the browser's own mathematics is shown.
"""

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="(?:[^"]* )?math notranslate nohighlight"[^>]*>(?P<tex>.*?)</(?P=tag)>', flags=re.S
)
# What the converter does not know.
DELIMITERS = {r"\langle": "⟨", r"\rangle": "⟩", r"\lVert": r"\|", r"\rVert": r"\|", r"\lvert": "|", r"\rvert": "|"}
HIDE = "<noscript><style>.pt-tex { display: none; }</style></noscript>"


def mathml(tex, display):
    """A formula between TeX's brackets as MathML; its number stands beside it."""
    tex = re.sub(r"^\\[(\[]|\\[)\]]$", "", tex.strip()).strip()
    tag = re.search(r"\\tag\{([^}]*)\}", tex)
    tex = re.sub(r"\\tag\{[^}]*\}|\\(begin|end)\{(equation|split)\*?\}", "", tex).strip()
    for name, sign in DELIMITERS.items():
        tex = re.sub(re.escape(name) + r"(?![a-zA-Z])", sign.replace("\\", r"\\"), tex)
    if "\\\\" in tex and not re.match(r"\\begin", tex):  # what a split held
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    return convert(tex, display="block" if display else "inline") + (f" ({tag[1]})" if tag else "")


def twice(found):
    inner, tag = found["tex"], found["tag"]
    number = re.match(r'\s*<span class="eqno">.*?</span>', inner, flags=re.S)
    tex = inner[number.end() :] if number else inner
    opening = found[0][: found.start("tex") - found.start()]
    shown = mathml(html.unescape(tex), tag == "div")
    return (
        f'{opening}{number[0] if number else ""}<span class="pt-tex">{tex}</span><noscript>{shown}</noscript></{tag}>'
    )


def add(app, pagename, templatename, context, doctree):
    body = context.get("body", "")
    if "math notranslate" in body:
        context["body"] = HIDE + FORMULA.sub(twice, body)


def setup(app):
    app.connect("html-page-context", add, priority=800)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
