"""The language, its true reward and its tokenizer."""

import random

import pytest

from pref_toolkit import lab
from pref_toolkit.lab.language import answer, operand_pairs, said_in_every_style
from pref_toolkit.lab.tokenizer import build_tokenizer


@pytest.mark.parametrize(
    "response", ["39", "it is 39", "the answer is 39 thank you", "39 thanks", " 39 ", "thanks 39 it"]
)
def test_gold_is_right(response):
    assert lab.gold("12+27=", response) == 1.0


@pytest.mark.parametrize(
    "response",
    [
        "",
        "it is",
        "38",
        "it is 93",
        "039",
        "3 9",
        "39 39",
        "39 40",
        "it is 39 thanks 39",
        "-39",
        "39.",
        "39.0",
        "x39",
        "٣٩",
        "39²",
    ],
)
def test_gold_is_wrong(response):
    assert lab.gold("12+27=", response) == 0.0


@pytest.mark.parametrize("prompt", ["", "12+27", "12 + 27=", "12-27=", "12+27=39", "what is 12+27="])
def test_gold_refuses_what_is_no_prompt(prompt):
    with pytest.raises(ValueError, match=r"reads like '12\+27='"):
        lab.gold(prompt, "39")


def test_length_and_politeness():
    assert [lab.words(r) for r in ("39", "it is 39 thank you", "")] == [1, 5, 0]
    assert [lab.politeness(r) for r in ("39", "39 thanks", "39 thank you", "thankless 39")] == [0, 1, 1, 0]


def test_splits_share_no_sum_in_either_order():
    train, test = operand_pairs("train"), operand_pairs("test")
    assert not {frozenset(pair) for pair in train} & {frozenset(pair) for pair in test}
    assert len(train) + len(test) == 70 * 70
    assert len(test) > 1000 and len(train) > 3000
    with pytest.raises(ValueError, match="'train' or 'test'"):
        operand_pairs("dev")


def test_prompts_repeat_only_after_all_have_come():
    size = len(operand_pairs("test"))
    drawn = lab.prompts(size + 10, 3, "test")
    assert len(drawn) == size + 10
    assert sorted(drawn[:size]) == sorted(f"{a}+{b}=" for a, b in operand_pairs("test"))
    assert drawn == lab.prompts(size + 10, 3, "test")
    assert drawn != lab.prompts(size + 10, 4, "test")


def test_every_prompt_and_response_survives_the_tokenizer():
    tokenizer = build_tokenizer()
    for split in ("train", "test"):
        for prompt in lab.prompts(200, 0, split):
            for text in (prompt, *said_in_every_style(answer(prompt)), prompt + str(answer(prompt))):
                ids = tokenizer(text, add_special_tokens=False).input_ids
                assert tokenizer.unk_token_id not in ids
                assert tokenizer.decode(ids) == text


def test_every_sequence_of_ordinary_tokens_survives_the_tokenizer():
    """So that a sampled response, decoded and read back as a training row, is the one that was sampled."""
    tokenizer = build_tokenizer()
    ordinary = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]
    rng = random.Random(0)
    for _ in range(500):
        ids = rng.choices(ordinary, k=rng.randint(1, 9))
        assert tokenizer(tokenizer.decode(ids), add_special_tokens=False).input_ids == ids


def test_a_digit_and_a_word_are_one_token_each():
    tokenizer = build_tokenizer()
    assert tokenizer.convert_ids_to_tokens(tokenizer("12+27=it is 39").input_ids) == [
        "<s>", "1", "2", "+", "2", "7", "=", "it", "is", "3", "9",
    ]  # fmt: skip
