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
        last: positions that go through the MLP of the last layer.
    """

    tokens: int
    looks: int
    scored: int
    last: int


def padded(examples: Sequence[Encoded], *, scored: Literal["responses", "next", "all"]) -> Positions:
    """A row to each response, the prompt repeated, all rows as wide as the longest.

    Scored are the tokens of the responses, all that have a next token, or all positions.
    """
    lengths = [len(e.prompt) + len(r) for e in examples for r in e.responses]
    tokens, looks = len(lengths) * max(lengths), len(lengths) * _causal(max(lengths))
    answers = sum(len(r) for e in examples for r in e.responses)
    return Positions(
        tokens, looks, {"responses": answers, "next": tokens - len(lengths), "all": tokens}[scored], tokens
    )


def packed(examples: Sequence[Encoded], *, shared: bool = True, trimmed: bool = True) -> Positions:
    """No padding; with ``shared``, the prompt once for all its responses; ``trimmed``, the last MLP where a token is scored."""
    groups = [(len(e.prompt), [len(r) for r in e.responses]) for e in examples]
    if not shared:
        groups = [(prompt, [length]) for prompt, lengths in groups for length in lengths]
    # The last token of a response is predicted, never read.
    tokens = sum(prompt + sum(n - 1 for n in lengths) for prompt, lengths in groups)
    looks = sum(_causal(prompt) + sum((n - 1) * prompt + _causal(n - 1) for n in lengths) for prompt, lengths in groups)
    scored = sum(n for _, lengths in groups for n in lengths)
    return Positions(tokens, looks, scored, scored if trimmed else tokens)


def operations(
    config: Any,
    rank: int,
    at: Positions,
    *,
    head: str,
    reference: bool,
    recompute: bool = False,
    input_gradient: bool = False,
) -> int:
    """Floating-point operations of forward and backward, and of the reference's forward if it is live.

    Args:
        config: of a Llama-shaped model.
        rank: of the adapters on all linear layers.
        at: from :func:`padded` or :func:`packed`.
        head: a name in :data:`HEAD`.
        reference: whether the frozen reference is scored too.
        recompute: whether layers run forward a second time (gradient checkpointing).
        input_gradient: whether the gradient of the embeddings is made, which nobody reads.
    """
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    size = getattr(config, "head_dim", None) or width // config.num_attention_heads
    queries, keys = size * config.num_attention_heads, size * config.num_key_value_heads
    attention_matrices = [(width, queries), (width, keys), (width, keys), (queries, width)]
    mlp_matrices = [(width, inner), (width, inner), (inner, width)]
    frozen = adapters = 0
    for matrices, rows in (
        (attention_matrices, layers * at.tokens),
        (mlp_matrices, (layers - 1) * at.tokens + at.last),
    ):
        frozen += 2 * rows * sum(a * b for a, b in matrices)
        adapters += 2 * rows * sum(rank * (a + b) for a, b in matrices)
    looks = 4 * queries * layers * at.looks
    forward = frozen + adapters + looks
    backward = frozen + 2 * adapters + 2 * looks
    if not input_gradient:
        backward -= 2 * at.tokens * (width * (queries + 2 * keys) + 3 * rank * width)
    total = forward + backward + HEAD[head] * at.scored * width * config.vocab_size
    if recompute:
        total += forward
    if reference:
        total += frozen + looks + 2 * at.scored * width * config.vocab_size
    return total


def _causal(length: int) -> int:
    return length * (length + 1) // 2
