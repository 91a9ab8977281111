"""One place for versions: pyproject.toml says ranges, constraints.txt the tested versions, environment.yml neither."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import pref_toolkit

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)
MAKEFILE = (ROOT / "Makefile").read_text()
README = (ROOT / "README.md").read_text()


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(*extras):
    return [
        Requirement(r)
        for r in PROJECT["dependencies"] + [x for e in extras for x in PROJECT["optional-dependencies"][e]]
    ]


def test_there_is_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] == pref_toolkit.__version__
    assert (citation["license"], f"# {citation['title']}") == (PROJECT["license"], README.splitlines()[0])


def test_every_direct_requirement_is_locked_within_its_range():
    locked = {normal(name): number for name, number in LOCKED.items()}
    for requirement in requirements("bench", "book", "dev", "real"):
        assert requirement.specifier.contains(locked[normal(requirement.name)]), requirement


def test_the_tests_run_on_the_locked_versions():
    for requirement in requirements("bench", "book", "dev"):
        locked = {normal(name): number for name, number in LOCKED.items()}[normal(requirement.name)]
        assert version(requirement.name).split("+")[0] == locked, requirement


def test_the_product_does_not_need_the_library_it_is_compared_with():
    assert "trl" in {r.name for r in requirements("bench")} - {r.name for r in requirements("book", "dev")}


def test_the_gpu_environment_installs_what_make_setup_installs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    (installed,) = re.findall(r"--editable '(\.\[[^']+\])'", MAKEFILE)
    assert pip == [f"--editable {installed}"]
    python = next(e for e in environment["dependencies"] if str(e).startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))


def test_the_ranges_admit_the_gpu_box():
    """Versions seen there: torch 2.11 and transformers 5.17."""
    ranges = {r.name: r.specifier for r in requirements()}
    assert ranges["torch"].contains("2.11.0") and ranges["transformers"].contains("5.17.0")


def test_every_make_target_has_a_line_of_help():
    phony = re.search(r"\.PHONY: (.*)", MAKEFILE).group(1).split()
    helped = re.findall(r"^([a-z-]+):.*## \S", MAKEFILE, re.M)
    assert sorted(phony) == sorted(helped)


def test_the_gpu_benchmark_installs_nothing():
    """Its machine has a torch of its own, and perhaps no network."""
    assert re.search(r"^bench-gpu: +##", MAKEFILE, re.M)
    assert "PYTHONPATH=$(CURDIR)" in MAKEFILE.split("\nbench-gpu:")[1].split("\n\n")[0]
