"""What stands around every page: its title, its description, and at its end how to report a mistake and where the source is."""

from html import escape

from docutils import nodes

import pref_toolkit

ERRATA = "reference/errata"


def first_paragraph(doctree):
    found = next((p for p in doctree.findall(nodes.paragraph) if not isinstance(p.parent, nodes.Admonition)), None)
    return " ".join(found.astext().split())[:300] if found else ""


def add(app, pagename, templatename, context, doctree):
    if pagename == app.config.root_doc:
        context["docstitle"] = ""  # it is the page's own title, and would be said twice
    if doctree is None or app.builder.name != "html":
        return
    context["metatags"] += f'\n<meta name="description" content="{escape(first_paragraph(doctree))}" />\n'
    links = [f'<a href="{context["pathto"]("_sources", 1)}/{context["sourcename"]}">source of this page</a>']
    if ERRATA in app.env.all_docs:
        page = "" if pagename == ERRATA else context["pathto"](ERRATA)
        links.insert(0, f'<a href="{page}#how-to-report-one">report a mistake</a>')
    about = f"version {pref_toolkit.__version__}, Apache-2.0"
    context["body"] += f'\n<p class="pt-foot">{" · ".join([*links, about])}</p>\n'


def setup(app):
    app.connect("html-page-context", add, priority=700)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
