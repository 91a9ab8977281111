"""SimPO: Bradley-Terry on the mean log-probability per token, with a target margin."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, define, equal
from pref_toolkit.theory.derivations.symbols import L, beta, gamma, l_l, l_w, n_l, n_w, s_l, s_w, sigma

n = sp.Symbol("n", positive=True)
c, u = sp.symbols("c u", real=True)

loss = L(l_w, l_l)

simpo = Derivation(
    name="simpo",
    title="SimPO: the score of a response is its mean log-probability per token",
    steps=(
        define(
            s_w,
            beta * l_w / n_w,
            "The reward of a response is what generation ranks by: no reference, no sum over length.",
        ),
        define(s_l, beta * l_l / n_l, "The same for the rejected one, with its own length."),
        define(u, beta * (l_w / n_w - l_l / n_l) - gamma, "The chosen response must win by a target margin $\\gamma$."),
        define(loss, -sp.log(sigma(s_w - s_l - gamma)), "Bradley-Terry's loss with that margin."),
        equal(loss, -sp.log(sigma(beta * (l_w / n_w - l_l / n_l) - gamma)), "The loss, as implemented."),
        equal(
            sp.Derivative(loss, l_w),
            -beta / n_w * sigma(-u),
            "Each token of the chosen response gets a share of one pull,",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta / n_l * sigma(-u),
            "and so does each of the rejected: a long response is pulled less per token.",
        ),
        equal(L(c * n_w, c * n_l), sp.log(1 + sp.exp(gamma)), "Where both means are the same the loss is this."),
        equal(
            sp.Subs(loss, (n_w, n_l, gamma), (n, n, 0)),
            -sp.log(sigma(beta / n * (l_w - l_l))),
            "With equal lengths and no target margin it is DPO without a reference and with $\\beta / n$.",
        ),
    ),
    assumptions=(
        "Preferences follow the Bradley-Terry model on the length-normalised score, shifted by the target margin.",
    ),
)
