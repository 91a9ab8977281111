"""Pairs: two different responses to an unseen-in-evaluation prompt, in the order the annotator gave."""

import pytest
import torch

from pref_toolkit import lab
from pref_toolkit.lab.language import answer, operand_pairs, said_in_every_style


@pytest.mark.parametrize("policy", ["on", "off"])
def test_pairs_are_rows_of_two_different_responses_and_repeat_with_their_seed(policy):
    rows = lab.pairs(40, seed=5, policy=policy)
    train = {f"{a}+{b}=" for a, b in operand_pairs("train")}
    assert len(rows) == 40
    for row in rows:
        assert list(row) == ["prompt", "chosen", "rejected"]
        assert row["prompt"] in train
        assert row["chosen"] != row["rejected"]
    assert rows == lab.pairs(40, seed=5, policy=policy)
    assert rows != lab.pairs(40, seed=6, policy=policy)


@pytest.mark.parametrize("policy", ["on", "off"])
def test_the_annotator_decides_which_is_chosen(policy):
    def gains(annotator):
        rows = lab.pairs(300, seed=0, policy=policy, annotator=annotator)
        return [lab.gold(r["prompt"], r["chosen"]) - lab.gold(r["prompt"], r["rejected"]) for r in rows]

    assert min(gains(lab.Annotator(error=0.0))) == 0
    assert max(gains(lab.Annotator(error=1.0))) == 0
    decided = [gain for gain in gains(lab.Annotator(error=0.1)) if gain != 0]
    assert len(decided) > 100
    assert decided.count(-1.0) / len(decided) == pytest.approx(0.1, abs=0.09)


def test_an_annotator_who_likes_length_chooses_longer_responses():
    def excess(bias):
        rows = lab.pairs(300, seed=0, policy="off", annotator=lab.Annotator(length_bias=bias))
        return sum(lab.words(r["chosen"]) - lab.words(r["rejected"]) for r in rows) / len(rows)

    assert abs(excess(0.0)) < 0.5
    assert excess(1.0) > 1.0


def test_off_policy_responses_are_the_grammar_s_with_half_the_numbers_right():
    rows = lab.pairs(400, seed=1, policy="off")
    said = [(r["prompt"], r[side]) for r in rows for side in ("chosen", "rejected")]
    numbers = [next(int(w) for w in text.split() if w.isdigit()) for _, text in said]
    assert all(text in said_in_every_style(number) for (_, text), number in zip(said, numbers))
    right = sum(answer(prompt) == number for (prompt, _), number in zip(said, numbers)) / len(said)
    assert right == pytest.approx(0.5, abs=0.08)


def test_sampling_leaves_torch_s_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    lab.pairs(5, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_no_annotator_is_shown_an_empty_response(monkeypatch):
    """The supervised model ends at once about once in ten thousand samples; here it does so every third time."""
    said = iter(["", "39", "40"] * 40)
    monkeypatch.setattr(
        "pref_toolkit.lab.sampling.generate", lambda model, tokenizer, asked, **_: [next(said) for _ in asked]
    )
    rows = lab.pairs(8, seed=0)
    assert {row[side] for row in rows for side in ("chosen", "rejected")} == {"39", "40"}


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="'on' or 'off'"):
        lab.pairs(1, policy="sometimes")


def test_rows_have_the_form_that_a_loss_reads():
    plain = lab.pairs(6, seed=4)
    assert lab.rows(6, ("policy", "reference"), seed=4) == plain == lab.rows(6, ("rewards",), seed=4)
    labelled = lab.rows(6, ("policy", "reference", "desirable"), seed=4)
    assert [(r["completion"], r["label"]) for r in labelled[:2]] == [
        (plain[0]["chosen"], True),
        (plain[0]["rejected"], False),
    ]
    for row, pair in zip(lab.rows(6, ("policy", "scores"), seed=4), plain, strict=True):
        assert row["responses"] == [pair["chosen"], pair["rejected"]] and row["scores"][0] > row["scores"][1]
    for row, pair in zip(lab.rows(6, ("policy", "win_probabilities"), seed=4), plain, strict=True):
        p = lab.Annotator().probability(pair["prompt"], pair["chosen"], pair["rejected"])
        assert row["win_probabilities"] == pytest.approx([(p + 0.5) / 2, (1 - p + 0.5) / 2])


def test_rankings_are_different_responses_with_falling_scores_and_repeat_with_their_seed():
    rows = lab.rankings(40, 4, seed=5)
    assert rows == lab.rankings(40, 4, seed=5) != lab.rankings(40, 4, seed=6)
    for row in rows:
        assert len(set(row["responses"])) == 4 and all(row["responses"])
        assert row["scores"] == sorted(row["scores"], reverse=True)
    with pytest.raises(ValueError, match="at least 2 responses, got k=1"):
        lab.rankings(1, 1)


def test_the_best_of_a_ranking_is_that_of_plackett_and_luce():
    """With one right response among those of a row, it comes first with probability e^r / (e^r + 3)."""
    one_right = [r for r in lab.rankings(1500, 4, seed=1) if sum(lab.gold(r["prompt"], y) for y in r["responses"]) == 1]
    first = sum(lab.gold(r["prompt"], r["responses"][0]) for r in one_right) / len(one_right)
    assert len(one_right) > 200
    assert first == pytest.approx(9 / (9 + 3), abs=0.1)
