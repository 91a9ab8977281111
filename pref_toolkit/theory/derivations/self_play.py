"""Self-play: the losses of SPIN and SPPO, and the result of one iteration."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, assume, define, equal
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import D, L, beta, l_l, l_w, r_l, r_w, relu, rho_l, rho_w, sigma

lam, p_1, p_2, q_1, q_2, Z = sp.symbols("lam p_1 p_2 q_1 q_2 Z", positive=True)
t, P_w, P_l, h_w, h_l, next_1, next_2 = sp.symbols("t P_w P_l h_w h_l q'_1 q'_2", real=True)
f = sp.Function("f", real=True)
mixed = sp.Function(r"\mathcal{E}", real=True)

loss = L(l_w, l_l)


def slope(at: sp.Expr) -> sp.Subs:
    """The derivative of the link ``f`` at a point."""
    return sp.Subs(sp.Derivative(f(t), t), t, at)


spin = Derivation(
    name="spin",
    title="SPIN: the data against the model's own last draft",
    steps=(
        *MARGIN,
        argue(
            r"\mathbb{E}\; f\left(h(y_w) - h(y_l)\right), \quad h = \lambda \log \frac{\pi}{\pi_t}",
            "The main player learns to tell the data $y_w$ from the opponent's $y_l \\sim \\pi_t$ by a function $h$; "
            "the next opponent maximises $h$ with a pull of $\\lambda$ to $\\pi_t$, so its log-ratio *is* $h$.",
        ),
        define(h_w, lam * rho_w, "That function of the data's response"),
        define(h_l, lam * rho_l, "and of the opponent's. The reference is the previous iterate $\\pi_t$."),
        define(loss, f(h_w - h_l), "The loss of telling them apart."),
        equal(loss, f(lam * D), "The loss, as implemented. With the logistic link it is DPO with $\\beta = \\lambda$."),
        equal(sp.Derivative(loss, l_w), lam * slope(lam * D), "The data's response rises"),
        equal(sp.Derivative(loss, l_l), -lam * slope(lam * D), "and the model's own falls."),
        equal(L(r_w, r_l), f(sp.Integer(0)), "At the previous iterate."),
        define(
            mixed(t),
            -p_1 * q_2 * sp.log(sigma(lam * t)) - p_2 * q_1 * sp.log(sigma(-lam * t)),
            "Of two responses, with probabilities $p$ in the data and $q$ in $\\pi_t$, either may be the data's. The "
            "expected logistic loss at margin $t$",
        ),
        equal(
            sp.Derivative(mixed(t), t),
            lam * (p_2 * q_1 * sigma(lam * t) - p_1 * q_2 * sigma(-lam * t)),
            "has this slope,",
        ),
        equal(
            sp.Derivative(mixed(t), (t, 2)),
            lam**2 * (p_1 * q_2 + p_2 * q_1) * sigma(lam * t) * sigma(-lam * t),
            "which grows everywhere: where it is zero the loss is least, and nowhere else. This",
        ),
        define(next_1, sp.log(q_1) + sp.log(p_1 / q_1) / lam, "is to be the next policy, up to its normalisation,"),
        define(
            next_2,
            sp.log(q_2) + sp.log(p_2 / q_2) / lam,
            "in logarithms: $\\pi_{t+1} \\propto \\pi_t\\, (p / \\pi_t)^{1/\\lambda}$.",
        ),
        equal(
            sp.Subs(sp.Derivative(mixed(t), t), t, (next_1 - sp.log(q_1)) - (next_2 - sp.log(q_2))),
            sp.Integer(0),
            "At its margin the slope is zero.",
        ),
        equal(
            (next_1 - next_2) - (sp.log(q_1) - sp.log(q_2)),
            (sp.log(p_1 / q_1) - sp.log(p_2 / q_2)) / lam,
            "So much one response gains on the other: nothing only if $p / \\pi_t$ is the same for both.",
        ),
        argue(
            r"\pi_{t+1} = \pi_t \iff \pi_t = p",
            "If $p / \\pi_t$ is the same for all responses it is 1, since both sum to 1: the policy stays where it is only "
            "if it is the data's.",
        ),
    ),
    assumptions=("For the update: a tabular policy and the population of responses.",),
    choices={
        "logistic": define(f(t), -sp.log(sigma(t)), "DPO with $\\beta = \\lambda$."),
        "hinge": define(f(t), relu(1 - t), "Stops at $t = 1$."),
        "correlation": define(f(t), -t, "Never stops."),
        "exponential": define(f(t), sp.exp(-t), "The code goes on along its tangent below $t = -30$."),
    },
)

sppo = Derivation(
    name="sppo",
    title="SPPO: fit the log-ratio to the win rate",
    steps=(
        *MARGIN[:2],
        argue(
            r"\pi_{t+1}(y) = \pi_t(y)\, e^{P(y) / \beta} / Z",
            "Multiplicative weights: a response gains by its chance $P$ of beating a response of $\\pi_t$.",
        ),
        assume(sp.log(Z), 1 / (2 * beta), "The normaliser is not computed: an average response wins half the time."),
        define(h_w, P_w / beta - sp.log(Z), "The log-ratio the chosen response should have,"),
        define(h_l, P_l / beta - sp.log(Z), "and the rejected one."),
        equal(h_w, (P_w - sp.Rational(1, 2)) / beta, "It is positive for a response that wins more often than not,"),
        equal(h_l, (P_l - sp.Rational(1, 2)) / beta, "negative for one that does not."),
        define(
            loss,
            ((rho_w - P_w / beta + 1 / (2 * beta)) ** 2 + (rho_l - P_l / beta + 1 / (2 * beta)) ** 2) / 2,
            "Squares fit each log-ratio to its target.",
        ),
        equal(
            loss,
            ((rho_w - (P_w - sp.Rational(1, 2)) / beta) ** 2 + (rho_l - (P_l - sp.Rational(1, 2)) / beta) ** 2) / 2,
            "The loss, as implemented.",
        ),
        equal(
            sp.Derivative(loss, l_w), rho_w - (P_w - sp.Rational(1, 2)) / beta, "Each response goes to its own target,"
        ),
        equal(sp.Derivative(loss, l_l), rho_l - (P_l - sp.Rational(1, 2)) / beta, "whatever the other one does."),
        equal(
            L(r_w, r_l),
            ((P_w - sp.Rational(1, 2)) ** 2 + (P_l - sp.Rational(1, 2)) ** 2) / (2 * beta**2),
            "At the previous iterate.",
        ),
    ),
    assumptions=("The normaliser is that of a response which wins half the time.",),
)
