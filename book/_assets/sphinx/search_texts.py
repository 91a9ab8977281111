"""What stands around a found word: the sections of all pages in one script, which also works from disk.

Sphinx would fetch each found page, which a browser refuses a page that was opened from disk.
"""

import json
from pathlib import Path

from docutils import nodes


def own_text(section):
    """The running text of a section without its subsections, code and formulas."""
    said = []

    def walk(node):
        for child in node.children:
            if isinstance(child, nodes.section) and child.next_node(nodes.title) is not None and child["names"]:
                continue
            if isinstance(child, nodes.Text):
                said.append(child.astext())
            elif not isinstance(child, nodes.literal_block | nodes.math | nodes.math_block | nodes.raw | nodes.title):
                walk(child)
                if isinstance(child, nodes.TextElement) and not isinstance(child, nodes.Inline):
                    said.append(" ")

    walk(section)
    return " ".join("".join(said).split())


def collect(app, pagename, templatename, context, doctree):
    if app.builder.name != "html":
        return
    if doctree is None:
        if pagename == "search":
            app.add_js_file("search_texts.js", loading_method="defer")
            app.add_js_file("search_snippets.js", loading_method="defer")
        return
    app.env.search_sections = getattr(app.env, "search_sections", {})
    app.env.search_sections[pagename] = [
        (section["ids"][0], section[0].astext(), own_text(section))
        for section in doctree.findall(nodes.section)
        if section["ids"] and section.children and isinstance(section[0], nodes.title)
    ]


def write(app, exception):
    """Pages that were not written in this build keep their text of the last one."""
    if exception is None and app.builder.name == "html":
        sections = getattr(app.env, "search_sections", {})
        texts = {page: sections[page] for page in sorted(sections) if page in app.env.all_docs}
        Path(app.outdir, "_static", "search_texts.js").write_text(
            f"const SEARCH_TEXTS = {json.dumps(texts)};\n", "utf-8"
        )


def setup(app):
    app.connect("html-page-context", collect)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
