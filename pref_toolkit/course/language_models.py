"""Cases of the graded exercises of ``book/foundations/language_models.md``."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from pref_toolkit.course.cases import Case, exercise

double = torch.float64


@exercise("language-models-ex-6")
def response_sums() -> Iterator[Case]:
    """Log-probabilities of responses, added up token by token with the softmax written out."""
    generator = torch.Generator().manual_seed(0)
    for about, lengths, width, size, scale in (
        ("one response of two tokens", [(3, 2)], 5, 4, 1.0),
        ("a row with padding", [(2, 4), (3, 1)], 6, 5, 1.0),
        ("three rows and another vocabulary", [(1, 3), (4, 2), (2, 2)], 7, 9, 1.0),
        ("logits of thousands", [(2, 3), (3, 2)], 5, 6, 1000.0),
    ):
        logits = scale * torch.randn(len(lengths), width, size, dtype=double, generator=generator)
        tokens = torch.randint(size, (len(lengths), width), generator=generator)
        mask = torch.zeros(len(lengths), width, dtype=torch.long)
        sums = []
        for b, (prompt, response) in enumerate(lengths):
            mask[b, prompt : prompt + response] = 1
            total = 0.0
            for t in range(prompt, prompt + response):
                row = logits[b, t - 1].tolist()
                top = max(row)
                total += row[int(tokens[b, t])] - top - math.log(sum(math.exp(z - top) for z in row))
            sums.append(total)
        yield Case(about, (logits, tokens, mask), torch.tensor(sums, dtype=double))


@exercise("language-models-ex-7")
def top_p() -> Iterator[Case]:
    """The distribution that top-p sampling draws from, token by token, the likeliest first."""
    for about, probabilities, p in (
        ("two of four tokens stay", [0.1, 0.5, 0.3, 0.1], 0.7),
        ("the token that crosses p stays", [0.45, 0.05, 0.35, 0.15], 0.5),
        ("one token is enough", [0.02, 0.08, 0.9], 0.6),
        ("nothing goes", [0.3, 0.2, 0.26, 0.24], 1.0),
        ("p below every probability", [0.2, 0.37, 0.43], 0.05),
    ):
        kept, mass = [0.0] * len(probabilities), 0.0
        for token in sorted(range(len(probabilities)), key=lambda k: -probabilities[k]):
            kept[token] = probabilities[token]
            mass += probabilities[token]
            if mass >= p - 1e-12:
                break
        wanted = torch.tensor([value / mass for value in kept], dtype=double)
        yield Case(about, (torch.tensor(probabilities, dtype=double), p), wanted)
