"""The losses of two modules that chase each other: DPO's, and DPO's again with the other module as reference."""

from __future__ import annotations

from torch import Tensor

from pref_toolkit.logps import Logps
from pref_toolkit.losses.method import NonNegative, Positive, method
from pref_toolkit.losses.pairs import dpo

PAPER = "Qi et al. 2024, arXiv:2406.05534"
EQUATION = "eqs. 3-6, as an independent implementation reads them"


@method(paper=PAPER, equation=EQUATION, chapter="loops/fast_slow", of_loops=True)
def chase_fast(
    policy: Logps, reference: Logps, opponent: Logps, *, beta: Positive = 0.1, alpha: NonNegative = 0.1
) -> Tensor:
    """The module in the fast role: ``-log sigmoid(beta D) - alpha log sigmoid(beta E)``.

    ``D`` is the margin of the policy over the reference, ``E`` its margin over the opponent, the slow module, which is held
    fixed. At policy = opponent = reference the loss is ``(1 + alpha) log 2``.

    Args:
        policy, reference: pairs ``(B, 2)`` in nats, chosen first.
        opponent: the same pairs under the other module; no gradient reaches it.
        beta: strength of the pull to the reference, 1 / nats.
        alpha: weight of the race. The value that the authors used is not known here.

    Returns:
        ``(B,)``, in nats.

    Raises:
        ValueError: if the records are not pairs of the same responses.

    >>> import torch
    >>> pair = Logps.pair(torch.tensor([-5.0]), torch.tensor([-6.0]))
    >>> chase_fast(pair, pair, pair, alpha=0.5)
    tensor([1.0397])
    """
    return dpo(policy, reference, beta=beta) + alpha * dpo(policy, _held(opponent), beta=beta)


@method(paper=PAPER, equation=EQUATION, chapter="loops/fast_slow", of_loops=True)
def chase_slow(
    policy: Logps, reference: Logps, opponent: Logps, *, beta: Positive = 0.1, alpha: NonNegative = 0.1
) -> Tensor:
    """The module in the slow role: ``-log sigmoid(beta D) + alpha log sigmoid(-beta E)``.

    ``D`` is the margin of the policy over the reference, ``E`` its margin over the opponent, the fast module, which is held
    fixed. The loss has no lower bound: it falls by ``alpha beta`` for each nat that the policy is ahead. At policy = opponent =
    reference it is ``(1 - alpha) log 2``.

    Args:
        policy, reference: pairs ``(B, 2)`` in nats, chosen first.
        opponent: the same pairs under the other module; no gradient reaches it.
        beta: strength of the pull to the reference, 1 / nats.
        alpha: weight of the race.

    Returns:
        ``(B,)``, in nats.

    Raises:
        ValueError: if the records are not pairs of the same responses.

    >>> import torch
    >>> pair = Logps.pair(torch.tensor([-5.0]), torch.tensor([-6.0]))
    >>> chase_slow(pair, pair, pair, alpha=0.5)
    tensor([0.3466])
    """
    return dpo(policy, reference, beta=beta) - alpha * dpo(_held(opponent), policy, beta=beta)


def _held(record: Logps) -> Logps:
    return Logps(record.sums.detach(), record.tokens)
