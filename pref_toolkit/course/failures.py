"""Cases of the graded exercises of ``book/practice/failures.md``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from pref_toolkit.course.cases import Case, exercise

BOS, EOS, WORDS = 1, 2, 20  # words are the ids from 3 on


def first_batch(fault: str, seed: int, *, padding: int = 0, lengths: tuple[int, ...] = (2, 5, 3, 3)) -> dict[str, Any]:
    """A record of random tokens and log-probabilities, built row by row, with one fault."""
    generator = torch.Generator().manual_seed(seed)

    def words(n: int) -> list[int]:
        return torch.randint(3, 3 + WORDS, (n,), generator=generator).tolist()

    prompts = [words(3 + k % 2) for k in range(len(lengths) // 2)]
    rows, scored, before, values = [], [], [], []
    for k, length in enumerate(lengths):
        prompt = [BOS] * (2 if fault == "two BOS" else 1) + prompts[k // 2]
        response = words(length) + ([] if fault == "no EOS" else [EOS])
        rows.append(prompt + response)
        scored.append([int(fault == "prompt")] * len(prompt) + [1] * len(response))
        before.append(len(prompt))
        values.append((-3 * torch.rand(len(rows[-1]), dtype=torch.double, generator=generator)).tolist())
    width = max(map(len, rows)) + 1

    totals = [sum(v for v, bit in zip(value, bits) if bit) for value, bits in zip(values, scored)]
    if fault == "mean":
        totals = [total / sum(bits) for total, bits in zip(totals, scored)]
    policy = torch.tensor(totals, dtype=torch.double).view(-1, 2)
    reference = policy.clone()
    if fault == "reference":
        reference[-1, 1] += 0.1

    def padded(lists: list[list[Any]], fill: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
        return torch.tensor([row + [fill] * (width - len(row)) for row in lists], dtype=dtype)

    return {
        "ids": padded(rows, padding),
        "scored": padded(scored, 0),
        "prompt_tokens": torch.tensor(before),
        "tokens": torch.tensor([len(row) for row in rows]),
        "of_token": padded(values, 0, torch.double),
        "policy": policy,
        "reference": reference,
        "bos": BOS,
        "eos": EOS,
    }


@exercise("failures-ex-6")
def which_fault() -> Iterator[Case]:
    """Records whose one fault is known, because it was planted."""
    for about, fault, setting in (
        ("nothing is wrong", "healthy", {}),
        ("policy and reference differ in one response", "reference", {}),
        ("the prompt is scored", "prompt", {}),
        ("the prompt begins with two BOS", "two BOS", {}),
        ("no response ends with EOS", "no EOS", {}),
        ("log-probabilities are averaged", "mean", {}),
        ("nothing is wrong, and EOS is the padding", "healthy", {"padding": EOS}),
        ("no response ends with EOS, and EOS is the padding", "no EOS", {"padding": EOS}),
        ("nothing is wrong, and BOS is the padding", "healthy", {"padding": BOS}),
        ("averages of responses of one word", "mean", {"lengths": (1, 1)}),
    ):
        record = first_batch(fault, seed=len(about), **setting)
        yield Case(about, (record,), fault)


@exercise("failures-ex-7")
def response_mask() -> Iterator[Case]:
    """Masks found by walking along each row."""
    for about, rows, prompt_tokens in (
        ("one response", [[1, 5, 6, 7, 8, 2]], [3]),
        ("a row padded with EOS", [[1, 5, 6, 7, 2, 2, 2]], [3]),
        ("an earlier turn in the prompt", [[1, 5, 2, 6, 2, 7, 8, 2, 2]], [5]),
        ("a response that was cut", [[1, 5, 6, 7, 8, 9]], [2]),
        ("a response of EOS alone", [[1, 5, 6, 2, 2, 2]], [3]),
        (
            "prompts of several lengths",
            [[1, 5, 6, 7, 8, 2, 2], [1, 5, 6, 7, 8, 9, 2], [1, 2, 4, 2, 2, 2, 2]],
            [2, 5, 3],
        ),
    ):
        masks = []
        for row, begin in zip(rows, prompt_tokens):
            mask, ended = [0] * len(row), False
            for t in range(begin, len(row)):
                mask[t] = int(not ended)
                ended = ended or row[t] == EOS
            masks.append(mask)
        yield Case(about, (torch.tensor(rows), torch.tensor(prompt_tokens), EOS), torch.tensor(masks))
