"""A reward model as judge: the one that a run has trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pref_toolkit.data import Report, encode
from pref_toolkit.data.examples import Example
from pref_toolkit.errors import Complaint
from pref_toolkit.training.policy import Policy


class RewardJudge:
    """Scores answers by the reward of a reward model. It reads chats as they are, with its own tokenizer and template.

    Args:
        name: the directory of a run with a method such as ``bradley_terry``.

    Raises:
        Complaint: if the run trained no reward model.
    """

    reads_chats = True

    def __init__(self, name: str) -> None:
        self.policy = Policy.load(name)
        if self.policy.head() is None:
            raise Complaint(f"{name} holds no reward model: train one with --method bradley_terry")

    def __call__(self, prompts: Sequence[Any], answers: Sequence[Sequence[str]]) -> list[list[float]]:
        rows = [_row(prompt, text) for prompt, own in zip(prompts, answers) for text in own]
        examples = encode(rows, self.policy.tokenizer, max_length=None, report=Report())
        rewards = iter(self.policy.rewards(examples, what="judge")[:, 0].tolist())
        return [[next(rewards) for _ in own] for own in answers]


def _row(prompt: Any, text: str) -> Example:
    """One answer alone: of several that are the same, each gets its reward."""
    said: Any = text if isinstance(prompt, str) else ({"role": "assistant", "content": text},)
    return Example(prompt, (said,), "the judge's answer")
