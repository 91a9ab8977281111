"""The training loop."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from pref_toolkit.training import adapters, models
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.dataset import Data
from pref_toolkit.training.objective import Objective
from pref_toolkit.training.policy import Policy
from pref_toolkit.training.protocols import Adapted, CausalLM, Tokenizer
from pref_toolkit.training.run import History, Run
from pref_toolkit.training.trainer import Trainer
from pref_toolkit.training.watch import Watch


def train(
    model: str | CausalLM | Adapted,
    tokenizer: Tokenizer | None,
    examples: Any,
    method: str = "dpo",
    config: TrainConfig | None = None,
    weights: Sequence[float] | None = None,
    **hyperparameters: float | str,
) -> History:
    """Train a policy's LoRA adapter on preference examples; of a reward model, the reward head too.

    Several devices are used if the process was started by ``accelerate launch`` or ``torchrun``.

    Args:
        model: a causal LM, a PeftModel, a hub id, a directory, ``"tiny"`` or ``"lab"``. An adapter that was trained before is
            trained on, and what it was is the reference, unless ``config.reference`` is ``"base"``.
        tokenizer: the model's tokenizer; None if the model is a name.
        examples: rows (dicts, a path, or a ``datasets.Dataset``) in any accepted form, see :mod:`pref_toolkit.data`.
        method: a name in :data:`pref_toolkit.losses.METHODS`, or several joined by ``+``: a mixture, see
            :class:`pref_toolkit.losses.Mixture`.
        config: how to train.
        weights: of the parts of a mixture, in their order; 1 each if not given.
        hyperparameters: the method's own, in its paper's symbols; of a mixture, with the part's name before: ``dpo_beta``.

    Raises:
        Complaint: for an unknown method or hyperparameter, bad data, or a checkpoint of another run; in one sentence.
        NotFiniteError: naming the step and row or tensor, if a weight, loss or gradient is not finite.
        Terminated: after SIGTERM, Ctrl-C or SIGHUP, with a checkpoint saved.
    """
    config = config or TrainConfig()
    reference = {"start": "start", "base": None}[config.reference]
    objective = Objective.of(method, hyperparameters, weights=weights, reference=reference)
    torch.manual_seed(config.seed)
    with Run.open(config) as run:
        name = model if isinstance(model, str) else None
        if isinstance(model, str):
            model, tokenizer = models.load(model, precision=config.precision)
        assert tokenizer is not None, "a model that is not a name comes with its tokenizer"
        positions = getattr(model.config, "max_position_embeddings", None)
        data = Data.of(examples, tokenizer, objective, config, positions)
        head = partial(adapters.reward_head, name) if objective.trains_rewards else None
        policy = Policy.to_train(model, tokenizer, config, data.longest, head, run.accelerator)
        trainer = Trainer(policy, objective, config)
        run.begin(policy, objective, data, Watch(trainer, data))
        trainer.prepare(data.training, run.stop_if_told)
        batch, total = data.batch, config.total(len(data.training))
        for step in run.steps(total, policy=policy, trainer=trainer):
            run.log(step, trainer.update(batch(step), config.rate(step)))
        return run.finish()
