"""Measures of policies and of reward models: numbers in, numbers out, without gradients."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import norm, spearmanr
from torch import Tensor

from pref_toolkit.logps import Logps


def preference(policy: Logps, reference: Logps | None) -> dict[str, float | None]:
    """Compare the first with the last response to each prompt, under a policy.

    Args:
        policy: ``(B, K)``, nats, best response first.
        reference: the same responses under the reference. If it is None, the measures that need it are None.

    Returns:
        Means over the B examples, by name.

        - ``reward_accuracy``: share of examples with a higher implicit reward ``l - r`` for the chosen response; a tie counts
          half;
        - ``margin``: mean of ``D = (l_w - r_w) - (l_l - r_l)``, nats;
        - ``chosen_logp, rejected_logp``: mean of ``l_w, l_l``, nats;
        - ``chosen_change, rejected_change``: mean of ``l_w - r_w, l_l - r_l``, nats: the change since step 0;
        - ``likelihood_accuracy``: share of examples with ``l_w > l_l``; a tie counts half.

        For K = 1 the first response is also the last, and only the log-probabilities are meaningful.
    """
    chosen, rejected = policy.sums[:, 0].detach(), policy.sums[:, -1].detach()
    out: dict[str, float | None] = {
        "chosen_logp": chosen.mean().item(),
        "rejected_logp": rejected.mean().item(),
        "likelihood_accuracy": _share_above(chosen - rejected),
    }
    if reference is None:
        return out | dict.fromkeys(("reward_accuracy", "margin", "chosen_change", "rejected_change"))
    chosen_change, rejected_change = chosen - reference.sums[:, 0], rejected - reference.sums[:, -1]
    return out | {
        "reward_accuracy": _share_above(chosen_change - rejected_change),
        "margin": (chosen_change - rejected_change).mean().item(),
        "chosen_change": chosen_change.mean().item(),
        "rejected_change": rejected_change.mean().item(),
    }


def rewards(given: Tensor) -> dict[str, float | None]:
    """Compare the first with the last response to each prompt, by the rewards of a reward model.

    Args:
        given: ``(B, K)`` rewards of responses, best first.

    Returns:
        The names of :func:`preference`. ``reward_accuracy`` and ``margin`` are those of the rewards, the margin in the
        reward's unit; measures of a policy are None.
    """
    names = ("chosen_logp", "rejected_logp", "likelihood_accuracy", "chosen_change", "rejected_change")
    lead = (given[:, 0] - given[:, -1]).detach()
    return dict.fromkeys(names) | {"reward_accuracy": _share_above(lead), "margin": lead.mean().item()}


def _share_above(difference: Tensor) -> float:
    return ((difference > 0).double() + 0.5 * (difference == 0).double()).mean().item()


def length_spearman(policy: Logps) -> float | None:
    """Spearman correlation of a response's summed log-probability with its length; None if one of the two is constant."""
    sums, tokens = policy.sums.detach().flatten().cpu().numpy(), policy.tokens.flatten().cpu().numpy()
    if len(set(sums.tolist())) < 2 or len(set(tokens.tolist())) < 2:
        return None
    return float(spearmanr(sums, tokens).statistic)


def sampled_kl(policy: Tensor, reference: Tensor) -> tuple[float, float]:
    """Monte Carlo estimate of ``KL(policy || reference)`` in nats per response, and its standard error.

    Args:
        policy, reference: ``(n,)`` summed log-probabilities of n responses **drawn from the policy**.

    The estimator is the mean of ``l - r``. It is unbiased, and may be negative.
    """
    ratio = (policy - reference).double()
    error = ratio.std().item() / math.sqrt(len(ratio)) if len(ratio) > 1 else math.inf
    return ratio.mean().item(), error


def mean_interval(values: list[float], level: float = 0.95) -> tuple[float, float]:
    """Normal interval for the mean of independent values, such as wins in which a tie counts half.

    Raises:
        ValueError: for fewer than 2 values.
    """
    if len(values) < 2:
        raise ValueError("an interval wants at least 2 values")
    half = float(norm.ppf(0.5 + level / 2)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share ``successes / n``; a tie may count as half a success."""
    if n < 1:
        raise ValueError("an interval wants at least one trial")
    z = float(norm.ppf(0.5 + level / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)
