"""A stand-in for ``varlen_attn`` on a CPU: the numbers of torch's CUDA kernel, what that refuses, and its signatures.

The checks and the place of the diagonal were read in torch's flash_api.cpp. Each signature is that of the version of torch by
which it is named, as ``inspect.signature`` gives it there.
"""

from inspect import signature

import torch
import torch.nn.attention.varlen

HALF = {torch.float16, torch.bfloat16}


def kernel(query, key, value, cu_q, cu_k, max_q, max_k, scale, window_size, *, dtypes=HALF, aligned=True):
    """One sequence after the other, computed in float64.

    Args:
        query: ``(T_q, heads, size)``.
        key, value: ``(T_k, key heads, size)``; query head ``i`` meets key head ``i // (heads / key heads)``.
        cu_q, cu_k: ``(N + 1,)``, where the sequences end.
        max_q, max_k: the longest of them.
        scale: of the products; ``1 / sqrt(size)`` if None.
        window_size: ``(-1, 0)``, the only one that the toolkit asks for: the last query meets the last key.
        dtypes: what the kernel is made for; None: anything, which the CUDA kernel is not.
        aligned: False for a kernel whose diagonal begins at the top left.
    """
    total, heads, size = query.shape
    refusals = {
        "FlashAttention only support fp16 and bf16 data type": dtypes and query.dtype not in dtypes,
        "query, key and value must have the same dtype": not query.dtype == key.dtype == value.dtype,
        "Input tensor must have contiguous last dimension": any(t.stride(-1) != 1 for t in (query, key, value)),
        "head_size should be a multiple of 8": size % 8,
        "FlashAttention forward only supports head dimension at most 256": size > 256,
        "Number of heads in key/value must divide number of heads in query": heads % key.shape[1],
        "key and value must have the same shape": key.shape != value.shape,
        "cu_seqlens must have dtype int32": any(cu.dtype != torch.int32 for cu in (cu_q, cu_k)),
        "cu_seqlens must be contiguous, one for each sequence": not cu_q.is_contiguous() or cu_q.shape != cu_k.shape,
        "max_q and max_k are Python's integers": type(max_q) is not int or type(max_k) is not int,
        "only causal attention is known here": tuple(window_size) != (-1, 0),
        "sequences end where the tensors end": (total, len(key)) != (int(cu_q[-1]), int(cu_k[-1])),
        # The kernel would not complain: it would leave the rest out.
        "no sequence is longer than max_q, max_k": max_q != cu_q.diff().max() or max_k != cu_k.diff().max(),
        "a sequence without queries": cu_q.diff().min() < 1,
    }
    for sentence, refused in refusals.items():
        if refused:
            raise RuntimeError(sentence)
    scale = size**-0.5 if scale is None else scale
    parts = []
    for q0, q1, k0, k1 in zip(cu_q, cu_q[1:], cu_k, cu_k[1:]):
        q, k, v = (t.transpose(0, 1).double() for t in (query[q0:q1], key[k0:k1], value[k0:k1]))
        k, v = (t.repeat_interleave(heads // len(t), dim=0) for t in (k, v))
        sees = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril(int((k1 - k0) - (q1 - q0)) if aligned else 0)
        products = (q @ k.transpose(1, 2) * scale).masked_fill(~sees, -torch.inf)
        parts.append((products.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts).to(query.dtype)


def torch_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
): ...


def torch_2_13(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
    enable_gqa=False,
    seqused_k=None,
    block_table=None,
    num_splits=None,
): ...


INSTALLED = signature(torch.nn.attention.varlen.varlen_attn)
SIGNATURES = {"2.11": signature(torch_2_11), "2.13": signature(torch_2_13), "2.14": signature(torch_2_13)}


def varlen_attn(of, **how):
    """The stand-in with a signature of :data:`SIGNATURES`, or that of the torch that is installed."""

    def call(*args, **kwargs):
        given = of.bind(*args, **kwargs)
        given.apply_defaults()
        query, key, value, *ends, _aux, scale, window_size = list(given.arguments.values())[:10]
        # Where the kernel can be told of groups of heads it insists on it; where it cannot, it takes them as they come.
        if not given.arguments.get("enable_gqa", True) and query.shape[1] != key.shape[1]:
            raise ValueError("Expect query and key/value to have the same number of heads")
        return kernel(query, key, value, *ends, scale, window_size, **how)

    call.__signature__ = of
    return call
