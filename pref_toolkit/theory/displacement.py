"""Likelihood displacement in two dimensions: a pair is won while the chosen response becomes impossible.

Four responses with output embeddings ``w = (1, .1)``, ``l = (1, -.1)``, ``z = (0, 1)`` and ``u = (0, -1)``; the policy is
``softmax(<mu, h>)`` and only the hidden state ``h`` is trained, from ``(2, 0)``. The pair is ``w`` over ``l``. Their
embeddings nearly agree, so what lowers ``l`` lowers ``w`` with it, and the mass goes to ``z``, which nobody asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pref_toolkit.theory.bandits import Comparisons, minimise

RESPONSES = ("w", "l", "z", "u")
EMBEDDINGS = torch.tensor([[1, 0.1], [1, -0.1], [0, 1], [0, -1]], dtype=torch.float64)
START = torch.tensor([2.0, 0.0], dtype=torch.float64)
REFERENCE = torch.softmax(EMBEDDINGS @ START, dim=-1)
PAIR = Comparisons(torch.tensor([[0, 1]]), torch.ones(1, dtype=torch.float64))


def displacement(loss: Callable[..., Tensor], *, steps: int = 5000, learning_rate: float = 1.0, **given: Any) -> Tensor:
    """``(steps + 1, 4)`` probabilities of :data:`RESPONSES` along plain gradient descent on the pair; see :func:`minimise`."""
    return minimise(
        loss, PAIR, REFERENCE, features=EMBEDDINGS, start=START, steps=steps, learning_rate=learning_rate, **given
    )
