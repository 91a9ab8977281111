"""How this toolkit is driven: the gradients of an update as the training loop makes them, without the optimiser's step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import workload
from accelerate.state import AcceleratorState
from torch import nn

from pref_toolkit import TrainConfig
from pref_toolkit.data.batches import Batch
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.training import processes
from pref_toolkit.training.models import tiny
from pref_toolkit.training.objective import Objective
from pref_toolkit.training.policy import Policy
from pref_toolkit.training.references import Readings
from pref_toolkit.training.routes import Asked
from pref_toolkit.training.scoring import Scorer
from pref_toolkit.training.trainer import Trainer

ONE_FORWARD = 10**9
"""Tokens in a forward, for updates that are not to be divided."""


class Ours:
    """A :class:`~pref_toolkit.training.trainer.Trainer`, of which only gradients are asked.

    Args:
        base: a causal language model, frozen; its parameters are shared.
        method: a name in ``METHODS``.
        max_length: most tokens in prompt + response.
        route: how responses are scored.
        stored: whether the reference's log-probabilities are read rather than computed: :meth:`store` computes them.
        checkpointing: whether layers are run again on the way back rather than kept.
        alone: give every response a packed row of its own, so that no prompt is shared.
        tokens_per_forward: most tokens that go through the model at once.
    """

    def __init__(
        self,
        base: Any,
        method: str,
        *,
        max_length: int,
        route: Asked = "auto",
        stored: bool = False,
        checkpointing: bool = False,
        alone: bool = False,
        tokens_per_forward: int = ONE_FORWARD,
    ) -> None:
        config = TrainConfig(
            route=route,
            gradient_checkpointing=checkpointing,
            tokens_per_forward=tokens_per_forward,
            lora_rank=workload.RANK,
        )
        # accelerate has one precision for a process, and TRL's trainers may have set another one than that of the weights.
        AcceleratorState._reset_state()
        devices = processes.devices(mixed_precision="no")
        kind = Unshared if alone else Policy
        model, (_, tokenizer) = workload.sharing_weights(base), tiny()  # which nobody asks for a token
        policy = kind.to_train(model, tokenizer, config, max_length, accelerator=devices)
        workload.spread_adapters(policy.model)
        self.model, self.scorer = policy.model, policy.scorer()
        self.trainer = Trainer(policy, Objective.of(method), config)
        self.trainer.stored = stored
        self.stored: Readings | None = self.trainer.reference.stored if stored else None

    def step(self, examples: list[Encoded]) -> float:
        """The mean loss of the examples; gradients are left in the adapters."""
        return self.trainer.gradients(examples).losses.mean().item()

    def store(self, examples: list[Encoded]) -> None:
        """Compute the reference's log-probabilities of a batch, once."""
        assert self.stored is not None
        self.trainer.reference.keep(examples, self.trainer.objective.of_reference, lambda: None)

    def gradients(self) -> dict[str, torch.Tensor]:
        """By name of the adapter's weight."""
        return {name: value.grad for name, value in self.trainer.weights.items() if value.grad is not None}


class Unshared(Policy):
    """A policy whose responses are packed with a prompt of their own each."""

    def new_scorer(self, longest: int, head: nn.Linear | None) -> Scorer:
        return _Unshared(self.model, longest, self.config.route, head, self.config.gradient_checkpointing)


class _Unshared(Scorer):
    def collate(self, examples: Sequence[Encoded]) -> Batch:
        batch = super().collate([Encoded(e.prompt, [r], e.where) for e in examples for r in e.responses])
        return replace(batch, tokens=batch.tokens.view(len(examples), -1))
