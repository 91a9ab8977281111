"""The shipped results of the experiment agree with each other and with the program that judges today."""

import pytest

from pref_toolkit.metrics import wilson
from pref_toolkit.real import experiment, instructions

RESULT, DRAWS = experiment.load(), experiment.draws()


def test_the_answers_are_to_the_instructions_and_judged_as_today():
    assert [own[0].instruction for own in DRAWS] == instructions.trained()
    counted = RESULT["drawn"]["trained"]
    assert counted["answers"] == sum(map(len, DRAWS)) == counted["instructions"] * RESULT["plan"]["draws"]
    assert counted["right"] == sum(a.right for own in DRAWS for a in own)
    assert counted["pairs"] == len(experiment.pairs(DRAWS))
    assert max(a.tokens for own in DRAWS for a in own) == RESULT["plan"]["tokens"]


@pytest.mark.parametrize("name", RESULT["arms"])
@pytest.mark.parametrize("split", ["unseen", "new_kinds"])
def test_shares_are_counts_and_intervals_are_theirs(name, split):
    found = RESULT["arms"][name][split]
    n = len(getattr(instructions, split)())
    assert found["right"]["n"] == n == len(found["each"])
    assert found["right"]["share"] == sum(found["each"]) / n <= found["kept"]["share"]
    assert found["right"]["interval"] == pytest.approx(wilson(sum(found["each"]), n))
    assert sum(kind["n"] * kind["share"] for kind in found["by_kind"].values()) == pytest.approx(sum(found["each"]))


def test_the_arms_are_those_that_the_command_runs():
    assert next(iter(RESULT["arms"])) == "base"
    assert set(RESULT["arms"]) <= {"base", *experiment.ARMS}
