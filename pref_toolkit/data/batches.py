"""Token ids -> batches that a model can score.

A packed batch is one sequence without padding::

    prompt_1 | r_11[:-1] | ... | r_1K[:-1] | prompt_2 | r_21[:-1] | ...

The positions of every response continue those of its prompt. A response attends to its prompt and to itself, so the model
computes each prompt once for all its responses. The first token of a response is scored at the last position of the
prompt; the last token of a response is not an input.
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
    """B prompts with K responses each, as R sequences of T tokens; R is 1 for a packed batch.

    Args:
        input_ids: ``(R, T)``.
        position_ids: ``(R, T)``.
        present: ``(R, T)``, 1 for a token and 0 for padding.
        scored: ``(N,)`` positions, in the flattened ``R * T``, whose next-token distributions score the responses.
        targets: ``(N,)`` the response token scored at each of these positions.
        owner: ``(N,)`` index among the ``B * K`` responses of the response that the token belongs to.
        tokens: ``(B, K)`` lengths of the responses, in tokens.
        segments: the B prompts with their responses in a packed batch; None if each response has a row of its own.
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
        """The same batch with its tensors on a device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "segments"}
        return Batch(**moved, segments=self.segments)

    def mask(self) -> Tensor:
        """``(T, T)`` booleans of a packed batch: whether position i (row) attends to position j (column)."""
        assert self.segments is not None
        length = self.input_ids.shape[1]
        mask = torch.zeros(length, length, dtype=torch.bool, device=self.input_ids.device)
        for segment in self.segments:
            for first, last in segment.parts:
                mask[first:last, segment.start : segment.end] = True
                mask[first:last, first:last] = True
        return mask.tril()


def packed_length(example: Encoded) -> int:
    """Number of positions that an example takes in a packed sequence."""
    return len(example.prompt) + sum(len(r) - 1 for r in example.responses)


def row_length(example: Encoded) -> int:
    """Number of positions of a row that holds the prompt and its longest response."""
    return len(example.prompt) + max(map(len, example.responses)) - 1


def micro_batches(examples: Sequence[Encoded], tokens: int, padded: bool = False) -> list[list[Encoded]]:
    """Split examples, in their order, into groups of at most ``tokens`` positions. A longer example is a group of its own.

    Positions are counted as in :func:`pack`, or as in :func:`separate` if ``padded``. The number of groups is the smallest
    possible in this order, and the largest group is as small as that number allows.
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
    """A packed batch: one sequence that holds every prompt once, followed by its responses."""
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
    """A padded batch: one row for each response, with its prompt. For architectures in which responses cannot share one."""
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
