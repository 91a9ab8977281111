"""Every kernel for packed rows gives the numbers of a mask over the whole sequence."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.attention.varlen
import varlen
from rounding import CLOSE
from torch.nn.functional import scaled_dot_product_attention

from pref_toolkit.data.batches import pack
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.training import attention

CPU = torch.device("cpu")
KERNELS = {"segment": attention.by_segment, "varlen": attention.by_varlen, "flex": attention.by_flex}


SIGNATURES = {**varlen.SIGNATURES, "installed": varlen.INSTALLED}


@pytest.fixture
def on_cpu(monkeypatch):
    """The kernel for sequences of unequal lengths is for CUDA only: the stand-in, or what is given, takes its place."""
    install = lambda kernel: monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", kernel)
    install(varlen.varlen_attn(varlen.INSTALLED, dtypes=None))
    return install


def random_inputs(length, heads=4, key_heads=2):
    torch.manual_seed(0)
    shapes = [(1, n, length, 8) for n in (heads, key_heads, key_heads)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("lengths", [[(5, [3, 1, 4])], [(1, [1]), (1, [2])], [(3, [1, 1]), (2, [6, 2]), (4, [2, 3])]])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kernel", KERNELS)
def test_each_kernel_is_the_mask(kernel, lengths, on_cpu):
    """Value and gradient; responses of one token leave no query of their own. FlexAttention has no gradient on a CPU."""
    batch = pack([Encoded([1] * p, [[1] * r for r in responses], where="") for p, responses in lengths])
    inputs = random_inputs(batch.input_ids.shape[1])
    outer = torch.randn(1, batch.input_ids.shape[1], 4, 8, dtype=torch.float64)
    expected = scaled_dot_product_attention(*inputs, attn_mask=batch.mask(), scale=0.3, enable_gqa=True).transpose(1, 2)
    if kernel == "flex":
        with torch.no_grad():
            value = attention.by_flex(batch.segments, CPU)(*(t.detach() for t in inputs), 0.3)
        assert value.shape == outer.shape and torch.allclose(value, expected, atol=CLOSE)
        return
    value = KERNELS[kernel](batch.segments, CPU)(*inputs, 0.3)
    assert value.shape == outer.shape and torch.allclose(value, expected, atol=CLOSE)
    for mine, theirs in zip(*(torch.autograd.grad(v, inputs, outer) for v in (value, expected))):
        assert torch.allclose(mine, theirs, atol=CLOSE)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_where_the_library_takes_no_groups_key_heads_are_repeated(key_heads, monkeypatch):
    """As on CUDA. The numbers are those of groups, and gradients of a key head are summed over its group."""
    batch = pack(
        [Encoded([1] * p, [[1] * r for r in responses], where="") for p, responses in [(3, [1, 4]), (2, [6, 2])]]
    )
    inputs = random_inputs(batch.input_ids.shape[1], key_heads=key_heads)
    expected = attention.by_segment(batch.segments, CPU)(*inputs, 0.3)
    calls = []

    def called(query, key, value, *, enable_gqa=False, **how):
        calls.append((query.shape[1], key.shape[1], value.shape[1], enable_gqa))
        return scaled_dot_product_attention(query, key, value, **how)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", called)
    monkeypatch.setattr(attention, "TAKES_GROUPS", attention.TAKES_GROUPS - {"cpu"})
    value = attention.by_segment(batch.segments, CPU)(*inputs, 0.3)
    assert {*calls} == {(4, 4, 4, False)}
    assert torch.allclose(value, expected, atol=CLOSE)
    outer = torch.randn(value.shape, dtype=torch.float64)
    for mine, theirs in zip(*(torch.autograd.grad(v, inputs, outer) for v in (value, expected))):
        assert torch.allclose(mine, theirs, atol=CLOSE)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("version", SIGNATURES)
def test_every_version_of_torch_takes_our_call(version, key_heads, on_cpu):
    """Torch 2.11 has no ``enable_gqa`` and takes groups of heads without; later versions refuse them without."""
    on_cpu(varlen.varlen_attn(SIGNATURES[version]))
    shape = SimpleNamespace(num_attention_heads=4, num_key_value_heads=key_heads, head_dim=16)
    with torch.no_grad():  # gradients are compared wherever the question is asked
        assert attention.obstacle(attention.by_varlen, shape, CPU, torch.bfloat16) is None


def test_the_signatures_are_those_of_torch():
    installed = ".".join(torch.__version__.split(".")[:2])
    if installed not in varlen.SIGNATURES:
        pytest.skip(f"torch {installed} is not recorded")
    kinds = lambda of: [(p.name, p.kind, p.default) for p in of.parameters.values()]
    assert kinds(varlen.INSTALLED) == kinds(varlen.SIGNATURES[installed])


def test_a_kernel_aligned_at_the_top_left_is_found_out(on_cpu):
    on_cpu(varlen.varlen_attn(varlen.INSTALLED, aligned=False))
    obstacle = attention.obstacle(attention.by_varlen, SHAPE, CPU, torch.bfloat16)
    assert "not those of attention segment by segment" in obstacle


SHAPE = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2, head_dim=16)
REFUSED = {
    "fp16 and bf16": (SHAPE, torch.float32),
    "multiple of 8": (SimpleNamespace(num_attention_heads=4, num_key_value_heads=2, head_dim=12), torch.bfloat16),
    "at most 256": (SimpleNamespace(num_attention_heads=1, num_key_value_heads=1, head_dim=264), torch.bfloat16),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_kernel_that_refuses_says_why(why, on_cpu):
    on_cpu(varlen.varlen_attn(varlen.INSTALLED))
    obstacle = attention.obstacle(attention.by_varlen, REFUSED[why][0], CPU, REFUSED[why][1])
    assert obstacle.startswith("RuntimeError: ") and why in obstacle


def test_of_an_error_the_first_line_is_told(on_cpu):
    def refuse(query, *args, **kwargs):
        raise RuntimeError("no kernel for this device\nand a long trace")

    on_cpu(refuse)
    why = attention.obstacle(attention.by_varlen, SHAPE, CPU, torch.float32)
    assert why == "RuntimeError: no kernel for this device"
