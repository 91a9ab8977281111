"""Rows -> examples to train on and examples held out, and which of them an update takes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pref_toolkit.data.report import Report
from pref_toolkit.data.tokens import Encoded, longest_of, prepare
from pref_toolkit.errors import ModelError
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.objective import Objective
from pref_toolkit.training.protocols import Tokenizer


@dataclass(frozen=True)
class Data:
    """The examples of a run.

    Args:
        training: to train on.
        held_out: scored before and after training.
        shown: examples whose prompts the policy answers before and after training.
        longest: most tokens in a prompt + response that will be scored.
        report: everything left out or changed of the rows.
        digest: a hash of all examples.
        config: of the run.
    """

    training: list[Encoded]
    held_out: list[Encoded]
    shown: list[Encoded]
    longest: int
    report: Report
    digest: str
    config: TrainConfig

    def __str__(self) -> str:
        return f"{len(self.training)} examples, {len(self.held_out)} held out"

    @classmethod
    def of(
        cls, rows: Any, tokenizer: Tokenizer, objective: Objective, config: TrainConfig, positions: int | None
    ) -> Data:
        """Read, tokenise, check and split rows.

        Args:
            rows: dicts, a path, or a ``datasets.Dataset``, see :mod:`pref_toolkit.data`.
            tokenizer: the model's.
            objective: whose method must be able to learn from them.
            config: how to train.
            positions: how many the model has; None: no limit.

        Raises:
            DataError: see :func:`pref_toolkit.data.prepare` and :meth:`pref_toolkit.training.objective.Objective.accept`.
            ModelError: naming the first example that is longer than the model has positions.
        """
        encoded, report = prepare(rows, tokenizer, max_length=config.max_length, on_bad_row=config.on_bad_row)
        encoded = objective.accept(encoded, report, config.on_bad_row)
        check_positions(encoded, positions)
        training, held_out = split(encoded, config)
        # A reward model answers nothing.
        asked = [] if objective.trains_rewards else (held_out or training)
        shown = [e for e in asked if positions is None or len(e.prompt) + config.sample_tokens <= positions]
        shown = shown[: config.samples]
        longest = max(longest_of(encoded), max((len(e.prompt) + config.sample_tokens for e in shown), default=0))
        digest = digest_of([asdict(e) | {"where": None} for e in encoded])
        return cls(training, held_out, shown, longest, report, digest, config)

    def batch(self, step: int) -> list[Encoded]:
        """The training examples of an update."""
        return [self.training[i] for i in indices(step, self.config, len(self.training))]


def split(examples: list[Encoded], config: TrainConfig) -> tuple[list[Encoded], list[Encoded]]:
    """Training and held-out examples, drawn with the run's seed; at most half are held out."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(config.seed)).tolist()
    held = min(config.held_out, len(examples) // 2)
    return [examples[i] for i in sorted(order[held:])], [examples[i] for i in sorted(order[:held])]


def indices(step: int, config: TrainConfig, examples: int) -> list[int]:
    """The training examples of an update: the next ``batch_size`` of an endless row of shuffled passes.

    A pure function of step and seed: a continued run needs no state of an iterator, and no example is dropped at the end of
    a pass.
    """
    passes: dict[int, list[int]] = {}
    out = []
    for place in range(step * config.batch_size, (step + 1) * config.batch_size):
        number, offset = divmod(place, examples)
        if number not in passes:
            shuffle = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
            passes[number] = torch.randperm(examples, generator=shuffle).tolist()
        out.append(passes[number][offset])
    return out


def check_positions(examples: list[Encoded], positions: int | None) -> None:
    """Refuse examples that are longer than the model has positions.

    Raises:
        ModelError: naming the first such example.
    """
    for example in examples:
        if positions is not None and longest_of([example]) > positions:
            raise ModelError(
                f"{example.where}: {longest_of([example])} tokens of prompt + response, and the model has "
                f"{positions} positions: set max_length to {positions} or less"
            )


def digest_of(content: Any) -> str:
    """A short hash of something that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
