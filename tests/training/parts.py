"""The objects of a run, made as ``train`` makes them, for a test to hold."""

import torch

from pref_toolkit.training.dataset import Data
from pref_toolkit.training.models import tiny
from pref_toolkit.training.objective import Objective
from pref_toolkit.training.policy import Policy
from pref_toolkit.training.trainer import Trainer
from pref_toolkit.training.watch import Watch


def made(rows, method, config, accelerator=None, **hyperparameters):
    """Policy, trainer and data of a tiny model; of the reference nothing is known yet."""
    objective = Objective.of(method, hyperparameters)
    torch.manual_seed(config.seed)
    model, tokenizer = tiny()
    data = Data.of(rows, tokenizer, objective, config, None)
    policy = Policy.to_train(model, tokenizer, config, data.longest, objective.trains_rewards, accelerator)
    return policy, Trainer(policy, objective, config), data


def begun(run, rows, method="dpo"):
    """The same of a run that has begun, ready for its first update."""
    policy, trainer, data = made(rows, method, run.config, run.accelerator)
    run.begin(policy, trainer.objective, data, Watch(trainer, data))
    trainer.prepare(data.training, run.stop_if_told)
    return policy, trainer, data
