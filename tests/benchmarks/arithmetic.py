"""What must be multiplied: floating-point operations of one update, counted from lengths alone.

Only matrix products count (two operations for a multiply-add); norms, activations, softmax and rotary embeddings do not.
The backward pass of a frozen matrix makes the gradient of its input only; an adapter's makes those of its factors too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pref_toolkit.data.tokens import Encoded

HEAD = {"one pass": 4, "remade": 6, "kept": 4}
"""Operations of the head for a scored position, in units of hidden x vocabulary: forward 2, gradient of the hidden state 2,
and 2 more where the logits were not kept and are made again on the way back. ``one pass`` makes the gradient in the forward."""


@dataclass(frozen=True)
class Positions:
    """What an update puts through the model.

    Args:
        tokens: positions that go through the layers.
        looks: pairs of a position and one that it sees.
        scored: positions that go through the head.
        last_tokens: positions whose output the last layer makes.
        last_looks: what those see.
    """

    tokens: int
    looks: int
    scored: int
    last_tokens: int
    last_looks: int


def padded(examples: Sequence[Encoded], *, scored: Literal["responses", "next", "all"]) -> Positions:
    """A row to each response, the prompt repeated, all rows as wide as the longest.

    Scored are the tokens of the responses, all that have a next token, or all positions.
    """
    lengths = [len(e.prompt) + len(r) for e in examples for r in e.responses]
    tokens, looks = len(lengths) * max(lengths), len(lengths) * _causal(max(lengths))
    rows = {
        "responses": sum(len(r) for e in examples for r in e.responses),
        "next": tokens - len(lengths),
        "all": tokens,
    }
    return Positions(tokens, looks, rows[scored], tokens, looks)


def packed(examples: Sequence[Encoded], *, shared: bool = True, trimmed: bool = True) -> Positions:
    """No padding; with ``shared``, the prompt once for all its responses. ``trimmed``: the last layer's output where scored."""
    groups = [(len(e.prompt), [len(r) for r in e.responses]) for e in examples]
    if not shared:
        groups = [(prompt, [length]) for prompt, lengths in groups for length in lengths]
    # The last token of a response is predicted, never read.
    inside = lambda prompt, n: (n - 1) * prompt + _causal(n - 1)
    tokens = sum(prompt + sum(n - 1 for n in lengths) for prompt, lengths in groups)
    looks = sum(_causal(prompt) + sum(inside(prompt, n) for n in lengths) for prompt, lengths in groups)
    scored = sum(n for _, lengths in groups for n in lengths)
    if not trimmed:
        return Positions(tokens, looks, scored, tokens, looks)
    last_looks = sum(prompt + inside(prompt, n) for prompt, lengths in groups for n in lengths)
    return Positions(tokens, looks, scored, scored, last_looks)


def operations(
    config: Any,
    rank: int,
    at: Positions,
    *,
    head: str,
    reference: bool,
    recompute: bool = False,
) -> int:
    """Floating-point operations of forward and backward, and of the reference's forward if it is live.

    Args:
        config: of a Llama-shaped model.
        rank: of the adapters on all linear layers.
        at: from :func:`padded` or :func:`packed`.
        head: a name in :data:`HEAD`.
        reference: whether the frozen reference is scored too.
        recompute: whether layers run forward a second time (gradient checkpointing).
    """
    width, inner = config.hidden_size, config.intermediate_size
    size = getattr(config, "head_dim", None) or width // config.num_attention_heads
    queries, keys = size * config.num_attention_heads, size * config.num_key_value_heads
    everywhere = [(width, keys), (width, keys)]  # a key and a value wherever somebody may look
    at_outputs = [(width, queries), (queries, width), (width, inner), (width, inner), (inner, width)]
    full, last = config.num_hidden_layers - 1, 1
    frozen = adapters = 0
    for matrices, rows in (
        (everywhere, (full + last) * at.tokens),
        (at_outputs, full * at.tokens + last * at.last_tokens),
    ):
        frozen += 2 * rows * sum(a * b for a, b in matrices)
        adapters += 2 * rows * sum(rank * (a + b) for a, b in matrices)
    attention = 4 * queries * (full * at.looks + last * at.last_looks)
    forward = frozen + adapters + attention
    backward = frozen + 2 * adapters + 2 * attention
    if not recompute:  # nobody wants the gradient of the embeddings; only checkpointing has to make it
        backward -= 2 * at.tokens * (width * (queries + 2 * keys) + 3 * rank * width)
    total = forward + backward + HEAD[head] * at.scored * width * config.vocab_size
    if recompute:
        total += forward
    if reference:
        total += frozen + attention + 2 * at.scored * width * config.vocab_size
    return total


def _causal(length: int) -> int:
    return length * (length + 1) // 2
