"""Scoring: log-probabilities do not depend on how responses travel through the model."""

import math
from contextlib import nullcontext

import pytest
import torch
from rounding import CLOSE, everything_in_float64, rounding
from small import SHAPES, SMALL, examples_of, model_of, one_by_one
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GPTJConfig,
    GptOssConfig,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MiniMaxConfig,
    MistralConfig,
    MptConfig,
)

from pref_toolkit.data.batches import pack
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.training import attention, routes
from pref_toolkit.training.adapters import with_adapters
from pref_toolkit.training.head import Head
from pref_toolkit.training.models import tiny
from pref_toolkit.training.modes import dropout_in_adapters_only, reference
from pref_toolkit.training.scoring import Scorer, logps


def routes_of(shape):
    return ["mask", "rows"] if shape == "gemma2, soft-capped" else ["segments", "mask", "rows"]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_route_scores_as_separate_unpadded_rows(shape, k):
    model, examples = model_of(SHAPES[shape]), examples_of(k)
    expected = one_by_one(model, examples)
    assert Scorer(model, longest=64).route == routes_of(shape)[0]
    for route in routes_of(shape):
        scorer = Scorer(model_of(SHAPES[shape]), 64, route)
        record = logps(scorer, scorer.collate(examples))
        assert torch.allclose(record.sums, expected, rtol=CLOSE), route
        assert record.tokens.tolist() == [[len(r) for r in e.responses] for e in examples]


def test_generation_is_not_disturbed_by_the_route():
    model, fresh = (model_of(SHAPES["llama"]) for _ in range(2))
    assert Scorer(model, 64).route == "segments"
    ids, mask = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    one, other = (
        m.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=9, do_sample=False, pad_token_id=0, eos_token_id=60
        )
        for m in (model, fresh)
    )
    assert torch.equal(one, other)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_equal_those_of_a_batch_padded_on_either_side(shape, side):
    model, examples = model_of(SHAPES[shape]), examples_of(2)
    sequences = [(e.prompt, r) for e in examples for r in e.responses]
    width = max(len(p) + len(r) for p, r in sequences)
    sums = []
    ids, mask = (
        torch.zeros(len(sequences), width, dtype=torch.long),
        torch.zeros(len(sequences), width, dtype=torch.long),
    )
    for n, (prompt, response) in enumerate(sequences):
        text = torch.tensor(prompt + response)
        where = slice(width - len(text), width) if side == "left" else slice(0, len(text))
        ids[n, where], mask[n, where] = text, 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits.double().log_softmax(-1)
    for n, (prompt, response) in enumerate(sequences):
        first = (width - len(response) if side == "left" else len(prompt)) - 1
        sums.append(sum(logits[n, first + t, token].item() for t, token in enumerate(response)))
    record = logps(Scorer(model, longest=64), pack(examples))
    assert record.sums.flatten().tolist() == pytest.approx(sums, rel=CLOSE)


@pytest.mark.usefixtures("float64")
def test_a_sliding_window_is_never_dropped_in_silence():
    config = MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=14)
    model, examples = model_of(config), examples_of(2)
    scorer = Scorer(model, longest=64)
    assert scorer.route == "rows" and "sliding_window of 14" in scorer.obstacle
    record = logps(scorer, scorer.collate(examples))
    assert torch.allclose(record.sums, one_by_one(model, examples), rtol=CLOSE)
    with pytest.raises(ValueError, match="sliding_window of 14"):
        Scorer(model, longest=64, route="mask")
    wrong = logps(Scorer(model, longest=14, route="mask"), pack(examples))
    assert not torch.allclose(wrong.sums, one_by_one(model, examples), atol=1e-4)


@pytest.mark.usefixtures("float64")
def test_a_model_without_attention_is_scored_one_response_per_row():
    config = MambaConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2, state_size=8)
    model, examples = model_of(config), examples_of(2)
    scorer = Scorer(model, longest=64)
    assert scorer.route == "rows" and "mamba" in scorer.obstacle
    record = logps(scorer, scorer.collate(examples))
    assert torch.allclose(record.sums, one_by_one(model, examples), rtol=CLOSE)


@pytest.mark.usefixtures("float64")
def test_gradients_are_those_of_separate_rows():
    examples, weight = examples_of(3), torch.linspace(-1, 1, 9).view(3, 3)
    gradients = {}
    for route in ("rows", "mask", "segments"):
        model = model_of(SHAPES["llama"])
        scorer = Scorer(model, 64, route)
        (logps(scorer, scorer.collate(examples)).sums * weight).sum().backward()
        gradients[route] = {n: p.grad for n, p in model.named_parameters()}
    for name, expected in gradients["rows"].items():
        for route in ("mask", "segments"):
            assert (gradients[route][name] - expected).norm() <= CLOSE * expected.norm(), (route, name)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_is_off_by_rounding_only(shape):
    examples, weight, results = examples_of(2), torch.linspace(-1, 1, 6, dtype=torch.float64).view(3, 2), []
    for exact in (False, True):
        model = model_of(SHAPES[shape])
        with everything_in_float64() if exact else nullcontext():
            scorer = Scorer(model.double() if exact else model, 64, "rows" if exact else "auto")
            sums = logps(scorer, scorer.collate(examples)).sums
            (sums * weight).sum().backward()
        results.append([sums.detach(), *(p.grad for p in model.parameters())])
    # Two layers with six sums over states, one over the MLP and one over keys; then logits and softmax; and the way back.
    terms = 2 * (2 * (6 * 32 + 64 + 17) + 32 + 61)
    for mine, expected in zip(*results, strict=True):
        assert (mine - expected).norm() <= rounding(terms, expected.norm())


def test_thousands_of_nats_are_added_in_float64(monkeypatch):
    """In float32 each of these sums would be off by about 1e-4."""
    kept, of_tokens = [], Head.logps
    monkeypatch.setattr(Head, "logps", lambda *given: kept.append(of_tokens(*given)) or kept[-1])
    random = torch.Generator().manual_seed(0)
    responses = [torch.randint(3, 61, (n,), generator=random).tolist() for n in (500, 450)]
    scorer = Scorer(model_of(SHAPES["llama"]), 1024)
    sums = scorer(pack([Encoded([5, 6], responses, where="long")]))["sums"][0]
    assert sums.max() < -1000
    for mine, tokens in zip(sums.tolist(), kept[-1].split([500, 450]), strict=True):
        expected = math.fsum(tokens.tolist())
        assert abs(mine - expected) <= rounding(500, abs(expected), torch.float64)


def test_log_probabilities_of_a_model_in_half_precision_are_summed_in_float64():
    model, _ = tiny()
    examples = examples_of(2, n=1, vocabulary=200)
    examples = [Encoded(examples[0].prompt, [r * 40 for r in ([7, 90, 33], [150, 20])], where="long")]
    full = logps(Scorer(model, 1024), pack(examples)).sums
    half = logps(Scorer(model.bfloat16(), 1024), pack(examples))
    assert half.sums.dtype == torch.float64
    largest = model(input_ids=torch.tensor([examples[0].prompt])).logits.abs().max()
    assert ((half.sums - full).abs() / half.tokens).max() < rounding(2, largest, torch.bfloat16)


def test_a_policy_at_its_start_is_its_reference_whatever_the_dropout():
    config = LlamaConfig(**SMALL, num_key_value_heads=2, attention_dropout=0.5)
    policy = with_adapters(model_of(config), rank=4, alpha=None, dropout=0.5)
    scorer, batch = Scorer(policy, 64), pack(examples_of(2))
    dropout_in_adapters_only(policy)
    now = logps(scorer, batch).sums
    for _ in range(2):
        with reference(policy):
            assert torch.equal(logps(scorer, batch).sums, now)
    dropouts = [m.training for n, m in policy.named_modules() if "lora_dropout" in n]
    assert dropouts and all(dropouts)


def test_the_reference_does_not_move_with_the_policy():
    policy = with_adapters(model_of(SHAPES["llama"]), rank=4, alpha=None, dropout=0.0)
    scorer, batch = Scorer(policy, 64), pack(examples_of(2))
    with reference(policy):
        before = logps(scorer, batch).sums
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1)
    with reference(policy):
        assert torch.equal(logps(scorer, batch).sums, before)
    assert not torch.equal(logps(scorer, batch).sums, before)


LOOP = {"experts_implementation": "eager"}  # the other implementations know no float64
MIXING = {
    "gptj, attention of its own": (GPTJConfig(vocab_size=61, n_embd=32, n_layer=2, n_head=4, rotary_dim=4), "mask"),
    "mpt, positions of its own": (MptConfig(vocab_size=61, d_model=32, n_layers=2, n_heads=4, max_seq_len=128), "rows"),
    "gpt_oss, attention sinks": (
        GptOssConfig(**SMALL, **LOOP, num_key_value_heads=2, head_dim=8, sliding_window=64),
        "mask",
    ),
    "lfm2, convolutions": (Lfm2Config(**SMALL, num_key_value_heads=2, layer_types=["conv", "full_attention"]), "rows"),
    "minimax, linear attention": (
        MiniMaxConfig(**SMALL, **LOOP, num_key_value_heads=2, head_dim=8, block_size=16),
        "rows",
    ),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", MIXING)
def test_what_reaches_other_responses_or_is_left_out_is_found_out(name):
    """Each of these was once scored by segments, up to several nats off."""
    config, route = MIXING[name]
    model, examples = model_of(config), examples_of(2)
    expected = one_by_one(model, examples)
    scorer = Scorer(model, longest=40)
    assert scorer.route == route and scorer.obstacle
    with torch.no_grad():
        assert torch.allclose(logps(scorer, scorer.collate(examples)).sums, expected, rtol=CLOSE)
    assert torch.equal(one_by_one(model, examples), expected)  # the model itself computes what it did


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("std", [0.02, 0.2])
def test_rounding_is_not_taken_for_an_obstacle(std, dtype):
    for shape in ("llama", "mistral", "qwen", "gemma", "gpt2"):
        model = model_of(SHAPES[shape])
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.mul_(std / 0.2)
        assert Scorer(model.to(dtype), 64).route == "segments", shape


@pytest.mark.usefixtures("float64")
def test_one_response_per_row_still_makes_logits_of_responses_only():
    """Where it is the fallback; asked for by name it is the plain way, with the model's own logits."""
    config = MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=14)
    examples = examples_of(2)
    for route, asked in (("auto", 0), ("rows", 1)):
        scorer = Scorer(model_of(config).requires_grad_(False), 64, route)
        calls = []
        scorer.model.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))  # noqa: B023
        assert scorer.route == "rows"
        sums = scorer(scorer.collate(examples))["sums"]
        assert len(calls) == asked
        assert torch.allclose(sums, one_by_one(model_of(config), examples), rtol=CLOSE)


@pytest.mark.parametrize(("route", "sizes"), [("segments", [53, 15]), ("rows", [8, 98, 42])])
def test_a_forward_holds_no_more_positions_than_it_may(route, sizes):
    """A long example among short ones: padded to its width, they cost more than they have tokens. Alone, one may cost more."""
    examples = [Encoded([5] * n, [[6] * m, [7]], where=str(n)) for n, m in [(3, 2), (30, 20), (4, 4), (2, 2), (5, 1)]]
    scorer = Scorer(model_of(SHAPES["llama"]), 64, route)
    parts = scorer.parts(examples, 60)
    assert [e for part in parts for e in part] == examples
    assert [scorer.collate(part).input_ids.numel() for part in parts] == sizes


def test_a_model_with_a_configuration_for_each_of_its_parts_is_read_by_that_of_its_text():
    text = Gemma3TextConfig(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=14)
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=text.to_dict(),
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 8,
                "patch_size": 4,
            },
            mm_tokens_per_image=1,
        )
    ).eval()
    assert "sliding_window of 14" in Scorer(model, longest=64).obstacle


def test_policy_and_reference_prepare_a_batch_once(monkeypatch):
    made = []
    by_segment = attention.by_segment
    monkeypatch.setattr(attention, "by_segment", lambda *args: made.append(1) or by_segment(*args))
    policy = with_adapters(model_of(SHAPES["llama"]), rank=4, alpha=None, dropout=0.0)
    scorer = Scorer(policy, 64)
    del made[:]
    for examples in (examples_of(2), examples_of(2, seed=1)):
        batch = scorer.collate(examples)
        with reference(policy):
            under_reference = scorer(batch)["sums"]
        assert torch.equal(scorer(batch)["sums"], under_reference)
    assert len(made) == 2


def test_the_way_to_attend_is_chosen_for_where_the_model_will_run(monkeypatch):
    """Its weights may be elsewhere as yet: spread over processes, they are moved later."""
    model = model_of(SHAPES["llama"])
    for works, obstacle in (
        ("by_varlen", None),
        ("by_flex", "by_varlen: no kernel"),
        ("by_segment", "by_flex: no kernel"),
    ):
        monkeypatch.setattr(attention, "obstacle", lambda kernel, *_: None if kernel.__name__ == works else "no kernel")  # noqa: B023
        scorer = Scorer(model, 64, device=torch.device("cuda"))
        assert (scorer.route, scorer.kernel, scorer.obstacle) == ("segments", works, obstacle)
    assert Scorer(model, 64).kernel == "by_segment" and Scorer(model, 64, "rows").kernel is None


@pytest.mark.parametrize(("weights", "tried"), [("cuda:0", ["by_varlen"]), ("cpu", [])])
def test_a_kernel_is_tried_in_the_model_if_its_weights_are_there(weights, tried, monkeypatch):
    """The only GPU of a machine is ``cuda`` to accelerate, and the weights on it are on ``cuda:0``."""
    true, found = routes.Trial.obstacle, []

    def on_random_numbers(*_):
        monkeypatch.setattr(routes, "device_of", lambda model: torch.device(weights))

    def in_the_model(trial, route):
        if route.kernel is not attention.by_varlen:
            return true(trial, route)
        found.append(route.kernel.__name__)
        return None

    monkeypatch.setattr(attention, "obstacle", on_random_numbers)
    monkeypatch.setattr(routes.Trial, "obstacle", in_the_model)
    scorer = Scorer(model_of(SHAPES["llama"]), 64, device=torch.device("cuda"))
    assert scorer.kernel == "by_varlen" and found == tried
