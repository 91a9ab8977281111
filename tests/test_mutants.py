"""The planted faults themselves: enough of them, in every method, real changes; and a sample of them caught."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import EQUIVALENT, MODULES, changes, mutants, mutated, nodes_of, source_of, users

from pref_toolkit.losses import METHODS

CHANGES = {
    "a + b": {"a - b", "a", "b"},
    "a - b": {"a + b", "b - a", "a", "b"},
    "a / b": {"a * b", "b / a", "a", "b"},
    "a ** b": {"a * b", "a", "b"},
    "-a": {"a"},
    "a < b": {"a <= b"},
    "a or b": {"a", "b"},
    "0.5": {"1.5"},
    "'name'": set(),
    "True": set(),
    "a if b else c": {"a", "c"},
    "f(a, b)": {"f(b, a)", "a"},
    "f('name', a, b)": {"f('name', b, a)", "a"},
    "torch.relu(a)": {"a"},
    "bool(a)": set(),
    "a.detach()": {"a"},
    "a.clamp(min=b)": {"a.clamp(max=b)", "a"},
    "a.argmax": {"a.argmin"},
    "policy.chosen": {"policy.rejected"},
}


@pytest.mark.parametrize("code", CHANGES)
def test_what_may_stand_in_the_place_of_an_expression(code):
    node = ast.parse(code, mode="eval").body
    assert {ast.unparse(new) for _, new in changes(node)} == CHANGES[code]


def test_a_check_is_switched_off_and_no_message_is_changed():
    body = ast.parse("if a != b:\n    raise ValueError(f'{a} is not {b + 1}')\ncheck(a, b)").body
    found = [
        (ast.unparse(place), ast.unparse(new)) for s in body for n in (s, *nodes_of(s)) for place, new in changes(n)
    ]
    assert found == [("a != b", "False"), ("a != b", "a == b"), ("check(a, b)", "pass")]


def test_there_are_many_mutants_of_every_method():
    by_function = [mutant.function for mutant in mutants()]
    assert len(mutants()) > 900
    assert min(map(by_function.count, METHODS)) >= 5


def test_each_mutant_is_code_of_its_own():
    sources = [mutated(mutant) for mutant in mutants()]
    assert len(set(sources)) == len(sources)
    for source in sources[::50]:
        ast.parse(source)
    assert not {source_of(module) for module in MODULES} & set(sources)


def test_who_runs_a_function():
    assert users()["log_odds"] == {"log_odds", "orpo"}
    assert users()["growing_expm1"] == {"growing_expm1", "f_dpo", "chi_po"}
    assert {"dpo", "wpo", "tdpo1", "mallows_dpo"} <= users()["margin"] and "simpo" not in users()["margin"]
    assert users()["LINKS"] == {"LINKS", "spin", "gpo"}


def test_what_no_test_can_notice_is_a_change_that_is_made_and_has_a_reason():
    said = [str(mutant) for mutant in mutants()]
    assert {change: said.count(change) for change in EQUIVALENT} == dict.fromkeys(EQUIVALENT, 1)
    assert all(EQUIVALENT.values())


def run(*arguments):
    """The script's exit code and what it says, in a process of its own."""
    script = Path(__file__).with_name("mutants.py")
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


def test_a_sample_is_caught():
    """All of them: ``python tests/mutants.py``."""
    code, said = run("--every", "100")
    assert code == 0, said
    chosen = mutants()[::100]
    equivalent = sum(str(m) in EQUIVALENT for m in chosen)
    assert said[-1] == f"{len(chosen)} mutants, {equivalent} of them equivalent; 0 survived"


def test_an_unknown_function_is_refused():
    assert run("dppo") == (2, ["no mutant of dppo"])
