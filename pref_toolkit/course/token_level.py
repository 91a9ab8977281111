"""Cases of the graded exercises of ``book/methods/token_level.md``."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.distributions import Categorical, kl_divergence

from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.theory import bandits

double = torch.float64


@exercise("token-level-ex-6")
def advantages() -> Iterator[Case]:
    """Log-ratios of the tokens of RLHF's optimum, from its probabilities of whole responses."""
    generator = torch.Generator().manual_seed(0)
    for about, v, beta, scale in (
        ("three tokens", 3, 1.0, 1.0),
        ("a small beta", 3, 0.1, 1.0),
        ("four tokens, a large beta", 4, 5.0, 1.0),
        ("rewards of hundreds", 2, 0.5, 300.0),
    ):
        log_ref = torch.randn(v * v, dtype=double, generator=generator).log_softmax(0)
        reward = scale * torch.rand(v * v, dtype=double, generator=generator)
        best, log_z = bandits.rlhf_optimum(log_ref.exp(), reward, beta)
        log_best = log_ref + reward / beta - log_z  # the logarithm of `best`, which may underflow
        assert torch.allclose(log_best.exp(), best)
        whole = [p.reshape(v, v) for p in (log_best, log_ref)]
        first = [p.logsumexp(1) for p in whole]
        ratios = [
            beta * (first[0] - first[1])[:, None].expand(v, v),
            beta * ((whole[0] - first[0][:, None]) - (whole[1] - first[1][:, None])),
        ]
        yield Case(about, (log_ref.reshape(v, v), reward.reshape(v, v), beta), torch.stack(ratios, dim=1))


@exercise("token-level-ex-7")
def sequence_kl() -> Iterator[Case]:
    """KL(reference || policy), summed over the positions that predict a token of the response."""
    generator = torch.Generator().manual_seed(0)
    masks = {
        "one response of three tokens": [[0, 0, 1, 1, 1]],
        "two responses, one of them padded": [[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]],
        "a response of one token": [[0, 0, 0, 1, 0]],
    }
    for about, mask in masks.items():
        shape = (len(mask), 5, 4)
        policy, reference = (2 * torch.randn(*shape, dtype=double, generator=generator) for _ in range(2))
        wanted = [
            torch.stack(
                [
                    kl_divergence(Categorical(logits=reference[b, t - 1]), Categorical(logits=policy[b, t - 1]))
                    for t in range(1, 5)
                    if mask[b][t]
                ]
            ).sum()
            for b in range(len(mask))
        ]
        yield Case(about, (policy, reference, torch.tensor(mask, dtype=double)), torch.stack(wanted))
