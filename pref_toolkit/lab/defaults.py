"""Settings of the lab's runs, chosen by the sweep that its chapter shows: responses have five tokens, not three hundred."""

from __future__ import annotations

from typing import Any

PAIRS = 10_000
TRAINING: dict[str, Any] = {
    "max_steps": 300,
    "batch_size": 64,
    "learning_rate": 5e-4,
    "max_length": 64,
    "sample_tokens": 12,
    "samples": 64,
}
RANKED = {"rrhf": 4, "s_dpo": 4, "plackett_luce": 4}
"""Methods made for longer rankings than pairs, with the responses to each prompt."""
METHODS: dict[str, dict[str, float]] = {
    "dpo": {"beta": 1.0},
    "simpo": {"learning_rate": 2e-4},
    "policy_gradient": {"beta": 0.3},
}


def defaults(method: str) -> dict[str, Any]:
    """Fields of ``TrainConfig`` and hyperparameters of the method that the lab changes, by name. A mixture has those of its
    parts, and the lab's own learning rate.
    """
    parts = method.split("+")
    if len(parts) == 1:
        return TRAINING | METHODS.get(method, {})
    own = {part: {name: v for name, v in METHODS.get(part, {}).items() if name not in TRAINING} for part in parts}
    return TRAINING | {f"{part}_{name}": value for part, given in own.items() for name, value in given.items()}


def responses(method: str) -> int:
    """The responses to each prompt in a method's rows; of a mixture, as many as every part is made for."""
    return min(RANKED.get(part, 2) for part in method.split("+"))
