"""Policy gradients: REINFORCE, groups of draws, PPO's clip, estimators of the divergence, and a group of two."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, assume, define, equal, nonnegative
from pref_toolkit.theory.derivations.symbols import beta, relu, sigma, slope

K = sp.Symbol("K", integer=True, positive=True)
G = sp.Symbol("G", integer=True, positive=True)
y, i, j = sp.symbols("y i j", integer=True)
Z, N, u, p, A, w = sp.symbols("Z N u p A w", positive=True)
eps = sp.Symbol("eps", positive=True)
t, b, S, T, R, d, D, v, logp = sp.symbols("t b S T R d D v l", real=True)
best_b, m, s, old = sp.symbols(r"b^{*} m s l_{0}", real=True)
ref, best, pi = (sp.Function(name, positive=True) for name in (r"\mathrm{ref}", r"\pi^{*}", r"\pi"))
partition, n = sp.Function("Z", positive=True), sp.Function("n", positive=True)
z, g, r, x, c, score, gain, J, H, second, others, ratio = (
    sp.Function(name, real=True)
    for name in ("z", "g", "r", "x", "c", r"\psi", "A", "J", "H", "V", r"A^{\setminus}", r"\rho")
)
kl, reverse, chi, k2, k3, turned, f = (
    sp.Function(name, real=True)
    for name in (r"\mathrm{KL}", r"\mathrm{KL}^{\leftarrow}", r"\chi^{2}", "k_{2}", "k_{3}", "h", "f")
)
up, down = (sp.Function(name, real=True) for name in ("L_{+}", "L_{-}"))


def over(index: sp.Symbol, term: sp.Expr) -> sp.Sum:
    """The sum over all responses, with this index."""
    return sp.Sum(term, (index, 1, K))


def by_t(term: sp.Expr) -> sp.Derivative:
    """The slope along the parameter."""
    return sp.Derivative(term, t)


DIRECTION = (
    define(
        partition(t),
        over(y, sp.exp(z(y) + t * g(y))),
        "A parameter $t$ of a softmax moves the logit of response $y$ by $g(y)$.",
    ),
    define(pi(y, t), sp.exp(z(y) + t * g(y)) / partition(t), "The policy."),
    define(
        score(y, t),
        g(y) - over(i, pi(i, t) * g(i)),
        "The score: the logit's slope, less its mean under the policy.",
    ),
)
ONE_PARAMETER = (
    "One prompt with a finite number $K$ of responses, each of positive probability, and one parameter at a time. To first "
    "order, which is all that a gradient sees, any parameter moves the logits linearly."
)

psi = score(y, t)
reinforce = Derivation(
    name="reinforce",
    title="REINFORCE with the divergence in the reward: its mean, its rest point and its best baseline",
    steps=(
        *DIRECTION,
        equal(by_t(sp.log(pi(y, t))), psi, "The score is the slope of the log-probability."),
        equal(over(y, pi(y, t)), sp.Integer(1), "The probabilities sum to 1 wherever $t$ is,"),
        equal(over(y, pi(y, t) * psi), sp.Integer(0), "so the mean score is 0: the score-function identity."),
        define(
            gain(y, t),
            r(y) - beta * sp.log(pi(y, t) / ref(y)),
            r"The reward, less $\beta$ times the log-ratio of the response.",
        ),
        define(J(t), over(y, pi(y, t) * gain(y, t)), "Its mean is RLHF's objective."),
        equal(
            by_t(J(t)),
            over(y, pi(y, t) * gain(y, t) * psi),
            "The gradient is the mean of $A$ times the score. That $A$ itself moves with $t$ adds nothing.",
        ),
        equal(
            over(y, pi(y, t) * (gain(y, t) - b) * psi),
            over(y, pi(y, t) * gain(y, t) * psi),
            "A number $b$ that is the same for every draw changes no mean.",
        ),
        define(Z, over(y, ref(y) * sp.exp(r(y) / beta)), "For the rest point, RLHF's partition function"),
        define(best(y), ref(y) * sp.exp(r(y) / beta) / Z, "and its optimum,"),
        equal(over(y, best(y)), sp.Integer(1), "which is a policy."),
        equal(
            gain(y, t),
            beta * sp.log(Z) - beta * sp.log(pi(y, t) / best(y)),
            "$A$ is the same number for all responses exactly where the policy is this optimum.",
        ),
        equal(
            by_t(J(t)),
            -beta * over(y, pi(y, t) * sp.log(pi(y, t) / best(y)) * psi),
            r"So the gradient is that of $-\beta$ times the divergence from the optimum.",
        ),
        define(H(t), -over(y, pi(y, t) * sp.log(pi(y, t))), "The entropy of the policy."),
        equal(
            by_t(H(t)),
            -over(y, pi(y, t) * sp.log(pi(y, t)) * psi),
            "Its slope is minus the covariance of $\\log \\pi$ and $g$. The entropy falls if the push $g$ is larger on "
            "responses that are likely already.",
        ),
        define(
            second(b),
            over(y, pi(y, t) * (r(y) - b) ** 2 * n(y)),
            "For the noise, let $n(y)$ be the squared length of the score, over all parameters. This is the mean squared "
            "length of the estimate from one draw: its variance, but for the squared length of its mean.",
        ),
        define(N, over(y, pi(y, t) * n(y)), "The mean of $n$,"),
        define(
            best_b,
            over(y, pi(y, t) * r(y) * n(y)) / N,
            "and the mean reward in which each response counts with $n(y)$ as well.",
        ),
        equal(
            best_b - over(y, pi(y, t) * r(y)),
            over(y, pi(y, t) * r(y) * (n(y) - N)) / N,
            "It differs from the plain mean by the covariance of reward and $n$, over the mean of $n$.",
        ),
        equal(
            second(b),
            second(best_b) + (b - best_b) ** 2 * N,
            "It is the best baseline. Any other costs the square of its distance to it.",
        ),
        equal(
            second(b) - second(sp.Integer(0)),
            b * (b - 2 * best_b) * N,
            "So $b$ is worse than none if it lies beyond $2 b^*$, or on the other side of 0. The reward of the greedy "
            "response, which is ReMax's baseline, can do both.",
        ),
    ),
    assumptions=(ONE_PARAMETER,),
)

MEAN_SCORE = (
    assume(over(y, pi(y)), sp.Integer(1), "A policy over the responses to one prompt,"),
    assume(
        over(y, pi(y) * score(y)), sp.Integer(0), "and its score, whose mean is 0, as REINFORCE's derivation proves."
    ),
)
gradient = define(R, over(y, pi(y) * r(y) * score(y)), "The gradient of the mean reward, by REINFORCE.")

group = Derivation(
    name="group",
    title="Draws of one prompt as each other's baseline: RLOO, GRPO, and GRPO's division by the standard deviation",
    steps=(
        *MEAN_SCORE,
        gradient,
        equal(
            over(y, pi(y) * over(j, pi(j) * (r(y) - r(j)) * score(y))),
            R,
            "The reward of another draw is a baseline without bias, since it does not look at this one. RLOO takes the mean "
            "of the $G - 1$ others, which is as good.",
        ),
        equal(
            over(y, pi(y) * over(j, pi(j) * (r(y) - (r(y) + (G - 1) * r(j)) / G) * score(y))),
            (G - 1) / G * R,
            "The mean of all $G$ rewards, as in GRPO, contains the draw's own. That shrinks the gradient by one factor.",
        ),
        define(T, sp.Sum(x(i), (i, 1, G)), "In one group, with rewards $x(1)$ to $x(G)$: their sum,"),
        define(others(i), x(i) - (T - x(i)) / (G - 1), "and RLOO's advantage, the reward less the mean of the others."),
        equal(x(i) - T / G, (G - 1) / G * others(i), "GRPO's is the same times that factor, draw by draw."),
        equal(sp.Sum(others(i), (i, 1, G)), sp.Integer(0), "Either way the advantages of a group add up to 0."),
        define(
            S,
            over(y, pi(y) * c(y) * score(y)),
            "Let a reward be $c = 1$ for a right response and 0 for a wrong one. This is the gradient of $p$, the chance to be "
            "right.",
        ),
        equal(over(y, pi(y) * (1 - c(y)) * score(y)), -S, "The chance to be wrong has the opposite gradient."),
        define(m, u**2 / (1 + u**2), "In one group let the odds of right to wrong be $u^2$. Its mean reward"),
        define(s, u / (1 + u**2), "and the number that GRPO divides by:"),
        equal(s**2, m * (1 - m), "it is the standard deviation of the group's rewards."),
        equal((1 - m) / s, 1 / u, "A right response gets this advantage, which is large where right ones are rare,"),
        equal(-m / s, -u, "and a wrong response this one."),
        equal(
            m * (1 - m) * S / p + (1 - m) * (-m) * (-S / (1 - p)),
            m * (1 - m) * S / (p * (1 - p)),
            "The mean score of a right response is $S / p$, of a wrong one $-S / (1 - p)$. So without the division the "
            "group's mean of advantage times score is this,",
        ),
        equal(
            m * (1 - m) / s * S / p + (1 - m) * (-m / s) * (-S / (1 - p)),
            s * S / (p * (1 - p)),
            "and with it this.",
        ),
        argue(
            r"G \to \infty: \quad m \to p, \quad \frac{s\,S}{p (1 - p)} \to \frac{S}{\sqrt{p (1 - p)}}",
            "In a large group the first is the gradient of $p$, and the second that of $2 \\arcsin \\sqrt p$: with the "
            "division, prompts count the more, the nearer $p$ is to 0 or 1.",
        ),
    ),
    assumptions=("One prompt with a finite number $K$ of responses; draws of a group are independent.",),
)

length_normaliser = Derivation(
    name="length_normaliser",
    title="A score that is divided by the response's length is the gradient of another objective",
    steps=(
        *DIRECTION,
        equal(
            by_t(over(y, pi(y, t) * (r(y) - b) / n(y))),
            over(y, pi(y, t) * (r(y) - b) / n(y) * psi),
            "Divide advantage times score by the length $n(y)$. At a fixed baseline this is the gradient of the mean of "
            "$(r - b) / n$: a response with $r > b$ had better be short, one with $r < b$ long.",
        ),
        equal(
            over(y, pi(y, t) * (r(y) - b) / n(y) * psi) + b * by_t(over(y, pi(y, t) / n(y))),
            over(y, pi(y, t) * r(y) / n(y) * psi),
            "And the baseline is no longer free: $b$ changes the gradient by $b$ times that of the mean of $1 / n$.",
        ),
    ),
    assumptions=(ONE_PARAMETER,),
)

ppo_clip = Derivation(
    name="ppo_clip",
    title="PPO's clip: a pessimistic objective that begins as REINFORCE",
    steps=(
        define(
            up(w),
            A * (w - relu(w - 1 - eps)),
            "For an advantage $A > 0$, the smaller of $w A$ and of $w A$ with the ratio $w$ clipped to $1 \\pm \\epsilon$.",
        ),
        define(down(w), -A * (w + relu(1 - eps - w)), "For an advantage $-A < 0$, the smaller of the two is this."),
        nonnegative(A * w - up(w), "It is never more than the objective without a clip,"),
        nonnegative(-A * w - down(w), "for neither sign: the clip is pessimistic."),
        equal(
            slope(up(w), w, 1 + 2 * eps), sp.Integer(0), "Beyond $1 + \\epsilon$ a good response is not pushed further,"
        ),
        equal(slope(up(w), w, 1 - 2 * eps), A, "but below it is pushed, however small its ratio is."),
        equal(
            slope(down(w), w, 1 - 2 * eps), sp.Integer(0), "Below $1 - \\epsilon$ a bad response is not pushed further,"
        ),
        equal(slope(down(w), w, 1 + 2 * eps), -A, "but above it is pushed down, however large its ratio is."),
        equal(
            slope(up(sp.exp(logp - old)), logp, old),
            A,
            "By the log-probability, the slope where training begins, at $w = 1$, is the advantage: the first step on new "
            "draws is REINFORCE's.",
        ),
        equal(slope(down(sp.exp(logp - old)), logp, old), -A, "The same for a bad response."),
    ),
    assumptions=("One response, and a ratio away from the two kinks $1 \\pm \\epsilon$.",),
)

log_ratio = ratio(y, t)
kl_estimators = Derivation(
    name="kl_estimators",
    title="Three estimators of the divergence: their means, and the means of their gradients",
    steps=(
        *DIRECTION,
        define(
            ratio(y, t),
            sp.log(pi(y, t) / ref(y)),
            "The log-ratio. As an estimator of the divergence it is called $k_1$.",
        ),
        define(k2(v), v**2 / 2, "The second estimator, a function of the log-ratio,"),
        define(k3(v), sp.exp(-v) - 1 + v, "and the third."),
        assume(over(y, ref(y)), sp.Integer(1), "The reference is a policy."),
        define(kl(t), over(y, pi(y, t) * log_ratio), "The divergence, which is the mean of $k_1$."),
        equal(over(y, pi(y, t) * k3(log_ratio)), kl(t), "The mean of $k_3$ is the divergence as well."),
        define(f(w), w - 1 - sp.log(w), "It is never negative. In $w = \\mathrm{ref} / \\pi$ it is this function,"),
        equal(k3(log_ratio), f(ref(y) / pi(y, t)), "as one sees by putting it in;"),
        nonnegative((w - 1) * (1 - 1 / w), "and since this is never negative,"),
        equal((w - 1) * sp.Derivative(f(w), w), (w - 1) * (1 - 1 / w), "$f$ falls to $f(1) = 0$ and then rises."),
        equal(
            slope(k2(v) - k3(v), v, 0),
            sp.Integer(0),
            "The second estimator is biased. Near a log-ratio of 0 it has the slope of the third,",
        ),
        equal(
            sp.Subs(sp.Derivative(k2(v) - k3(v), (v, 2)), v, 0),
            sp.Integer(0),
            "and its curvature,",
        ),
        equal(
            sp.Subs(sp.Derivative(k2(v) - k3(v), (v, 3)), v, 0),
            sp.Integer(1),
            "but not the third derivative: the bias is about the mean of $\\rho^3 / 6$.",
        ),
        equal(by_t(kl(t)), over(y, pi(y, t) * log_ratio * psi), "The gradient of the divergence: $k_1$ in the reward."),
        equal(
            over(y, pi(y, t) * by_t(log_ratio)),
            sp.Integer(0),
            "Now each as a loss, with no gradient through the draws. The gradient of $k_1$ is the score, "
            "whose mean is 0: no penalty.",
        ),
        equal(
            over(y, pi(y, t) * by_t(k2(log_ratio))),
            over(y, pi(y, t) * log_ratio * psi),
            "The gradient of $k_2$ is the right one.",
        ),
        define(reverse(t), over(y, ref(y) * sp.log(ref(y) / pi(y, t))), "The other direction of the divergence"),
        equal(by_t(reverse(t)), -over(y, ref(y) * psi), "has this gradient,"),
        equal(
            over(y, pi(y, t) * by_t(k3(log_ratio))),
            -over(y, ref(y) * psi),
            "and so has $k_3$, exactly and everywhere.",
        ),
        equal(
            over(y, pi(y, t) * k3(log_ratio) * psi),
            over(y, (pi(y, t) * log_ratio + ref(y)) * psi),
            "In the reward $k_3$ is wrong, too: the gradient is the difference of those of the two directions.",
        ),
        equal(
            by_t(over(y, pi(y, t) * k3(log_ratio))),
            over(y, pi(y, t) * log_ratio * psi),
            "Weighted with the ratio of new to old policy, through which the gradient flows, $k_3$ is right as a loss: its "
            "mean over the old policy's draws is that over the new one's.",
        ),
        define(turned(v), sp.exp(v) - 1 - v, "With the ratio upside down, as some code has it, $k_3$ is this."),
        define(chi(t), over(y, pi(y, t) ** 2 / ref(y)) - 1, "With the chi-squared divergence,"),
        equal(over(y, pi(y, t) * turned(log_ratio)), chi(t) - kl(t), "its mean is not the divergence."),
        equal(by_t(chi(t)), 2 * over(y, pi(y, t) ** 2 / ref(y) * psi), "The chi-squared divergence has this gradient,"),
        equal(
            over(y, pi(y, t) * by_t(turned(log_ratio))),
            over(y, pi(y, t) ** 2 / ref(y) * psi),
            "and its gradient is half of that.",
        ),
    ),
    assumptions=(ONE_PARAMETER,),
)

step_w, step_l = sp.symbols(r"\psi_{1} \psi_{2}", real=True)
group_of_two = Derivation(
    name="group_of_two",
    title="A group of two draws, and a pair that is drawn, labelled and trained on",
    steps=(
        *MEAN_SCORE,
        gradient,
        equal(
            over(y, pi(y) * over(j, pi(j) * (r(y) - r(j)) * (score(y) - score(j)) / 2)),
            R,
            "RLOO with two draws: half the difference of the rewards times the difference of the scores.",
        ),
        equal(
            slope(-sp.log(sigma(beta * D)), D, sp.Integer(0)),
            -beta / 2,
            "The logistic loss of the margin $D$ has this slope at $D = 0$, where the policy is the reference.",
        ),
        equal(
            sigma(d) * (step_w - step_l) + sigma(-d) * (step_l - step_w),
            (2 * sigma(d) - 1) * (step_w - step_l),
            r"Let the first of two draws be chosen with probability $\sigma(d)$, where $d$ is the difference of the rewards. "
            "This is the score of the chosen one less that of the rejected one, in the mean over the label.",
        ),
        equal(
            slope(beta / 2 * (2 * sigma(d) - 1) * (step_w - step_l), d, sp.Integer(0)),
            beta / 2 * slope(d * (step_w - step_l) / 2, d, sp.Integer(0)),
            r"To first order in $d$, the step on the labelled pair is $\beta / 2$ times RLOO's.",
        ),
        define(m, (b + A + b) / 2, "Now GRPO, on rewards $b + A$ and $b$ with $A > 0$: their mean,"),
        define(s, A / 2, "and their standard deviation."),
        equal(((b + A - m) ** 2 + (b - m) ** 2) / 2, s**2, "It is the standard deviation."),
        equal((b + A - m) / s, sp.Integer(1), "Divided by it, the better draw has advantage 1"),
        equal((b - m) / s, sp.Integer(-1), "and the other $-1$, however small the difference is."),
        equal(
            ((b + A - m) / s * step_w + (b - m) / s * step_l) / 2,
            (step_w - step_l) / 2,
            r"So the step is that of the labelled pair with $\beta = 1$, where the better draw is always chosen.",
        ),
    ),
    assumptions=("One prompt with a finite number $K$ of responses; the two draws are independent.",),
)
