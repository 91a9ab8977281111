"""Where the book is, and what its chapters say when read as text."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
BUILT = BOOK / "_build" / "html"


def contents() -> list[str]:
    """Every page of the table of contents, in reading order."""

    def walk(node: Any) -> list[str]:
        if isinstance(node, list):
            return [page for child in node for page in walk(child)]
        if not isinstance(node, dict):
            return []
        own = [node[key] for key in ("root", "file") if key in node]
        return own + [page for key in ("parts", "chapters", "sections") for page in walk(node.get(key, []))]

    return walk(yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8")))


def without_code(text: str) -> str:
    """The text without blocks of code; what a directive of text holds stays."""
    kept, fence = [], ""
    for line in text.split("\n"):
        mark = re.match(r"(`{3,}|~{3,})(.*)", line)
        if fence:
            fence = "" if mark and mark[1] == fence and not mark[2] else fence
        elif mark and mark[2] and not re.match(r"\{(?!code-cell|literalinclude|eval-rst|modules)", mark[2]):
            fence = mark[1]
        else:
            kept.append(line)
    return "\n".join(kept)


@dataclass(frozen=True)
class Page:
    """One source page, taken apart."""

    name: str

    @cached_property
    def text(self) -> str:
        return (BOOK / f"{self.name}.md").read_text(encoding="utf-8")

    @cached_property
    def header(self) -> dict[str, Any]:
        found = re.match(r"---\n(.*?)\n---\n", self.text, flags=re.S)
        return yaml.safe_load(found[1]) if found else {}

    @cached_property
    def cells(self) -> list[str]:
        """The code of each cell, without its options."""
        found = re.findall(r"^```\{code-cell\}.*?\n(.*?)^```$", self.text, flags=re.S | re.M)
        return [re.sub(r"\A(---\n.*?^---\n|(:[^\n]*\n)+)", "", cell, flags=re.S | re.M) for cell in found]

    @cached_property
    def calls(self) -> list[ast.Call]:
        """Every function call in the cells."""
        trees = [ast.parse(cell) for cell in self.cells]
        return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]

    @cached_property
    def headings(self) -> list[str]:
        return re.findall(r"^## (.+)$", re.sub(r"^```.*?^```$", "", self.text, flags=re.S | re.M), flags=re.M)

    @cached_property
    def prose(self) -> str:
        """What a reader takes on trust: neither code nor mathematics, links, glued values and the like."""
        text = re.sub(r"\A---\n.*?\n---\n|^%.*?$", "", self.text, flags=re.S | re.M)
        text = without_code(text)
        text = re.sub(r"^(:\w+:|```|:::|#).*$", "", text, flags=re.M)  # before the backticks of code within a line
        text = re.sub(r"\$\$.*?\$\$|\$[^$]+\$", "", text, flags=re.S)
        return re.sub(r"\{[\w:]+\}`[^`]*`|`[^`]*`|\[[^]]*\]\([^)]*\)|<[^>]*>|\barXiv:[\d.]+", "", text)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((k.value for k in call.keywords if k.arg == name), None)


def called(call: ast.Call) -> str:
    return ast.unparse(call.func)
