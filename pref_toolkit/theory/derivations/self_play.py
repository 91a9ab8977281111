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
            r"The main player learns to tell the data's response $y_w$ from the opponent's response $y_l \sim "
            r"\pi_t$ by a function $h$. The next opponent maximises $h$ less $\lambda$ times its divergence from "
            r"$\pi_t$, so $h$ is $\lambda$ times its log-ratio, up to a constant that the difference cancels.",
        ),
        define(h_w, lam * rho_w, "This is the value of that function at the data's response."),
        define(
            h_l,
            lam * rho_l,
            r"This is its value at the opponent's response. The reference is the previous iterate $\pi_t$.",
        ),
        define(loss, f(h_w - h_l), "The main player minimises a loss $f$ of the difference of the two values."),
        equal(
            loss,
            f(lam * D),
            r"The toolkit implements this form of the loss. With the logistic link it is DPO's loss with $\beta = "
            r"\lambda$.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            lam * slope(lam * D),
            "Where $f$ falls, descent raises the log-probability of the data's response.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            -lam * slope(lam * D),
            "The slope by the log-probability of the model's own response has the opposite sign, so descent lowers it.",
        ),
        equal(L(r_w, r_l), f(sp.Integer(0)), "At the previous iterate the margin is 0, and the loss has this value."),
        define(
            mixed(t),
            -p_1 * q_2 * sp.log(sigma(lam * t)) - p_2 * q_1 * sp.log(sigma(-lam * t)),
            r"Two responses have the probabilities $p_1, p_2$ in the data and $q_1, q_2$ under $\pi_t$, and either "
            "of them may be the data's. At margin $t$ they have this expected logistic loss.",
        ),
        equal(
            sp.Derivative(mixed(t), t),
            lam * (p_2 * q_1 * sigma(lam * t) - p_1 * q_2 * sigma(-lam * t)),
            "The expected loss has this slope.",
        ),
        equal(
            sp.Derivative(mixed(t), (t, 2)),
            lam**2 * (p_1 * q_2 + p_2 * q_1) * sigma(lam * t) * sigma(-lam * t),
            "The slope grows everywhere. So the loss is least where the slope is zero, and nowhere else.",
        ),
        define(
            next_1,
            sp.log(q_1) + sp.log(p_1 / q_1) / lam,
            "The next policy should give the first response this log-probability, up to its normalisation.",
        ),
        define(
            next_2,
            sp.log(q_2) + sp.log(p_2 / q_2) / lam,
            r"It should give the second response this log-probability, so that $\pi_{t+1} \propto \pi_t\, (p / "
            r"\pi_t)^{1/\lambda}$.",
        ),
        equal(
            sp.Subs(sp.Derivative(mixed(t), t), t, (next_1 - sp.log(q_1)) - (next_2 - sp.log(q_2))),
            sp.Integer(0),
            "At the margin of this policy the slope is zero, so it minimises the expected loss.",
        ),
        equal(
            (next_1 - next_2) - (sp.log(q_1) - sp.log(q_2)),
            (sp.log(p_1 / q_1) - sp.log(p_2 / q_2)) / lam,
            "In one round the log-odds of the first response against the second change by this. They stay the same "
            r"only if $p / \pi_t$ is the same for both.",
        ),
        equal(
            (next_1 - next_2) - (sp.log(p_1) - sp.log(p_2)),
            (1 - 1 / lam) * (sp.log(q_1 / p_1) - sp.log(q_2 / p_2)),
            r"The round multiplies every difference of log-ratios to the data by $1 - 1 / \lambda$.",
        ),
        equal(
            1 - (1 - 1 / lam) ** 2,
            (2 * lam - 1) / lam**2,
            r"The size of this factor is below 1 exactly if $\lambda > 1/2$, where the right side is positive. "
            "Otherwise the iterations do not come nearer to the data.",
        ),
        argue(
            r"\pi_{t+1} = \pi_t \iff \pi_t = p",
            r"If $p / \pi_t$ is the same for all responses, it is 1, since both sum to 1. So the policy stays where "
            "it is only if it is the distribution of the data.",
        ),
        equal(
            sp.Subs(sp.Derivative(mixed(t), t), t, 0),
            lam / 2 * (p_2 * q_1 - p_1 * q_2),
            "At the first step of a round the margin is 0, and the expected loss has this slope.",
        ),
        equal(
            lam / 2 * ((1 - p_1) * q_1 - p_1 * (1 - q_1)),
            lam / 2 * (q_1 - p_1),
            r"If there are no other responses, the slope is $\lambda / 2$ times the difference of the two "
            "probabilities.",
        ),
        equal(
            sp.Derivative(-p_1 * sp.log(sigma(t)) - (1 - p_1) * sp.log(sigma(-t)), t),
            sigma(t) - p_1,
            r"Supervised learning has the same difference as its slope. Here $\sigma(t)$ is the policy's "
            "probability.",
        ),
    ),
    assumptions=("The lines on the update assume a tabular policy and the population of responses.",),
    choices={
        "logistic": define(f(t), -sp.log(sigma(t)), r"This link makes DPO with $\beta = \lambda$."),
        "hinge": define(f(t), relu(1 - t), "The pull of this link stops at $t = 1$."),
        "correlation": define(f(t), -t, "The pull of this link never stops."),
        "exponential": define(f(t), sp.exp(-t), "The code continues this link along its tangent below $t = -30$."),
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
            r"The method of multiplicative weights multiplies each probability by $e^{P(y) / \beta}$, where $P(y)$ "
            r"is the chance that $y$ beats a draw from $\pi_t$, and then divides by the sum.",
        ),
        assume(over(y, before(y)), sp.Integer(1), "The policy before the step is a distribution."),
        assume(
            over(y, before(y) * wins(y)),
            HALF,
            "Of two draws from this policy each wins half the time, so the mean of $P$ is 1/2.",
        ),
        define(
            partition(t),
            over(i, before(i) * sp.exp(t * wins(i))),
            r"This is the normaliser. The step has $t = 1 / \beta$.",
        ),
        define(tilted(y, t), before(y) * sp.exp(t * wins(y)) / partition(t), "This is the next policy."),
        define(mean(t), over(j, tilted(j, t) * wins(j)), "This is the mean of $P$ under the next policy."),
        equal(sp.log(partition(sp.Integer(0))), sp.Integer(0), "The logarithm of the normaliser is 0 at $t = 0$."),
        equal(
            sp.Derivative(sp.log(partition(t)), t),
            mean(t),
            "The slope of this logarithm is the mean of $P$ under the next policy.",
        ),
        equal(sp.Subs(sp.Derivative(sp.log(partition(t)), t), t, 0), HALF, "The slope begins at 1/2."),
        equal(
            sp.Derivative(sp.log(partition(t)), (t, 2)),
            over(j, tilted(j, t) * (wins(j) - mean(t)) ** 2),
            "The slope changes at a rate that is the variance of $P$ under the next policy, which is never negative.",
        ),
        equal(
            sp.Rational(1, 4) - over(j, tilted(j, t) * (wins(j) - mean(t)) ** 2),
            (mean(t) - HALF) ** 2 + over(j, tilted(j, t) * wins(j) * (1 - wins(j))),
            "The variance is never above 1/4, because $P$ is a probability and so the right side is not negative.",
        ),
        argue(
            r"\frac{1}{2 \beta} \le \log Z(1 / \beta) \le \frac{1}{2 \beta} + \frac{1}{8 \beta^2}",
            r"Integrating this rate twice from 0 to $1 / \beta$ gives the bounds of Jensen and of Hoeffding. The "
            "lower bound is met only where all responses win equally often.",
        ),
        define(
            certain(t),
            (1 + sp.exp(t)) / 2,
            "In the widest case one half of the draws always wins and the other half never wins. The normaliser is "
            "then this.",
        ),
        equal(
            certain(t) - sp.exp(t / 2),
            (sp.exp(t / 2) - 1) ** 2 / 2,
            "In this case the normaliser lies above Jensen's bound, by half a square.",
        ),
        define(
            excess(a),
            a**2 / 2 - sp.log(certain(2 * a)) + a,
            "This is Hoeffding's bound less the logarithm of that normaliser, at $t = 2 a$.",
        ),
        equal(excess(sp.Integer(0)), sp.Integer(0), "The difference is 0 at $a = 0$."),
        equal(
            sp.Subs(sp.Derivative(excess(a), a), a, 0), sp.Integer(0), "The slope of the difference is 0 there as well."
        ),
        equal(
            sp.Derivative(excess(a), (a, 2)),
            ((sp.exp(a) - sp.exp(-a)) / (sp.exp(a) + sp.exp(-a))) ** 2,
            "The second derivative of the difference is a square.",
        ),
        nonnegative(
            ((sp.exp(a) - sp.exp(-a)) / (sp.exp(a) + sp.exp(-a))) ** 2,
            "A square is never negative, so the difference is never negative either, and the upper bound holds.",
        ),
        equal(
            1 / beta - sp.log(certain(1 / beta)),
            sp.log(2) - sp.log(1 + sp.exp(-1 / beta)),
            "In the widest case the exact step raises the log-probability of a response that always wins by this "
            "many nats.",
        ),
        positive(
            sp.log(1 + sp.exp(-1 / beta)),
            r"This number is positive, so the step raises the log-probability by less than $\log 2$, however small "
            r"$\beta$ is. In the limit it raises it by $\log 2$: the probability at most doubles.",
        ),
        define(
            level,
            1 / (2 * beta),
            "SPPO computes no normaliser. It puts Jensen's bound in the place of the normaliser's logarithm.",
        ),
        define(h_w, P_w / beta - level, "This is the target for the log-ratio of the chosen response."),
        define(h_l, P_l / beta - level, "This is the target for the log-ratio of the rejected response."),
        equal(h_w, (P_w - HALF) / beta, "The target is positive for a response that wins more than half the time."),
        equal(h_l, (P_l - HALF) / beta, "The target is negative for a response that wins less than half the time."),
        equal(
            over(y, before(y) * sp.exp((wins(y) - HALF) / beta)),
            sp.exp(sp.log(partition(1 / beta)) - level),
            "A policy that met every target would have this sum of probabilities.",
        ),
        argue(
            r"\sum_y \pi_t(y)\, e^{(P(y) - 1/2) / \beta} > 1",
            "By Jensen's bound the sum is above 1 unless all responses win equally often, so no policy meets all "
            r"targets. A single log-ratio cannot exceed $-\log \pi_t(y)$ either, so with a small $\beta$ even one "
            "target is out of reach.",
        ),
        assume(
            over(y, balanced(y)),
            sp.Integer(1),
            "The next lines are about repeated exact steps. Let $u$ be a distribution.",
        ),
        assume(
            over(y, balanced(y) * wins(y)),
            HALF,
            "Each policy wins half the time against $u$. So $u$ is the Nash equilibrium of a game in which every "
            "response has its use.",
        ),
        equal(
            over(y, balanced(y) * (sp.log(before(y)) - sp.log(tilted(y, 1 / beta)))),
            sp.log(partition(1 / beta)) - level,
            r"An exact step changes $\mathrm{KL}(u \,\|\, \pi)$ by the amount that Jensen's bound leaves out. This "
            "amount is not negative, so the policy moves away from the equilibrium.",
        ),
        define(
            loss,
            ((rho_w - h_w) ** 2 + (rho_l - h_l) ** 2) / 2,
            "The loss fits each log-ratio to its target by squares.",
        ),
        equal(
            loss,
            ((rho_w - (P_w - HALF) / beta) ** 2 + (rho_l - (P_l - HALF) / beta) ** 2) / 2,
            "The toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            rho_w - (P_w - HALF) / beta,
            "The chosen response moves to its own target, wherever the rejected response is.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            rho_l - (P_l - HALF) / beta,
            "The rejected response moves to its own target, wherever the chosen response is.",
        ),
        equal(
            L(r_w, r_l),
            ((P_w - HALF) ** 2 + (P_l - HALF) ** 2) / (2 * beta**2),
            "At the previous iterate both log-ratios are 0, and the loss has this value.",
        ),
    ),
    assumptions=(
        "There is one prompt with a finite number $K$ of responses, and $p(y, y') + p(y', y) = 1$.",
        "SPPO takes the normaliser as if every response won half the time, which is Jensen's bound.",
    ),
)
