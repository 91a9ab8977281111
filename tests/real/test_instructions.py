"""Instructions with a constraint: their splits, and what the program that judges calls right."""

from collections import Counter

import pytest

from pref_toolkit.real.instructions import (
    ALL_KINDS,
    KINDS,
    NEW_KINDS,
    Instruction,
    new_kinds,
    requests,
    trained,
    unseen,
)

TRAINED, UNSEEN, NEW = trained(), unseen(), new_kinds()


def test_the_splits_share_no_request_and_the_new_kinds_are_new():
    assert (len(TRAINED), len(UNSEEN), len(NEW)) == (300, 200, 100)
    assert len(requests()) == len(set(requests())) == 125
    asked = {i.request for i in TRAINED}
    assert asked.isdisjoint(i.request for i in UNSEEN + NEW)
    assert {i.kind for i in TRAINED} == {i.kind for i in UNSEEN} == set(KINDS)
    assert {i.kind for i in NEW} == set(NEW_KINDS)


@pytest.mark.parametrize("split", [TRAINED, UNSEEN, NEW])
def test_kinds_are_equally_frequent_and_a_request_has_each_once(split):
    counts = Counter(i.kind for i in split).values()
    assert max(counts) - min(counts) <= 1
    assert len({(i.request, i.kind) for i in split}) == len(split)


def test_the_splits_are_the_same_each_time():
    assert trained() == TRAINED
    assert TRAINED[0].prompt.startswith("Explain why the sky is blue. ")


KEPT = {  # kind, value: answers that keep it, answers that do not
    ("sentences", "one sentence"): (["It is."], ["It is. It was.", "Is it? It is"]),
    ("sentences", "two sentences"): (["One. Two.", "One! Two"], ["One.", "One. Two. Three."]),
    ("words", "10"): (["one two three", "a b c d e f g h i j"], ["a b c d e f g h i j k"]),
    ("use", "time"): (["Time flies.", "in no time"], ["Sometimes.", "timeless"]),
    ("avoid", "the"): (["Then they left.", "Others"], ["The end", "to the sea"]),
    ("letter", "k"): (["No such letter."], ["A kite", "Kites", "milk"]),
    ("lower", ""): (["all lower, 2 of them."], ["One capital", "ONE"]),
    ("beginning", "Well"): (["Well, it is.", "well"], ["It is well", "Wells are deep"]),
    ("ending", "the end"): (["This is the end.", "The End"], ["The end is near.", "end"]),
    ("exclamation", ""): (["Yes!"], ["Yes.", "! no"]),
    ("commas", ""): (["No such sign."], ["Yes, one."]),
    ("list", "2"): (["- one\n- two", "- one\n\n- two\n"], ["- one", "one\ntwo", "- one\n- two\n- three", "- one\ntwo"]),
    ("json", "text"): (
        ['{"text": "one"}', '{"text": [1]}'],
        ["text", '{"answer": 1}', '{"text": 1, "a": 2}', "[1]", "7"],
    ),
    ("question", ""): (["Is it?"], ["It is."]),
    ("digits", ""): (["It is 5."], ["It is five."]),
    ("quotes", ""): (['"All of it."'], ['"Some" of it', '"', '""']),
    ("long", "30"): ([" ".join(["word"] * 30)], [" ".join(["word"] * 29)]),
    ("french", ""): (["Le ciel est bleu.", "Il y a un livre dans la maison."], ["The sky is blue.", "Un cafe please"]),
}


@pytest.mark.parametrize(("kind", "value"), KEPT)
def test_the_program_that_judges(kind, value):
    kept, broken = KEPT[kind, value]
    judged = Instruction("Speak.", kind, value).kept_by
    assert all(map(judged, kept)), [a for a in kept if not judged(a)]
    assert not any(map(judged, [*broken, "", "  \n"])), [a for a in broken if judged(a)]


def test_every_kind_and_value_has_been_tried():
    assert {kind for kind, _ in KEPT} == set(ALL_KINDS)
    for kind, value in KEPT:
        assert value in ALL_KINDS[kind].values, (kind, value)
