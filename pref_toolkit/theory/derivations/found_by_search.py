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
        define(
            s_w,
            beta * rho_w + beta * sp.log(Z),
            "This is the chosen response's reward for which the policy is RLHF's optimum, as for DPO.",
        ),
        define(s_l, beta * rho_l + beta * sp.log(Z), "This is the rejected response's reward, with the same $Z$."),
        define(
            loss,
            f(s_w - s_l),
            "In the place of a likelihood the loss is a convex function of the difference of the rewards.",
        ),
        equal(loss, f(beta * D), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(loss, l_w),
            beta * slope(f(t), t, beta * D),
            "The slope of the link decides how hard the chosen response is pulled.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            -beta * slope(f(t), t, beta * D),
            "The rejected response is pulled as hard, in the opposite direction.",
        ),
        equal(L(r_w, r_l), f(sp.Integer(0)), "At the reference the loss has this value."),
        equal(
            (1 - beta * D) ** 2,
            beta**2 * (D - 1 / (2 * (beta / 2))) ** 2,
            r"With the square the loss is $\beta^2$ times IPO's loss with $\tau = \beta / 2$, that is with the "
            r"target $1 / (2 \tau) = 1 / \beta$.",
        ),
        equal(
            slope(-won * sp.log(sigma(t)) - lost * sp.log(sigma(-t)), t, sp.log(won / lost)),
            sp.Integer(0),
            "The link also decides where the pull ends. Let the first response be preferred $a$ times and the "
            "second $b$ times. With the logistic link the difference of the rewards becomes the log-odds.",
        ),
        equal(
            slope(won * sp.exp(-t) + lost * sp.exp(t), t, sp.log(won / lost) / 2),
            sp.Integer(0),
            "With the exponential link the difference of the rewards becomes one half of the log-odds.",
        ),
        equal(
            slope(won * (1 - t) ** 2 + lost * (1 + t) ** 2, t, (won - lost) / (won + lost)),
            sp.Integer(0),
            "With the square it becomes the difference of the two shares, which is bounded whatever the data are. "
            r"With the hinge it becomes $\pm 1$, in favour of the more frequent winner. The pull of the correlation "
            "has no end.",
        ),
    ),
    choices={
        "logistic": define(f(t), logistic, "This link makes DPO."),
        "hinge": define(f(t), relu(1 - t), "This link makes RSO's hinge."),
        "square": define(f(t), (1 - t) ** 2, "This link makes IPO."),
        "exponential": define(f(t), sp.exp(-t), "The code continues this link along its tangent below $t = -30$."),
        "correlation": define(f(t), -t, "The pull of this link never fades."),
    },
)

falls, share = sp.Function(r"f", real=True), sp.Function(r"\mu", real=True)

discopop = Derivation(
    name="discopop",
    title="DiscoPOP: a logistic loss that turns into an exponential one",
    steps=(
        *MARGIN,
        define(share(t), sigma(t / tau), "This is the share of the exponential loss, which grows with $t$."),
        define(
            falls(t),
            (1 - share(t)) * -sp.log(sigma(t)) + share(t) * sp.exp(-t),
            "A search over programs found this blend of the two losses.",
        ),
        define(loss, falls(beta * D), "The loss reads the scaled margin."),
        equal(
            loss,
            -sigma(-beta * D / tau) * sp.log(sigma(beta * D)) + sigma(beta * D / tau) * sp.exp(-beta * D),
            "The toolkit implements this form of the loss.",
        ),
        define(
            g(t),
            -sigma(-t / tau) * sigma(-t)
            - sigma(t / tau) * sp.exp(-t)
            + sigma(t / tau) * sigma(-t / tau) * (sp.exp(-t) + sp.log(sigma(t))) / tau,
            "This is the slope of the blend, as the next line proves. It has two negative terms, and a positive "
            "one that comes from the change of the shares.",
        ),
        equal(sp.Derivative(falls(t), t), g(t), "The derivative of the blend is that slope."),
        equal(
            sp.Derivative(loss, l_w), beta * g(beta * D), "So the loss has this slope by the chosen log-probability."
        ),
        equal(
            sp.Derivative(loss, l_l),
            -beta * g(beta * D),
            "The slope by the rejected log-probability is the opposite one.",
        ),
        equal(
            g(sp.Integer(0)),
            (1 - sp.log(2) - 3 * tau) / (4 * tau),
            r"At the reference the slope is positive if $\tau < (1 - \log 2) / 3$. The loss then *rises* with the "
            "margin.",
        ),
        equal(L(r_w, r_l), (1 + sp.log(2)) / 2, "At the reference the loss has this value."),
    ),
    assumptions=("The derivation assumes no model of preferences.",),
)
