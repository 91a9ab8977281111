"""The table every loss is tested by: one row per method, written from the papers in NumPy.

Nothing here imports the implementation, so a loss that agrees with its row agrees with a second, independent reading of
the paper. Adding a method means adding a row: ``test_losses.py`` fails for a method without one, and runs every
property it holds over every row.

Inputs ``x`` carry, for B prompts with K responses, ``x.l`` and ``x.r`` (B, K) log-probabilities under policy and
reference in nats, ``x.n`` (B, K) token counts, and whatever else a loss reads: a tensor under the name of its argument,
a record as ``target_l``, ``head_l`` and ``head_r`` (sums), ``target_n`` and ``head_n`` (tokens).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.special import logsumexp

Formula = Callable[..., Any]
Change = Callable[[SimpleNamespace], Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    """What a method must be.

    Args:
        formula: the loss ``(x, **hyperparameters) -> (B,)``.
        start: its value at policy = reference or, for a loss without a reference, at equal responses.
        needs: the arguments it must be given, in order.
        defaults: hyperparameters and the values the paper, or the fact sheet, gives them.
        others: further settings of the hyperparameters, so that no property holds only at the defaults.
        unchanged: changes of the inputs that leave the loss as it is, by name.
        responses: K of the inputs it is tested on.
        optional: arguments it may be given.
        moves: inputs that carry a gradient; the formula's derivative in each is the loss's.
        stopped: inputs whose gradient the loss must stop, or their columns.
        shared: inputs that belong to the batch, not to a row of it.
        prepare: a change that makes random inputs admissible.
        exponent: the largest exponent of an exponential that may overflow.
        terms: the largest exponent of an exponential times its factor, if terms of this size cancel in the loss.
        printed: the docstring's formula can be evaluated as printed (a double sum cannot).
    """

    formula: Formula
    start: Formula
    needs: tuple[str, ...]
    defaults: Mapping[str, Any]
    others: tuple[Mapping[str, Any], ...]
    unchanged: Mapping[str, Change]
    responses: int = 2
    optional: tuple[str, ...] = ()
    moves: tuple[str, ...] = ("l",)
    stopped: Mapping[str, slice] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    prepare: Change = lambda x: {}
    exponent: Formula = lambda x, **hyperparameters: 0
    terms: Formula = lambda x, **hyperparameters: 0
    printed: bool = True


@dataclass(frozen=True)
class Limit:
    """``method`` at ``setting`` is ``scale`` times ``becomes`` at ``as_setting``, on the inputs of ``given``."""

    why: str
    method: str
    setting: Mapping[str, Any]
    becomes: str
    as_setting: Mapping[str, Any]
    given: Change = lambda x: {}
    then: Change = lambda x: {}
    """Further changes of the inputs for ``becomes`` only."""
    scale: float = 1.0
    tolerance: float = 1e-12


def draw(rng: np.random.Generator, examples: int = 64, responses: int = 2) -> SimpleNamespace:
    """Everything a loss may read: 1 to 30 tokens of .05 to 3 nats each, the reference some tens of per cent away."""
    shape = (examples, responses)
    n = rng.integers(1, 31, shape)
    l = -n * rng.uniform(0.05, 3, shape)  # noqa: E741  the papers' letter
    r = l * np.exp(0.2 * rng.standard_normal(shape))
    shortest = n.min(axis=1, keepdims=True) + 0 * n
    target_n = rng.integers(1, 31, (examples, 1))
    return SimpleNamespace(
        l=l,
        r=r,
        n=n,
        target_l=-target_n * rng.uniform(0.05, 3, target_n.shape),
        target_n=target_n,
        head_l=l * shortest / n * rng.uniform(0.5, 1, shape),
        head_r=r * shortest / n * rng.uniform(0.5, 1, shape),
        head_n=shortest,
        rewards=rng.integers(-3, 4, shape) / 2,  # few values, so that some are equal
        scores=rng.integers(-3, 4, shape) / 2,
        win_probabilities=rng.uniform(0, 1, shape),
        desirable=rng.random(examples) < 0.4,
        kl=rng.normal(2, 6, 50),  # both signs, mean above 0
        shift=np.array(rng.normal(0.3, 0.1)),
        sequence_kl=rng.exponential(2, shape),
        log_weights=rng.normal(0, 0.5, shape),  # the sum has both signs
        dispersion=rng.exponential(1, examples),
    )


def sp(t):
    """Softplus: ``-log sigmoid(-t)``."""
    return np.logaddexp(0, t)


def sigmoid(t):
    return np.exp(-sp(-t))


def rho(x):
    return (x.l - x.r).T


def margin(x):
    rho_w, rho_l = rho(x)
    return rho_w - rho_l


def mean(x):
    return (x.l / x.n).T


def bradley_terry(x, m):
    return sp(-(x.rewards[:, 0] - x.rewards[:, 1] - m))


def plackett_luce(x):
    s = x.rewards
    return -sum(s[:, k] - logsumexp(s[:, k:], axis=1) for k in range(s.shape[1]))


def dpo(x, beta):
    return sp(-beta * margin(x))


def cdpo(x, beta, eps):
    return (1 - eps) * sp(-beta * margin(x)) + eps * sp(beta * margin(x))


def robust_dpo(x, beta, eps):
    return ((1 - eps) * sp(-beta * margin(x)) - eps * sp(beta * margin(x))) / (1 - 2 * eps)


def ipo(x, tau):
    return (margin(x) - 0.5 / tau) ** 2


def hinge_dpo(x, gamma):
    return np.maximum(0, 1 - gamma * margin(x))


def slic_hf(x, delta, lam):
    target = x.target_l[:, 0] if hasattr(x, "target_l") else x.l[:, 0]
    return np.maximum(0, delta - x.l[:, 0] + x.l[:, 1]) - lam * target


def click(x, alpha, gamma):
    target = (x.target_l / x.target_n)[:, 0] if hasattr(x, "target_l") else mean(x)[0]
    return -target + alpha * np.maximum(0, gamma + x.l[:, 1] - x.l[:, 0])


def simpo(x, beta, gamma):
    w, l = mean(x)  # noqa: E741
    return sp(-(beta * (w - l) - gamma))


def log_odds(t):
    return t - np.log(-np.expm1(t))


def orpo(x, lam):
    w, l = mean(x)  # noqa: E741
    return -w + lam * sp(-(log_odds(w) - log_odds(l)))


def cpo(x, beta, alpha):
    return sp(-beta * (x.l[:, 0] - x.l[:, 1])) - alpha * mean(x)[0]


def dpo_nll(x, beta, alpha):
    return dpo(x, beta) - alpha * mean(x)[0]


def dpop(x, beta, lam):
    return sp(-beta * (margin(x) - lam * np.maximum(0, x.r[:, 0] - x.l[:, 0])))


def r_dpo(x, beta, alpha):
    return sp(-(beta * margin(x) + alpha * (x.n[:, 0] - x.n[:, 1])))


def dpo_norm(x, beta):
    w, l = (x.l / x.n - x.r / x.n).T  # noqa: E741
    return sp(-beta * (w - l))


LINKS = {
    "logistic": lambda t: sp(-t),
    "hinge": lambda t: np.maximum(0, 1 - t),
    "square": lambda t: (t - 1) ** 2,
    "exponential": lambda t: np.exp(-t),
    "correlation": lambda t: -t,
}


def spin(x, lam, link):
    return LINKS[link](lam * margin(x))


def gpo(x, beta, link):
    return LINKS[link](beta * margin(x))


def derivative(divergence, alpha):
    """``f'(e^rho)`` as a function of rho."""
    return {
        "reverse_kl": lambda rho: rho,
        "forward_kl": lambda rho: -np.exp(-rho),
        "jensen_shannon": lambda rho: np.log(2) - sp(-rho),
        "alpha": lambda rho: (1 - np.exp(-alpha * rho)) / alpha,
    }[divergence]


def f_dpo(x, beta, divergence, alpha):
    rho_w, rho_l = rho(x)
    g = derivative(divergence, alpha)
    return sp(-beta * (g(rho_w) - g(rho_l)))


def chi_po(x, beta):
    rho_w, rho_l = rho(x)
    return sp(-beta * (np.exp(rho_w) + rho_w - np.exp(rho_l) - rho_l))


def discopop(x, beta, tau):
    t = beta * margin(x)
    return sigmoid(-t / tau) * sp(-t) + np.exp(-t - sp(-t / tau))


def sppo(x, beta):
    return sum(0.5 * (rho(x)[k] - (x.win_probabilities[:, k] - 0.5) / beta) ** 2 for k in (0, 1))


def nca(x, beta):
    b_w, b_l = beta * rho(x)
    return sp(-b_w) + sp(b_w) / 2 + sp(b_l) / 2


def apo_zero(x, beta):
    b_w, b_l = beta * rho(x)
    return sigmoid(-b_w) + sigmoid(b_l)


def apo_down(x, beta):
    b_w, b_l = beta * rho(x)
    return sigmoid(b_w) + sigmoid(b_l - b_w)


def same_rank(x):
    """The reference's log-ratio of chosen to rejected that has the rank of the policy's, for each pair."""
    policy, reference = x.l[:, 0] - x.l[:, 1], x.r[:, 0] - x.r[:, 1]
    matched = np.empty_like(reference)
    matched[np.argsort(policy, kind="stable")] = np.sort(reference)
    return policy, matched


def aot(x, beta):
    policy, matched = same_rank(x)
    return sp(-beta * (policy - matched))


def sft(x, per):
    nats, tokens = (x.target_l, x.target_n) if hasattr(x, "target_l") else (x.l, x.n)
    return -(nats / {"response": 1, "token": tokens}[per])[:, 0]


def rrhf(x, weight):
    lbar = x.l / x.n
    loss = np.zeros(len(lbar))
    for b, (s, means) in enumerate(zip(x.scores, lbar)):
        for i in range(len(s)):
            for j in range(len(s)):
                if s[i] < s[j]:
                    loss[b] += max(0, means[i] - means[j])
        loss[b] -= weight * x.l[b, list(s).index(max(s))]
    return loss


def odpo(x, beta, alpha):
    return sp(-(beta * margin(x) - alpha * np.log(x.scores[:, 0] - x.scores[:, 1])))


def s_dpo(x, beta):
    best, *others = rho(x)
    return sp(logsumexp([beta * (other - best) for other in others], axis=0))


def exo_target(x, eps, beta_r):
    """The logarithm of the distribution that EXO goes to, (K, B)."""
    K = x.l.shape[1]
    if hasattr(x, "scores"):
        rewards = x.scores.T / beta_r
        return rewards - logsumexp(rewards, axis=0)
    return np.log([1 - eps] + (K - 1) * [eps / (K - 1)])[:, None] + 0 * x.l.T


def exo(x, beta, eps, beta_r):
    log_p = beta * rho(x) - logsumexp(beta * rho(x), axis=0)
    return (np.exp(log_p) * (log_p - exo_target(x, eps, beta_r))).sum(axis=0)


def kto(x, beta, lam_D, lam_U):
    z0 = max(0, np.mean(x.kl))
    (ratio,) = rho(x)
    return np.where(x.desirable, lam_D * (1 - sigmoid(beta * (ratio - z0))), lam_U * (1 - sigmoid(beta * (z0 - ratio))))


def bco(x, beta):
    (ratio,) = rho(x)
    return np.where(x.desirable, sp(-(beta * ratio - x.shift)), sp(beta * ratio - x.shift))


def tdpo1(x, beta):
    K_w, K_l = x.sequence_kl.T
    return sp(-beta * (margin(x) - (K_l - K_w)))


def tdpo2(x, beta, alpha):
    K_w, K_l = x.sequence_kl.T
    return sp(-beta * (margin(x) - alpha * (K_l - K_w)))


def mallows_dpo(x, beta):
    return sp(-x.dispersion * beta * margin(x))


def ld_margin(x, alpha):
    l, r = x.head_l + alpha * (x.l - x.head_l), x.head_r + alpha * (x.r - x.head_r)  # noqa: E741
    return (l - r)[:, 0] - (l - r)[:, 1]


def ld_dpo(x, beta, alpha):
    return sp(-beta * ld_margin(x, alpha))


def wpo(x, beta):
    return np.minimum(1, np.exp(x.log_weights.sum(axis=1))) * sp(-beta * margin(x))


REWARDS = ("rewards",)
POLICY = ("policy",)
BOTH = ("policy", "reference")

# Changes of the inputs; each returns only what it changes.
per_prompt: Change = lambda x: {"l": x.l + np.linspace(-9, 9, len(x.l))[:, None]}
with_reference: Change = lambda x: {"l": x.l + 3 * np.cos(x.n), "r": x.r + 3 * np.cos(x.n)}
lengths: Change = lambda x: {"n": x.n[:, ::-1] + 4, "head_n": 4 + x.head_n}
repeated: Change = lambda x: {"l": 2 * x.l, "n": 2 * x.n}
shifted_rewards: Change = lambda x: {"rewards": x.rewards + np.arange(len(x.rewards))[:, None]}
shifted_scores: Change = lambda x: {"scores": x.scores + np.arange(len(x.scores))[:, None]}

RATIOS = {"the same nats under policy and reference": with_reference, "other token counts": lengths}
MARGIN = RATIOS | {"the same nats on both responses": per_prompt}
MEANS = {"every token twice": repeated}


def log_2(x, **hyperparameters):
    return np.log(2)


def on_margins(
    formula: Formula, defaults: Mapping[str, Any], *others: Mapping[str, Any], start=log_2, exponent=Row.exponent
) -> Row:
    """A row of the many methods that read nothing but the margin."""
    return Row(formula, start, BOTH, defaults, others, MARGIN, exponent=exponent)


ROWS: dict[str, Row] = {
    "bradley_terry": Row(
        bradley_terry,
        lambda x, m: np.log1p(np.exp(m)),
        REWARDS,
        {"m": 0.0},
        ({"m": 0.7},),
        {"the same reward on both responses": shifted_rewards},
        moves=REWARDS,
    ),
    "plackett_luce": Row(
        plackett_luce,
        lambda x: np.log(24),
        REWARDS,
        {},
        (),
        {"the same reward on all responses": shifted_rewards},
        responses=4,
        moves=REWARDS,
        printed=False,
    ),
    "dpo": on_margins(dpo, {"beta": 0.1}, {"beta": 0.7}),
    "cdpo": on_margins(cdpo, {"beta": 0.1, "eps": 0.1}, {"beta": 0.7, "eps": 0.3}),
    "robust_dpo": on_margins(robust_dpo, {"beta": 0.1, "eps": 0.1}, {"beta": 0.7, "eps": 0.3}),
    "ipo": on_margins(ipo, {"tau": 0.1}, {"tau": 0.7}, start=lambda x, tau: 1 / (4 * tau**2)),
    "hinge_dpo": on_margins(hinge_dpo, {"gamma": 0.05}, {"gamma": 0.7}, start=lambda x, gamma: 1),
    "slic_hf": Row(
        slic_hf,
        lambda x, delta, lam: delta - lam * (x.target_l if hasattr(x, "target_l") else x.l)[:, 0],
        POLICY,
        {"delta": 1.0, "lam": 0.1},
        ({"delta": 3.0, "lam": 0.6},),
        {"other token counts": lengths},
        optional=("target",),
        moves=("l", "target_l"),
    ),
    "click": Row(
        click,
        lambda x, alpha, gamma: click(x, alpha, 0) + alpha * gamma,
        POLICY,
        {"alpha": 0.5, "gamma": 20.0},
        ({"alpha": 0.4, "gamma": 3.0},),
        {"another length of the rejected": lambda x: {"n": x.n + np.array([0, 5])}},
        optional=("target",),
        moves=("l", "target_l"),
    ),
    "simpo": Row(
        simpo,
        lambda x, beta, gamma: np.log1p(np.exp(gamma)),
        POLICY,
        {"beta": 2.0, "gamma": 1.0},
        ({"beta": 0.7, "gamma": 0.3},),
        MEANS,
    ),
    "orpo": Row(orpo, lambda x, lam: -mean(x)[0] + lam * np.log(2), POLICY, {"lam": 0.1}, ({"lam": 0.7},), MEANS),
    "cpo": Row(
        cpo,
        lambda x, beta, alpha: np.log(2) - alpha * mean(x)[0],
        POLICY,
        {"beta": 0.1, "alpha": 1.0},
        ({"beta": 0.7, "alpha": 0.3},),
        {"another length of the rejected": lambda x: {"n": x.n + np.array([0, 5])}},
    ),
    "dpo_nll": Row(
        dpo_nll,
        lambda x, beta, alpha: np.log(2) - alpha * mean(x)[0],
        BOTH,
        {"beta": 0.1, "alpha": 1.0},
        ({"beta": 0.7, "alpha": 0.3},),
        {"the same nats on both responses of the reference": lambda x: {"r": x.r - x.n[:, :1]}},
    ),
    "dpop": Row(
        dpop, log_2, BOTH, {"beta": 0.3, "lam": 50.0}, ({"beta": 0.7, "lam": 0.4}, {"beta": 0.01, "lam": 2.0}), RATIOS
    ),
    "r_dpo": Row(
        r_dpo,
        lambda x, beta, alpha: np.log1p(np.exp(-alpha * (x.n[:, 0] - x.n[:, 1]))),
        BOTH,
        {"beta": 0.1, "alpha": 0.1},
        ({"beta": 0.7, "alpha": 0.3},),
        {"as many more tokens on both responses": lambda x: {"n": x.n + 7}},
    ),
    "dpo_norm": Row(
        dpo_norm,
        log_2,
        BOTH,
        {"beta": 5.0},
        ({"beta": 0.7},),
        {
            "every token twice": lambda x: repeated(x) | {"r": 2 * x.r},
            "the same nats under policy and reference": with_reference,
            "the same nats per token on both responses": lambda x: {"l": x.l - 2 * x.n},
        },
    ),
    "spin": on_margins(
        spin,
        {"lam": 0.1, "link": "logistic"},
        *({"lam": 0.3, "link": link} for link in ("logistic", "hinge", "correlation", "exponential")),
        start=lambda x, lam, link: LINKS[link](0),
        exponent=lambda x, lam, link: -lam * margin(x) if link == "exponential" else 0,
    ),
    "gpo": on_margins(
        gpo,
        {"beta": 0.1, "link": "logistic"},
        *({"beta": 0.3, "link": link} for link in LINKS),
        start=lambda x, beta, link: LINKS[link](0),
        exponent=lambda x, beta, link: -beta * margin(x) if link == "exponential" else 0,
    ),
    "f_dpo": Row(
        f_dpo,
        log_2,
        BOTH,
        {"beta": 0.1, "divergence": "reverse_kl", "alpha": 0.5},
        (
            {"beta": 0.3, "divergence": "reverse_kl", "alpha": 0.5},
            {"beta": 0.3, "divergence": "forward_kl", "alpha": 0.5},
            {"beta": 0.3, "divergence": "jensen_shannon", "alpha": 0.5},
            {"beta": 0.3, "divergence": "alpha", "alpha": 0.3},
        ),
        RATIOS,
        prepare=lambda x: {"r": x.l + (x.r - x.l) / 10},  # exp(rho) leaves finite differences some digits
        exponent=lambda x, beta, divergence, alpha: (
            {"forward_kl": 1, "alpha": alpha}.get(divergence, 0) * -rho(x).min(axis=0)
        ),
    ),
    "chi_po": Row(
        chi_po,
        log_2,
        BOTH,
        {"beta": 0.1},
        ({"beta": 0.3},),
        RATIOS,
        prepare=lambda x: {"r": x.l + (x.r - x.l) / 10},  # exp(rho) leaves finite differences some digits
        exponent=lambda x, beta: rho(x).max(axis=0),
    ),
    "discopop": on_margins(
        discopop,
        {"beta": 0.05, "tau": 0.05},
        {"beta": 0.3, "tau": 0.4},
        {"beta": 0.3, "tau": 2.0},
        start=lambda x, beta, tau: (1 + np.log(2)) / 2,
        exponent=lambda x, beta, tau: -beta * margin(x) - sp(-beta * margin(x) / tau),
    ),
    "sppo": Row(
        sppo,
        lambda x, beta: ((x.win_probabilities - 0.5) ** 2).sum(axis=1) / (2 * beta**2),
        (*BOTH, "win_probabilities"),
        {"beta": 1e-3},
        ({"beta": 0.2},),
        RATIOS,
    ),
    "nca": Row(nca, lambda x, beta: 2 * np.log(2), BOTH, {"beta": 0.01}, ({"beta": 0.7},), RATIOS),
    "apo_zero": Row(apo_zero, lambda x, beta: 1, BOTH, {"beta": 0.1}, ({"beta": 0.7},), RATIOS),
    "apo_down": Row(apo_down, lambda x, beta: 1, BOTH, {"beta": 0.1}, ({"beta": 0.7},), RATIOS),
    "aot": Row(
        aot,
        log_2,
        BOTH,
        {"beta": 0.01},
        ({"beta": 0.3},),
        {
            "the same nats on both responses": per_prompt,
            "other token counts": lengths,
            "the reference's pairs in another order": lambda x: {"r": x.r[::-1]},
        },
    ),
    "sft": Row(
        sft,
        sft,
        POLICY,
        {"per": "response"},
        ({"per": "token"}, {"per": "response"}),
        {"another rejected response": lambda x: {"l": x.l * [1, 2], "n": x.n + np.array([0, 5])}},
        optional=("target",),
        moves=("l", "target_l"),
    ),
    "rrhf": Row(
        rrhf,
        lambda x, weight: -weight * x.l[:, 0],
        ("policy", "scores"),
        {"weight": 1.0},
        ({"weight": 0.3},),
        {"another scale of the scores": lambda x: {"scores": np.exp(x.scores)}},
        responses=4,
        printed=False,
    ),
    "odpo": Row(
        odpo,
        lambda x, beta, alpha: np.log1p((x.scores[:, 0] - x.scores[:, 1]) ** alpha),
        (*BOTH, "scores"),
        {"beta": 0.1, "alpha": 1.0},
        ({"beta": 0.7, "alpha": 0.3},),
        MARGIN | {"the same score on both responses": shifted_scores},
        prepare=lambda x: {"scores": np.sort(x.scores)[:, ::-1] - 0.1 * np.arange(x.scores.shape[1])},
    ),
    "s_dpo": Row(
        s_dpo,
        lambda x, beta: np.log(4),
        BOTH,
        {"beta": 1.0},
        ({"beta": 0.1},),
        MARGIN | {"the rejected in another order": lambda x: {"l": x.l[:, [0, 3, 1, 2]], "r": x.r[:, [0, 3, 1, 2]]}},
        responses=4,
    ),
    "exo": Row(
        exo,
        lambda x, beta, eps, beta_r: -np.log(4) - exo_target(x, eps, beta_r).mean(axis=0),
        BOTH,
        {"beta": 0.1, "eps": 1e-3, "beta_r": 1.0},
        ({"beta": 0.7, "eps": 0.2, "beta_r": 0.4},),
        MARGIN
        | {
            "the rejected in another order": lambda x: {
                name: vars(x)[name][:, [0, 3, 1, 2]] for name in ("l", "r", "scores") if name in vars(x)
            }
        },
        responses=4,
        optional=("scores",),
        terms=lambda x, beta, eps, beta_r: (
            beta * abs(x.l - x.r).max(axis=1) * abs(exo_target(x, eps, beta_r)).max(axis=0)
        ),
        stopped={"scores": np.s_[:]},
    ),
    "kto": Row(
        kto,
        lambda x, beta, lam_D, lam_U: np.where(x.desirable, lam_D, lam_U) / 2,
        (*BOTH, "desirable", "kl"),
        {"beta": 0.1, "lam_D": 1.0, "lam_U": 1.0},
        ({"beta": 0.7, "lam_D": 0.4, "lam_U": 1.3},),
        RATIOS | {"the mismatched pairs in another order": lambda x: {"kl": x.kl[::-1].reshape(2, -1)}},
        responses=1,
        stopped={"kl": np.s_[:]},
        shared=("kl",),
    ),
    "bco": Row(
        bco,
        log_2,
        (*BOTH, "desirable", "shift"),
        {"beta": 0.01},
        ({"beta": 0.7},),
        RATIOS,
        responses=1,
        stopped={"shift": np.s_[...]},
        shared=("shift",),
    ),
    "tdpo1": Row(
        tdpo1,
        log_2,
        (*BOTH, "sequence_kl"),
        {"beta": 0.1},
        ({"beta": 0.7},),
        MARGIN | {"the same divergence more on both responses": lambda x: {"sequence_kl": x.sequence_kl + 3}},
        moves=("l", "sequence_kl"),
    ),
    "tdpo2": Row(
        tdpo2,
        log_2,
        (*BOTH, "sequence_kl"),
        {"beta": 0.1, "alpha": 0.5},
        ({"beta": 0.7, "alpha": 0.3},),
        MARGIN | {"the same divergence more on both responses": lambda x: {"sequence_kl": x.sequence_kl + 3}},
        moves=("l", "sequence_kl"),
        stopped={"sequence_kl": np.s_[:, 0]},
    ),
    "mallows_dpo": Row(
        mallows_dpo,
        log_2,
        (*BOTH, "dispersion"),
        {"beta": 0.1},
        ({"beta": 0.7},),
        MARGIN,
        stopped={"dispersion": np.s_[:]},
    ),
    "ld_dpo": Row(
        ld_dpo,
        log_2,
        (*BOTH, "policy_first", "reference_first"),
        {"beta": 0.1, "alpha": 0.5},
        ({"beta": 0.7, "alpha": 0.3},),
        {"other token counts": lengths, "the same nats under policy and reference": with_reference},
        moves=("l", "head_l"),
    ),
    "wpo": Row(
        wpo,
        lambda x, beta: np.minimum(1, np.exp(x.log_weights.sum(axis=1))) * np.log(2),
        (*BOTH, "log_weights"),
        {"beta": 0.01},
        ({"beta": 0.7},),
        MARGIN | {"weight moved between the responses": lambda x: {"log_weights": x.log_weights + np.array([1, -1])}},
        stopped={"log_weights": np.s_[:]},
    ),
}

no_reference: Change = lambda x: {"r": 0 * x.r}
pairs: Change = lambda x: {"l": x.l[:, :2], "r": x.r[:, :2], "n": x.n[:, :2]}

LIMITS = [
    Limit(
        "two responses", "plackett_luce", {}, "bradley_terry", {"m": 0.0}, given=lambda x: {"rewards": x.rewards[:, :2]}
    ),
    Limit(
        "beta rho as the reward", "bradley_terry", {}, "dpo", {"beta": 0.7},
        given=lambda x: {"rewards": 0.7 * (x.l - x.r)},
    ),
    Limit("no wrong labels", "cdpo", {"beta": 0.7, "eps": 0.0}, "dpo", {"beta": 0.7}),
    Limit("no flipped labels", "robust_dpo", {"beta": 0.7, "eps": 0.0}, "dpo", {"beta": 0.7}),
    Limit(
        "equal lengths n and no target margin: DPO without a reference, beta / n",
        "simpo", {"beta": 2.0, "gamma": 0.0}, "dpo", {"beta": 0.25},
        given=lambda x: {"n": np.full_like(x.n, 8)}, then=no_reference,
    ),
    Limit(
        "no supervised term: the hinge on the policy alone, gamma = 1 / delta, times delta",
        "slic_hf", {"delta": 4.0, "lam": 0.0}, "hinge_dpo", {"gamma": 0.25}, then=no_reference, scale=4.0,
    ),
    Limit(
        "responses of one token: SLiC-HF with lam = 1 / alpha, times alpha",
        "click", {"alpha": 4.0, "gamma": 1.5}, "slic_hf", {"delta": 1.5, "lam": 0.25},
        given=lambda x: {"n": np.ones_like(x.n)}, scale=4.0,
    ),
    Limit("no supervised term", "cpo", {"beta": 0.7, "alpha": 0.0}, "dpo", {"beta": 0.7}, then=no_reference),
    Limit("the reference is certain", "dpo_nll", {"beta": 0.7, "alpha": 0.4}, "cpo", {"beta": 0.7, "alpha": 0.4},
          given=no_reference),
    Limit("no supervised term", "dpo_nll", {"beta": 0.7, "alpha": 0.0}, "dpo", {"beta": 0.7}),
    Limit("no charge", "dpop", {"beta": 0.7, "lam": 0.0}, "dpo", {"beta": 0.7}),
    Limit("length is free", "r_dpo", {"beta": 0.7, "alpha": 0.0}, "dpo", {"beta": 0.7}),
    Limit("equal lengths", "r_dpo", {"beta": 0.7, "alpha": 0.3}, "dpo", {"beta": 0.7},
          given=lambda x: {"n": np.full_like(x.n, 8)}),
    Limit("responses of n tokens, beta / n", "dpo_norm", {"beta": 4.0}, "dpo", {"beta": 0.5},
          given=lambda x: {"n": np.full_like(x.n, 8)}),
    Limit("responses of one token", "sft", {"per": "token"}, "sft", {"per": "response"},
          given=lambda x: {"n": np.ones_like(x.n)}),
    Limit("small log-ratios: z is 1 + log z, so beta doubles", "chi_po", {"beta": 0.3}, "dpo", {"beta": 0.6},
          given=lambda x: {"r": x.l + (x.r - x.l) * 1e-4}, tolerance=1e-6),
    Limit("the first iteration on fixed pairs", "spin", {"lam": 0.7}, "dpo", {"beta": 0.7}),
    Limit("hinge link", "spin", {"lam": 0.3, "link": "hinge"}, "hinge_dpo", {"gamma": 0.3}),
    Limit("logistic link", "gpo", {"beta": 0.7, "link": "logistic"}, "dpo", {"beta": 0.7}),
    Limit("hinge link", "gpo", {"beta": 0.3, "link": "hinge"}, "hinge_dpo", {"gamma": 0.3}),
    Limit(
        "square link, tau = beta / 2, beta^2 times", "gpo", {"beta": 0.3, "link": "square"}, "ipo", {"tau": 0.15},
        scale=0.09,
    ),
    Limit("reverse KL", "f_dpo", {"beta": 0.7, "divergence": "reverse_kl"}, "dpo", {"beta": 0.7}),
    Limit(
        "alpha near 0 is reverse KL", "f_dpo", {"beta": 0.3, "divergence": "alpha", "alpha": 1e-6},
        "dpo", {"beta": 0.3},
        tolerance=1e-3,
    ),
    Limit(
        "alpha near 1 is forward KL", "f_dpo", {"beta": 0.3, "divergence": "alpha", "alpha": 1 - 1e-9},
        "f_dpo", {"beta": 0.3, "divergence": "forward_kl"}, tolerance=1e-5,
    ),
    Limit(
        "a certain win against an even response that did not move: half IPO's square, tau = beta",
        "sppo", {"beta": 0.2}, "ipo", {"tau": 0.2},
        given=lambda x: {"win_probabilities": np.array([[1, 0.5]]) + 0 * x.l, "l": x.l * [1, 0], "r": x.r * [1, 0]},
        scale=0.5,
    ),
    Limit("the chosen as under the reference", "apo_down", {"beta": 0.7}, "apo_zero", {"beta": 0.7},
          given=lambda x: {"l": x.l * [0, 1], "r": x.r * [0, 1]}),
    Limit(
        "margins already in the same order", "aot", {"beta": 0.3}, "dpo", {"beta": 0.3},
        given=lambda x: {"l": np.sort(x.l, axis=0) * [1, 0], "r": np.sort(x.r, axis=0) * [1, 0]},
    ),
    Limit(
        "two responses, the first one better: SLiC-HF on means, its supervised term on sums",
        "rrhf", {"weight": 0.4}, "slic_hf", {"delta": 0.0, "lam": 0.4},
        given=lambda x: pairs(x) | {"scores": np.array([[1.0, 0.0]]) + 0 * x.l[:, :2]},
        then=lambda x: {"l": x.l / x.n, "target_l": x.l[:, :1], "target_n": x.n[:, :1]},
    ),
    Limit("no offset", "odpo", {"beta": 0.7, "alpha": 0.0}, "dpo", {"beta": 0.7}),
    Limit("a gap of 1", "odpo", {"beta": 0.7, "alpha": 3.0}, "dpo", {"beta": 0.7},
          given=lambda x: {"scores": np.array([[3.0, 2.0]]) + 0 * x.l}),
    Limit("one negative", "s_dpo", {"beta": 0.7}, "dpo", {"beta": 0.7}, given=pairs),
    Limit("phi = 1", "mallows_dpo", {"beta": 0.7}, "dpo", {"beta": 0.7},
          given=lambda x: {"dispersion": 1 + 0 * x.l[:, 0]}),
    Limit("phi scales beta", "mallows_dpo", {"beta": 0.7}, "dpo", {"beta": 0.35},
          given=lambda x: {"dispersion": 0.5 + 0 * x.l[:, 0]}),
    Limit("no divergence", "tdpo1", {"beta": 0.7}, "dpo", {"beta": 0.7}, given=lambda x: {"sequence_kl": 0 * x.l}),
    Limit("no divergence", "tdpo2", {"beta": 0.7}, "dpo", {"beta": 0.7}, given=lambda x: {"sequence_kl": 0 * x.l}),
    Limit("alpha = 1 has the value of the first version", "tdpo2", {"beta": 0.7, "alpha": 1.0}, "tdpo1", {"beta": 0.7}),
    Limit("the tail counts in full", "ld_dpo", {"beta": 0.7, "alpha": 1.0}, "dpo", {"beta": 0.7}),
    Limit(
        "the tail does not count: DPO on the heads", "ld_dpo", {"beta": 0.7, "alpha": 0.0}, "dpo", {"beta": 0.7},
        then=lambda x: {"l": x.head_l, "r": x.head_r},
    ),
    Limit("a pair the policy would write itself", "wpo", {"beta": 0.7}, "dpo", {"beta": 0.7},
          given=lambda x: {"log_weights": 0 * x.l}),
]  # fmt: skip
