"""The objects of a run, made as ``train`` makes them, for a test to hold."""

import torch

from pref_toolkit.training import adapters
from pref_toolkit.training.dataset import Data
from pref_toolkit.training.models import tiny
from pref_toolkit.training.objective import Objective
from pref_toolkit.training.policy import Policy
from pref_toolkit.training.trainer import Trainer
from pref_toolkit.training.watch import Watch


def made(rows, method, config, accelerator=None, loaded=None, **hyperparameters):
    """Policy, trainer and data of a model that was loaded, or a tiny one; of the reference nothing is known yet."""
    objective = Objective.of(method, hyperparameters)
    torch.manual_seed(config.seed)
    model, tokenizer = loaded or tiny()
    data = Data.of(rows, tokenizer, objective, config, None)
    head = adapters.new_reward_head if objective.trains_rewards else None
    policy = Policy.to_train(model, tokenizer, config, data.longest, head, accelerator)
    return policy, Trainer(policy, objective, config), data


def begun(run, rows, method="dpo", loaded=None):
    """The same of a run that has begun, ready for its first update."""
    policy, trainer, data = made(rows, method, run.config, run.accelerator, loaded)
    run.begin(policy, trainer.objective, data, Watch(trainer, data))
    trainer.prepare(data.training, run.stop_if_told)
    return policy, trainer, data


def updates(trainer, data, number):
    """Make so many updates: each is yielded when its gradients are there, and its step is made when the next is asked for."""
    for step in range(number):
        update = trainer.gradients(data.batch(step))
        yield update
        trainer.step(update, trainer.config.rate(step))


def asked_of_the_reference(policy):
    """A list that fills with each forward without gradient and dropout: its readings and its number of examples."""
    asked = []

    def note(scorer, inputs):
        batch, *more = inputs
        if not torch.is_grad_enabled() and not any(module.training for module in scorer.model.modules()):
            asked.append((*(more[0] if more else ["sums"]), len(batch.tokens)))

    policy.scorer().register_forward_pre_hook(note)
    return asked
