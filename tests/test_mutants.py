"""The planted faults themselves: enough of them, in every method, real changes; and a handful of them caught."""

import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS, ROOT, Mutant, mutated

from pref_toolkit.losses import METHODS


def test_there_are_mutants_of_every_method():
    assert len(set(MUTANTS)) == len(MUTANTS) >= 40
    assert set(METHODS) <= {mutant.function for mutant in MUTANTS}


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_changes_the_code(mutant):
    source = (ROOT / "pref_toolkit" / "losses" / f"{mutant.file}.py").read_text(encoding="utf-8")
    assert mutated(source, mutant) != source


def test_a_mutant_that_changes_nothing_is_refused():
    with pytest.raises(ValueError, match="changes nothing"):
        mutated('def f(x):\n    """x."""\n    return x\n', Mutant("pairs", "f", "x.", "y."))


def test_a_handful_is_caught():
    """All of them: ``python tests/mutants.py``."""
    script = Path(__file__).with_name("mutants.py")
    done = subprocess.run([sys.executable, str(script), "kto"], capture_output=True, text=True, check=False)
    caught = sum(mutant.function == "kto" for mutant in MUTANTS)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"{caught} of {caught} caught"), (
        done.stdout + done.stderr
    )
