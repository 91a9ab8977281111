"""Let the docstring of a property or a constant be a sentence with a colon in it.

Napoleon takes what stands before the first colon of such a docstring for a type. An empty comment put first has no colon.
"""


def keep_prose(app, what, name, obj, options, lines):
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]


def setup(app):
    app.connect("autodoc-process-docstring", keep_prose, priority=400)  # Napoleon listens at 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
