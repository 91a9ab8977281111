"""Losses and adapter gradients of the fast way against the obvious computation: a padded row for each response, in float64."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from rounding import CLOSE
from small import SHAPES, SMALL, examples_of, model_of, one_by_one
from torch import nn
from torch.nn.functional import logsigmoid
from transformers import Gemma2Config, Gemma3TextConfig, MistralConfig

from pref_toolkit.data import Report
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.losses import METHODS
from pref_toolkit.training.adapters import new_reward_head, trainable, with_adapters
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.modes import reference
from pref_toolkit.training.objective import Objective
from pref_toolkit.training.policy import Policy
from pref_toolkit.training.scoring import Scorer
from pref_toolkit.training.trainer import Trainer

MORE_SHAPES = {
    "mistral, a window too short": MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=12),
    "gemma2, capped logits": Gemma2Config(
        **SMALL, num_key_value_heads=2, head_dim=8, sliding_window=64, final_logit_softcapping=3.0
    ),
    "gemma3": Gemma3TextConfig(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=64),
}
pytestmark = pytest.mark.usefixtures("float64")
FALLBACKS = {"mistral, a window too short": "rows", "gemma2, capped logits": "mask", "gemma2, soft-capped": "mask"}


class Naive(Scorer):
    """Every reading by its definition: one padded row a response, all logits, ``log_softmax``, a response at a time."""

    def forward(self, batch, readings=("sums",), reference_hidden=None):
        output = self.model(input_ids=batch.input_ids, attention_mask=batch.present, output_hidden_states=True)
        log_p = output.logits.log_softmax(-1).flatten(0, 1)[batch.scored]
        lengths = batch.tokens.flatten().tolist()
        token = log_p.gather(-1, batch.targets[:, None])[:, 0].split(lengths)
        p = log_p.split(lengths)
        shortest = batch.tokens.amin(1).repeat_interleave(batch.tokens.shape[1]).tolist()
        made = {"sums": [t.sum() for t in token], "first_sums": [t[:n].sum() for t, n in zip(token, shortest)]}
        if "entropies" in readings:
            made["entropies"] = [-(q.exp() * q).sum() for q in p]
        if "log_weights" in readings:
            made["log_weights"] = [(t - q.exp().square().sum(-1).log()).mean().detach() for t, q in zip(token, p)]
        if "sequence_kls" in readings:
            made["sequence_kls"] = [(r.exp() * (r - q)).sum() for r, q in zip(reference_hidden.split(lengths), p)]
        if "rewards" in readings:
            hidden = output.hidden_states[-1].flatten(0, 1)[batch.scored].split(lengths)
            made["rewards"] = [self.reward_head(h[-1])[0] for h in hidden]
        values = {name: torch.stack(given).view(batch.tokens.shape) for name, given in made.items()}
        return values | {"hidden": log_p}  # the reference hands on its distributions themselves


class ScoredNaively(Policy):
    def new_scorer(self, longest, head):
        return Naive(self.model, longest, "rows", head)


def policy_of(config):
    """A policy away from its reference."""
    policy = with_adapters(model_of(config), rank=4, alpha=None, dropout=0.0)
    torch.manual_seed(3)
    for name, value in trainable(policy).items():
        nn.init.normal_(value, std=0.05 if "lora_B" in name else 0.2)
    return policy.eval()


def assert_close(fast, naive):
    """Of a gradient, the norm of the difference is compared with the norm of the gradient, tensor by tensor."""
    (loss, gradients), (true_loss, true_gradients) = fast, naive
    assert torch.allclose(loss, true_loss, rtol=CLOSE, atol=CLOSE)
    assert any(g.norm() > 0 for g in true_gradients.values())
    for name, expected in true_gradients.items():
        assert (gradients[name] - expected).norm() <= CLOSE * expected.norm(), name


def difference(scorer, examples):
    """A loss of any number of responses, and its gradients."""
    batch = scorer.collate(examples)
    weight = torch.linspace(1, -1, batch.tokens.shape[1], dtype=torch.float64)
    with reference(scorer.model):
        under_reference = scorer(batch)["sums"]
    loss = -logsigmoid(0.1 * ((scorer(batch)["sums"] - under_reference) * weight).sum(1))
    loss.mean().backward()
    return loss.detach(), {name: value.grad for name, value in trainable(scorer.model).items()}


def compare(config, examples, route="auto"):
    policy = policy_of(config)
    naive = Naive(deepcopy(policy), 64, "rows")
    scorer = Scorer(policy, 64, route)
    assert_close(difference(scorer, examples), difference(naive, examples))
    return scorer.route


@pytest.mark.parametrize("shape", {**SHAPES, **MORE_SHAPES})
def test_every_shape(shape):
    route = compare({**SHAPES, **MORE_SHAPES}[shape], examples_of(3))
    assert route == FALLBACKS.get(shape, "segments")


@pytest.mark.parametrize("route", ["rows", "mask", "segments"])
@pytest.mark.parametrize("k", range(1, 9))
def test_every_number_of_responses(k, route):
    compare(SHAPES["llama"], examples_of(k), route)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gemma", "mistral, a window too short"])
@pytest.mark.parametrize("length", [1, 5])
def test_prompts_of_one_token_with_nothing_in_common(shape, length):
    examples = [Encoded([10 + i], [[20 + i] * length, [30 + i, 40]], where=f"row {i}") for i in range(4)]
    compare({**SHAPES, **MORE_SHAPES}[shape], examples)


def test_answers_of_thousands_of_nats():
    random = torch.Generator().manual_seed(0)
    draw = lambda length: torch.randint(3, 61, (length,), generator=random).tolist()
    examples = [Encoded(draw(9), [draw(500), draw(450)], where=f"row {i}") for i in range(2)]
    assert float(one_by_one(model_of(SHAPES["llama"]), examples).max()) < -1000
    compare(SHAPES["llama"], examples)


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method):
    """From rows to gradients as in training, in forwards of few tokens."""
    needs = METHODS[method].needs
    examples = [
        replace(
            e,
            where=f"row {i}",
            responses=e.responses[: 1 if "desirable" in needs else 2],
            scores=(2.0, 0.5 + i / 10),
            win_probabilities=(0.7, 0.2),
            desirable=i % 3 != 0,
        )
        for i, e in enumerate(examples_of(2, n=4))
    ]
    adapted = policy_of(SHAPES["llama"])
    objective = Objective.of(method, reference=None)
    examples = objective.accept(examples, Report(), "stop")
    head = head_of_tenths if objective.trains_rewards else None
    results = []
    for kind in (Policy, ScoredNaively):
        policy = kind.to_train(deepcopy(adapted), None, TrainConfig(tokens_per_forward=30), 64, head)
        trainer = Trainer(policy, objective, policy.config)
        trainer.prepare(examples)
        losses = trainer.gradients(examples).losses
        results.append((losses, {name: weight.grad for name, weight in trainer.weights.items()}))
    assert_close(*results)


def head_of_tenths(model):
    head = new_reward_head(model)
    nn.init.constant_(head.weight, 0.1)
    return head
