"""Prompts -> what a loop asks: as text for the judge, as ids for the policy."""

from __future__ import annotations

from typing import Any

from pref_toolkit.data import DataError, Report, encode_prompt
from pref_toolkit.data.rows import read_prompts
from pref_toolkit.data.tokens import Encoded, NothingFits, encode, longest_of
from pref_toolkit.errors import ModelError
from pref_toolkit.loops.asked import Asked
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.dataset import Data, digest_of


class Prompts(Data):
    """The data of a run that draws its answers: nothing to train on yet, and prompts."""

    asked: list[Asked]

    def __str__(self) -> str:
        return f"{len(self.asked)} prompts"


def read(source: Any, tokenizer: Any, config: TrainConfig, positions: int | None, needs_answers: bool) -> Prompts:
    """Read and tokenise prompts.

    Args:
        source: see :func:`pref_toolkit.data.rows.read_prompts`.
        tokenizer: the model's.
        config: how to train.
        positions: how many the model has; None: no limit.
        needs_answers: whether each row must have an answer of its own.

    Raises:
        DataError: for a malformed row, one that lacks its answer, or one whose prompt leaves no room for it in ``max_length``.
        ModelError: naming a prompt that leaves no room for an answer of ``sample_tokens``.
    """
    examples, report = read_prompts(source), Report()
    asked: list[Asked] = []
    for example in examples:
        answer = None
        if example.responses and needs_answers:
            try:
                (encoded,) = encode([example], tokenizer, max_length=config.max_length, report=report)
            except NothingFits as error:
                told = f"its prompt has {error.shortest} tokens and max_length is {config.max_length}"
                raise DataError(f"{example.where}: {told}; raise max_length, or leave the row out") from None
            ids, answer = encoded.prompt, encoded.responses[0]
        elif needs_answers:
            raise DataError(
                f"{example.where}: this loop needs an answer beside the prompt: give pairs, or field 'answer'"
            )
        else:
            prompt = example.prompt if isinstance(example.prompt, str) else list(example.prompt)
            ids = encode_prompt(tokenizer, prompt)
        if positions is not None and len(ids) + config.sample_tokens > positions:
            raise ModelError(
                f"{example.where}: {len(ids)} tokens of prompt and {config.sample_tokens} of answer, and the model has "
                f"{positions} positions: lower sample_tokens, or leave the prompt out"
            )
        text = example.prompt if isinstance(example.prompt, str) else tokenizer.decode(ids, skip_special_tokens=True)
        asked.append(Asked(text, ids, example.where, answer, example.prompt))
    # An answer of one token stands for those to come: what is shown and how long it is depends on prompts alone.
    shown = [Encoded(a.ids, [a.ids[-1:]], a.where) for a in asked[: config.samples]]
    longest = max(len(a.ids) for a in asked) + config.sample_tokens
    own = [Encoded(a.ids, [a.answer], a.where) for a in asked if a.answer]
    digest = digest_of([[a.ids, a.answer] for a in asked])
    made = Prompts([], [], shown, max(longest, longest_of(own)), report, digest, config)
    object.__setattr__(made, "asked", asked)
    return made
