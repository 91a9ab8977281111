"""Attention over packed rows, segment by segment: work only where a token may look.

A response sees its prompt and itself. A mask over the whole sequence says so too, and costs its square. Here a prompt or a
response, a segment, meets just the keys it sees, by one of three kernels: ``by_segment`` calls the library's kernel once for
each; ``by_varlen`` calls a kernel for sequences of unequal lengths once for all; ``by_flex`` calls a kernel that leaves out
blocks no token may look at. The last two are for CUDA, where they are tried out first; no GPU has run them yet.

Whatever depends on the batch alone is made once, before the layers: each kernel returns the function that the layers call. That
function travels through the model's forward as the keyword ``attend``, to the attention that is registered with transformers
under ``SEGMENTS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pref_toolkit.data.batches import Segment
from pref_toolkit.training.protocols import CausalLM

SEGMENTS = "pref_toolkit_segments"

Attend = Callable[[Tensor, Tensor, Tensor, float | None], Tensor]
"""Query ``(1, heads, T, size)``, key and value ``(1, key heads, T, size)``, scale -> ``(1, T, heads, size)``."""
Kernel = Callable[[Sequence[Segment], torch.device], Attend]

TAKES_GROUPS = {"cpu"}
"""Types of devices whose kernel of the library serves a group of query heads by one key head under a mask. On CUDA it would be
plain products in float32: a dozen kernels for each segment."""


@contextmanager
def packed(model: CausalLM) -> Iterator[None]:
    """Inside, the layers of the model attend by :func:`segment_attention`; afterwards as they did before."""
    parts = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    before = [(part.config, part.config._attn_implementation) for part in parts]
    model.set_attn_implementation(SEGMENTS)
    try:
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Inside, attention of the library on CUDA is not cuDNN's, which torch takes first on newer GPUs.

    cuDNN builds a plan for each new shape: a packed batch has dozens, generation one for each token. Its backward under a mask
    gives NaN at some lengths (pytorch issue 196678). On other devices nothing changes.
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def segment_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    attend: Attend | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one packed sequence; without ``attend`` (in generation, say) the library's own.

    Args:
        query: ``(1, heads, T, size)``.
        key, value: ``(1, key heads, T, size)``; each key head serves a group of query heads.
        attention_mask: not read where there is ``attend``.
        scaling: factor of the products; ``1 / sqrt(size)`` if not given.
        dropout, softcap: not supported where there is ``attend``.
        attend: what knows the segments of the sequence.

    Returns:
        ``(1, T, heads, size)`` and None, as transformers wants it.

    Raises:
        ValueError: for an architecture that caps attention scores, or attention dropout that was not switched off.
    """
    if attend is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, softcap=softcap, **kwargs
        )
    if dropout or softcap is not None:
        raise ValueError("attention by segments has no dropout and no cap on its scores")
    return attend(query, key, value, scaling), None


def by_segment(segments: Sequence[Segment], device: torch.device) -> Attend:
    """The library's kernel, once for each segment."""
    # The i-th token of a response sees the whole prompt and the response up to itself.
    sees = lambda prompt, own: torch.ones(own, prompt + own, dtype=torch.bool, device=device).tril(prompt)
    masks = [[sees(s.end - s.start, last - first) for first, last in s.responses] for s in segments]
    sizes = [last - first for s in segments for first, last in s.parts]

    def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        group = query.shape[1] // key.shape[1]
        if group > 1 and device.type not in TAKES_GROUPS:
            key, value = (states.repeat_interleave(group, dim=1) for states in (key, value))
        how: dict[str, Any] = {"enable_gqa": key.shape[1] != query.shape[1], "scale": scale}
        # One split: the gradient of a slice would be a tensor of the whole sequence, for every segment.
        pieces = zip(*(tensor.split(sizes, dim=2) for tensor in (query, key, value)))
        parts = []
        for of_responses in masks:
            q, prompt_k, prompt_v = next(pieces)
            parts.append(scaled_dot_product_attention(q, prompt_k, prompt_v, is_causal=True, **how))
            for mask in of_responses:
                q, k, v = next(pieces)
                if len(mask):
                    k, v = torch.cat([prompt_k, k], dim=2), torch.cat([prompt_v, v], dim=2)
                    parts.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, **how))
        return torch.cat([part.transpose(1, 2) for part in parts], dim=1)

    return attend


def by_varlen(segments: Sequence[Segment], device: torch.device) -> Attend:
    """A kernel for sequences of unequal lengths, once: each segment is one, a response's keys its prompt's and its own.

    The last query of a sequence must meet its last key (causal, aligned at the bottom right), which :func:`obstacle` checks.
    """
    from torch.nn.attention.varlen import varlen_attn

    keys: list[int] = []
    query_ends, key_ends = [0], [0]
    for s in segments:
        for first, last in (part for part in s.parts if part[0] < part[1]):
            keys += [*(range(s.start, s.end) if first >= s.end else ()), *range(first, last)]
            query_ends.append(last)
            key_ends.append(len(keys))
    longest = lambda ends: max(b - a for a, b in pairwise(ends))
    index = torch.tensor(keys, device=device)
    tensor = lambda ends: torch.tensor(ends, dtype=torch.int32, device=device)
    bounds: tuple[Any, ...] = (tensor(query_ends), tensor(key_ends), longest(query_ends), longest(key_ends))
    # Torch 2.11 takes groups of heads as they come; later versions want to be told of them.
    told = "enable_gqa" in signature(varlen_attn).parameters

    def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
        grouped: dict[str, Any] = {"enable_gqa": k.shape[1] != q.shape[1]} if told else {}
        out: Any = varlen_attn(
            q.contiguous(),
            k.index_select(0, index),
            v.index_select(0, index),
            *bounds,
            scale=scale,
            window_size=(-1, 0),
            **grouped,
        )
        return out[None]

    return attend


def by_flex(segments: Sequence[Segment], device: torch.device) -> Attend:
    """A compiled kernel that skips the blocks of the sequence's square where no token may look."""
    from torch.nn.attention.flex_attention import create_block_mask

    total = max(last for s in segments for _, last in s.parts)
    # Segments by number; the prompt of a response's tokens, and -1 for those of a prompt, which have no other to see.
    own, prompt = torch.zeros(2, total, dtype=torch.long).unbind()
    number = 0
    for s in segments:
        own[s.start : s.end], prompt[s.start : s.end], of_prompt = number, -1, number
        for first, last in s.responses:
            number += 1
            own[first:last], prompt[first:last] = number, of_prompt
        number += 1
    own, prompt = own.to(device), prompt.to(device)

    def may_see(_: Tensor, __: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return ((own[q] == own[k]) & (q >= k)) | (prompt[q] == own[k])

    blocks = create_block_mask(may_see, None, None, total, total, device=device)

    def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        grouped = key.shape[1] != query.shape[1]
        out: Tensor = _flex(device.type)(query, key, value, block_mask=blocks, scale=scale, enable_gqa=grouped)
        return out.transpose(1, 2)

    return attend


@cache
def _flex(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention


@without_cudnn()
def obstacle(kernel: Kernel, config: Any, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a kernel does not give the outputs and gradients of ``by_segment`` on random numbers, or None.

    Args:
        kernel: to try.
        config: of the model, for the shapes of its attention.
        device, dtype: where its weights will be and what they are.
    """
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    segments = [Segment(0, 40, [(40, 43), (43, 60)]), Segment(60, 61, [(61, 61), (61, 101)])]
    random = torch.Generator().manual_seed(0)
    shapes = [(1, n, 101, size) for n in (heads, key_heads, key_heads)] + [(1, 101, heads, size)]
    *inputs, outer = (torch.randn(s, generator=random).to(device, dtype) for s in shapes)
    results = []
    for candidate in (by_segment, kernel):
        q, k, v = (tensor.clone().requires_grad_() for tensor in inputs)
        try:
            with torch.enable_grad():
                out = candidate(segments, device)(q, k, v, None)
                results.append([out.detach(), *torch.autograd.grad(out, [q, k, v], outer)])
        except Exception as error:  # whatever a kernel says that does not know the device, type or shape
            return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    apart = lambda a, b: float((a.float() - b.float()).norm() / b.float().norm())
    if all(apart(mine, plain) < torch.finfo(dtype).eps ** 0.5 for plain, mine in zip(*results)):
        return None
    return "its numbers are not those of attention segment by segment"


AttentionInterface.register(SEGMENTS, segment_attention)
# Outside of packed scoring the library builds the masks it builds for its own kernel.
AttentionMaskInterface.register(SEGMENTS, sdpa_mask)
