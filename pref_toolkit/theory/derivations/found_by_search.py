"""Links of the margin, chosen or found by search."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, define, equal
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import (
    D,
    L,
    beta,
    l_l,
    l_w,
    r_l,
    r_w,
    relu,
    rho_l,
    rho_w,
    s_l,
    s_w,
    sigma,
    slope,
    tau,
)

Z = sp.Symbol("Z", positive=True)
t = sp.Symbol("t", real=True)
f, g = (sp.Function(name, real=True) for name in "fg")

loss = L(l_w, l_l)
logistic = -sp.log(sigma(t))

won, lost = sp.symbols("a b", positive=True)

gpo = Derivation(
    name="gpo",
    title="GPO: any convex link that falls at 0",
    steps=(
        *MARGIN,
        define(s_w, beta * rho_w + beta * sp.log(Z), "The rewards for which the policy is RLHF's optimum, as for DPO:"),
        define(s_l, beta * rho_l + beta * sp.log(Z), "of the chosen and of the rejected response."),
        define(loss, f(s_w - s_l), "A convex loss on the difference of rewards in the place of a likelihood."),
        equal(loss, f(beta * D), "The loss, as implemented."),
        equal(
            sp.Derivative(loss, l_w),
            beta * slope(f(t), t, beta * D),
            "The link's slope says how hard a pair is pulled on,",
        ),
        equal(sp.Derivative(loss, l_l), -beta * slope(f(t), t, beta * D), "equally on both responses."),
        equal(L(r_w, r_l), f(sp.Integer(0)), "At the reference."),
        equal(
            (1 - beta * D) ** 2,
            beta**2 * (D - 1 / (2 * (beta / 2))) ** 2,
            "With the square it is $\\beta^2$ times IPO's loss with $\\tau = \\beta / 2$, "
            "that is $1 / (2 \\tau) = 1 / \\beta$.",
        ),
        equal(
            slope(-won * sp.log(sigma(t)) - lost * sp.log(sigma(-t)), t, sp.log(won / lost)),
            sp.Integer(0),
            "If the first response was preferred $a$ times and the second $b$ times, a link also says where the pull ends. "
            "With the logistic one the difference of rewards becomes the log-odds,",
        ),
        equal(
            slope(won * sp.exp(-t) + lost * sp.exp(t), t, sp.log(won / lost) / 2),
            sp.Integer(0),
            "with the exponential one half of them,",
        ),
        equal(
            slope(won * (1 - t) ** 2 + lost * (1 + t) ** 2, t, (won - lost) / (won + lost)),
            sp.Integer(0),
            "with the square the difference of the two shares, which is bounded whatever the data. With the hinge it is "
            "$\\pm 1$, for the more frequent winner, and the correlation's pull has no end.",
        ),
    ),
    choices={
        "logistic": define(f(t), logistic, "DPO."),
        "hinge": define(f(t), relu(1 - t), "RSO's hinge."),
        "square": define(f(t), (1 - t) ** 2, "IPO."),
        "exponential": define(f(t), sp.exp(-t), "The code goes on along its tangent below $t = -30$."),
        "correlation": define(f(t), -t, "Its pull never fades."),
    },
)

falls, share = sp.Function(r"f", real=True), sp.Function(r"\mu", real=True)

discopop = Derivation(
    name="discopop",
    title="DiscoPOP: a logistic loss that turns into an exponential one",
    steps=(
        *MARGIN,
        define(share(t), sigma(t / tau), "The share of the exponential loss grows with $t$"),
        define(
            falls(t),
            (1 - share(t)) * -sp.log(sigma(t)) + share(t) * sp.exp(-t),
            "in this blend, which a search over programs found.",
        ),
        define(loss, falls(beta * D), "The loss reads the scaled margin."),
        equal(
            loss,
            -sigma(-beta * D / tau) * sp.log(sigma(beta * D)) + sigma(beta * D / tau) * sp.exp(-beta * D),
            "The loss, as implemented.",
        ),
        define(
            g(t),
            -sigma(-t / tau) * sigma(-t)
            - sigma(t / tau) * sp.exp(-t)
            + sigma(t / tau) * sigma(-t / tau) * (sp.exp(-t) + sp.log(sigma(t))) / tau,
            "Its slope has two negative terms, and a positive one that comes from the change of the shares.",
        ),
        equal(sp.Derivative(falls(t), t), g(t), "This is the derivative,"),
        equal(sp.Derivative(loss, l_w), beta * g(beta * D), "so the chosen response is pulled like this"),
        equal(sp.Derivative(loss, l_l), -beta * g(beta * D), "and the rejected one in the opposite direction."),
        equal(
            g(sp.Integer(0)),
            (1 - sp.log(2) - 3 * tau) / (4 * tau),
            "At the reference the slope is positive if $\\tau < (1 - \\log 2) / 3$: the loss then *rises* with "
            "the margin.",
        ),
        equal(L(r_w, r_l), (1 + sp.log(2)) / 2, "At the reference."),
    ),
    assumptions=("None: nothing is derived from a model of preferences.",),
)
