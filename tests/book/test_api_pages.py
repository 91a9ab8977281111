"""Every public module, class and function of the package is on one API page."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from sources import BOOK, ROOT


def extension() -> Any:
    spec = spec_from_file_location("api_pages", BOOK / "_assets" / "sphinx" / "api_pages.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


API_PAGES = extension()
TEXTS = [API_PAGES.expand(page.read_text(encoding="utf-8")) for page in sorted((BOOK / "reference").glob("api*.md"))]
SECTIONS = [found for text in TEXTS for found in re.findall(r"^\.\. automodule:: (\S+)\n((?: +:.*\n)*)", text, re.M)]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "pref_toolkit").rglob("*.py"))
    if path.stem == "__init__" or not path.stem.startswith("_")
]


def test_every_module_is_on_one_page() -> None:
    assert Counter(name for name, _ in SECTIONS) == dict.fromkeys(MODULES, 1)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_documented(name: str) -> None:
    import_module(name)
    module = sys.modules[name]  # `import a.b as c` would give an attribute of a that has the module's name
    assert module.__doc__, "the module says nothing about itself"
    hidden = dict(SECTIONS)[name].partition(":exclude-members: ")[2].strip().split(", ")
    above = getattr(sys.modules.get(name.rpartition(".")[0]), "__all__", [])
    for public, thing in vars(module).items():
        if public.startswith("_") or not (inspect.isroutine(thing) or isinstance(thing, type)):
            continue
        if thing.__module__ == name:
            assert inspect.getdoc(thing), f"{public} has no docstring, so that its page leaves it out"
            assert public in above or (public not in hidden and public in getattr(module, "__all__", [public])), public


def test_a_new_module_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("__init__", "first", "_private", "below/second"):
        path = tmp_path / "a_new_package" / f"{file}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "a_new_package" / "below" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    names = ["a_new_package", "a_new_package.below", "a_new_package.below.second", "a_new_package.first"]
    assert API_PAGES.modules("a_new_package") == names
    page = API_PAGES.expand("Text.\n\n```{modules} a_new_package\n```\n\nMore.\n")
    assert re.findall(r"automodule:: (\S+)", page) == names and page.endswith("\n\nMore.\n")
