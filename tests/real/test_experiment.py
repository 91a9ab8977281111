"""The experiment on a real model, end to end on one that knows nothing."""

from dataclasses import replace

import pytest

from pref_toolkit.errors import Complaint
from pref_toolkit.real import experiment
from pref_toolkit.real.experiment import Answer, Plan, best, finished_pairs, judge, labelled, pairs
from pref_toolkit.real.instructions import Instruction
from pref_toolkit.training import models

PLAN = Plan(model="tiny", every=10, kl_prompts=4, training={"max_steps": 2, "batch_size": 4, "learning_rate": 1e-3})
ASKED = Instruction("Say why bees matter.", "commas", "")
RIGHT, COMMA, CUT = (
    Answer(ASKED, "They do.", True, 3),
    Answer(ASKED, "Well, yes.", True, 4),
    Answer(ASKED, "They", False, 9),
)


def test_right_is_finished_and_kept():
    assert [(a.kept, a.right) for a in (RIGHT, COMMA, CUT)] == [(True, True), (False, False), (True, False)]


@pytest.mark.parametrize(
    ("own", "number"),
    [([RIGHT, RIGHT], 0), ([COMMA, CUT], 0), ([COMMA, RIGHT, CUT], 1), ([RIGHT, CUT, RIGHT, COMMA], 2)],
)
def test_preferences_are_right_against_wrong(own, number):
    made = pairs([own])
    assert len(made) == number
    assert len(labelled([own])) == 2 * number
    assert len(best([own])) == own.count(RIGHT)
    assert len(finished_pairs([own])) == min(own.count(RIGHT), own.count(COMMA))
    for row in made:
        assert row["prompt"] == ASKED.messages and row["chosen"][0]["content"] == "They do."
        assert row["rejected"][0]["content"] in {"Well, yes.", "They"}


def test_the_judge_of_a_loop_calls_right_what_is_right():
    _, tokenizer = models.load("tiny")
    from pref_toolkit.real.instructions import trained

    asked = next(i for i in trained() if i.kind == "commas")
    text = tokenizer.apply_chat_template(asked.messages, tokenize=False)
    right = judge(tokenizer, Plan(tokens=20))
    assert right([text], [["So it is.", "Well, yes.", "an answer that has too many bytes"]]) == [[1.0, 0.0, 0.0]]


def test_the_experiment_runs_and_goes_on_where_it_was(tmp_path):
    arms = ("dpo", "kto", "online dpo")
    first = experiment.run(tmp_path, PLAN, arms)
    assert list(first["arms"]) == ["base", *arms]
    assert first["arms"]["base"]["kl"] == 0 == first["arms"]["base"]["chosen_change"]
    for name in arms:
        found = first["arms"][name]
        assert found["kl"] != 0 and found["chosen_change"] != 0
        assert found["unseen"]["right"]["n"] == 20 == len(found["unseen"]["each"])
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert experiment.run(tmp_path, PLAN, arms) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == written
    with pytest.raises(Complaint, match="other sizes: name another directory"):
        experiment.run(tmp_path, replace(PLAN, seed=1), arms)


def test_a_model_that_is_never_right_is_a_complaint(tmp_path):
    with pytest.raises(Complaint, match="nothing to learn from"):
        experiment.run(tmp_path, replace(PLAN, tokens=1), ())
