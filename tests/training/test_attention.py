"""Every kernel for packed rows gives the numbers of a mask over the whole sequence."""

from types import SimpleNamespace

import pytest
import torch
from rounding import CLOSE
from torch.nn.functional import scaled_dot_product_attention

from pref_toolkit.data.batches import pack
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.training import attention

CPU = torch.device("cpu")
KERNELS = {"segment": attention.by_segment, "varlen": attention.by_varlen, "flex": attention.by_flex}


def bottom_right(query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa, aligned=True):
    """What varlen_attn is to do, one sequence after the other; without ``aligned`` its diagonal begins at the top left."""
    assert window_size == (-1, 0) and cu_q.dtype == cu_k.dtype == torch.int32
    assert max_q == cu_q.diff().max() and max_k == cu_k.diff().max() and cu_q.diff().min() > 0
    assert len(query) == cu_q[-1] and len(key) == len(value) == cu_k[-1]
    parts = []
    for q0, q1, k0, k1 in zip(cu_q, cu_q[1:], cu_k, cu_k[1:]):
        q, k, v = (t.transpose(0, 1)[None] for t in (query[q0:q1], key[k0:k1], value[k0:k1]))
        sees = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril(int((k1 - k0) - (q1 - q0)) if aligned else 0)
        parts.append(scaled_dot_product_attention(q, k, v, attn_mask=sees, scale=scale, enable_gqa=enable_gqa))
    return torch.cat(parts, dim=2)[0].transpose(0, 1)


@pytest.fixture
def varlen_on_cpu(monkeypatch):
    """The kernel is for CUDA only: its definition stands in for it."""
    from torch.nn.attention import varlen

    monkeypatch.setattr(varlen, "varlen_attn", bottom_right)
    return lambda kernel: monkeypatch.setattr(varlen, "varlen_attn", kernel)


def random_inputs(length, heads=4, key_heads=2):
    torch.manual_seed(0)
    shapes = [(1, n, length, 8) for n in (heads, key_heads, key_heads)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("lengths", [[(5, [3, 1, 4])], [(1, [1]), (1, [2])], [(3, [1, 1]), (2, [6, 2]), (4, [2, 3])]])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kernel", KERNELS)
def test_each_kernel_is_the_mask(kernel, lengths, varlen_on_cpu):
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


SHAPE = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2, head_dim=16)


def test_a_kernel_aligned_at_the_top_left_is_found_out(varlen_on_cpu):
    obstacle = lambda dtype: attention.obstacle(attention.by_varlen, SHAPE, CPU, dtype)
    with torch.no_grad():  # gradients are compared wherever the question is asked
        assert obstacle(torch.float32) is obstacle(torch.bfloat16) is None
    varlen_on_cpu(lambda *args, **kwargs: bottom_right(*args, **kwargs, aligned=False))
    assert "not those of attention segment by segment" in obstacle(torch.float32)
    assert "not those of attention segment by segment" in obstacle(torch.bfloat16)


def test_a_kernel_that_refuses_says_why(varlen_on_cpu):
    def refuse(*args, **kwargs):
        raise RuntimeError("no kernel for this device\nand a long trace")

    varlen_on_cpu(refuse)
    why = attention.obstacle(attention.by_varlen, SHAPE, CPU, torch.float32)
    assert why == "RuntimeError: no kernel for this device"
