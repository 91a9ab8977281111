"""Running the last layer for scored positions, and layers twice, changes no number."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from rounding import CLOSE, rounding
from small import SHAPES, SMALL, examples_of, model_of
from transformers import GraniteConfig, OPTConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from pref_toolkit.data.batches import pack
from pref_toolkit.errors import ModelError
from pref_toolkit.training import layers
from pref_toolkit.training.adapters import trainable, with_adapters
from pref_toolkit.training.modes import dropout_in_adapters_only
from pref_toolkit.training.scoring import Scorer, logps


def policy_of(config, dropout=0.0):
    policy = with_adapters(model_of(config), rank=4, alpha=None, dropout=dropout)
    torch.manual_seed(3)
    for value in trainable(policy).values():
        torch.nn.init.normal_(value, std=0.1)
    dropout_in_adapters_only(policy)
    return policy


def sums_and_gradients(scorer, examples):
    torch.manual_seed(0)
    weights = list(trainable(scorer.model).values())
    with scorer.taken.applied():
        value = logps(scorer, scorer.collate(examples)).sums
        outer = torch.linspace(-1, 1, value.numel()).view_as(value)
        return [value, *torch.autograd.grad((value * outer).sum(), weights)]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", ["llama", "llama eager", "mistral", "qwen", "gemma"])
def test_the_last_layer_runs_where_a_token_is_scored_only(shape):
    policy, examples = policy_of(SHAPES[shape]), examples_of(3)
    scorer = Scorer(policy, 64)
    assert scorer.trimmed
    seen = []
    *_, last = policy.get_base_model().base_model.layers
    last.mlp.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    trimmed = sums_and_gradients(scorer, examples)
    assert seen == [len(pack(examples).scored)] and seen[0] < pack(examples).input_ids.shape[1]
    scorer.taken = replace(scorer.taken, trimmed=False)
    for mine, whole in zip(trimmed, sums_and_gradients(scorer, examples)):
        assert (mine - whole).norm() <= CLOSE * whole.norm()


def test_generation_and_plain_rows_run_all_of_the_last_layer():
    model = model_of(SHAPES["llama"])
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        assert Scorer(model, 64).trimmed
        assert torch.equal(model(input_ids=ids).logits, before)


@pytest.mark.usefixtures("float64")
def test_parts_of_llama_put_together_in_another_way_are_left_alone():
    """Granite scales what it adds to the residual stream."""
    model = model_of(GraniteConfig(**SMALL, residual_multiplier=0.5))
    assert layers.last_layer(model) is not None
    scorer, examples = Scorer(model, 64), examples_of(2)
    assert scorer.route == "segments" and not scorer.trimmed
    plain = Scorer(model_of(GraniteConfig(**SMALL, residual_multiplier=0.5)), 64, "rows")
    mine, expected = (s(s.collate(examples))["sums"] for s in (scorer, plain))
    assert torch.allclose(mine, expected, rtol=CLOSE)


@pytest.mark.parametrize("shape", ["gemma2, soft-capped", "gpt2"])
def test_other_parts_are_not_known(shape):
    assert not Scorer(model_of(SHAPES[shape]), 64).trimmed


@pytest.mark.parametrize("route", ["segments", "rows"])
@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_layers_run_twice_give_the_same_numbers_with_the_same_dropout(shape, route):
    examples = examples_of(2)
    kept, results = [], []
    for again in (False, True):
        scorer = Scorer(policy_of(SHAPES[shape], dropout=0.5), 64, route, gradient_checkpointing=again)
        kept.append(0)

        def count(tensor):
            kept[-1] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            logps(scorer, scorer.collate(examples))
        results.append(sums_and_gradients(scorer, examples))
    assert kept[1] < 0.5 * kept[0]
    for mine, expected in zip(*results):
        assert torch.equal(mine, expected)


def test_layers_run_twice_do_not_bring_the_models_own_dropout_back():
    """OPT drops out inside its layers when they are in training mode."""
    config = OPTConfig(
        vocab_size=61, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32
    )
    examples = examples_of(2)
    scorer = Scorer(policy_of(config), 64, gradient_checkpointing=True)
    assert config.dropout > 0
    one, other = (logps(scorer, scorer.collate(examples)).sums for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("shape", ["llama", "gemma2, soft-capped"])
def test_gates_made_again_keep_less_and_give_the_same(shape):
    """Less by the width of the MLP for each token and layer: what the activation gives need not be kept."""
    policy, examples = policy_of(SHAPES[shape]), examples_of(2)
    scorer = Scorer(policy, 64)
    kept, results = [], []
    for again in (True, False):
        if not again:
            gates, patches = layers.gates_recomputed(policy), scorer.taken.patches
            scorer.taken = replace(scorer.taken, patches={m: f for m, f in patches.items() if m not in gates})
        shapes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.shape) or t, lambda t: t):  # noqa: B023
            logps(scorer, scorer.collate(examples))
        kept.append(sum(shape[-1:] == (SMALL["intermediate_size"],) for shape in shapes))
        results.append(sums_and_gradients(scorer, examples))
    assert kept[1] - kept[0] >= SMALL["num_hidden_layers"]
    for mine, expected in zip(*results):
        assert torch.equal(mine, expected)


@pytest.mark.usefixtures("float64")
def test_an_mlp_of_llamas_parts_put_together_in_another_way_is_left_alone():
    class Halved(LlamaMLP):
        def forward(self, x):
            return super().forward(x) / 2

    model, examples = model_of(SHAPES["llama"]), examples_of(2)
    for layer in model.model.layers:
        layer.mlp.__class__ = Halved
    plain = Scorer(deepcopy(model), 64, "rows")
    scorer = Scorer(model, 64)
    assert scorer.route == "segments"
    mine, expected = (s(s.collate(examples))["sums"] for s in (scorer, plain))
    assert torch.allclose(mine, expected, rtol=CLOSE)


def test_a_model_without_known_layers_is_refused():
    with pytest.raises(ModelError, match="gradient_checkpointing: no decoder layers found in a Linear"):
        layers.recomputed(torch.nn.Linear(2, 2), {})


def test_a_scorer_without_layers_run_twice_undoes_those_of_another():
    policy, examples = policy_of(SHAPES["llama"]), examples_of(2)
    kept = []
    for again in (False, True, False):
        scorer, shapes = Scorer(policy, 64, gradient_checkpointing=again), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.numel()) or t, lambda t: t):  # noqa: B023
            logps(scorer, scorer.collate(examples))
        kept.append(sum(shapes))
    assert kept[0] == kept[2] > 2 * kept[1]


LORAS = {
    "as ours": {},
    "with a bias": {"lora_bias": True},
    "weight-decomposed": {"use_dora": True},
    "scaled by the root of the rank": {"use_rslora": True},
    "with dropout": {"lora_dropout": 0.5},
}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", LORAS)
@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_adapters_in_place_are_pefts(shape, kind):
    """Value and gradients, for adapters of every kind, one of several, switched off or merged."""
    results = []
    for in_place in (False, True):
        every = {"init_lora_weights": False, "fan_in_fan_out": shape == "gpt2"}
        config = LoraConfig(r=4, target_modules="all-linear", **every, **LORAS[kind])
        torch.manual_seed(0)
        model = get_peft_model(model_of(SHAPES[shape]), config)
        first_layer = r".*layers\.0.*_proj|.*h\.0.*c_\w+"
        model.add_adapter("other", LoraConfig(r=2, target_modules=first_layer, **every))
        values = []
        ids = torch.arange(3, 20)[None]
        with layers.patched(layers.adapters_in_place(model) if in_place else {}):
            for active in ("default", "other"):
                model.set_adapter(active)
                torch.manual_seed(1)
                logits = model.train()(input_ids=ids).logits
                weights = [p for p in model.parameters() if p.requires_grad]
                values += [logits, *torch.autograd.grad(logits.square().sum(), weights)]
            with model.disable_adapter():
                values.append(model.eval()(input_ids=ids).logits)
            if kind != "with a bias":
                model.merge_adapter()
                values.append(model(input_ids=ids).logits)
        results.append(values)
    assert len(results[0]) == len(results[1]) > 10
    for plain, mine in zip(*results):
        assert (mine - plain).norm() <= CLOSE * plain.norm()


def test_adapters_in_place_compute_in_the_precision_of_their_layer():
    """peft would make float32 copies of every input; weights and their gradients stay in float32."""
    policy = policy_of(SHAPES["llama"]).bfloat16()
    for value in trainable(policy).values():
        value.data = value.data.float()
    exact, examples = deepcopy(policy).float(), examples_of(2)
    kept = []
    results = []
    for model in (policy, exact):
        scorer = Scorer(model, 64)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            value = logps(scorer, scorer.collate(examples)).sums
        if model is policy:
            large = [t for t in kept if t.dtype == torch.float32 and t.numel() >= 32 * len(pack(examples).input_ids[0])]
            norms = 2 * len(policy.get_base_model().base_model.layers) + 1
            assert len(large) <= 2 * norms  # which work in float32
        weights = list(trainable(model).values())
        results.append(torch.autograd.grad(value.sum(), weights))
    assert all(g.dtype == torch.float32 for g in results[0])
    # Each of two layers rounds to bfloat16 in eight places, and the gradient again.
    for mine, expected in zip(*results):
        assert (mine - expected).norm() < rounding(2 * 2 * 8, expected.norm(), torch.bfloat16)
