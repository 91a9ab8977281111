"""Self-play: the losses of SPIN and SPPO, and the result of one iteration."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, assume, define, equal, nonnegative, positive
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import D, L, beta, l_l, l_w, r_l, r_w, relu, rho_l, rho_w, sigma

lam, p_1, p_2, q_1, q_2 = sp.symbols("lam p_1 p_2 q_1 q_2", positive=True)
t, P_w, P_l, h_w, h_l, next_1, next_2 = sp.symbols("t P_w P_l h_w h_l q'_1 q'_2", real=True)
f = sp.Function("f", real=True)
mixed = sp.Function(r"\mathcal{E}", real=True)
K = sp.Symbol("K", integer=True, positive=True)
y, i, j = sp.symbols("y i j", integer=True)
a = sp.Symbol("a", positive=True)
level = sp.Symbol("c", real=True)
before, partition, tilted, certain = (sp.Function(n, positive=True) for n in (r"\pi_t", "Z", "q", "H"))
wins, mean, excess = (sp.Function(n, real=True) for n in ("P", "m", "E"))
balanced = sp.Function("u", positive=True)
HALF = sp.Rational(1, 2)

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
        equal(
            (next_1 - next_2) - (sp.log(p_1) - sp.log(p_2)),
            (1 - 1 / lam) * (sp.log(q_1 / p_1) - sp.log(q_2 / p_2)),
            "And so far it is then from the data: every log-ratio to the data is multiplied by $1 - 1 / \\lambda$,",
        ),
        equal(
            1 - (1 - 1 / lam) ** 2,
            (2 * lam - 1) / lam**2,
            "whose size is below 1 exactly if $\\lambda > 1/2$. Otherwise iterations do not come nearer.",
        ),
        argue(
            r"\pi_{t+1} = \pi_t \iff \pi_t = p",
            "If $p / \\pi_t$ is the same for all responses it is 1, since both sum to 1: the policy stays where it is only "
            "if it is the data's.",
        ),
        equal(
            sp.Subs(sp.Derivative(mixed(t), t), t, 0),
            lam / 2 * (p_2 * q_1 - p_1 * q_2),
            "Now the first step of a round. The margin is 0, and the slope of the expected loss is this.",
        ),
        equal(
            lam / 2 * ((1 - p_1) * q_1 - p_1 * (1 - q_1)),
            lam / 2 * (q_1 - p_1),
            "Where there are no other responses, it is the difference of the probabilities times $\\lambda / 2$,",
        ),
        equal(
            sp.Derivative(-p_1 * sp.log(sigma(t)) - (1 - p_1) * sp.log(sigma(-t)), t),
            sigma(t) - p_1,
            "and supervised learning has that difference as its slope: here $\\sigma(t)$ is the policy's probability.",
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


def over(index: sp.Symbol, term: sp.Expr) -> sp.Sum:
    """The sum over all responses, with this index."""
    return sp.Sum(term, (index, 1, K))


sppo = Derivation(
    name="sppo",
    title="SPPO: fit the log-ratio to the win rate",
    steps=(
        *MARGIN[:2],
        argue(
            r"\pi_{t+1}(y) = \pi_t(y)\, e^{P(y) / \beta} / Z(1 / \beta)",
            "Multiplicative weights: a response gains by its chance $P$ of beating a response of $\\pi_t$.",
        ),
        assume(over(y, before(y)), sp.Integer(1), "The policy before the step is a distribution."),
        assume(
            over(y, before(y) * wins(y)),
            HALF,
            "Of two draws from it each is the winner half the time: an average response wins half the time.",
        ),
        define(partition(t), over(i, before(i) * sp.exp(t * wins(i))), "The normaliser, at $t = 1 / \\beta$."),
        define(tilted(y, t), before(y) * sp.exp(t * wins(y)) / partition(t), "The next policy."),
        define(mean(t), over(j, tilted(j, t) * wins(j)), "Its mean of $P$."),
        equal(sp.log(partition(sp.Integer(0))), sp.Integer(0), "The logarithm of the normaliser is 0 at $t = 0$."),
        equal(sp.Derivative(sp.log(partition(t)), t), mean(t), "This is its slope,"),
        equal(sp.Subs(sp.Derivative(sp.log(partition(t)), t), t, 0), HALF, "which begins at 1/2."),
        equal(
            sp.Derivative(sp.log(partition(t)), (t, 2)),
            over(j, tilted(j, t) * (wins(j) - mean(t)) ** 2),
            "The slope changes by a variance, which is never negative,",
        ),
        equal(
            sp.Rational(1, 4) - over(j, tilted(j, t) * (wins(j) - mean(t)) ** 2),
            (mean(t) - HALF) ** 2 + over(j, tilted(j, t) * wins(j) * (1 - wins(j))),
            "and never above 1/4, because $P$ is a probability.",
        ),
        argue(
            r"\frac{1}{2 \beta} \le \log Z(1 / \beta) \le \frac{1}{2 \beta} + \frac{1}{8 \beta^2}",
            "Integrated twice from 0 to $1 / \\beta$, these are the bounds of Jensen and of Hoeffding. The lower one is "
            "met only where all responses win equally often.",
        ),
        define(certain(t), (1 + sp.exp(t)) / 2, "The widest case: one half always wins and the other never."),
        equal(
            certain(t) - sp.exp(t / 2),
            (sp.exp(t / 2) - 1) ** 2 / 2,
            "There the normaliser lies above Jensen's bound, by a square.",
        ),
        define(excess(a), a**2 / 2 - sp.log(certain(2 * a)) + a, "Hoeffding's bound less its logarithm, at $t = 2 a$,"),
        equal(excess(sp.Integer(0)), sp.Integer(0), "is 0 at 0,"),
        equal(sp.Subs(sp.Derivative(excess(a), a), a, 0), sp.Integer(0), "has no slope there,"),
        equal(
            sp.Derivative(excess(a), (a, 2)),
            ((sp.exp(a) - sp.exp(-a)) / (sp.exp(a) + sp.exp(-a))) ** 2,
            "and bends up everywhere",
        ),
        nonnegative(
            ((sp.exp(a) - sp.exp(-a)) / (sp.exp(a) + sp.exp(-a))) ** 2,
            "as this is a square: the upper bound holds.",
        ),
        equal(
            1 / beta - sp.log(certain(1 / beta)),
            sp.log(2) - sp.log(1 + sp.exp(-1 / beta)),
            "The exact step lifts a response that always wins by this many nats:",
        ),
        positive(
            sp.log(1 + sp.exp(-1 / beta)),
            "less than $\\log 2$, however small $\\beta$ is, and $\\log 2$ in the limit: its probability at most doubles.",
        ),
        define(level, 1 / (2 * beta), "SPPO computes no normaliser. It takes Jensen's bound for its logarithm."),
        define(h_w, P_w / beta - level, "The log-ratio the chosen response should have,"),
        define(h_l, P_l / beta - level, "and the rejected one."),
        equal(h_w, (P_w - HALF) / beta, "It is positive for a response that wins more often than not,"),
        equal(h_l, (P_l - HALF) / beta, "negative for one that does not."),
        equal(
            over(y, before(y) * sp.exp((wins(y) - HALF) / beta)),
            sp.exp(sp.log(partition(1 / beta)) - level),
            "A policy that met every target would have this sum of probabilities.",
        ),
        argue(
            r"\sum_y \pi_t(y)\, e^{(P(y) - 1/2) / \beta} > 1",
            "By Jensen's bound the sum is above 1 unless all responses win equally often, so no policy meets all targets. "
            "Nor can a single log-ratio exceed $-\\log \\pi_t(y)$: with a small $\\beta$ even one target is out of reach.",
        ),
        assume(over(y, balanced(y)), sp.Integer(1), "Now what repeated exact steps do. Let $u$ be a distribution"),
        assume(
            over(y, balanced(y) * wins(y)),
            HALF,
            "against which each policy wins half the time: the Nash equilibrium of a game in which every response has its use.",
        ),
        equal(
            over(y, balanced(y) * (sp.log(before(y)) - sp.log(tilted(y, 1 / beta)))),
            sp.log(partition(1 / beta)) - level,
            "An exact step changes $\\mathrm{KL}(u \\,\\|\\, \\pi)$ by the very amount that Jensen's bound leaves out. It is "
            "not negative: the policy moves away from the equilibrium.",
        ),
        define(loss, ((rho_w - h_w) ** 2 + (rho_l - h_l) ** 2) / 2, "Squares fit each log-ratio to its target."),
        equal(
            loss,
            ((rho_w - (P_w - HALF) / beta) ** 2 + (rho_l - (P_l - HALF) / beta) ** 2) / 2,
            "The loss, as implemented.",
        ),
        equal(sp.Derivative(loss, l_w), rho_w - (P_w - HALF) / beta, "Each response goes to its own target,"),
        equal(sp.Derivative(loss, l_l), rho_l - (P_l - HALF) / beta, "whatever the other one does."),
        equal(
            L(r_w, r_l),
            ((P_w - HALF) ** 2 + (P_l - HALF) ** 2) / (2 * beta**2),
            "At the previous iterate.",
        ),
    ),
    assumptions=(
        "One prompt with a finite number $K$ of responses. $p(y, y') + p(y', y) = 1$.",
        "The normaliser is that of a response which wins half the time: Jensen's bound stands for it.",
    ),
)
