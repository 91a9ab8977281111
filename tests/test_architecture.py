"""Imports go one way, and only where the design says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pref_toolkit"
ORDER = [
    "errors",
    "ranges",
    "logps",
    "losses",
    "errata",
    "metrics",
    "data",
    "training",
    "loops",
    "lab",
    "real",
    "markup",
    "tables",
    "figures",
    "diagrams",
    "report",
    "course",
    "cli",
]
FORBIDDEN_NAMES = {"utils", "helpers", "misc", "base", "core"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    """The part of the design a file belongs to: its first name below the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path):
    """Every module a file imports, wherever in it, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parts_imported(path):
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("pref_toolkit.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    part = part_of(path)
    imported = parts_imported(path) - {part}
    if part in ("__init__", "__main__"):
        return
    if part == "theory":
        assert imported <= {"logps", "losses"}
        return
    assert part in ORDER, f"{part} has no place in the order of parts"
    imported -= {"train", "TrainConfig", "__version__"}
    if part == "course":  # the cases of an exercise are computed on bandits
        imported -= {"theory"}
    later = [name for name in imported if name not in ORDER[: ORDER.index(part)]]
    assert not later, f"{part} imports {later}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_libraries_stay_where_they_belong(path):
    libraries = {name.split(".")[0] for name in imports_of(path)}
    part = part_of(path)
    assert "trl" not in libraries  # compared with in tests/peers, never needed
    if part != "figures":
        assert "matplotlib" not in libraries
    if part != "theory":
        assert "sympy" not in libraries
    if part in ("logps", "losses", "metrics", "theory"):
        assert not libraries & {"transformers", "peft", "accelerate", "datasets", "tokenizers"}
    if part == "data":
        assert not libraries & {"peft", "accelerate"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_is_named_after_nothing(path):
    assert not FORBIDDEN_NAMES & set(path.relative_to(PACKAGE).with_suffix("").parts)


def test_the_api_page_states_this_order():
    """Of the parts that there are."""
    page = (PACKAGE.parent / "book" / "reference" / "api.md").read_text(encoding="utf-8")
    stated = re.search(r"stand before it in this list: (.+)\.", page)[1]
    parts = {part_of(path) for path in MODULES}
    assert stated == ", ".join(f"`{part}`" for part in ORDER if part in parts)


def test_training_names_no_method():
    from pref_toolkit.losses import METHODS

    for path in (PACKAGE / "training").glob("*.py"):
        constants = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
        named = constants & set(METHODS) - {"dpo"}  # the default value of `method`
        assert not named, f"{path.name} names {named}"


def test_a_loop_is_about_a_page_and_knows_no_other():
    """What a loop does says nothing of tokenizers, devices and files: a session has them."""
    from pref_toolkit.loops.presets import LOOPS

    loops = {loop.run.__module__ for loop in LOOPS.values()}
    for path in (PACKAGE / "loops").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 120, path.name
        if f"pref_toolkit.loops.{path.stem}" in loops:
            assert not loops & set(imports_of(path)), path.name
            assert not re.search(r"tokenizer|device|Path|open\(", text), path.name


def test_a_wrong_import_would_be_seen(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from pref_toolkit.cli import main\n")
    assert parts_imported(path) == {"cli"}


HEAVY = {
    "torch",
    "numpy",
    "scipy",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "datasets",
    "sympy",
    "matplotlib",
}


@pytest.mark.parametrize(
    "started, allowed",
    [
        ("import pref_toolkit", set()),
        ("from pref_toolkit.cli import main; main(['--help'])", set()),
        ("from pref_toolkit import losses", {"torch", "numpy"}),
        ("from pref_toolkit import tables", {"torch", "numpy"}),
        ("from pref_toolkit.cli import main; main(['train', '--method', 'dppo'])", {"torch", "numpy"}),
        ("from pref_toolkit.cli import main; main(['train', '--model', 'tiny', '--help'])", {"torch", "numpy"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(started, allowed):
    """In a process of its own: what a user waits for before the first line of help."""
    ask = f"import atexit, sys\natexit.register(lambda: print('LOADED', *sys.modules))\n{started}"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.rpartition("LOADED ")[2].split()
    assert "pref_toolkit" in loaded
    assert HEAVY & set(loaded) <= allowed
