"""Annotators err and lean as much as they say."""

import math
import random

import pytest

from pref_toolkit.lab import Annotator

RIGHT, WRONG = "39", "it is 38 thank you"
PROMPT = "12+27="


def share_of_first(annotator, first, second, n=4000):
    rng = random.Random(0)
    return sum(annotator.choose(PROMPT, first, second, rng)[0] == first for _ in range(n)) / n


@pytest.mark.parametrize("error", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_error_rate(error):
    annotator = Annotator(error=error)
    assert annotator.probability(PROMPT, RIGHT, WRONG) == pytest.approx(1 - error, abs=1e-12)
    assert share_of_first(annotator, WRONG, RIGHT) == pytest.approx(error, abs=4 * math.sqrt(0.25 / 4000))


def test_equally_good_responses_are_a_toss_up():
    for first, second in (("39", "it is 39 thanks"), ("38", "it is 40 thanks")):
        assert Annotator(error=0.0).probability(PROMPT, first, second) == 0.5


def test_biases_are_nats_of_a_bradley_terry_reward():
    annotator = Annotator(error=0.2, length_bias=0.3, politeness_bias=-0.7)
    reward = {RIGHT: math.log(4) + 0.3, WRONG: 5 * 0.3 - 0.7}
    expected = 1 / (1 + math.exp(reward[WRONG] - reward[RIGHT]))
    assert annotator.probability(PROMPT, RIGHT, WRONG) == pytest.approx(expected, abs=1e-12)
    assert share_of_first(annotator, RIGHT, WRONG) == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 4000))


def test_a_length_bias_prefers_the_longer_of_two_right_responses():
    share = share_of_first(Annotator(length_bias=1.0), "the answer is 39", "39")
    assert share == pytest.approx(1 / (1 + math.exp(-3)), abs=0.03)


def test_swapping_the_responses_swaps_the_choice():
    annotator = Annotator(error=0.2, length_bias=0.3)
    there, back = annotator.probability(PROMPT, RIGHT, WRONG), annotator.probability(PROMPT, WRONG, RIGHT)
    assert there + back == pytest.approx(1, abs=1e-12)


def test_an_annotator_without_error_is_right_whatever_its_bias():
    assert Annotator(error=0.0, length_bias=50.0).probability(PROMPT, "39", "the answer is 38 thank you") == 1.0


def test_extreme_biases_do_not_overflow():
    assert Annotator(length_bias=1e6).probability(PROMPT, WRONG, RIGHT) == 1.0
    assert Annotator(length_bias=-1e6).probability(PROMPT, WRONG, RIGHT) == 0.0


@pytest.mark.parametrize(
    "field, value", [("error", -0.1), ("error", 1.1), ("error", math.nan), ("length_bias", math.inf)]
)
def test_impossible_annotators_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        Annotator(**{field: value})


def test_scores_are_those_on_which_the_choice_rests():
    """Choices and scores drawn together have the Gumbel model's distribution: mean difference against numerical integration."""
    annotator, rng = Annotator(error=0.2), random.Random(0)
    right, wrong = "39", "it is 38"
    assert annotator.reward("12+27=", right) - annotator.reward("12+27=", wrong) == pytest.approx(math.log(4))
    gaps = []
    for _ in range(20_000):
        chosen, rejected = annotator.choose("12+27=", right, wrong, rng)
        s_w, s_l = annotator.scores("12+27=", chosen, rejected, rng)
        assert s_w > s_l
        gaps.append(s_w - s_l if chosen == right else s_l - s_w)
    # A difference of two standard Gumbels is logistic: mean 0, standard deviation pi / sqrt(3).
    assert sum(gaps) / len(gaps) == pytest.approx(math.log(4), abs=4 * math.pi / math.sqrt(3 * len(gaps)))
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        Annotator(error=0).scores("12+27=", right, wrong, rng)
