"""What a user's judge may do wrong, each in one sentence."""

import re
import time

import pytest

from pref_toolkit.errors import Complaint
from pref_toolkit.loops.judges import judged, load

PROMPTS, ANSWERS = ["one", "two"], [["a", "bb"], ["ccc", ""]]


def failing(prompts, answers):
    raise RuntimeError("no connection")


FAULTS = {
    "raises": (failing, "the judge failed: RuntimeError: no connection"),
    "nothing": (lambda p, a: None, "the judge gave NoneType, want a list of scores for each prompt"),
    "too few prompts": (lambda p, a: [[1, 2]], "the judge gave scores for 1 prompts and was asked about 2"),
    "too few answers": (lambda p, a: [[1, 2], [3]], "the judge gave 1 scores for the 2 answers to 'two'"),
    "a word": (lambda p, a: [[1, 2], [3, "good"]], "the judge gave a score that is no number to 'two': [3, 'good']"),
    "not a number": (
        lambda p, a: [[1, float("nan")], [3, 4]],
        "the judge gave a score that is not finite to 'one': [1, nan]",
    ),
    "infinite": (
        lambda p, a: [[1, 2], [3, float("-inf")]],
        "the judge gave a score that is not finite to 'two': [3, -inf]",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_judge_that_fails_is_one_sentence(name):
    judge, sentence = FAULTS[name]
    with pytest.raises(Complaint, match="^" + re.escape(sentence) + "$"):
        judged(judge, PROMPTS, ANSWERS, limit=0)


def test_a_judge_that_hangs():
    with pytest.raises(Complaint, match=r"^the judge took longer than judge_limit=0\.05 seconds$"):
        judged(lambda p, a: time.sleep(60), PROMPTS, ANSWERS, limit=0.05)


def test_a_judge_may_give_arrays_and_change_what_it_was_given():
    import numpy as np
    import torch

    def careless(prompts, answers):
        prompts.clear()
        answers[0].clear()
        return torch.ones(2, 2)

    assert judged(careless, PROMPTS, ANSWERS, limit=0) == [[1, 1], [1, 1]]
    assert PROMPTS == ["one", "two"] and ANSWERS[0] == ["a", "bb"]
    assert judged(lambda p, a: np.arange(4).reshape(2, 2), PROMPTS, ANSWERS, limit=0) == [[0, 1], [2, 3]]


def test_a_judge_is_found_by_name(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "def longest(prompts, answers):\n    return [[len(a) for a in own] for own in answers]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert judged(load("mine:longest"), PROMPTS, ANSWERS, limit=0) == [[1, 2], [3, 0]]


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("mine", "a judge is a reward model's directory or module:function, as in my_judges:helpful, got 'mine'"),
        (
            "no_such_module:f",
            "judge 'no_such_module:f' cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("math:pi", "judge 'math:pi' is float and no function"),
    ],
)
def test_a_judge_that_is_not_there(name, sentence):
    with pytest.raises(Complaint, match="^" + re.escape(sentence) + "$"):
        load(name)
