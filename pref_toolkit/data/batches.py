"""Token ids -> tensors a model can score: one row per prompt, its K responses behind it.

A packed batch is one sequence without padding::

    prompt_1 | r_11[:-1] | ... | r_1K[:-1] | prompt_2 | r_21[:-1] | ...

Positions restart at the end of the prompt for every response, and a response sees its prompt and itself. The prompt is
computed once however many responses it has. The first token of each response is scored from the prompt's last position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pref_toolkit.data.tokens import Encoded


@dataclass(frozen=True, eq=False)
class Batch:
    """B prompts with K responses each, laid out as R sequences of T tokens (R=1 when packed).

    Shapes: ``input_ids, position_ids, row, segment`` are ``(R, T)``; ``scored, targets, owner`` are ``(N,)`` for the N
    response tokens; ``tokens`` is ``(B, K)``.
    """

    input_ids: Tensor
    position_ids: Tensor
    row: Tensor
    """Which prompt a token belongs to, -1 for padding."""
    segment: Tensor
    """0 for a prompt's token, k for a token of the k-th response."""
    scored: Tensor
    """Where in the flattened ``R * T`` positions the distribution of a response token is read."""
    targets: Tensor
    """The response tokens themselves."""
    owner: Tensor
    """Which of the ``B * K`` responses a scored token belongs to."""
    tokens: Tensor
    """Lengths of the responses."""
    packed: bool
    """Whether prompts are shared, so that attention needs :meth:`mask`."""

    def to(self, device: torch.device | str) -> Batch:
        return Batch(**{f.name: _move(getattr(self, f.name), device) for f in fields(self)})

    def mask(self) -> Tensor:
        """``(T, T)`` booleans: may position i (row) see position j (column)? For a packed batch."""
        row, segment = self.row[0], self.segment[0]
        causal = torch.ones(row.numel(), row.numel(), dtype=torch.bool, device=row.device).tril()
        return causal & (row[:, None] == row) & ((segment == 0) | (segment[:, None] == segment))


def _move(value: Tensor | bool, device: torch.device | str) -> Tensor | bool:
    return value.to(device) if isinstance(value, Tensor) else value


def packed_length(example: Encoded) -> int:
    """Tokens an example takes in a packed batch."""
    return len(example.prompt) + sum(len(r) - 1 for r in example.responses)


def pack(examples: Sequence[Encoded]) -> Batch:
    """One sequence that holds every prompt once, followed by its responses."""
    ids, positions, rows, segments, scored, targets, owner = ([] for _ in range(7))  # type: ignore[var-annotated]
    k = _responses_each(examples)
    for b, example in enumerate(examples):
        start, length = len(ids), len(example.prompt)
        ids += example.prompt
        positions += range(length)
        segments += [0] * length
        for i, response in enumerate(example.responses):
            scored += [start + length - 1, *range(len(ids), len(ids) + len(response) - 1)]
            targets += response
            owner += [b * k + i] * len(response)
            ids += response[:-1]
            positions += range(length, length + len(response) - 1)
            segments += [i + 1] * (len(response) - 1)
        rows += [b] * (len(ids) - start)
    return Batch(
        *(torch.tensor([x]) for x in (ids, positions, rows, segments)),
        *(torch.tensor(x) for x in (scored, targets, owner)),
        tokens=torch.tensor([[len(r) for r in e.responses] for e in examples]),
        packed=True,
    )


def separate(examples: Sequence[Encoded]) -> Batch:
    """One padded sequence per response, prompt repeated: for architectures that cannot share a prompt."""
    k = _responses_each(examples)
    sequences = [(b, i, e.prompt, r) for b, e in enumerate(examples) for i, r in enumerate(e.responses)]
    width = max(len(prompt) + len(response) - 1 for _, _, prompt, response in sequences)
    shape = (len(sequences), width)
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.arange(width).repeat(shape[0], 1)
    rows, segments = torch.full(shape, -1), torch.zeros(shape, dtype=torch.long)
    scored, targets, owner = [], [], []
    for n, (b, i, prompt, response) in enumerate(sequences):
        length, end = len(prompt), len(prompt) + len(response) - 1
        ids[n, :end] = torch.tensor(prompt + response[:-1])
        rows[n, :end] = b
        segments[n, length:end] = i + 1
        scored += range(n * width + length - 1, n * width + end)
        targets += response
        owner += [b * k + i] * len(response)
    return Batch(
        ids,
        positions,
        rows,
        segments,
        *(torch.tensor(x) for x in (scored, targets, owner)),
        tokens=torch.tensor([[len(r) for r in e.responses] for e in examples]),
        packed=False,
    )


def _responses_each(examples: Sequence[Encoded]) -> int:
    counts = {len(e.responses) for e in examples}
    if len(counts) != 1:
        raise ValueError(f"a batch wants one number of responses for all its prompts, got {sorted(counts)}")
    return counts.pop()
