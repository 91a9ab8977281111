"""The exact trade of reward against KL when the reward is right or wrong.

Among all policies, ``ref(y|x) exp(r(x, y) / beta) / Z(x)`` has the highest mean reward at its KL to the reference. With a
reward of 0 or 1 it moves mass from wrong to right responses and leaves the proportions within each group alone. So all that
matters of the reference is ``p(x)``, its chance of being right.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit

LARGEST_TILT = 1000.0  # 1/beta beyond which float64 sees no wrong response left


def optimum(p: ArrayLike, beta: float) -> tuple[float, float]:
    """Mean accuracy and mean KL (nats) of the optimal policy at temperature ``beta``.

    Per prompt ``accuracy = p e^(1/beta) / Z`` with ``Z = 1 - p + p e^(1/beta)``, and ``KL = accuracy / beta - log Z``.

    Args:
        p: ``(n,)`` the reference's chance of being right on each prompt, between 0 and 1.
        beta: above 0; ``inf`` is the reference itself.
    """
    if not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta!r}")
    return _tilted(_chances(p), 1 / beta)


def frontier(p: ArrayLike, kl: float) -> float:
    """The best mean accuracy that any policy reaches at a mean KL of ``kl`` nats from the reference.

    It is :func:`optimum`'s at the one ``beta``, shared by all prompts, whose mean KL is ``kl``. From a KL of ``mean(-log p)``
    on (over prompts with p > 0), every prompt that has a right response is answered rightly.

    Args:
        p: ``(n,)`` the reference's chance of being right on each prompt, between 0 and 1.
        kl: at least 0.
    """
    p = _chances(p)
    if not kl >= 0:
        raise ValueError(f"kl must be at least 0, got {kl!r}")
    if kl <= _tilted(p, 0.0)[1]:  # 0, to rounding
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
    with np.errstate(divide="ignore"):  # log 0 is right here: no right response, or no wrong one
        log_z = np.logaddexp(np.log1p(-p), np.log(p) + tilt)
    return float(accuracy.mean()), float((accuracy * tilt - log_z).mean())
