"""An update in two parts, and two trainers of one policy."""

import pytest
import torch
from parts import made

from pref_toolkit.training.objective import Objective
from pref_toolkit.training.trainer import Trainer

SETTINGS = {"learning_rate": 1e-2, "held_out": 0}


def weights_of(trainer):
    return [weight.detach().clone() for weight in trainer.weights.values()]


def assert_same_bits(ones, others):
    assert len(ones) == len(others) > 0 and all(torch.equal(one, other) for one, other in zip(ones, others))


def without_seconds(row):
    return {name: value for name, value in row.items() if name != "seconds"}


@pytest.mark.parametrize("method", ["dpo", "kto", "bco", "bradley_terry"])
def test_gradients_and_step_are_an_update(method, rows_for, quick):
    config = quick(**SETTINGS, lora_dropout=0.3)
    rows, weights = [], []
    for whole in (True, False):
        _, trainer, data = made(rows_for(method), method, config)
        for step in range(3):
            if whole:
                row = trainer.update(data.batch(step), config.rate(step))
            else:
                row = trainer.step(trainer.gradients(data.batch(step)), config.rate(step))
            rows.append(without_seconds(row))
        weights.append(weights_of(trainer))
    assert rows[:3] == rows[3:]
    assert_same_bits(*weights)


def test_gradients_without_a_step_change_nothing(rows, quick):
    _, trainer, data = made(rows, "dpo", quick(**SETTINGS))
    before = weights_of(trainer)
    first = trainer.gradients(data.batch(0)).losses
    gradients = [weight.grad.clone() for weight in trainer.weights.values()]
    assert torch.equal(trainer.gradients(data.batch(0)).losses, first)
    assert_same_bits(gradients, [weight.grad for weight in trainer.weights.values()])
    assert_same_bits(before, weights_of(trainer))


def second_of(policy, method, config):
    """One more adapter, which begins as a copy of the policy's, and its trainer."""
    policy.copy("policy", "second")
    return Trainer(policy, Objective.of(method, policy="second"), config)


@pytest.mark.parametrize("settings", [{}, {"tokens_per_forward": 60}, {"gradient_checkpointing": True}])
def test_two_trainers_of_one_policy_do_not_disturb_each_other(settings, rows, quick):
    """Each makes the updates that it makes alone; here the second makes its own between gradients and step of the first."""
    config = quick(**SETTINGS, **settings)
    alone = []
    for method in ("dpo", "simpo"):
        _, trainer, data = made(rows, method, config)
        alone.append(([trainer.update(data.batch(step), 1e-2)["loss"] for step in range(3)], weights_of(trainer)))
    policy, first, data = made(rows, "dpo", config)
    second = second_of(policy, "simpo", config)
    losses = [[], []]
    for step in range(3):
        update = first.gradients(data.batch(step))
        losses[1].append(second.update(data.batch(step), 1e-2)["loss"])
        losses[0].append(first.step(update, 1e-2)["loss"])
    for trainer, found, (expected, weights) in zip((first, second), losses, alone):
        assert found == expected
        assert_same_bits(weights_of(trainer), weights)


def test_a_policy_of_two_trained_adapters_is_restored(rows_for, quick):
    config, rows, ends = quick(**SETTINGS), rows_for("kto"), []
    for stopped in (False, True):
        policy, first, data = made(rows, "kto", config)
        second = second_of(policy, "bco", config)
        for step in range(4):
            if stopped and step == 2:
                state = [{name: value.clone() for name, value in p.state().items()} for p in (policy, first, second)]
                policy, first, data = made(rows, "kto", config)
                second = second_of(policy, "bco", config)
                for part, kept in zip((policy, first, second), state):
                    part.restore(kept)
            for trainer in (first, second):
                trainer.update(data.batch(step), 1e-2)
        ends.append(weights_of(first) + weights_of(second))
    assert_same_bits(*ends)


def test_a_fresh_optimiser_forgets(rows, quick):
    _, trainer, data = made(rows, "dpo", quick(**SETTINGS))
    before = weights_of(trainer)
    trainer.update(data.batch(0), 1e-2)
    after = weights_of(trainer)
    with torch.no_grad():
        for weight, value in zip(trainer.weights.values(), before):
            weight.copy_(value)
    trainer.forget()
    trainer.update(data.batch(0), 1e-2)
    assert_same_bits(weights_of(trainer), after)
