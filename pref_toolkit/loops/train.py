"""Train a policy with a loop: a method that draws its own answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import Complaint
from pref_toolkit.loops import judges, prompts, streams
from pref_toolkit.loops.asked import Asked
from pref_toolkit.loops.config import LoopConfig
from pref_toolkit.loops.judges import Judge
from pref_toolkit.loops.presets import find, settings_of
from pref_toolkit.loops.session import Session
from pref_toolkit.training import models
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
    asked: Any,
    method: str = "online_dpo",
    judge: Judge | None = None,
    config: TrainConfig | None = None,
    settings: LoopConfig | None = None,
    **hyperparameters: float | str,
) -> History:
    """Train a policy's LoRA adapter on answers that it draws itself.

    Args:
        model, tokenizer: as for :func:`pref_toolkit.training.loop.train`.
        asked: prompts: a path, rows with a ``prompt``, preferences, or the prompts themselves. For a loop of streams
            preferences in the order in which they came; of several domains, a list of such, or files with commas between.
        method: a name in :data:`pref_toolkit.loops.presets.LOOPS`.
        judge: who scores the answers; None: the one that ``settings.judge`` names.
        config: how to train; without ``max_steps``, ``epochs`` passes over the prompts.
        settings: how to draw and judge; see :func:`pref_toolkit.loops.presets.settings_of` for the loop's own defaults. One
            that the loop does not read keeps its default.
        hyperparameters: the loss's own, in its paper's symbols; those not given are the loop's, then the loss's.

    Raises:
        Complaint: for an unknown loop or hyperparameter, a setting that the loop does not read, bad prompts, a judge that fails
            or is not asked, several processes, or a checkpoint of another run; in one sentence.
        NotFiniteError, Terminated: as for :func:`pref_toolkit.training.loop.train`.
    """
    loop = find(method)
    config, settings = config or TrainConfig(), settings_of(method, **vars(settings) if settings else {})
    if judge is not None and not loop.asks:
        raise Complaint(f"{method} asks no judge, and was given one")
    if loop.asks and judge is None:
        if settings.judge is None:
            raise Complaint(f"{method} asks a judge: name one with judge=module:function")
        judge = judges.load(settings.judge)
    objective = Objective.of(
        loop.loss, {**loop.hyperparameters, **hyperparameters}, reference=loop.reference, opponent="opponent"
    )
    if (why := loop.fault(settings, objective.settings)) is not None:
        raise Complaint(why)
    torch.manual_seed(config.seed)
    with Run.open(config) as run:
        if run.accelerator.num_processes > 1:
            raise Complaint(f"{method} runs in one process, got {run.accelerator.num_processes}")
        if isinstance(model, str):
            model, tokenizer = models.load(model, precision=config.precision)
        assert tokenizer is not None, "a model that is not a name comes with its tokenizer"
        positions = getattr(model.config, "max_position_embeddings", None)
        given: list[Asked] = []
        domains: list[list[Encoded]] = []
        data: Data
        if loop.streams:
            data = preferences = streams.read(asked, loop.streams, tokenizer, objective, config, positions)
            domains = preferences.domains
        else:
            data = questions = prompts.read(asked, tokenizer, config, positions, needs_answers=loop.answered)
            given = questions.asked
        policy = Policy.to_train(model, tokenizer, config, data.longest, None, run.accelerator)
        trainer = Trainer(policy, objective, config)
        drawn = {f"loop {name}": value for name, value in asdict(settings).items() if name != "judge_limit"}
        total = config.total(len(given) or len(data.training))
        drawn["loop updates"] = total  # on which the length of a round depends
        run.begin(policy, objective, data, Watch(trainer, data), method=method, **drawn)
        trainer.prepare([])
        loop.run(Session(run, policy, trainer, config, settings, given, judge, total, domains))
        return run.finish()
