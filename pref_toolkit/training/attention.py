"""Attention over packed rows, segment by segment: work only where a token may look.

A response sees its prompt and itself. A mask over the whole sequence says so too, and costs its square; here each prompt
and each response is one call of the library's kernel with just the keys it sees. Registered with transformers under
:data:`SEGMENTS`; the segments travel through the model's forward as a keyword.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pref_toolkit.data.batches import Segments

SEGMENTS = "pref_toolkit_segments"


def segment_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one packed sequence; without ``segments`` (in generation, say) the library's own.

    Args:
        query: ``(1, heads, T, size)``.
        key, value: ``(1, key heads, T, size)``; each key head serves a group of query heads.
        attention_mask: not read where there are segments.
        scaling: factor of the products; ``1 / sqrt(size)`` if not given.
        dropout, softcap: not supported where there are segments.
        segments: the rows of the sequence, in order and without gaps.

    Returns:
        ``(1, T, heads, size)`` and None, as transformers wants it.

    Raises:
        ValueError: for an architecture that caps attention scores, or attention dropout that was not switched off.
    """
    if segments is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, softcap=softcap, **kwargs
        )
    if dropout or softcap is not None:
        raise ValueError("attention by segments has no dropout and no cap on its scores")
    grouped: dict[str, Any] = {"enable_gqa": key.shape[1] != query.shape[1], "scale": scaling}
    parts = []
    for start, end, responses in segments:
        prompt_key, prompt_value = key[:, :, start:end], value[:, :, start:end]
        parts.append(
            scaled_dot_product_attention(query[:, :, start:end], prompt_key, prompt_value, is_causal=True, **grouped)
        )
        for first, last in responses:
            if first == last:
                continue
            # The i-th token of the response sees the whole prompt and the response up to itself.
            sees = torch.ones(last - first, end - start + last - first, dtype=torch.bool, device=query.device)
            parts.append(
                scaled_dot_product_attention(
                    query[:, :, first:last],
                    torch.cat([prompt_key, key[:, :, first:last]], dim=2),
                    torch.cat([prompt_value, value[:, :, first:last]], dim=2),
                    attn_mask=sees.tril(end - start),
                    **grouped,
                )
            )
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(SEGMENTS, segment_attention)
# Outside of packed scoring the library builds the masks it builds for its own kernel.
AttentionMaskInterface.register(SEGMENTS, sdpa_mask)
