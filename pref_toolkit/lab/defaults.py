"""Settings of the lab's runs, chosen by a sweep: its responses have five tokens, not three hundred."""

from __future__ import annotations

from typing import Any

TRAINING: dict[str, Any] = {"learning_rate": 1e-3, "max_length": 64, "sample_tokens": 12}
METHODS: dict[str, dict[str, float]] = {}


def defaults(method: str) -> dict[str, Any]:
    """Fields of ``TrainConfig`` and hyperparameters of the method that the lab changes, by name."""
    return TRAINING | METHODS.get(method, {})
