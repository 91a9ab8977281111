"""The settings of a run. A field here, a flag of ``pref-toolkit train`` and a key of its YAML file are one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pref_toolkit.errors import Complaint
from pref_toolkit.ranges import AtLeast, Range, fault_of

Count = Annotated[int, AtLeast(1)]
CountFromZero = Annotated[int, AtLeast(0)]
NonNegative = Annotated[float, Range(0, closed=True)]


@dataclass(frozen=True)
class TrainConfig:
    """How to train. What to train with (method, its hyperparameters, model, data) is said beside it.

    Args:
        output: directory of the run; nothing is written if not given.
        resume: continue the run in ``output`` from its newest checkpoint that is whole.
        seed: of the adapter's first weights, the order of the examples, dropout and samples.
        epochs: passes over the training examples, if ``max_steps`` is not given.
        max_steps: number of updates.
        batch_size: examples in an update, over all devices.
        tokens_per_forward: tokens that go through the model at once; an update takes as many forwards as it needs.
        max_length: tokens in prompt + response. Longer responses are cut, prompts that fill it are left out, both counted.
        learning_rate: of AdamW, after the warm-up.
        warmup_steps: updates over which the learning rate rises linearly to its value; constant afterwards.
        weight_decay: of AdamW.
        max_grad_norm: gradients are scaled down to this norm.
        lora_rank: rank of the adapters on all linear layers.
        lora_alpha: their scale is ``lora_alpha / lora_rank``; twice the rank if not given.
        lora_dropout: dropout inside the adapters. All other dropout is off, for the policy as for the reference.
        held_out: examples kept out of training and scored before and after it.
        samples: prompts answered before and after training, and at each checkpoint to measure the KL to the reference.
        sample_tokens: longest such answer, in tokens.
        save_every: updates between checkpoints.
        keep: newest checkpoints to keep.
        reference: ``start``, the policy as it was handed over, with the adapter it may have; or ``base``, without any adapter.
        route: how responses are scored, see :mod:`pref_toolkit.training.routes`; ``rows`` is the plain one.
        gradient_checkpointing: run each layer again in the backward rather than keep what it computed: less memory, more time.
        precision: of the frozen weights; ``auto`` is bfloat16 on a GPU that has it and float32 elsewhere.
        reference_store: directory that keeps the reference's log-probabilities from run to run: each example is scored once for
            all epochs, methods and hyperparameters, and never again. In a single epoch it saves nothing.
        on_bad_row: ``stop`` at a malformed row of the data, or ``skip`` and count it.
        log_with: also send the metrics to this tracker, through accelerate.
    """

    output: str | None = None
    resume: bool = False
    seed: CountFromZero = 0
    epochs: NonNegative = 1.0
    max_steps: Count | None = None
    batch_size: Count = 8
    tokens_per_forward: Count = 8192
    max_length: Annotated[int, AtLeast(2)] = 1024
    learning_rate: NonNegative = 1e-4
    warmup_steps: CountFromZero = 0
    weight_decay: NonNegative = 0.0
    max_grad_norm: NonNegative = 1.0
    lora_rank: Count = 16
    lora_alpha: Count | None = None
    lora_dropout: Annotated[float, Range(0, closed=True, high=1)] = 0.0
    held_out: CountFromZero = 200
    samples: CountFromZero = 8
    sample_tokens: Count = 64
    save_every: Count = 100
    keep: Count = 2
    reference: Literal["start", "base"] = "start"
    route: Literal["auto", "segments", "mask", "rows"] = "auto"
    gradient_checkpointing: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    reference_store: str | None = None
    on_bad_row: Literal["stop", "skip"] = "stop"
    log_with: Literal["tensorboard", "wandb"] | None = None

    def __post_init__(self) -> None:
        if (fault := fault_of(self)) is not None:
            raise Complaint(fault)
        if self.resume and self.output is None:
            raise Complaint("resume needs output: the directory of the run to continue")

    def rate(self, step: int) -> float:
        """The learning rate of an update: linear warm-up, then constant."""
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))

    def total(self, examples: int) -> int:
        """Updates in the run: ``max_steps``, or those of ``epochs`` passes over so many examples, at least 1."""
        return self.max_steps or max(1, round(self.epochs * examples / self.batch_size))
