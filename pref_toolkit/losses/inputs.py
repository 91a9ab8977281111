"""What losses read, checked: every tensor has the shape the docstring says, or the error names it."""

from __future__ import annotations

import torch
from torch import Tensor

from pref_toolkit.logps import Logps


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


def check_same_responses(policy: Logps, reference: Logps) -> None:
    """Refuse records of different shapes.

    Raises:
        ValueError: if the records do not hold the same number of prompts and responses.
    """
    if policy.sums.shape != reference.sums.shape:
        raise ValueError(
            "policy and reference must hold the same responses, "
            f"got shapes {tuple(policy.sums.shape)} and {tuple(reference.sums.shape)}"
        )


def check_same_pairs(policy: Logps, reference: Logps) -> None:
    """Refuse records of different shapes, and of anything but pairs.

    Raises:
        ValueError: if the records do not hold the same number of pairs.
    """
    check_same_responses(policy, reference)
    if policy.sums.shape[1] != 2:
        raise ValueError(f"a pair loss wants K=2 responses to each prompt, got K={policy.sums.shape[1]}")


def log_ratios(policy: Logps, reference: Logps) -> Tensor:
    """``rho = l - r``, ``(B, K)`` in nats: how much likelier each response became.

    Raises:
        ValueError: if the records do not hold the same number of prompts and responses.

    Example:
        >>> ones = torch.ones(1, 3)
        >>> log_ratios(Logps(torch.tensor([[-12.0, -15.0, -9.0]]), ones), Logps(torch.full((1, 3), -14.0), ones))
        tensor([[ 2., -1.,  5.]])
    """
    check_same_responses(policy, reference)
    return policy.sums - reference.sums


def pair_log_ratios(policy: Logps, reference: Logps) -> tuple[Tensor, Tensor]:
    """``rho_w, rho_l``, each ``(B,)`` in nats.

    Raises:
        ValueError: if the records do not hold the same number of pairs.
    """
    check_same_pairs(policy, reference)
    return policy.chosen - reference.chosen, policy.rejected - reference.rejected


def margin(policy: Logps, reference: Logps) -> Tensor:
    """``D = (l_w - r_w) - (l_l - r_l)``, ``(B,)``: nats by which the policy prefers the chosen beyond the reference.

    Raises:
        ValueError: if the records do not hold the same number of pairs.

    Example:
        >>> policy = Logps.pair(torch.tensor([-12.0]), torch.tensor([-15.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0]), torch.tensor([-14.0]))
        >>> margin(policy, reference)  # (-12 + 14) - (-15 + 14)
        tensor([3.])
    """
    rho_w, rho_l = pair_log_ratios(policy, reference)
    return rho_w - rho_l


def ranked_log_ratios(policy: Logps, reference: Logps) -> tuple[Tensor, Tensor]:
    """``rho`` of the best response ``(B, 1)`` and of the others ``(B, K - 1)``, in nats.

    Raises:
        ValueError: if the records differ in shape or hold fewer than two responses to a prompt.
    """
    rho = log_ratios(policy, reference)
    if rho.shape[1] < 2:
        raise ValueError(f"a ranking loss wants K >= 2 responses to each prompt, got K={rho.shape[1]}")
    return rho[:, :1], rho[:, 1:]


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
