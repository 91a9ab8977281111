"""DPO: the reward that a policy is optimal for, put into the Bradley-Terry model."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, define, equal, positive
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import D, L, beta, l_l, l_w, r_l, r_w, rho_l, rho_w, s_l, s_w, sigma

Z, p, q, a = sp.symbols("Z p q a", positive=True)
M = sp.Function(r"\mathcal{M}", real=True)

loss = L(l_w, l_l)

dpo = Derivation(
    name="dpo",
    title="DPO: from the optimum of RLHF to a loss on pairs",
    steps=(
        *MARGIN,
        define(
            s_w,
            beta * rho_w + beta * sp.log(Z),
            "The reward of the chosen response for which the policy is RLHF's optimum. It is called $s$, for score: "
            "$r$ is the reference's log-probability.",
        ),
        define(s_l, beta * rho_l + beta * sp.log(Z), "That of the rejected one, with the same $Z$: one prompt."),
        equal(s_w - s_l, beta * D, "The rewards' difference needs no $Z$."),
        define(loss, -sp.log(sigma(s_w - s_l)), "Bradley-Terry's loss on these rewards."),
        equal(loss, -sp.log(sigma(beta * D)), "The loss, as implemented."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * D),
            "It lifts the chosen log-probability, the more the more wrong the pair,",
        ),
        equal(sp.Derivative(loss, l_l), beta * sigma(-beta * D), "and lowers the rejected one by as much."),
        positive(beta**2 * sigma(beta * D) * sigma(-beta * D), "This is positive,"),
        equal(
            sp.Derivative(loss, (l_w, 2)),
            beta**2 * sigma(beta * D) * sigma(-beta * D),
            "and it is the second derivative: the loss is convex in the margin, and has no finite minimum.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference the loss is $\\log 2$."),
        define(
            a,
            sp.exp(beta * (r_w - r_l)),
            "As a function of the probabilities $p$ and $q$ of the two responses, with this constant,",
        ),
        define(M(p, q), L(sp.log(p), sp.log(q)), "the same loss is"),
        equal(M(p, q), sp.log(1 + a * (q / p) ** beta), "this,"),
        equal(
            -sp.Derivative(M(p, q), p) / sp.Derivative(M(p, q), q),
            q / p,
            "and its two slopes have opposite signs and this ratio: the smaller probability has the larger slope.",
        ),
        argue(
            r"\frac{\mathrm{d}}{\mathrm{d}t} \log\pi(y_w) = \beta\,\sigma(-\beta D)\left(\lVert g_w\rVert^2 - "
            r"\langle g_w, g_l\rangle\right),\quad g = \nabla_\theta \log\pi",
            "Along gradient descent on shared parameters both probabilities may move together, so the chosen response "
            "may fall: it does when the two gradients agree too well.",
        ),
    ),
    assumptions=(
        "The policy can represent the optimum of RLHF for some reward.",
        "Preferences follow the Bradley-Terry model on that reward.",
    ),
)
