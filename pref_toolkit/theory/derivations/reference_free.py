"""Losses without a reference that keep a supervised term: ORPO and CPO."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, define, equal
from pref_toolkit.theory.derivations.symbols import L, alpha, beta, lam, n_l, n_w, sigma

# Odds need probabilities strictly below 1.
l_w, l_l, t, c = sp.symbols("l_w l_l t c", negative=True)
p_w, p_l = sp.symbols("p_w p_l", positive=True)
g = sp.Symbol("g", real=True)
odds, log_odds = (sp.Function(name, real=True) for name in (r"\mathrm{odds}", r"\mathrm{logodds}"))

loss = L(l_w, l_l)

orpo = Derivation(
    name="orpo",
    title="ORPO: supervised tuning plus the odds ratio of the two responses",
    steps=(
        define(p_w, sp.exp(l_w / n_w), "The chosen response's probability per token, as a geometric mean."),
        define(p_l, sp.exp(l_l / n_l), "The rejected one's."),
        define(odds(t), sp.exp(t) / (1 - sp.exp(t)), "The odds of something with log-probability $t$,"),
        define(log_odds(t), t - sp.log(1 - sp.exp(t)), "and their logarithm:"),
        equal(sp.log(odds(t)), log_odds(t), "it is what the code computes."),
        define(g, log_odds(l_w / n_w) - log_odds(l_l / n_l), "The logarithm of the ratio of odds."),
        define(
            loss,
            -sp.log(p_w) + lam * sp.log(1 + odds(l_l / n_l) / odds(l_w / n_w)),
            "The supervised loss of the chosen response, and a penalty on the rejected one's odds against it.",
        ),
        equal(loss, -l_w / n_w - lam * sp.log(sigma(g)), "The loss, as implemented."),
        equal(
            sp.Derivative(log_odds(t), t),
            1 / (1 - sp.exp(t)),
            "The slope of the log-odds grows without bound as $t \\to 0$.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -1 / n_w - lam * sigma(-g) / (n_w * (1 - p_w)),
            "The chosen response is lifted, and by the supervised term alone once its odds are far ahead;",
        ),
        equal(
            sp.Derivative(loss, l_l),
            lam * sigma(-g) / (1 - p_l) / n_l,
            "the rejected one is lowered, the harder the likelier it still is.",
        ),
        equal(
            L(c * n_w, c * n_l),
            -c + lam * sp.log(2),
            "Where both means are the same.",
        ),
    ),
    assumptions=("No response has probability 1.",),
)

r = sp.Symbol("r", real=True)
rho_w, rho_l = sp.symbols("rho_w rho_l", real=True)

cpo = Derivation(
    name="cpo",
    title="CPO: DPO with a reference that likes all responses equally",
    steps=(
        define(
            rho_w, l_w - r, "Let the reference give the same log-probability $r$ to both responses: to the chosen one"
        ),
        define(rho_l, l_l - r, "and to the rejected one."),
        define(
            loss,
            -sp.log(sigma(beta * (rho_w - rho_l))) - alpha * l_w / n_w,
            "DPO's loss, and the supervised loss of the chosen response in the place of the missing pull to the "
            "reference.",
        ),
        equal(
            loss,
            -sp.log(sigma(beta * (l_w - l_l))) - alpha * l_w / n_w,
            "The reference drops out. The loss, as implemented.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * (l_w - l_l)) - alpha / n_w,
            "The chosen response is lifted even where the pair is won;",
        ),
        equal(sp.Derivative(loss, l_l), beta * sigma(-beta * (l_w - l_l)), "the rejected one is lowered as in DPO."),
        equal(L(t, t), sp.log(2) - alpha * t / n_w, "Two responses that are equally likely."),
    ),
)
