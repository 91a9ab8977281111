"""In the menu, and wherever a page is named, a chapter that is an outline says so."""

from docutils import nodes


def mark(app, doctree):
    """After the title was collected: what is listed changes, the heading of the page does not."""
    title = app.env.titles.get(app.env.docname)
    if title is not None and app.env.metadata.get(app.env.docname, {}).get("outline"):
        marked = title.deepcopy()
        marked += nodes.Text(" (outline)")
        app.env.titles[app.env.docname] = marked


def setup(app):
    app.connect("doctree-read", mark, priority=900)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
