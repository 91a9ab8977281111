"""SimPO: Bradley-Terry on the mean log-probability per token, with a target margin."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, define, equal, positive
from pref_toolkit.theory.derivations.symbols import L, beta, gamma, l_l, l_w, n_l, n_w, s_l, s_w, sigma

n, pi = sp.symbols("n pi", positive=True)
r, nu = sp.symbols("r nu", real=True)
share = sp.Function("g", real=True)
c, u = sp.symbols("c u", real=True)

loss = L(l_w, l_l)

simpo = Derivation(
    name="simpo",
    title="SimPO: the score of a response is its mean log-probability per token",
    steps=(
        argue(
            r"\max_\pi\; \mathbb{E}_{y \sim \pi}\left[r(y) + \beta\, \frac{1 - \log\pi(y)}{n(y)}\right]",
            "Where RLHF has a divergence from the reference, this objective has an entropy in which a response of $n$ tokens "
            "counts $1/n$. It is ours: the paper begins from the loss.",
        ),
        define(
            share(pi, r, n),
            pi * r + beta * pi * (1 - sp.log(pi)) / n - nu * pi,
            "One response's share in it, with $\\nu$ the multiplier of the constraint that a policy sums to 1.",
        ),
        equal(
            sp.Derivative(share(pi, r, n), pi),
            r - beta * sp.log(pi) / n - nu,
            "Its slope by the policy's probability, which is zero at the optimum;",
        ),
        equal(sp.Derivative(share(pi, r, n), (pi, 2)), -beta / (n * pi), "the slope falls everywhere,"),
        positive(beta / (n * pi), "as this is positive: the objective is strictly concave and has one optimum."),
        define(
            s_w,
            beta * l_w / n_w + nu,
            "So this is the chosen response's reward: what generation ranks by, no reference, no sum over length.",
        ),
        equal(
            sp.Subs(sp.Derivative(share(pi, r, n), pi), (pi, r, n), (sp.exp(l_w), s_w, n_w)),
            sp.Integer(0),
            "For it the slope is zero.",
        ),
        define(s_l, beta * l_l / n_l + nu, "The same for the rejected one, with its own length."),
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
