"""The one record between models and losses: log-probabilities of K responses to each of B prompts; log-ratios of two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Logps:
    """Log-probabilities of K responses to each of B prompts, best response first.

    Args:
        sums: ``(B, K)`` log-probability of each response in nats, summed over its tokens.
            Half precision is raised to float32; float64 stays float64.
        tokens: ``(B, K)`` number of tokens in each response, end-of-sequence token included.

    Response 0 is the preferred one. A preference pair has K=2, a ranking K>2, a labelled answer K=1.

    Raises:
        ValueError: if the two shapes differ, are not ``(B, K)``, or a response has no tokens.

    Example:
        >>> record = Logps(sums=torch.tensor([[-12.0, -15.0]]), tokens=torch.tensor([[4, 10]]))
        >>> record.chosen, record.rejected
        (tensor([-12.]), tensor([-15.]))
        >>> record.per_token().sums  # per token the rejected response is the likelier one
        tensor([[-3.0000, -1.5000]])
    """

    sums: Tensor
    tokens: Tensor

    def __post_init__(self) -> None:
        if self.sums.ndim != 2 or self.sums.shape != self.tokens.shape:
            raise ValueError(
                "Logps wants sums and tokens of one shape (B, K), "
                f"got sums {tuple(self.sums.shape)} and tokens {tuple(self.tokens.shape)}"
            )
        if bool((self.tokens <= 0).any()):
            b, k = (int(i) for i in (self.tokens <= 0).nonzero()[0])
            count = self.tokens[b, k].item()
            raise ValueError(f"Logps wants at least 1 token in each response, got {count} in row {b}, response {k}")
        precision = torch.promote_types(self.sums.dtype, torch.float32)
        object.__setattr__(self, "sums", self.sums.to(precision))

    @classmethod
    def pair(
        cls,
        chosen: Tensor,
        rejected: Tensor,
        chosen_tokens: Tensor | int = 1,
        rejected_tokens: Tensor | int = 1,
    ) -> Logps:
        """Pairs from four ``(B,)`` tensors: two sums in nats and two token counts."""
        counts = [torch.as_tensor(n, device=chosen.device) for n in (chosen_tokens, rejected_tokens)]
        columns = [chosen, rejected, *(n.expand_as(chosen) if n.ndim == 0 else n for n in counts)]
        if len({column.shape for column in columns}) > 1:
            raise ValueError(
                "Logps.pair wants chosen, rejected and their token counts of one shape (B,), "
                f"got {', '.join(str(tuple(column.shape)) for column in columns)}"
            )
        return cls(torch.stack(columns[:2], dim=-1), torch.stack(columns[2:], dim=-1))

    def _column(self, k: int) -> Tensor:
        if self.sums.shape[1] != 2:
            raise ValueError(f"a pair loss wants K=2 responses to each prompt, got K={self.sums.shape[1]}")
        return self.sums[:, k]

    @property
    def chosen(self) -> Tensor:
        """``(B,)`` summed log-probability of the preferred response of each pair, in nats."""
        return self._column(0)

    @property
    def rejected(self) -> Tensor:
        """``(B,)`` summed log-probability of the other response of each pair, in nats."""
        return self._column(1)

    def per_token(self) -> Logps:
        """Mean log-probability per token, as a record whose responses all have length 1."""
        return Logps(self.sums / self.tokens, torch.ones_like(self.tokens))

    def detach(self) -> Logps:
        """The same numbers without their gradient."""
        return Logps(self.sums.detach(), self.tokens)


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
