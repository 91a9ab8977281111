"""Token ids -> tensors a model can score: one row per prompt, its K responses behind it.

A packed batch is one sequence without padding::

    prompt_1 | r_11[:-1] | ... | r_1K[:-1] | prompt_2 | r_21[:-1] | ...

Positions restart at the end of the prompt for every response, and a response sees its prompt and itself. The prompt is
computed once however many responses it has. The first token of each response is scored from the prompt's last position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from pref_toolkit.data.tokens import Encoded


class Segment(NamedTuple):
    """A prompt and its responses in a packed sequence, as ranges of positions."""

    start: int
    """First position of the prompt."""

    end: int
    """Position after the prompt."""

    responses: list[tuple[int, int]]
    """For each response, the first position of its inputs and the position after them."""

    @property
    def parts(self) -> list[tuple[int, int]]:
        """The range of the prompt, then those of the responses."""
        return [(self.start, self.end), *self.responses]


@dataclass(frozen=True, eq=False)
class Batch:
    """B prompts with K responses each, laid out as R sequences of T tokens (R=1 when packed).

    Args:
        input_ids: ``(R, T)``.
        position_ids: ``(R, T)``.
        present: ``(R, T)``, 0 where there is only padding.
        scored: ``(N,)`` places in the flattened ``R * T`` where the distribution of each response token is read.
        targets: ``(N,)`` the response tokens themselves.
        owner: ``(N,)`` which of the ``B * K`` responses each belongs to.
        tokens: ``(B, K)`` lengths of the responses.
        segments: B ranges of a packed sequence; None for one row a response.
    """

    input_ids: Tensor
    position_ids: Tensor
    present: Tensor
    scored: Tensor
    targets: Tensor
    owner: Tensor
    tokens: Tensor
    segments: list[Segment] | None = None

    def to(self, device: torch.device | str) -> Batch:
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "segments"}
        return Batch(**moved, segments=self.segments)

    def mask(self) -> Tensor:
        """``(T, T)`` booleans of a packed batch: may position i (row) see position j (column)?"""
        assert self.segments is not None
        length = self.input_ids.shape[1]
        mask = torch.zeros(length, length, dtype=torch.bool, device=self.input_ids.device)
        for segment in self.segments:
            for first, last in segment.parts:
                mask[first:last, segment.start : segment.end] = True
                mask[first:last, first:last] = True
        return mask.tril()


def packed_length(example: Encoded) -> int:
    """Positions that an example takes in a packed sequence."""
    return len(example.prompt) + sum(len(r) - 1 for r in example.responses)


def row_length(example: Encoded) -> int:
    """Positions that the longest response of an example takes in a row of its own."""
    return len(example.prompt) + max(map(len, example.responses)) - 1


def micro_batches(examples: Sequence[Encoded], tokens: int, padded: bool = False) -> list[list[Encoded]]:
    """Examples in order, in groups of at most ``tokens`` positions; a longer example goes alone.

    Positions are those of :func:`pack`, or with ``padded`` those of :func:`separate`. In order no fewer groups would do, and
    these are the most even of as many: the largest is as small as it can be.
    """
    groups = _in_order(examples, tokens, padded)
    low, high = 0, tokens
    while high - low > 1:
        middle = (low + high) // 2
        closer = _in_order(examples, middle, padded)
        if len(closer) == len(groups):
            high, groups = middle, closer
        else:
            low = middle
    return groups


def _in_order(examples: Sequence[Encoded], tokens: int, padded: bool) -> list[list[Encoded]]:
    groups: list[list[Encoded]] = []
    used = rows = width = 0
    for example in examples:
        used += packed_length(example)
        rows += len(example.responses)
        width = max(width, row_length(example))
        if not groups or (rows * width if padded else used) > tokens:
            groups.append([])
            used, rows, width = packed_length(example), len(example.responses), row_length(example)
        groups[-1].append(example)
    return groups


def pack(examples: Sequence[Encoded]) -> Batch:
    """One sequence that holds every prompt once, followed by its responses."""
    ids: list[int] = []
    positions: list[int] = []
    scored: list[int] = []
    segments: list[Segment] = []
    for example in examples:
        start, end = len(ids), len(ids) + len(example.prompt)
        ids += example.prompt
        positions += range(len(example.prompt))
        inside: list[tuple[int, int]] = []
        for response in example.responses:
            first, last = len(ids), len(ids) + len(response) - 1
            inside.append((first, last))
            ids += response[:-1]
            positions += range(end - start, end - start + len(response) - 1)
            scored += [end - 1, *range(first, last)]
        segments.append(Segment(start, end, inside))
    return _batch(examples, torch.tensor([ids]), torch.tensor([positions]), torch.ones(1, len(ids)), scored, segments)


def separate(examples: Sequence[Encoded]) -> Batch:
    """One padded sequence per response, prompt repeated: for architectures that cannot share a prompt."""
    sequences = [(len(e.prompt), e.prompt + r[:-1]) for e in examples for r in e.responses]
    width = max(map(row_length, examples))
    ids, present = torch.zeros(len(sequences), width, dtype=torch.long), torch.zeros(len(sequences), width)
    scored: list[int] = []
    for n, (prompt, sequence) in enumerate(sequences):
        ids[n, : len(sequence)] = torch.tensor(sequence)
        present[n, : len(sequence)] = 1
        scored += range(n * width + prompt - 1, n * width + len(sequence))
    return _batch(examples, ids, torch.arange(width).repeat(len(sequences), 1), present, scored, None)


def _batch(
    examples: Sequence[Encoded],
    ids: Tensor,
    positions: Tensor,
    present: Tensor,
    scored: list[int],
    segments: list[Segment] | None,
) -> Batch:
    counts = {len(e.responses) for e in examples}
    if len(counts) != 1:
        raise ValueError(f"a batch wants one number of responses for all its prompts, got {sorted(counts)}")
    responses = [r for e in examples for r in e.responses]
    return Batch(
        ids,
        positions,
        present.long(),
        torch.tensor(scored),
        targets=torch.tensor([token for r in responses for token in r]),
        owner=torch.repeat_interleave(torch.tensor([len(r) for r in responses])),
        tokens=torch.tensor([[len(r) for r in e.responses] for e in examples]),
        segments=segments,
    )
