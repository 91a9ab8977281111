"""DPO: the reward that a policy is optimal for, put into the Bradley-Terry model."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, define, equal, positive
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import D, L, beta, l_l, l_w, r_l, r_w, rho_l, rho_w, s_l, s_w, sigma

Z, p, q, a = sp.symbols("Z p q a", positive=True)
M = sp.Function(r"\mathcal{M}", real=True)
t, d, x, c, b_0, b_1, b_2, d_0, d_1, d_2, e_0, e_1, e_2 = sp.symbols(
    "t d x c b_0 b_1 b_2 d_0 d_1 d_2 e_0 e_1 e_2", real=True
)
pair, chain, alone = (sp.Function(name, real=True) for name in (r"\mathcal{E}", r"\mathcal{C}", r"\mathcal{A}"))


def bend(at: sp.Expr) -> sp.Expr:
    """The second slope of a pair's expected loss."""
    return sigma(at) * sigma(-at)


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
            pair(t, d),
            -sigma(d) * sp.log(sigma(t)) - sigma(-d) * sp.log(sigma(-t)),
            "The population. Two responses whose true rewards differ by $d$ are compared; by Bradley-Terry the first wins with "
            "probability $\\sigma(d)$. The expected loss, if the policy's rewards $\\beta\\rho$ differ by $t$:",
        ),
        equal(
            sp.Derivative(pair(t, d), t),
            sigma(t) - sigma(d),
            "Its slope is the policy's probability of a win less the true one,",
        ),
        equal(sp.Subs(sp.Derivative(pair(t, d), t), t, d), sp.Integer(0), "which is zero where the differences agree,"),
        equal(sp.Derivative(pair(t, d), (t, 2)), sigma(t) * sigma(-t), "and grows,"),
        positive(sigma(t) * sigma(-t), "as this is positive: it is zero there only, and the expected loss is least."),
        define(
            chain(b_0, b_1, b_2),
            pair(b_0 - b_1, d_0 - d_1) + pair(b_1 - b_2, d_1 - d_2),
            "Three responses with true rewards $d_0, d_1, d_2$ and policy rewards $b_0, b_1, b_2$. The first is compared with "
            "the second and the second with the third.",
        ),
        equal(
            sp.Subs(sp.Derivative(chain(b_0, b_1, b_2), b_1), (b_0, b_1, b_2), (d_0 + c, d_1 + c, d_2 + c)),
            sp.Integer(0),
            "Where the policy's rewards are the true ones, up to one constant, the slope by the second is zero,",
        ),
        equal(
            sp.Subs(sp.Derivative(chain(b_0, b_1, b_2), b_2), (b_0, b_1, b_2), (d_0 + c, d_1 + c, d_2 + c)),
            sp.Integer(0),
            "and so is that by the third.",
        ),
        equal(
            sp.Derivative(chain(b_0 + x * e_0, b_1 + x * e_1, b_2 + x * e_2), (x, 2)),
            (e_0 - e_1) ** 2 * bend(b_0 - b_1 + x * (e_0 - e_1)) + (e_1 - e_2) ** 2 * bend(b_1 - b_2 + x * (e_1 - e_2)),
            "Along any direction $e$ the loss bends by squares times positive numbers $\\sigma(\\cdot)\\,\\sigma(-\\cdot)$: by "
            "nothing only if all rewards move alike. So the minimum is unique, up to one constant, which $Z$ takes up.",
        ),
        define(
            alone(b_0, b_1, b_2),
            pair(b_0 - b_1, d_0 - d_1),
            "If the third response is compared with none, it has no term,",
        ),
        equal(
            chain(b_0, b_1, b_2) - alone(b_0, b_1, b_2),
            pair(b_1 - b_2, d_1 - d_2),
            "which is all that the two losses differ by,",
        ),
        equal(
            sp.Derivative(alone(b_0, b_1, b_2), b_2),
            sp.Integer(0),
            "and the loss no slope by it: whatever the policy gives to the third, the loss is as small.",
        ),
        argue(
            r"\text{one minimum, at } \pi^{*} \iff \text{the compared pairs connect all responses}",
            "In the same way for any number of responses: along a direction that moves one connected part alone no compared "
            "pair bends, and every other direction bends one. RLHF's optimum $\\pi^{*}$ has $\\beta\\rho$ equal to the reward, "
            "up to $\\beta \\log Z$, so it is a minimum always, and the only one if the pairs connect all responses.",
        ),
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
        "For the lines on the population: a tabular policy.",
    ),
)
