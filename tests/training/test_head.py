"""The output layer in chunks gives what the model's own logits give, value and gradient."""

import weakref

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from rounding import CLOSE, rounding
from small import SHAPES, SMALL, examples_of, model_of
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CohereConfig, Gemma2Config, LlamaConfig

from pref_toolkit.training import head
from pref_toolkit.training.head import Head
from pref_toolkit.training.scoring import Scorer


def by_definition(layer, hidden, targets, cap=None):
    logits = layer(hidden).double()
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    return logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]


@pytest.fixture(autouse=True)
def chunks_of_seven_rows_or_nine_tokens(monkeypatch):
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", {"cpu": 7 * 61})
    monkeypatch.setattr(head, "TOKENS_AT_ONCE", {"cpu": 9})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("rows", [1, 7, 20])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_value_and_gradient_are_those_of_the_definition(rows, trained, bias, cap):
    torch.manual_seed(0)
    layer = nn.Linear(16, 61, bias=bias).requires_grad_(trained)
    targets, outer = torch.randint(61, (rows,)), torch.randn(rows)
    results = []
    for logps in (Head(layer, cap).logps, lambda h, y: by_definition(layer, h, y, cap)):
        hidden = torch.randn(rows, 16, generator=torch.Generator().manual_seed(1)).mul_(3).requires_grad_()
        value = logps(hidden, targets)
        wanted = [hidden, *(p for p in layer.parameters() if trained)]
        results.append([value, *torch.autograd.grad((value * outer).sum(), wanted)])
    for mine, expected in zip(*results):
        assert (mine - expected).norm() <= CLOSE * expected.norm()


def test_logits_far_apart_stay_finite():
    layer = nn.Linear(4, 61, bias=False).requires_grad_(False)
    hidden = torch.full((3, 4), 1e4).requires_grad_()
    value = Head(layer).logps(hidden, torch.tensor([0, 1, 2]))
    value.sum().backward()
    assert value.isfinite().all() and hidden.grad.isfinite().all()
    size = float(layer.weight.abs().sum(1).max()) * 1e4
    true = by_definition(layer.double(), hidden.double(), torch.tensor([0, 1, 2]))
    assert (value - true).abs().max() < rounding(2 * 4, size)  # a logit and the greatest, of four terms each


FAR_APART = {
    "logps": lambda p, r, y: p.gather(-1, y[:, None])[:, 0],
    "entropies": lambda p, r, y: -(p.exp() * p).sum(-1),
    "log_weights": lambda p, r, y: p.gather(-1, y[:, None])[:, 0] - (2 * p).logsumexp(-1),
    "sequence_kls": lambda p, r, y: (r.exp() * (r - p)).sum(-1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reading", FAR_APART)
def test_distributions_of_logits_far_apart_stay_finite(reading, dtype):
    """Logits of 1e4 and -1e4: ``softmax().log()`` would be -inf at most tokens, and 0 times that no number."""
    torch.manual_seed(0)
    layer = nn.Linear(61, 61, bias=False, dtype=dtype).requires_grad_(False)
    layer.weight.copy_(torch.eye(61))
    one, other = (1e4 * (2 * torch.randint(2, (20, 61)) - 1).to(dtype) for _ in range(2))
    one[0], other[0] = torch.full((61,), -1e4), torch.full((61,), -1e4)
    one[0, 3] = other[0, 4] = 1e4
    hidden, targets = one.requires_grad_(), torch.randint(61, (20,))
    value = Head(layer).distributions(hidden, targets, {"entropies", "log_weights"}, other)[reading]
    p, r = (h.detach().double().log_softmax(-1) for h in (hidden, other))
    expected = FAR_APART[reading](p, r, targets)
    assert torch.allclose(value.double(), expected, rtol=rounding(61, 1), atol=rounding(61, 1))
    assert value.requires_grad == (reading != "log_weights")
    if value.requires_grad:
        value.sum().backward()
        assert hidden.grad.isfinite().all()


def test_half_precision_is_summed_in_float32():
    torch.manual_seed(0)
    layer = nn.Linear(16, 61, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    # Of few bits, so that every order of their products gives the same bfloat16 logits.
    few_bits = lambda *shape: (torch.randint(-8, 9, shape) / 8).bfloat16()
    layer.weight.copy_(few_bits(61, 16))
    hidden, targets = few_bits(20, 16).requires_grad_(), torch.randint(61, (20,))
    value = Head(layer).logps(hidden, targets)
    expected = by_definition(layer, hidden, targets)
    assert value.dtype == torch.float32 and (value - expected).abs().max() < rounding(61, 1)
    (mine,), (theirs,) = (torch.autograd.grad(v.sum(), hidden) for v in (value, expected))
    # Rounded to bfloat16: probabilities, their products with weights, and the difference of those.
    assert mine.dtype == torch.bfloat16 and (mine - theirs).norm() < rounding(3, 1, torch.bfloat16) * theirs.norm()


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Products in float32 of factors in half precision, which a CPU has not; the types of all products. They may be off."""
    true, dtypes = torch.mm, []

    def install(off=0.0):
        def mm(a, b, out_dtype=None, out=None):
            dtypes.append(out_dtype or a.dtype)
            value = true(a.to(dtypes[-1]), b.to(dtypes[-1])) * (1 + off)
            return value if out is None else out.copy_(value)

        monkeypatch.setattr(torch, "mm", mm)
        monkeypatch.setattr(head, "FLOAT32_PRODUCTS", {"cpu"})
        return dtypes

    return install


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cap", [None, 5.0])
@pytest.mark.parametrize("reading", ["logps", "entropies"])
def test_products_of_half_precision_are_in_float32_where_that_can_be_had(reading, cap, bias, as_on_cuda):
    """Rounded to bfloat16, logits of about 30 would be off by 0.06."""
    products = as_on_cuda()
    torch.manual_seed(0)
    layer = nn.Linear(64, 61, bias=bias, dtype=torch.bfloat16).requires_grad_(False)
    layer.weight.copy_(torch.randn(61, 64))
    hidden, targets = (2 * torch.randn(20, 64)).bfloat16().requires_grad_(), torch.randint(61, (20,))
    exact = hidden.detach().double().requires_grad_()
    if reading == "logps":
        value = Head(layer, cap).logps(hidden, targets)
    else:
        value = Head(layer, cap).distributions(hidden, targets, {"entropies"})["entropies"]
    (mine,) = torch.autograd.grad(value.sum(), hidden)
    assert products and {*products} == {torch.float32}
    logits = exact @ layer.weight.double().T + (layer.bias.double() if bias else 0)
    log_p = (logits if cap is None else cap * torch.tanh(logits / cap)).log_softmax(-1)
    expected = {"logps": log_p.gather(-1, targets[:, None])[:, 0], "entropies": -(log_p.exp() * log_p).sum(-1)}[reading]
    magnitude = float((exact.detach().abs() @ layer.weight.double().abs().T).max())
    assert (value - expected).abs().max() < rounding(64, magnitude)
    (theirs,) = torch.autograd.grad(expected.sum(), exact)
    assert (mine - theirs).norm() < rounding(3, 1, torch.bfloat16) * theirs.norm()


@pytest.mark.parametrize("trained", [False, True])
def test_torch_takes_our_call_for_float32_products(trained, monkeypatch):
    """On a device without numbers, forward and backward: torch's own signature, types and shapes."""
    monkeypatch.setattr(head, "FLOAT32_PRODUCTS", head.FLOAT32_PRODUCTS | {"meta"})
    assert "cuda" in head.FLOAT32_PRODUCTS
    layer = nn.Linear(16, 61, bias=False, dtype=torch.bfloat16, device="meta").requires_grad_(trained)
    hidden = torch.empty(20, 16, dtype=torch.bfloat16, device="meta", requires_grad=True)
    made = []
    with Products(made):
        value = Head(layer).logps(hidden, torch.zeros(20, dtype=torch.long, device="meta"))
    assert value.dtype == torch.float32 and made and {*made} == {torch.float32}
    wanted = [hidden, *(p for p in layer.parameters() if trained)]
    for weight, gradient in zip(wanted, torch.autograd.grad(value.sum(), wanted)):
        assert (gradient.dtype, gradient.shape) == (weight.dtype, weight.shape)


class Products(TorchDispatchMode):
    """Notes the types of all products."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.made.append(result.dtype)
        return result


def test_products_that_round_otherwise_than_the_models_do_not_hide_its_head(as_on_cuda):
    """Float32 products come from another kernel than the layer's own, so rounded they need not be its logits bit for bit."""
    as_on_cuda(off=2**-8)
    assert Scorer(model_of(LlamaConfig(**SMALL)).bfloat16(), 64).head is not None


def test_a_frozen_layer_makes_no_more_than_a_chunk_and_keeps_none():
    layer = nn.Linear(16, 61, bias=False).requires_grad_(False)
    hidden, targets = torch.randn(20, 16).requires_grad_(), torch.randint(61, (20,))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        Head(layer).logps(hidden, targets)
    assert kept == [(20, 16)]


class Alive(TorchDispatchMode):
    """The most tensors of one size that existed at once."""

    def __init__(self, size):
        super().__init__()
        self.size, self.storages, self.most = size, {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.numel() == self.size:
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.storages:
                    self.storages[key] = weakref.finalize(storage, self.storages.pop, key, None)
        self.most = max(self.most, len(self.storages))
        return result


def test_a_chunk_of_distributions_leaves_room_on_a_card_that_a_model_fills(monkeypatch):
    """A 7B model in bfloat16 leaves some 9 GiB of 24; distributions should take no more than a fifth of that."""
    monkeypatch.undo()  # chunks as they are
    rows, vocabulary = 3, 1009
    layer = nn.Linear(16, vocabulary, bias=False).requires_grad_(False)
    hidden, other = torch.randn(rows, 16).requires_grad_(), torch.randn(rows, 16)
    with Alive(rows * vocabulary) as alive:
        wanted = {"entropies", "log_weights"}
        values = Head(layer).distributions(hidden, torch.zeros(rows, dtype=torch.long), wanted, other)
        sum(value.sum() for value in values.values()).backward()
    assert alive.most >= 4 and alive.most * 4 * head.LOGITS_AT_ONCE["cuda"] < 1.8 * 2**30


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True")  # peft 0.19 says so of any model
def test_adapters_on_the_output_layer_are_trained_with_their_dropout():
    """The layer is then no longer frozen; its chunks are made again with the dropout they had."""
    model = model_of(SHAPES["llama"])
    config = LoraConfig(r=4, target_modules=["lm_head"], lora_dropout=0.5, init_lora_weights=False)
    layer = inject_adapter_in_model(config, model).get_output_embeddings().train()
    hidden, targets = torch.randn(20, 32), torch.randint(61, (20,))
    drawn = []
    for logps in (Head(layer).logps, lambda h, y: torch.cat([by_definition(layer, *c) for c in chunked(h, y)])):
        torch.manual_seed(0)
        weights = [p for p in layer.parameters() if p.requires_grad]
        value = logps(hidden, targets)
        drawn.append([value, *torch.autograd.grad(value.sum(), weights)])
    assert len(drawn[0]) == 3
    for mine, expected in zip(*drawn):
        assert (mine - expected).norm() <= CLOSE * expected.norm()


def chunked(*tensors):
    return zip(*(t.split(7) for t in tensors))


@pytest.mark.parametrize("cap", [0.5, 30.0, None])
def test_a_cap_on_the_logits_is_known(cap):
    config = Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=64, final_logit_softcapping=cap)
    assert Scorer(model_of(config), 64).head.cap == cap


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("std", [0.2, 0.002])
def test_logits_changed_in_another_way_are_the_models_own(std):
    """Cohere scales its logits. However small they are, so that the change hardly shows, it is seen."""
    config = CohereConfig(**SMALL, logit_scale=0.9999, pad_token_id=0)
    model, examples = model_of(config), examples_of(2)
    nn.init.normal_(model.get_output_embeddings().weight, std=std)
    scorer, plain = Scorer(model, 64), Scorer(model, 64, "rows")
    assert scorer.head is None
    mine, expected = (s(s.collate(examples))["sums"] for s in (scorer, plain))
    assert torch.allclose(mine, expected, rtol=CLOSE)


def test_a_changed_head_is_seen_before_it():
    """A model that scales its hidden states before the output layer."""
    model = model_of(LlamaConfig(**SMALL))
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0] * 1.001,))
    assert Scorer(model, 64).head is None
