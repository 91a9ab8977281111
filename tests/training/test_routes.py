"""A route changes a model while it is applied, and at no other time."""

import pytest
import torch
from parts import made
from small import SHAPES, examples_of, model_of
from torch.utils.checkpoint import CheckpointError

from pref_toolkit import train
from pref_toolkit.errors import NotFiniteError
from pref_toolkit.training.adapters import with_adapters
from pref_toolkit.training.models import tiny
from pref_toolkit.training.policy import Policy
from pref_toolkit.training.scoring import Scorer, logps


def policy_of(shape="llama"):
    return with_adapters(model_of(SHAPES[shape]), rank=4, alpha=None, dropout=0.0)


def state_of(model):
    """The modules that run another forward than that of their class, and how the layers attend."""
    patched = {name: vars(module)["forward"] for name, module in model.named_modules() if "forward" in vars(module)}
    return patched, model.config._attn_implementation


@pytest.fixture
def seen():
    """Inside a forward of the model, at its first layer: the states that were seen."""
    states = []

    def watch(model):
        *_, layer = (m for name, m in model.named_modules() if name.endswith("layers.0"))
        layer.register_forward_pre_hook(lambda *_: states.append(state_of(model)))
        return states

    return watch


def test_a_second_scorer_that_is_plain_runs_the_models_own_forward(seen):
    policy, examples = policy_of(), examples_of(2)
    before = state_of(policy)
    assert before == ({}, "sdpa")
    fast, plain = Scorer(policy, 64), Scorer(policy, 64, route="rows")
    assert state_of(policy) == before
    states, calls = seen(policy), []
    policy.get_base_model().register_forward_hook(lambda *_: calls.append(1))
    score = lambda scorer: logps(scorer, scorer.collate(examples)).sums
    alone = score(plain)
    assert states == [before] and len(calls) == 1
    score(fast)
    (patched, attention) = states[1]
    assert patched and attention != "sdpa" and len(calls) == 1
    with fast.taken.applied():
        assert torch.equal(score(plain), alone)
        assert states[2] == before and len(calls) == 2
        score(fast)
        assert state_of(policy) == states[3] == states[1]
    assert state_of(policy) == before


ROUTES = [("rows", False), ("mask", False), ("segments", False), ("segments", True), ("rows", True), ("mask", True)]


def test_routes_nest_and_each_is_back_when_the_inner_one_ends():
    policy = policy_of()
    before = state_of(policy)
    routes = [Scorer(policy, 64, name, gradient_checkpointing=again).taken for name, again in ROUTES]
    alone = []
    for route in routes:
        with route.applied():
            alone.append(state_of(policy))
        assert state_of(policy) == before
    for outer, under_outer in zip(routes, alone):
        for inner, under_inner in zip(routes, alone):
            with outer.applied(), inner.applied(), outer.applied(), outer.applied():
                assert state_of(policy) == under_outer
            with outer.applied():
                with inner.applied():
                    assert state_of(policy) == under_inner
                assert state_of(policy) == under_outer
            assert state_of(policy) == before
    assert all(alone.count(state) == 1 for state in alone)


def test_an_error_inside_leaves_the_model_as_it_was():
    policy = policy_of()
    before, scorer = state_of(policy), Scorer(policy, 64)
    with pytest.raises(ZeroDivisionError), scorer.taken.applied():
        assert state_of(policy) != before
        raise ZeroDivisionError
    assert state_of(policy) == before


CUDNN = {
    "rows": lambda policy, rows: scored(policy, "rows"),
    "mask": lambda policy, rows: scored(policy, "mask"),
    "segments": lambda policy, rows: scored(policy, "segments"),
    "samples": lambda policy, rows: Policy(policy, tiny()[1]).sample([[3, 4]], max_new_tokens=2),
    "samples of a mixture": lambda policy, rows: Policy(policy, tiny()[1]).sample([[3]], max_new_tokens=2, mixture=0.5),
}


def scored(policy, route):
    scorer = Scorer(policy, 64, route)
    with scorer.taken.applied():
        logps(scorer, scorer.collate(examples_of(2)))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("work", CUDNN)
def test_attention_of_cudnn_is_off_in_each_forward_and_then_as_it_was(work, before, rows):
    """cuDNN, which is the first choice on an H100, plans anew for each shape and can give NaN under a mask."""
    policy, on = policy_of(), torch.backends.cuda.cudnn_sdp_enabled
    seen, outside = [], on()
    policy.get_base_model().model.register_forward_hook(lambda *_: seen.append(on()))
    torch.backends.cuda.enable_cudnn_sdp(before)
    try:
        CUDNN[work](policy, rows)
        assert on() is before
    finally:
        torch.backends.cuda.enable_cudnn_sdp(outside)
    assert seen and not any(seen)


def modes_of(model):
    """Training modes of modules, and which weights require a gradient."""
    return (
        {name: module.training for name, module in model.named_modules()},
        {name: value.requires_grad for name, value in model.named_parameters()},
    )


@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}, {"route": "rows"}])
def test_a_trained_model_is_as_peft_left_it(settings, rows, quick):
    model, tokenizer = tiny()
    fresh = with_adapters(tiny()[0].eval(), rank=2, alpha=None, dropout=0.0)
    history = train(model, tokenizer, rows, config=quick(lora_dropout=0.3, **settings))
    assert state_of(history.model) == state_of(fresh) == ({}, "sdpa")
    modes, trained = modes_of(history.model)
    assert trained == modes_of(fresh)[1] and not any(modes.values())


def test_an_update_that_fails_leaves_the_model_as_it_was(rows, quick):
    policy, trainer, data = made(rows, "dpo", quick(lora_dropout=0.3, tokens_per_forward=1))
    before = state_of(policy.model), modes_of(policy.model)
    next(iter(policy.weights().values())).data.fill_(torch.nan)
    with pytest.raises(NotFiniteError, match="step 0: the loss of dataset:"):
        trainer.gradients(data.batch(0))
    assert (state_of(policy.model), modes_of(policy.model)) == before


def test_recomputation_outside_its_route_is_refused():
    """The layers would run as they are again, and not as they ran."""
    scorer = Scorer(policy_of(), 64, gradient_checkpointing=True)
    loss = logps(scorer, scorer.collate(examples_of(2))).sums.sum()
    with pytest.raises(CheckpointError):
        loss.backward()
    with scorer.taken.applied():
        logps(scorer, scorer.collate(examples_of(2))).sums.sum().backward()
