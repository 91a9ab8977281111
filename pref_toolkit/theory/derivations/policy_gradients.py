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
        "A parameter $t$ of a softmax moves the logit of response $y$ at the rate $g(y)$. This is the normaliser.",
    ),
    define(pi(y, t), sp.exp(z(y) + t * g(y)) / partition(t), "This is the policy."),
    define(
        score(y, t),
        g(y) - over(i, pi(i, t) * g(i)),
        "This is the score: the logit's slope, less its mean under the policy.",
    ),
)
ONE_PARAMETER = (
    "There is one prompt with a finite number $K$ of responses, each of positive probability, and one parameter at a "
    "time. To first order, which is all that a gradient sees, any parameter moves the logits linearly."
)

psi = score(y, t)
reinforce = Derivation(
    name="reinforce",
    title="REINFORCE with the divergence in the reward: its mean, its rest point and its best baseline",
    steps=(
        *DIRECTION,
        equal(by_t(sp.log(pi(y, t))), psi, "The score is the slope of the log-probability."),
        equal(over(y, pi(y, t)), sp.Integer(1), "The probabilities sum to 1 wherever $t$ is."),
        equal(over(y, pi(y, t) * psi), sp.Integer(0), "So the mean score is 0, which is the score-function identity."),
        define(
            gain(y, t),
            r(y) - beta * sp.log(pi(y, t) / ref(y)),
            r"$A$ is the reward of a response, less $\beta$ times its log-ratio.",
        ),
        define(J(t), over(y, pi(y, t) * gain(y, t)), "The mean of $A$ is RLHF's objective."),
        equal(
            by_t(J(t)),
            over(y, pi(y, t) * gain(y, t) * psi),
            "The gradient is the mean of $A$ times the score. The change of $A$ itself with $t$ adds nothing.",
        ),
        equal(
            over(y, pi(y, t) * (gain(y, t) - b) * psi),
            over(y, pi(y, t) * gain(y, t) * psi),
            "A baseline $b$ that is the same for every draw does not change the mean.",
        ),
        define(Z, over(y, ref(y) * sp.exp(r(y) / beta)), "The rest point needs RLHF's partition function."),
        define(best(y), ref(y) * sp.exp(r(y) / beta) / Z, "This is RLHF's optimum."),
        equal(over(y, best(y)), sp.Integer(1), "The probabilities of the optimum sum to 1, so it is a policy."),
        equal(
            gain(y, t),
            beta * sp.log(Z) - beta * sp.log(pi(y, t) / best(y)),
            "$A$ is the same number for all responses exactly where the policy is this optimum.",
        ),
        equal(
            by_t(J(t)),
            -beta * over(y, pi(y, t) * sp.log(pi(y, t) / best(y)) * psi),
            r"So the gradient of the objective is that of $-\beta$ times the divergence from the optimum.",
        ),
        define(H(t), -over(y, pi(y, t) * sp.log(pi(y, t))), "This is the entropy of the policy."),
        equal(
            by_t(H(t)),
            -over(y, pi(y, t) * sp.log(pi(y, t)) * psi),
            r"The slope of the entropy is minus the covariance of $\log \pi$ and $g$. So the entropy falls if the "
            "push $g$ is larger on responses that are likely already.",
        ),
        define(
            second(b),
            over(y, pi(y, t) * (r(y) - b) ** 2 * n(y)),
            "The next lines are about noise. Let $n(y)$ be the squared length of the score, over all parameters. "
            "One draw's estimate of the gradient has this mean squared length, which is its variance plus the "
            "squared length of its mean.",
        ),
        define(N, over(y, pi(y, t) * n(y)), "This is the mean of $n$."),
        define(
            best_b,
            over(y, pi(y, t) * r(y) * n(y)) / N,
            "This is the mean reward if each response counts with $n(y)$ as well.",
        ),
        equal(
            best_b - over(y, pi(y, t) * r(y)),
            over(y, pi(y, t) * r(y) * (n(y) - N)) / N,
            "It differs from the plain mean reward by the covariance of reward and $n$, divided by the mean of $n$.",
        ),
        equal(
            second(b),
            second(best_b) + (b - best_b) ** 2 * N,
            "It is the best baseline, because any other one adds the square of its distance to it, times the mean "
            "of $n$.",
        ),
        equal(
            second(b) - second(sp.Integer(0)),
            b * (b - 2 * best_b) * N,
            "So a baseline $b$ is worse than none if it lies beyond $2 b^*$, or on the other side of 0. ReMax's "
            "baseline, the reward of the greedy response, can do both.",
        ),
    ),
    assumptions=(ONE_PARAMETER,),
)

MEAN_SCORE = (
    assume(over(y, pi(y)), sp.Integer(1), "The policy's probabilities of the responses to one prompt sum to 1."),
    assume(
        over(y, pi(y) * score(y)),
        sp.Integer(0),
        "The mean of the policy's score is 0, as REINFORCE's derivation proves.",
    ),
)
gradient = define(R, over(y, pi(y) * r(y) * score(y)), "By REINFORCE this is the gradient of the mean reward.")

group = Derivation(
    name="group",
    title="Draws of one prompt as each other's baseline: RLOO, GRPO, and GRPO's division by the standard deviation",
    steps=(
        *MEAN_SCORE,
        gradient,
        equal(
            over(y, pi(y) * over(j, pi(j) * (r(y) - r(j)) * score(y))),
            R,
            "The reward of another draw is a baseline without bias, because it does not depend on this draw. RLOO "
            "takes the mean of the $G - 1$ other rewards, which has no bias for the same reason.",
        ),
        equal(
            over(y, pi(y) * over(j, pi(j) * (r(y) - (r(y) + (G - 1) * r(j)) / G) * score(y))),
            (G - 1) / G * R,
            "GRPO takes the mean of all $G$ rewards, which contains the draw's own reward. This multiplies the "
            "gradient by $(G - 1) / G$.",
        ),
        define(T, sp.Sum(x(i), (i, 1, G)), "The rewards $x(1)$ to $x(G)$ of one group have this sum."),
        define(
            others(i), x(i) - (T - x(i)) / (G - 1), "RLOO's advantage is the reward less the mean of the other rewards."
        ),
        equal(
            x(i) - T / G,
            (G - 1) / G * others(i),
            "The reward less the mean of all, as in GRPO, is RLOO's advantage times $(G - 1) / G$, for every draw.",
        ),
        equal(sp.Sum(others(i), (i, 1, G)), sp.Integer(0), "By both methods the advantages of a group sum to 0."),
        define(
            S,
            over(y, pi(y) * c(y) * score(y)),
            "Let the reward $c$ be 1 for a right response and 0 for a wrong one. This is the gradient of $p$, the "
            "chance to be right.",
        ),
        equal(over(y, pi(y) * (1 - c(y)) * score(y)), -S, "The chance to be wrong has the opposite gradient."),
        define(
            m,
            u**2 / (1 + u**2),
            "In one group let the odds of right to wrong be $u^2$. The group then has this mean reward.",
        ),
        define(s, u / (1 + u**2), "GRPO divides by this number."),
        equal(s**2, m * (1 - m), "The number is the standard deviation of the group's rewards."),
        equal(
            (1 - m) / s, 1 / u, "A right response gets this advantage, which is large where right responses are rare."
        ),
        equal(-m / s, -u, "A wrong response gets this advantage."),
        equal(
            m * (1 - m) * S / p + (1 - m) * (-m) * (-S / (1 - p)),
            m * (1 - m) * S / (p * (1 - p)),
            "The mean score of a right response is $S / p$, and that of a wrong one is $-S / (1 - p)$. So without "
            "the division the group's mean of advantage times score is this.",
        ),
        equal(
            m * (1 - m) / s * S / p + (1 - m) * (-m / s) * (-S / (1 - p)),
            s * S / (p * (1 - p)),
            "With the division the group's mean of advantage times score is this.",
        ),
        argue(
            r"G \to \infty: \quad m \to p, \quad \frac{s\,S}{p (1 - p)} \to \frac{S}{\sqrt{p (1 - p)}}",
            r"In a large group the first mean is the gradient of $p$, and the second is the gradient of $2 \arcsin "
            r"\sqrt p$. So with the division a prompt counts the more, the nearer $p$ is to 0 or 1.",
        ),
    ),
    assumptions=(
        "There is one prompt with a finite number $K$ of responses, and the draws of a group are independent.",
    ),
)

length_normaliser = Derivation(
    name="length_normaliser",
    title="A score that is divided by the response's length is the gradient of another objective",
    steps=(
        *DIRECTION,
        equal(
            by_t(over(y, pi(y, t) * (r(y) - b) / n(y))),
            over(y, pi(y, t) * (r(y) - b) / n(y) * psi),
            "Let advantage times score be divided by the length $n(y)$. At a fixed baseline this is the gradient "
            "of the mean of $(r - b) / n$. That objective favours short responses where $r > b$ and long ones "
            "where $r < b$.",
        ),
        equal(
            over(y, pi(y, t) * (r(y) - b) / n(y) * psi) + b * by_t(over(y, pi(y, t) / n(y))),
            over(y, pi(y, t) * r(y) / n(y) * psi),
            "The baseline now changes the mean: $b$ subtracts $b$ times the gradient of the mean of $1 / n$.",
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
            "For an advantage $A > 0$ this is the smaller of two products: $w A$, and $w A$ with the ratio $w$ "
            r"clipped to $1 \pm \epsilon$.",
        ),
        define(
            down(w), -A * (w + relu(1 - eps - w)), "For an advantage $-A < 0$ this is the smaller of the two products."
        ),
        nonnegative(
            A * w - up(w),
            "For an advantage $A > 0$ the clipped objective is never more than the objective without a clip.",
        ),
        nonnegative(-A * w - down(w), "The same holds for an advantage $-A < 0$, so the clip is pessimistic."),
        equal(
            slope(up(w), w, 1 + 2 * eps),
            sp.Integer(0),
            r"A good response is not pushed further where its ratio is above $1 + \epsilon$.",
        ),
        equal(
            slope(up(w), w, 1 - 2 * eps),
            A,
            r"A good response is pushed up where its ratio is below $1 + \epsilon$, however small the ratio is.",
        ),
        equal(
            slope(down(w), w, 1 - 2 * eps),
            sp.Integer(0),
            r"A bad response is not pushed further where its ratio is below $1 - \epsilon$.",
        ),
        equal(
            slope(down(w), w, 1 + 2 * eps),
            -A,
            r"A bad response is pushed down where its ratio is above $1 - \epsilon$, however large the ratio is.",
        ),
        equal(
            slope(up(sp.exp(logp - old)), logp, old),
            A,
            "Training begins at $w = 1$. There the slope by the log-probability is the advantage, so the first "
            "step on new draws is REINFORCE's.",
        ),
        equal(slope(down(sp.exp(logp - old)), logp, old), -A, "The same holds for a bad response."),
    ),
    assumptions=(r"There is one response, and its ratio is not at one of the two kinks $1 \pm \epsilon$.",),
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
            "This is the log-ratio. As an estimator of the divergence it is called $k_1$.",
        ),
        define(k2(v), v**2 / 2, "This is the second estimator, $k_2$, as a function of the log-ratio."),
        define(k3(v), sp.exp(-v) - 1 + v, "This is the third estimator, $k_3$, as a function of the log-ratio."),
        assume(over(y, ref(y)), sp.Integer(1), "The reference is a policy, so its probabilities sum to 1."),
        define(kl(t), over(y, pi(y, t) * log_ratio), "This is the divergence, which is the mean of $k_1$."),
        equal(over(y, pi(y, t) * k3(log_ratio)), kl(t), "The mean of $k_3$ is the divergence as well."),
        define(f(w), w - 1 - sp.log(w), "The next lines show that $k_3$ is never negative. Let $f$ be this function."),
        equal(k3(log_ratio), f(ref(y) / pi(y, t)), r"$k_3$ is $f$ at $w = \mathrm{ref} / \pi$."),
        nonnegative((w - 1) * (1 - 1 / w), "This product is never negative."),
        equal(
            (w - 1) * sp.Derivative(f(w), w),
            (w - 1) * (1 - 1 / w),
            "So $f$ falls to $f(1) = 0$ and then rises, which makes $k_3$ nonnegative.",
        ),
        equal(
            slope(k2(v) - k3(v), v, 0),
            sp.Integer(0),
            "The second estimator is biased. At a log-ratio of 0 it has the same slope as the third.",
        ),
        equal(
            sp.Subs(sp.Derivative(k2(v) - k3(v), (v, 2)), v, 0),
            sp.Integer(0),
            "It also has the same curvature there.",
        ),
        equal(
            sp.Subs(sp.Derivative(k2(v) - k3(v), (v, 3)), v, 0),
            sp.Integer(1),
            r"It has a different third derivative, so the bias is about the mean of $\rho^3 / 6$.",
        ),
        equal(
            by_t(kl(t)),
            over(y, pi(y, t) * log_ratio * psi),
            "The divergence has this gradient. The estimator $k_1$ in the reward makes the same gradient.",
        ),
        equal(
            over(y, pi(y, t) * by_t(log_ratio)),
            sp.Integer(0),
            "Now each estimator is a loss, and no gradient flows through the draws. The gradient of $k_1$ is the "
            "score, whose mean is 0, so $k_1$ is no penalty.",
        ),
        equal(
            over(y, pi(y, t) * by_t(k2(log_ratio))),
            over(y, pi(y, t) * log_ratio * psi),
            "The mean gradient of $k_2$ is that of the divergence, so $k_2$ is right as a loss.",
        ),
        define(
            reverse(t), over(y, ref(y) * sp.log(ref(y) / pi(y, t))), "This is the divergence in the other direction."
        ),
        equal(by_t(reverse(t)), -over(y, ref(y) * psi), "The divergence in the other direction has this gradient."),
        equal(
            over(y, pi(y, t) * by_t(k3(log_ratio))),
            -over(y, ref(y) * psi),
            "The mean gradient of $k_3$ is the same, exactly and everywhere.",
        ),
        equal(
            over(y, pi(y, t) * k3(log_ratio) * psi),
            over(y, (pi(y, t) * log_ratio + ref(y)) * psi),
            "In the reward $k_3$ is wrong, too. The gradient is then the difference of those of the two directions.",
        ),
        equal(
            by_t(over(y, pi(y, t) * k3(log_ratio))),
            over(y, pi(y, t) * log_ratio * psi),
            "Let $k_3$ be weighted with the ratio of new to old policy, and let the gradient flow through the "
            "ratio. Then $k_3$ is right as a loss, because its weighted mean over the old policy's draws is its "
            "mean over the new policy's draws.",
        ),
        define(turned(v), sp.exp(v) - 1 - v, "Some code has the ratio upside down. Its $k_3$ is this function."),
        define(chi(t), over(y, pi(y, t) ** 2 / ref(y)) - 1, "This is the chi-squared divergence."),
        equal(
            over(y, pi(y, t) * turned(log_ratio)),
            chi(t) - kl(t),
            "The mean of this $k_3$ is the chi-squared divergence less the divergence that was wanted.",
        ),
        equal(by_t(chi(t)), 2 * over(y, pi(y, t) ** 2 / ref(y) * psi), "The chi-squared divergence has this gradient."),
        equal(
            over(y, pi(y, t) * by_t(turned(log_ratio))),
            over(y, pi(y, t) ** 2 / ref(y) * psi),
            "The mean gradient of this $k_3$ is half of that.",
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
            "RLOO with two draws takes half the difference of the rewards times the difference of the scores. Its "
            "mean is the gradient of the mean reward.",
        ),
        equal(
            slope(-sp.log(sigma(beta * D)), D, sp.Integer(0)),
            -beta / 2,
            "The logistic loss of the margin $D$ has this slope at $D = 0$, where the policy is the reference.",
        ),
        equal(
            sigma(d) * (step_w - step_l) + sigma(-d) * (step_l - step_w),
            (2 * sigma(d) - 1) * (step_w - step_l),
            r"Let the first of two draws be chosen with probability $\sigma(d)$, where $d$ is the difference of the "
            "rewards. In the mean over the label, the score of the chosen draw less that of the rejected one is "
            "this.",
        ),
        equal(
            slope(beta / 2 * (2 * sigma(d) - 1) * (step_w - step_l), d, sp.Integer(0)),
            beta / 2 * slope(d * (step_w - step_l) / 2, d, sp.Integer(0)),
            r"To first order in $d$, the step on the labelled pair is $\beta / 2$ times RLOO's step.",
        ),
        define(m, (b + A + b) / 2, "Let GRPO see the rewards $b + A$ and $b$ with $A > 0$. They have this mean."),
        define(s, A / 2, "GRPO divides by this number."),
        equal(((b + A - m) ** 2 + (b - m) ** 2) / 2, s**2, "The number is the standard deviation of the two rewards."),
        equal((b + A - m) / s, sp.Integer(1), "After the division the better draw has advantage 1."),
        equal(
            (b - m) / s,
            sp.Integer(-1),
            "After the division the other draw has advantage $-1$, however small the difference of the rewards is.",
        ),
        equal(
            ((b + A - m) / s * step_w + (b - m) / s * step_l) / 2,
            (step_w - step_l) / 2,
            r"So GRPO's step is that of the labelled pair with $\beta = 1$ where the better draw is always chosen.",
        ),
    ),
    assumptions=("There is one prompt with a finite number $K$ of responses, and the two draws are independent.",),
)
