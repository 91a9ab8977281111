"""The sections of an API page: one for each module below a package that the page names, so that no module is forgotten.

A page says where the sections of a module belong, or those of a package and of all modules below it::

    ```{modules} pref_toolkit.data
    ```

Names that a package offers in its ``__all__`` are documented once, with the package.
"""

import pkgutil
import re
from importlib import import_module

BLOCK = re.compile(r"^```\{modules\} (\S+)\n```$", flags=re.M)


def modules(name):
    """This module and all public modules below it. A directory without ``__init__.py`` is no module itself."""
    module = import_module(name)
    below = [found.name for found in pkgutil.iter_modules(getattr(module, "__path__", []))]
    own = [name] if getattr(module, "__file__", None) else []
    return own + [one for last in below if not last.startswith("_") for one in modules(f"{name}.{last}")]


def documented_above(name):
    """The names in a module that its package offers as its own."""
    package, own = name.rpartition(".")[0], vars(import_module(name))
    above = vars(import_module(package)) if package else {}
    return [n for n in above.get("__all__", []) if n in own and above.get(n) is own[n]]


def section(name):
    """Heading and documentation of one module, as Markdown."""
    options = ["   :members:"]
    if above := documented_above(name):
        options.append(f"   :exclude-members: {', '.join(above)}")
    return "\n".join([f"### `{name}`", "", "```{eval-rst}", f".. automodule:: {name}", *options, "```"])


def expand(text):
    """The text of a page with its blocks written out."""
    return BLOCK.sub(lambda block: "\n\n".join(map(section, modules(block[1]))), text)


def read(app, docname, source):
    source[0] = expand(source[0])


def skip(app, what, name, obj, skipped, options):
    """SymPy's undefined functions are classes of no module: they are symbols, and have no documentation."""
    return True if isinstance(obj, type) and obj.__module__ is None else None


def allow_alias(app, env, node, contnode):
    """Sphinx takes every name in a signature for a class. A type variable or an alias of ours is none: no link, no warning."""
    module, _, name = node["reftarget"].rpartition(".")
    module = module or node.get("py:module") or ""
    if node["reftype"] != "class" or not module.startswith("pref_toolkit"):
        return None
    found = vars(import_module(module)).get(name)
    return None if found is None or isinstance(found, type) else contnode


def setup(app):
    app.connect("source-read", read)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", allow_alias)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
