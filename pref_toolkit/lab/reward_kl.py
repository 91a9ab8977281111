"""The exact trade-off between reward and KL for a reward of 0 (wrong) or 1 (right).

Among all policies, ``ref(y|x) exp(r(x, y) / beta) / Z(x)`` has the highest mean reward at its KL to the reference. With a
reward of 0 or 1, this policy moves probability from wrong to right responses and keeps the proportions within each group.
Reward and KL depend on the reference only through ``p(x)``, its probability of a right response.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit

LARGEST_TILT = 1000.0  # at a larger 1/beta, the probability of a wrong response is 0 in float64


def optimum(p: ArrayLike, beta: float) -> tuple[float, float]:
    """Mean accuracy and mean KL (in nats) of the optimal policy at temperature ``beta``.

    Per prompt ``accuracy = p e^(1/beta) / Z`` with ``Z = 1 - p + p e^(1/beta)``, and ``KL = accuracy / beta - log Z``.

    Args:
        p: ``(n,)`` the reference's probability of a right response to each prompt.
        beta: temperature above 0; ``inf`` gives the reference itself.
    """
    if not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta!r}")
    return _tilted(_chances(p), 1 / beta)


def frontier(p: ArrayLike, kl: float) -> float:
    """The highest mean accuracy of any policy with a mean KL of ``kl`` nats to the reference.

    The policy of :func:`optimum` reaches it, with the one ``beta`` for all prompts at which the mean KL is ``kl``. From a KL
    of ``mean(-log p)`` on, over prompts with ``p > 0``, every prompt that has a right response is answered correctly.

    Args:
        p: ``(n,)`` the reference's probability of a right response to each prompt.
        kl: mean KL in nats, at least 0.
    """
    p = _chances(p)
    if not kl >= 0:
        raise ValueError(f"kl must be at least 0, got {kl!r}")
    if kl <= _tilted(p, 0.0)[1]:  # 0 up to rounding
        return _tilted(p, 0.0)[0]
    if kl >= _tilted(p, LARGEST_TILT)[1]:
        return _tilted(p, LARGEST_TILT)[0]
    tilt = brentq(lambda tilt: _tilted(p, tilt)[1] - kl, 0.0, LARGEST_TILT, xtol=1e-13)
    return _tilted(p, float(tilt))[0]


def _chances(p: ArrayLike) -> np.ndarray:
    chances = np.asarray(p, dtype=np.float64).reshape(-1)
    if chances.size == 0 or not ((chances >= 0) & (chances <= 1)).all():
        raise ValueError("p must hold one chance between 0 and 1 for each prompt, at least one")
    return chances


def _tilted(p: np.ndarray, tilt: float) -> tuple[float, float]:
    if math.isinf(tilt):
        raise ValueError("beta is too small for 1/beta to be a number")
    accuracy = expit(logit(p) + tilt)
    with np.errstate(divide="ignore"):  # log 0 is meant: a prompt without right responses, or without wrong ones
        log_z = np.logaddexp(np.log1p(-p), np.log(p) + tilt)
    return float(accuracy.mean()), float((accuracy * tilt - log_z).mean())
