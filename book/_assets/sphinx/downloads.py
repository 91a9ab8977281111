"""A notebook to download from each chapter: the page's source as .ipynb, beside the Markdown source the theme offers.

The theme makes this button only together with buttons that launch the page on a public server, from a public repository.
"""

from pathlib import Path

import jupytext


def offer_notebook(app, pagename, templatename, context, doctree):
    if "kernelspec" not in app.env.metadata.get(pagename, {}):
        return
    target = Path(app.outdir, "_sources", pagename).with_suffix(".ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    jupytext.write(jupytext.read(app.env.doc2path(pagename)), target)
    context["ipynb_source"] = f"{pagename}.ipynb"


def setup(app):
    app.connect("html-page-context", offer_notebook)  # the theme reads ipynb_source at priority 501, after this
    return {"parallel_read_safe": True, "parallel_write_safe": True}
