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
            "Where RLHF has a divergence from the reference, this objective has an entropy in which a response of "
            "$n$ tokens counts $1/n$. The objective is ours, because the paper begins from the loss.",
        ),
        define(
            share(pi, r, n),
            pi * r + beta * pi * (1 - sp.log(pi)) / n - nu * pi,
            r"This is one response's share in the objective. $\nu$ is the multiplier of the constraint that a "
            "policy sums to 1.",
        ),
        equal(
            sp.Derivative(share(pi, r, n), pi),
            r - beta * sp.log(pi) / n - nu,
            "The share has this slope by the policy's probability, which is zero at the optimum.",
        ),
        equal(sp.Derivative(share(pi, r, n), (pi, 2)), -beta / (n * pi), "The slope itself has this derivative."),
        positive(
            beta / (n * pi),
            "The derivative is minus this positive number. So the slope falls everywhere, the objective is "
            "strictly concave, and it has one optimum.",
        ),
        define(
            s_w,
            beta * l_w / n_w + nu,
            "So this is the chosen response's reward. It is the quantity by which generation ranks, with no "
            "reference and no sum over the length.",
        ),
        equal(
            sp.Subs(sp.Derivative(share(pi, r, n), pi), (pi, r, n), (sp.exp(l_w), s_w, n_w)),
            sp.Integer(0),
            "With this reward the slope is zero at the chosen response.",
        ),
        define(s_l, beta * l_l / n_l + nu, "This is the rejected response's reward, with its own length."),
        define(u, beta * (l_w / n_w - l_l / n_l) - gamma, r"The chosen response must win by a target margin $\gamma$."),
        define(loss, -sp.log(sigma(s_w - s_l - gamma)), "The loss is Bradley-Terry's with that margin."),
        equal(
            loss,
            -sp.log(sigma(beta * (l_w / n_w - l_l / n_l) - gamma)),
            "The toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -beta / n_w * sigma(-u),
            "Each token of the chosen response gets an equal share of one pull.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta / n_l * sigma(-u),
            "Each token of the rejected response gets an equal share of the same pull. So a long response is "
            "pulled less per token.",
        ),
        equal(
            L(c * n_w, c * n_l),
            sp.log(1 + sp.exp(gamma)),
            "Where both responses have the same mean log-probability, the loss is this.",
        ),
        equal(
            sp.Subs(loss, (n_w, n_l, gamma), (n, n, 0)),
            -sp.log(sigma(beta / n * (l_w - l_l))),
            r"With equal lengths and no target margin the loss is DPO's without a reference and with $\beta / n$.",
        ),
    ),
    assumptions=(
        "Preferences follow the Bradley-Terry model on the length-normalised score, shifted by the target margin.",
    ),
)
