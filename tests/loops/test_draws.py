"""Draws become examples, and rows that a run can read again."""

import json
from dataclasses import replace

import pytest

from pref_toolkit.cli import main
from pref_toolkit.loops.asked import Asked
from pref_toolkit.loops.draws import Draws

ASKED = [Asked("1 + 1 =", [5, 6], "prompts:1", [2, 0]), Asked("2 + 1 =", [5, 7], "prompts:2")]
DRAWS = Draws(
    ASKED,
    [[[1, 0], [2, 0], [3]], [[4, 0], [4, 0], [5, 0]]],
    [["1", "2", "3"], ["4", "4", "5"]],
    [[0.0, 2.0, 1.0], [7.0, 7.0, -1.0]],
)


def test_all_answers_best_first():
    first, second = DRAWS.ranked()
    assert first.responses == [[2, 0], [3], [1, 0]] and first.scores == (2.0, 1.0, 0.0)
    assert second.responses == [[4, 0], [4, 0], [5, 0]] and second.where == "prompts:2" and second.prompt == [5, 7]


def test_the_best_against_the_worst():
    assert [e.responses for e in DRAWS.pairs()] == [[[2, 0], [1, 0]], [[4, 0], [5, 0]]]


def test_the_best_against_the_worst_with_the_datas_own_answer():
    assert [(e.responses, e.target) for e in DRAWS.anchored()] == [([[2, 0], [1, 0]], [2, 0]), ([[4, 0], [5, 0]], None)]


def test_how_many_others_each_beats():
    assert [e.win_probabilities for e in DRAWS.duels()] == [(1.0, 0.0), (0.75, 0.0)]  # of two equal ones, each half


def test_the_greedy_answers_score_is_taken_off():
    less = DRAWS.less_greedy()
    assert less.answers == [[[1, 0], [2, 0]], [[4, 0], [4, 0]]] and less.scores == [[-1.0, 1.0], [8.0, 8.0]]


def test_what_a_token_was_drawn_with_goes_where_its_answer_goes():
    logps = [[[-1.0, -1.5], [-2.0, -2.5], [-3.0]], [[-4.0, -4.5], [-4.0, -4.5], [-5.0, -5.5]]]
    drawn = replace(DRAWS, logps=logps)
    assert Draws.of_rows(ASKED, [json.loads(json.dumps(row)) for row in drawn.rows()]) == drawn
    assert drawn.ranked()[0].drawn_logps == ((-2.0, -2.5), (-3.0,), (-1.0, -1.5))


def test_the_datas_own_answer_against_the_drawn_one():
    (pair,) = DRAWS.beaten()  # the second prompt has none
    assert pair.responses == [[2, 0], [1, 0]]


def test_a_draw_against_another():
    worse = Draws(ASKED, [[[8, 0]], [[9, 0]]], [["8"], ["9"]])
    assert [e.responses for e in DRAWS.over(worse)] == [[[1, 0], [8, 0]], [[4, 0], [9, 0]]]


def test_rows_are_read_again_as_they_were():
    rows = [json.loads(json.dumps(row)) for row in DRAWS.rows()]
    assert Draws.of_rows(ASKED, rows) == DRAWS
    unjudged = Draws(ASKED, DRAWS.answers, DRAWS.texts)
    assert Draws.of_rows(ASKED, unjudged.rows()) == unjudged


def test_check_data_accepts_what_was_judged(tmp_path, capsys):
    path = tmp_path / "draws.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in DRAWS.rows()))
    assert main(["check-data", str(path)]) == 0, capsys.readouterr().out


def test_what_a_line_of_metrics_says():
    measured = DRAWS.measured()
    assert measured == {"score": pytest.approx(16 / 6), "drawn_tokens": 11 / 6, "drawn": 6, "judged": 6}


def test_a_single_answer_that_nobody_judged_is_called_the_worse():
    alone = replace(DRAWS.only([[0], [2]]), scores=[])
    rows = alone.rows()
    assert rows[1] == {"prompt": "2 + 1 =", "completion": "5", "label": False, "tokens": [[5, 0]]}
    assert Draws.of_rows(ASKED, rows) == alone
