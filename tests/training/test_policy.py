"""A policy's views: each says what its own adapter says, and leaves the model as it found it."""

from itertools import permutations, product

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from small import SHAPES, examples_of, model_of

from pref_toolkit.errors import Complaint
from pref_toolkit.training import models
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.policy import Policy

CONFIG = TrainConfig(lora_rank=4, lora_dropout=0.5)
VIEWS = [None, "policy", "previous", "opponent"]


def policy_of(seed=0):
    """A policy away from its base."""
    policy = Policy.to_train(model_of(SHAPES["llama"]), None, CONFIG, 64)
    return set_at_random(policy, "policy", seed)


def set_at_random(policy, view, seed):
    torch.manual_seed(seed)
    for weight in policy.weights(view).values():
        torch.nn.init.normal_(weight, std=0.1)
    return policy


def with_three_adapters():
    policy = policy_of()
    for seed, view in enumerate(VIEWS[2:], start=1):
        policy.copy("policy", view)
        set_at_random(policy, view, seed)
    return policy


def state_of(policy):
    """Which adapter is on, training modes of modules, which weights require a gradient, whether any is taken."""
    model = policy.model
    return (
        model.active_adapter,
        {name: module.training for name, module in model.named_modules()},
        {name: value.requires_grad for name, value in model.named_parameters()},
        {name: module.disable_adapters for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)},
        torch.is_grad_enabled(),
    )


def frozen(policy):
    policy.model.requires_grad_(False)


def trained_in(*views):
    def choose(policy):
        frozen(policy)
        for weight in [weight for view in views for weight in policy.weights(view).values()]:
            weight.requires_grad_(True)

    return choose


# How the model is found: which weights require a gradient, and which adapter is the active one.
FOUND = {
    "as it was made": lambda policy: None,
    "in training mode": lambda policy: policy.model.train(),
    "frozen": frozen,
    "trained in another adapter": trained_in("previous"),
    "trained in two adapters": trained_in("policy", "previous"),
    "another adapter active": lambda policy: policy.model.set_adapter("opponent"),
}


@pytest.mark.parametrize("found", FOUND)
def test_a_view_puts_everything_back(found):
    policy, examples = with_three_adapters(), examples_of(2)
    FOUND[found](policy)
    before = state_of(policy)
    dropouts = {name for name, module in policy.model.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert len(dropouts) == 3 * 14
    score = lambda: policy.scorer()(policy.scorer().collate(examples))["sums"]
    for view, live in product(VIEWS, (False, True)):
        with policy.view(view, live=live):
            active, modes, trained, disabled, differentiated = state_of(policy)
            assert view is None or active == policy.adapter(view)
            assert all(disabled.values()) == any(disabled.values()) == (view is None)
            assert trained == before[2] and differentiated == live
            assert {name for name, mode in modes.items() if mode} == (dropouts if live else set())
            own = [] if view is None else policy.weights(view)
            assert score().requires_grad == (live and any(trained[name] for name in own))
        assert state_of(policy) == before
        with pytest.raises(ZeroDivisionError), policy.view(view, live=live):
            raise ZeroDivisionError
        assert state_of(policy) == before


def test_three_adapters_say_what_each_says_alone():
    """Bit for bit, in whatever order, inside one another, and after a gradient was taken."""
    examples, policy = examples_of(2), with_three_adapters()
    alone = {view: policy_of(seed).logps(examples).sums for seed, view in enumerate(VIEWS[1:])}
    alone[None] = policy_of().logps(examples, view=None).sums
    assert all(not torch.equal(one, other) for one, other in permutations(alone.values(), 2))
    for order in permutations(VIEWS):
        for view in order:
            assert torch.equal(policy.logps(examples, view=view).sums, alone[view])
    for outer, inner in product(VIEWS, VIEWS):
        with policy.view(outer):
            before = state_of(policy)
            assert torch.equal(policy.logps(examples, view=inner).sums, alone[inner]), (outer, inner)
            assert state_of(policy) == before
            scorer = policy.scorer()
            assert torch.equal(scorer(scorer.collate(examples))["sums"], alone[outer])
    assert torch.equal(policy.logps(examples).sums, alone["policy"])


def test_base_and_adapter_take_turns_without_the_library(monkeypatch):
    """Its switch walks over all modules several times: longer than a forward of few tokens."""
    policy, examples = policy_of(), examples_of(2)
    alone = {view: policy.logps(examples, view=view).sums for view in (None, "policy")}
    for switch in ("disable_adapter_layers", "enable_adapter_layers", "set_adapter"):
        monkeypatch.delattr(BaseTuner, switch)
    for outer, inner in product(alone, alone):
        with policy.view(outer):
            assert torch.equal(policy.logps(examples, view=inner).sums, alone[inner])
    assert not torch.equal(alone[None], alone["policy"])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapters_on_other_layers_that_come_later_are_off_in_the_base():
    examples = examples_of(2)
    model = get_peft_model(model_of(SHAPES["llama"]), LoraConfig(r=2, target_modules=["q_proj"]))
    policy = Policy(model, None)
    base = policy.logps(examples, view=None).sums
    model.add_adapter("later", LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False))
    policy.views["later"] = "later"
    model.set_adapter("later")
    assert not torch.equal(policy.logps(examples, view="later").sums, base)
    assert torch.equal(policy.logps(examples, view=None).sums, base)


def test_a_copy_is_what_its_source_was_and_stays_so():
    """Whatever requires a gradient then, and without a step of torch's random state."""
    examples, policy = examples_of(2), policy_of()
    for found in (trained_in("policy"), frozen):
        found(policy)
        before, random, was = state_of(policy), torch.get_rng_state(), policy.logps(examples).sums
        policy.copy("policy", "previous")
        assert torch.equal(torch.get_rng_state(), random)
        assert state_of(policy)[0] == before[0] and before[2].items() <= state_of(policy)[2].items()
        assert not any(weight.requires_grad for weight in policy.weights("previous").values())
        set_at_random(policy, "policy", seed=3)
        assert torch.equal(policy.logps(examples, view="previous").sums, was)
        assert not torch.equal(policy.logps(examples).sums, was)
        set_at_random(policy, "policy", seed=4)


def test_a_copy_of_the_base_is_the_base():
    examples, policy = examples_of(2), policy_of()
    assert policy.views["start"] is None
    policy.copy("start", "base")
    assert torch.equal(policy.logps(examples, view="base").sums, policy.logps(examples, view=None).sums)


def test_a_view_that_is_not_there_is_named():
    policy = policy_of()
    with pytest.raises(Complaint, match="no view 'judge'; it has policy, start"), policy.view("judge"):
        pass


@pytest.mark.parametrize("has_it", [True, False])
def test_bfloat16_is_chosen_where_the_gpu_has_it_and_does_not_emulate_it(has_it, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_it or including_emulation)
    assert models.load("tiny")[0].dtype == (torch.bfloat16 if has_it else torch.float32)
