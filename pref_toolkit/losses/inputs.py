"""What losses read, checked: every tensor has the shape the docstring says, or the error names it."""

from __future__ import annotations

import torch
from torch import Tensor

from pref_toolkit.logps import Logps, check_same_responses


class RowError(ValueError):
    """What a loss says of one row of its input.

    Args:
        reason: what is wrong, without the place.
        row: the first row of which it is true, from 0.
        response: which of the row's responses, from 0, if it is about one.
    """

    def __init__(self, reason: str, row: int, response: int | None = None) -> None:
        super().__init__(reason, row, response)
        self.reason, self.row, self.response = reason, row, response

    def __str__(self) -> str:
        return f"{self.reason} in row {self.row}" + ("" if self.response is None else f", response {self.response}")


def tensor_of(name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """The input ``name`` in at least ``dtype``. Unchecked, a ``(B, 1)`` would broadcast to ``(B, B)`` in silence.

    Raises:
        ValueError: if it does not have the shape.
    """
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")
    return value.to(torch.promote_types(value.dtype, dtype))


def only_response(name: str, record: Logps) -> Tensor:
    """``(B,)`` summed log-probability of the one response to each prompt, in nats.

    Raises:
        ValueError: if ``name`` holds more than one.
    """
    if record.sums.shape[1] != 1:
        raise ValueError(f"{name} must hold K=1 response to each prompt, got K={record.sums.shape[1]}")
    return record.sums[:, 0]


def answer_log_ratios(policy: Logps, reference: Logps) -> Tensor:
    """``rho`` of the one answer to each prompt, ``(B,)`` in nats.

    Raises:
        ValueError: if the records do not hold the same single answers.
    """
    check_same_responses(policy, reference)
    return only_response("policy", policy) - only_response("reference", reference)
