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
            "This is the reward of the chosen response for which the policy is RLHF's optimum. It is called $s$, "
            "for score, because $r$ is the reference's log-probability.",
        ),
        define(
            s_l,
            beta * rho_l + beta * sp.log(Z),
            "This is the reward of the rejected response. It has the same $Z$, because the prompt is the same.",
        ),
        equal(s_w - s_l, beta * D, "The difference of the rewards does not contain $Z$."),
        define(loss, -sp.log(sigma(s_w - s_l)), "The loss is Bradley-Terry's on these rewards."),
        equal(loss, -sp.log(sigma(beta * D)), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * D),
            "Descent raises the chosen log-probability, and the pull is the harder the more wrong the pair is.",
        ),
        equal(
            sp.Derivative(loss, l_l), beta * sigma(-beta * D), "Descent lowers the rejected log-probability by as much."
        ),
        positive(beta**2 * sigma(beta * D) * sigma(-beta * D), "This product is positive."),
        equal(
            sp.Derivative(loss, (l_w, 2)),
            beta**2 * sigma(beta * D) * sigma(-beta * D),
            "The product is the second derivative, so the loss is convex in the margin, and it has no finite minimum.",
        ),
        equal(L(r_w, r_l), sp.log(2), r"At the reference the loss is $\log 2$."),
        define(
            pair(t, d),
            -sigma(d) * sp.log(sigma(t)) - sigma(-d) * sp.log(sigma(-t)),
            "The next lines are about the population. Two responses whose true rewards differ by $d$ are compared, "
            r"and by Bradley-Terry's model the first wins with probability $\sigma(d)$. If the policy's rewards "
            r"$\beta\rho$ differ by $t$, the expected loss is this.",
        ),
        equal(
            sp.Derivative(pair(t, d), t),
            sigma(t) - sigma(d),
            "The slope of the expected loss is the policy's probability of a win less the true one.",
        ),
        equal(
            sp.Subs(sp.Derivative(pair(t, d), t), t, d),
            sp.Integer(0),
            "The slope is zero where the two differences agree.",
        ),
        equal(sp.Derivative(pair(t, d), (t, 2)), sigma(t) * sigma(-t), "The slope itself has this derivative."),
        positive(
            sigma(t) * sigma(-t),
            "The derivative is positive, so the slope is zero only where the differences agree, and there the "
            "expected loss is least.",
        ),
        define(
            chain(b_0, b_1, b_2),
            pair(b_0 - b_1, d_0 - d_1) + pair(b_1 - b_2, d_1 - d_2),
            "Three responses have the true rewards $d_0, d_1, d_2$ and the policy's rewards $b_0, b_1, b_2$. The "
            "first is compared with the second, and the second with the third.",
        ),
        equal(
            sp.Subs(sp.Derivative(chain(b_0, b_1, b_2), b_1), (b_0, b_1, b_2), (d_0 + c, d_1 + c, d_2 + c)),
            sp.Integer(0),
            "Where the policy's rewards are the true ones up to one constant, the slope by the second reward is zero.",
        ),
        equal(
            sp.Subs(sp.Derivative(chain(b_0, b_1, b_2), b_2), (b_0, b_1, b_2), (d_0 + c, d_1 + c, d_2 + c)),
            sp.Integer(0),
            "At the same rewards the slope by the third reward is zero as well.",
        ),
        equal(
            sp.Derivative(chain(b_0 + x * e_0, b_1 + x * e_1, b_2 + x * e_2), (x, 2)),
            (e_0 - e_1) ** 2 * bend(b_0 - b_1 + x * (e_0 - e_1)) + (e_1 - e_2) ** 2 * bend(b_1 - b_2 + x * (e_1 - e_2)),
            "Along any direction $e$ the loss bends by squares times positive numbers "
            r"$\sigma(\cdot)\,\sigma(-\cdot)$. It does not bend only if all rewards move alike. So the minimum is "
            "unique up to one constant, which $Z$ takes up.",
        ),
        define(
            alone(b_0, b_1, b_2),
            pair(b_0 - b_1, d_0 - d_1),
            "If the third response is compared with none, the loss has no term for it.",
        ),
        equal(
            chain(b_0, b_1, b_2) - alone(b_0, b_1, b_2),
            pair(b_1 - b_2, d_1 - d_2),
            "The two losses differ by exactly this term.",
        ),
        equal(
            sp.Derivative(alone(b_0, b_1, b_2), b_2),
            sp.Integer(0),
            "Without the term the loss has no slope by the third reward. Whatever the policy gives to the third "
            "response, the loss is as small.",
        ),
        argue(
            r"\text{one minimum, at } \pi^{*} \iff \text{the compared pairs connect all responses}",
            "The same holds for any number of responses. Along a direction that moves only one connected part no "
            r"compared pair bends, and along every other direction some pair bends. RLHF's optimum $\pi^{*}$ has "
            r"$\beta\rho$ equal to the reward, up to $\beta \log Z$. So it is always a minimum, and it is the only "
            "one if the pairs connect all responses.",
        ),
        define(
            a,
            sp.exp(beta * (r_w - r_l)),
            "The loss is now a function of the probabilities $p$ and $q$ of the two responses, and this is a "
            "constant in it.",
        ),
        define(M(p, q), L(sp.log(p), sp.log(q)), "This is the loss as a function of the two probabilities."),
        equal(M(p, q), sp.log(1 + a * (q / p) ** beta), "The loss depends on the ratio $q / p$ only."),
        equal(
            -sp.Derivative(M(p, q), p) / sp.Derivative(M(p, q), q),
            q / p,
            "The slopes by the two probabilities have opposite signs, and their sizes have this ratio. So the "
            "smaller probability has the larger slope.",
        ),
        argue(
            r"\frac{\mathrm{d}}{\mathrm{d}t} \log\pi(y_w) = \beta\,\sigma(-\beta D)\left(\lVert g_w\rVert^2 - "
            r"\langle g_w, g_l\rangle\right),\quad g = \nabla_\theta \log\pi",
            "Gradient descent on shared parameters may move both probabilities together. So the chosen response "
            "may fall, and it does fall where the two gradients agree too well.",
        ),
    ),
    assumptions=(
        "The policy can represent the optimum of RLHF for some reward.",
        "Preferences follow the Bradley-Terry model on that reward.",
        "The lines on the population assume a tabular policy.",
    ),
)
