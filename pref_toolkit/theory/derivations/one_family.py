"""One family: losses that differ from DPO in one choice: the link, the divergence, the noise, the anchor or the price."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, define, equal, nonnegative, positive
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import (
    D,
    L,
    alpha,
    beta,
    l_l,
    l_w,
    n_l,
    n_w,
    r_l,
    r_w,
    relu,
    rho_l,
    rho_w,
    s_l,
    s_w,
    sigma,
    tau,
)

eps = sp.Symbol("eps", positive=True)
Z, u, order, pi, ref = sp.symbols(r"Z u alpha pi \pi_{\mathrm{ref}}", positive=True)
t, rho, b_w, b_l, nu, r, m, m_ref = sp.symbols("t rho b_w b_l nu r m m_ref", real=True)
f, g = (sp.Function(name, real=True) for name in "fg")
single = sp.Function(r"\mathcal{S}", real=True)
noisy = sp.Function(r"\mathcal{N}", real=True)

loss = L(l_w, l_l)
logistic = -sp.log(sigma(t))


def slope(function: sp.Expr, x: sp.Symbol, at: sp.Expr) -> sp.Subs:
    """The derivative of a function of ``x`` at a point."""
    return sp.Subs(sp.Derivative(function, x), x, at)


BOTH_SIDES = (
    define(single(t), logistic, "DPO's loss at reward difference $t$."),
    define(m, beta * D, "The policy's reward difference."),
)

cdpo = Derivation(
    name="cdpo",
    title="Conservative DPO: a share of the labels is wrong",
    steps=(
        *MARGIN,
        *BOTH_SIDES,
        define(
            loss,
            (1 - eps) * single(m) + eps * single(-m),
            "A label is right with probability $1 - \\epsilon$: the expected loss over right and wrong ones.",
        ),
        equal(
            loss,
            -(1 - eps) * sp.log(sigma(beta * D)) - eps * sp.log(sigma(-beta * D)),
            "The loss, as implemented.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            beta * (sigma(beta * D) - (1 - eps)),
            "The pull is the model's probability less the label's, so it ends at a finite margin,",
        ),
        equal(sp.Derivative(loss, l_l), -beta * (sigma(beta * D) - (1 - eps)), "on both responses."),
        equal(
            slope((1 - eps) * single(t) + eps * single(-t), t, sp.log((1 - eps) / eps)),
            sp.Integer(0),
            "namely where $\\beta D$ is the log-odds of a right label.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference."),
    ),
    assumptions=("Labels are wrong independently, with a known probability below 1/2.",),
)

robust_dpo = Derivation(
    name="robust_dpo",
    title="Robust DPO: wrong labels, corrected without bias",
    steps=(
        *MARGIN,
        *BOTH_SIDES,
        define(
            noisy(t),
            ((1 - eps) * single(t) - eps * single(-t)) / (1 - 2 * eps),
            "A combination of the loss with the label as it stands and the label turned round,",
        ),
        equal(
            (1 - eps) * noisy(t) + eps * noisy(-t),
            single(t),
            "whose mean over labels that are wrong with probability $\\epsilon$ is DPO's loss on right ones.",
        ),
        define(loss, noisy(m), "This is the loss."),
        equal(
            loss,
            (-(1 - eps) * sp.log(sigma(beta * D)) + eps * sp.log(sigma(-beta * D))) / (1 - 2 * eps),
            "The loss, as implemented.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -beta * ((1 - eps) * sigma(-beta * D) + eps * sigma(beta * D)) / (1 - 2 * eps),
            "Every pair is pulled on for ever, the more so the more noise is assumed,",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * ((1 - eps) * sigma(-beta * D) + eps * sigma(beta * D)) / (1 - 2 * eps),
            "on both responses.",
        ),
        equal(
            noisy(t),
            single(t) - eps * t / (1 - 2 * eps),
            "The loss is DPO's less a multiple of the margin: it has no lower bound.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference."),
    ),
    assumptions=("Labels are wrong independently, with a known probability below 1/2.",),
)

n = sp.Symbol("n", positive=True)
priced, best = sp.Function("g", real=True), sp.Function(r"\pi^{*}", positive=True)

r_dpo = Derivation(
    name="r_dpo",
    title="R-DPO: a price on length",
    steps=(
        *MARGIN,
        argue(
            r"\max_\pi\; \mathbb{E}_{y \sim \pi}\,[s(y) - \alpha\, n(y)] - \beta\,\mathrm{KL}(\pi \,\Vert\, "
            r"\pi_{\mathrm{ref}})",
            "Each token costs $\\alpha$.",
        ),
        define(
            priced(pi, ref, r, n),
            pi * (r - alpha * n) - beta * pi * sp.log(pi / ref) - nu * pi,
            "One response's share in the objective, with reward $r$ and $n$ tokens, and $\\nu$ the multiplier of the "
            "constraint that a policy sums to 1.",
        ),
        equal(
            sp.Derivative(priced(pi, ref, r, n), pi),
            r - alpha * n - beta * sp.log(pi / ref) - beta - nu,
            "Its slope by the policy's probability, which is zero at the optimum:",
        ),
        define(
            best(ref, r, n),
            ref * sp.exp((r - alpha * n) / beta) / Z,
            "RLHF's optimum for the reward less its price",
        ),
        equal(
            beta * sp.log(best(ref, r, n) / ref) + alpha * n + beta * sp.log(Z),
            r,
            "gives the reward back, with the price added. Or from the slope:",
        ),
        define(
            s_w, beta * rho_w + alpha * n_w + beta + nu, "the chosen response's reward before the price must be this,"
        ),
        equal(
            sp.Subs(sp.Derivative(priced(pi, ref, r, n), pi), (pi, ref, r, n), (sp.exp(l_w), sp.exp(r_w), s_w, n_w)),
            sp.Integer(0),
            "for here the slope is zero;",
        ),
        define(s_l, beta * rho_l + alpha * n_l + beta + nu, "and the rejected one's in the same way."),
        equal(s_w - s_l, beta * D + alpha * (n_w - n_l), "The lengths enter with a plus sign."),
        define(loss, -sp.log(sigma(s_w - s_l)), "Bradley-Terry's loss on the rewards before the price."),
        equal(loss, -sp.log(sigma(beta * D + alpha * (n_w - n_l))), "The loss, as implemented."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * D - alpha * (n_w - n_l)),
            "A pair won by length is already explained and pulls less;",
        ),
        equal(sp.Derivative(loss, l_l), beta * sigma(-beta * D - alpha * (n_w - n_l)), "one won in spite of it, more."),
        equal(L(r_w, r_l), sp.log(1 + sp.exp(-alpha * (n_w - n_l))), "At the reference."),
    ),
    assumptions=("People judge the reward without the price; the policy is to pay it.",),
)

u_norm = sp.Symbol("u", real=True)

dpo_norm = Derivation(
    name="dpo_norm",
    title="Length-normalised DPO: a divergence that a longer response pays for by the token",
    steps=(
        *MARGIN[:2],
        argue(
            r"\max_\pi\; \mathbb{E}_{y \sim \pi}\left[r(y) - \beta\, \frac{\log(\pi(y) / \pi_{\mathrm{ref}}(y)) - 1}{n(y)}"
            r"\right]",
            "In RLHF's objective the log-ratio of a response is divided by its length $n(y)$, and a constant is added to "
            "it, which matters now. This objective is ours: it is the one that the loss is derived from as DPO is from RLHF.",
        ),
        equal(
            sp.Derivative(pi * r - beta * pi * (sp.log(pi / ref) - 1) / n - nu * pi, pi),
            r - beta * sp.log(pi / ref) / n - nu,
            "One response's share in its slope, with $\\nu$ the multiplier of the constraint that a policy sums to 1. It is "
            "zero at the optimum,",
        ),
        equal(
            -sp.Derivative(pi * r - beta * pi * (sp.log(pi / ref) - 1) / n - nu * pi, (pi, 2)),
            beta / (n * pi),
            "and the second slope is minus this,",
        ),
        positive(beta / (n * pi), "which is positive: the objective is strictly concave, and has one optimum."),
        define(
            s_w,
            beta * rho_w / n_w + nu,
            "So the chosen response's reward is its mean log-ratio per token, and a constant",
        ),
        define(s_l, beta * rho_l / n_l + nu, "which is the same for the rejected one."),
        define(loss, -sp.log(sigma(s_w - s_l)), "Bradley-Terry's loss on these rewards."),
        equal(loss, -sp.log(sigma(beta * (rho_w / n_w - rho_l / n_l))), "The loss, as implemented."),
        define(u_norm, beta * (rho_w / n_w - rho_l / n_l), "With this difference of rewards"),
        equal(
            sp.Derivative(loss, l_w), -beta * sigma(-u_norm) / n_w, "each token of a response gets a share of one pull,"
        ),
        equal(sp.Derivative(loss, l_l), beta * sigma(-u_norm) / n_l, "so a long response is pulled less by the token."),
        equal(L(r_w, r_l), sp.log(2), "At the reference."),
        equal(
            sp.Subs(loss, (n_w, n_l), (n, n)),
            -sp.log(sigma(beta / n * (rho_w - rho_l))),
            "With responses of one length it is DPO with $\\beta / n$.",
        ),
        equal(
            sp.Subs(loss, (l_w, l_l), (r_w + n_w * t, r_l + n_l * t)),
            sp.log(2),
            "Where every token of both responses has gained as much the pair is even. DPO counts it as won by the longer one.",
        ),
    ),
    assumptions=("Preferences follow the Bradley-Terry model on the reward.",),
)

won, lost = sp.symbols("a b", positive=True)

gpo = Derivation(
    name="gpo",
    title="GPO: any convex link that falls at 0",
    steps=(
        *MARGIN,
        define(s_w, beta * rho_w + beta * sp.log(Z), "The rewards for which the policy is RLHF's optimum, as for DPO:"),
        define(s_l, beta * rho_l + beta * sp.log(Z), "of the chosen and of the rejected response."),
        define(loss, f(s_w - s_l), "A convex surrogate of their order instead of a likelihood."),
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
        "correlation": define(f(t), -t, "No pair is ever won by enough."),
    },
)

# f'(u) of each divergence follows from its f, which is normalised so that f'(1) = 0.
reverse, forward, shannon, power = (
    sp.Function(f"f_{{{name}}}", real=True) for name in (r"\mathrm{RKL}", r"\mathrm{FKL}", r"\mathrm{JS}", r"\alpha")
)

f_dpo = Derivation(
    name="f_dpo",
    title="f-DPO: another divergence from the reference",
    steps=(
        *MARGIN[:2],
        equal(
            sp.Derivative(pi * r - beta * ref * f(pi / ref) - nu * pi, pi),
            r - beta * slope(f(u), u, pi / ref) - nu,
            "Maximise reward less $\\beta$ times $\\sum \\pi_{\\mathrm{ref}}\\, f(\\pi / \\pi_{\\mathrm{ref}})$ over "
            "policies, with $\\nu$ the multiplier of the constraint that they sum to 1. One response's share in the "
            "slope is zero at the optimum:",
        ),
        define(
            s_w,
            beta * g(rho_w) + nu,
            "so the chosen response's reward is this, with $g(\\rho) = f'(e^\\rho)$.",
        ),
        define(s_l, beta * g(rho_l) + nu, "The rejected one's has the same $\\nu$, if both have positive probability."),
        define(loss, -sp.log(sigma(s_w - s_l)), "Bradley-Terry's loss on these rewards."),
        equal(loss, -sp.log(sigma(beta * (g(rho_w) - g(rho_l)))), "The loss, as implemented."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * (g(rho_w) - g(rho_l))) * slope(g(rho), rho, rho_w),
            "Each response is pulled on as the divergence curves there:",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(-beta * (g(rho_w) - g(rho_l))) * slope(g(rho), rho, rho_l),
            "the two pulls differ, unless $g$ is a straight line.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference."),
        define(reverse(u), u * sp.log(u) - u + 1, "The reverse KL divergence has this $f$,"),
        equal(slope(reverse(u), u, sp.exp(rho)), rho, "and $g$ is the log-ratio itself: DPO."),
        define(forward(u), -sp.log(u) + u - 1, "The forward KL divergence has this one,"),
        equal(slope(forward(u), u, sp.exp(rho)), 1 - sp.exp(-rho), "and this $g$, whose 1 cancels in the difference."),
        define(
            shannon(u), u * sp.log(u) - (u + 1) * sp.log((u + 1) / 2), "The Jensen-Shannon divergence has this one,"
        ),
        equal(
            slope(shannon(u), u, sp.exp(rho)),
            sp.log(sigma(rho)) + sp.log(2),
            "and a $g$ that flattens for large log-ratios.",
        ),
        define(
            power(u),
            (u ** (1 - order) - (1 - order) * u - order) / (order * (order - 1)),
            "The $\\alpha$-divergence has this one,",
        ),
        equal(
            slope(power(u), u, sp.exp(rho)),
            (1 - sp.exp(-order * rho)) / order,
            "and a $g$ between those of the reverse KL at $\\alpha \\to 0$ and the forward KL at $\\alpha = 1$.",
        ),
    ),
    assumptions=("$f$ is convex, and its slope at 0 is infinite or the optimum has full support.",),
    choices={
        "reverse_kl": define(g(t), t, "DPO."),
        "forward_kl": define(g(t), -sp.exp(-t), "The code goes on along its tangent for $t < -30$."),
        "jensen_shannon": define(g(t), sp.log(sigma(t)) + sp.log(2), "Bounded above."),
        "alpha": define(g(t), (1 - sp.exp(-order * t)) / order, "$0 < \\alpha < 1$."),
    },
)

both, more = sp.Function(r"f_{\chi}", real=True), sp.Symbol("v", positive=True)

chi_po = Derivation(
    name="chi_po",
    title="Chi-squared preference optimisation: the price of a response is its ratio",
    steps=(
        *MARGIN[:2],
        define(
            both(u),
            u * sp.log(u) + (u - 1) ** 2 / 2,
            "Two divergences at once, the reverse KL and half of the chi-squared one, at the ratio $u$ of policy to reference.",
        ),
        equal(sp.Derivative(both(u), (u, 2)), 1 + 1 / u, "It bends up"),
        positive(
            1 + 1 / u,
            "everywhere, as this is positive, and by at least 1, however large the ratio is. KL's bends by $1 / u$.",
        ),
        equal(
            sp.Derivative(pi * r - beta * ref * both(pi / ref) - nu * pi, pi),
            r - beta * (pi / ref + sp.log(pi / ref)) - nu,
            "Maximise reward less $\\beta$ times that divergence, with $\\nu$ the multiplier of the constraint that a policy "
            "sums to 1. One response's share in the slope is zero at the optimum:",
        ),
        define(
            s_w,
            beta * (sp.exp(rho_w) + rho_w) + nu,
            "so the chosen response's reward is this, the ratio and its logarithm,",
        ),
        define(s_l, beta * (sp.exp(rho_l) + rho_l) + nu, "and the rejected one's this."),
        define(loss, -sp.log(sigma(s_w - s_l)), "Bradley-Terry's loss on these rewards."),
        equal(
            loss,
            -sp.log(sigma(beta * (sp.exp(rho_w) + rho_w - sp.exp(rho_l) - rho_l))),
            "The loss, as implemented.",
        ),
        define(
            m,
            beta * (sp.exp(rho_w) + rho_w - sp.exp(rho_l) - rho_l),
            "With this difference of rewards",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-m) * (1 + sp.exp(rho_w)),
            "a response is pulled the harder the more the policy has raised it already: a small rise there makes up for a "
            "large difference of rewards,",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(-m) * (1 + sp.exp(rho_l)),
            "and a response that has become rare is pulled as by DPO.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference."),
        positive(
            sp.log(1 + more),
            "At a ratio $1 + v$ above 1 this is positive, so the ratio is less than $(r - \\nu) / \\beta$: it grows no faster "
            "than the reward. RLHF's grows as the exponential of it: there a wrong reward of a rare response moves much of "
            "the policy to it.",
        ),
    ),
    assumptions=("Preferences follow the Bradley-Terry model on the reward.",),
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
            "Its slope: two terms that fall and one, from the change of shares, that rises.",
        ),
        equal(sp.Derivative(falls(t), t), g(t), "This is the derivative,"),
        equal(sp.Derivative(loss, l_w), beta * g(beta * D), "so the chosen response is pulled like this"),
        equal(sp.Derivative(loss, l_l), -beta * g(beta * D), "and the rejected one the other way."),
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

REWARDS = (
    define(b_w, beta * rho_w, "The chosen response's reward,"),
    define(b_l, beta * rho_l, "and the rejected one's, each by itself."),
)

q_w = sp.Symbol("q_w", positive=True)
weight, total = sp.symbols("w Z", positive=True)
K = sp.Symbol("K", integer=True, positive=True)
y = sp.Symbol("y", integer=True)
classify, reward = (sp.Function(n, real=True) for n in (r"\mathcal{C}", "r"))
noise, tilt = (sp.Function(n, positive=True) for n in (r"\pi_{\mathrm{ref}}", r"\pi^{*}"))


def over(index: sp.Symbol, term: sp.Expr) -> sp.Sum:
    """The sum over all responses, with this index."""
    return sp.Sum(term, (index, 1, K))


nca = Derivation(
    name="nca",
    title="NCA: tell each response from a draw of the reference",
    steps=(
        *MARGIN[:2],
        *REWARDS,
        define(
            single(q_w),
            -q_w * sp.log(sigma(b_w))
            - (1 - q_w) * sp.log(sigma(b_l))
            - (sp.log(sigma(-b_w)) + sp.log(sigma(-b_l))) / 2,
            "A classifier with logit $b$ calls a response good with its share of the preference, $q_w$ or $1 - q_w$, "
            "and a draw of the reference, uniform over the two, noise.",
        ),
        define(loss, single(sp.Integer(1)), "The chosen response has the whole preference."),
        equal(
            loss,
            -sp.log(sigma(b_w)) - sp.log(sigma(-b_w)) / 2 - sp.log(sigma(-b_l)) / 2,
            "The loss, as implemented.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            beta * (sp.Rational(3, 2) * sigma(b_w) - 1),
            "The chosen response has a target of its own: a reward with $\\sigma(b_w) = 2 / 3$.",
        ),
        equal(sp.Derivative(loss, l_l), beta * sigma(b_l) / 2, "The rejected one is lowered for ever, ever less."),
        equal(
            slope(-sp.log(sigma(t)) - sp.log(sigma(-t)) / 2, t, sp.log(2)),
            sp.Integer(0),
            "The target is $b_w = \\log 2$: below it the chosen response rises, whatever the rejected one does.",
        ),
        equal(L(r_w, r_l), 2 * sp.log(2), "At the reference."),
        define(
            classify(t),
            -weight * sp.log(sigma(t)) - sp.log(sigma(-t)),
            "The population of responses. One of reward $r$ is good with weight $w = e^{r / \\alpha} / Z$ against 1 of the "
            "reference's noise; here $Z$ is the mean of $e^{r / \\alpha}$ under the reference. Its share of the loss at "
            "logit $t$",
        ),
        equal(
            sp.Derivative(classify(t), t),
            (weight + 1) * sigma(t) - weight,
            "has this slope,",
        ),
        equal(
            sp.Derivative(classify(t), (t, 2)),
            (weight + 1) * sigma(t) * sigma(-t),
            "which grows everywhere,",
        ),
        positive((weight + 1) * sigma(t) * sigma(-t), "as this is positive:"),
        equal(
            slope(classify(t), t, sp.log(weight)),
            sp.Integer(0),
            "its one minimum is at the logit $\\log w = r / \\alpha - \\log Z$, response by response. DPO fixes only "
            "differences of log-ratios.",
        ),
        define(total, over(y, noise(y) * sp.exp(reward(y) / order)), "This $Z$, over $K$ responses,"),
        define(
            tilt(y),
            noise(y) * sp.exp(sp.log(sp.exp(reward(y) / order) / total)),
            "and the reference moved by that logit, with $\\beta = 1$,",
        ),
        equal(
            over(y, tilt(y)), sp.Integer(1), "sum to 1: the minimum is a policy, RLHF's optimum at $\\alpha$ itself."
        ),
    ),
    assumptions=("For the last lines: a tabular policy and the population of responses.",),
)

apo_zero = Derivation(
    name="apo_zero",
    title="APO-zero: the chosen response up, the rejected one down",
    steps=(
        *MARGIN[:2],
        *REWARDS,
        define(single(t), 1 - sigma(t), "A loss that rewards $t > 0$ and is bounded on both sides."),
        define(loss, single(b_w) + single(-b_l), "The chosen reward should be above zero, the rejected one below."),
        equal(loss, 1 - sigma(b_w) + sigma(b_l), "The loss, as implemented."),
        equal(sp.Derivative(loss, l_w), -beta * sigma(b_w) * sigma(-b_w), "Each response is pulled on by itself,"),
        equal(sp.Derivative(loss, l_l), beta * sigma(b_l) * sigma(-b_l), "and hardest near the reference."),
        nonnegative((sigma(t) - sp.Rational(1, 2)) ** 2, "Since this is never negative"),
        equal(
            sp.Rational(1, 4) - sigma(t) * sigma(-t),
            (sigma(t) - sp.Rational(1, 2)) ** 2,
            "no pull exceeds $\\beta / 4$.",
        ),
        equal(L(r_w, r_l), sp.Integer(1), "At the reference."),
    ),
)

apo_down = Derivation(
    name="apo_down",
    title="APO-down: both down, the rejected one further",
    steps=(
        *MARGIN[:2],
        *REWARDS,
        define(single(t), 1 - sigma(t), "A loss that rewards $t > 0$ and is bounded on both sides."),
        define(
            loss,
            single(-b_w) + single(b_w - b_l),
            "The chosen reward should be below zero, and above the rejected one.",
        ),
        equal(loss, sigma(b_w) + (1 - sigma(b_w - b_l)), "The loss, as implemented."),
        equal(
            sp.Derivative(loss, l_w),
            beta * (sigma(b_w) * sigma(-b_w) - sigma(b_w - b_l) * sigma(b_l - b_w)),
            "The two aims pull the chosen response in opposite directions;",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(b_w - b_l) * sigma(b_l - b_w),
            "the rejected one only ever falls.",
        ),
        equal(
            sp.Subs(sp.Derivative(loss, l_w), (l_w, l_l), (r_w, r_l)),
            sp.Integer(0),
            "At the reference they balance: only the rejected response moves.",
        ),
        equal(L(r_w, r_l), sp.Integer(1), "At the reference."),
    ),
)

a, b, v_1, v_2 = sp.symbols("a b v_1 v_2", nonnegative=True)
x = sp.Symbol("x", real=True)
cost, crosswise = (sp.Function(n, real=True) for n in ("c", "E"))

aot = Derivation(
    name="aot",
    title="AOT: whole distributions of log-ratios are compared",
    steps=(
        argue(
            r"m_{(1)} \le m_{(2)} \le \dots \quad\text{against}\quad m^{\mathrm{ref}}_{(1)} \le "
            r"m^{\mathrm{ref}}_{(2)} \le \dots",
            "The log-ratios of chosen to rejected under the policy should be larger than the reference's as a "
            "distribution: its smallest above the smallest, and so on. So both are sorted, and compared rank by rank.",
        ),
        define(
            crosswise(a),
            cost(x - a) + cost(x + b) - cost(x) - cost(x + b - a),
            "Two pairs, whose values differ by $b \\ge 0$ under the policy and by $a \\ge 0$ under the reference; $x$ is the "
            "difference of the two lower ones. So much more does it cost to match them crosswise than by rank, with a "
            "cost $c$.",
        ),
        equal(crosswise(sp.Integer(0)), sp.Integer(0), "Nothing at $a = 0$;"),
        equal(
            sp.Derivative(crosswise(a), a),
            slope(cost(t), t, x + b - a) - slope(cost(t), t, x - a),
            "then it grows by the difference of two slopes, the first at the larger point: never negative if $c$ is convex.",
        ),
        define(single(t), logistic, "In full for AOT's own cost. Let it be this, at $t = \\beta x$."),
        equal(
            sp.exp(single(t - sp.log(1 + v_1)) + single(t + sp.log(1 + v_2)))
            - sp.exp(single(t) + single(t + sp.log(1 + v_2) - sp.log(1 + v_1))),
            sp.exp(-t) * v_1 * v_2 / (1 + v_2),
            "With $\\beta a = \\log(1 + v_1)$ and $\\beta b = \\log(1 + v_2)$, exponentials of the cost crosswise and "
            "by rank differ by this,",
        ),
        nonnegative(
            sp.exp(-t) * v_1 * v_2 / (1 + v_2),
            "which is never negative, as $v_1 \\ge 0$ and $v_2 \\ge 0$. For two pairs matching by rank never costs more.",
        ),
        argue(
            r"\sum_i c\left(m_{(i)} - m^{\mathrm{ref}}_{(i)}\right) \le "
            r"\sum_i c\left(m_{(i)} - m^{\mathrm{ref}}_{(s(i))}\right)",
            "The same holds for any number of pairs, any other matching $s$ and any convex cost $c$: two pairs that are "
            "matched crosswise can be swapped at no cost, until all are sorted.",
        ),
        define(m, l_w - l_l, "The policy's log-ratio of this pair,"),
        define(loss, -sp.log(sigma(beta * m - beta * m_ref)), "against the reference's of the same rank in the batch."),
        equal(loss, -sp.log(sigma(beta * ((l_w - l_l) - m_ref))), "The loss, as implemented."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * (m - m_ref)),
            "The pull is DPO's with another pair's reference:",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(-beta * (m - m_ref)),
            "and the same on the rejected response, since ranks change only at ties.",
        ),
        equal(
            sp.Subs(loss, m_ref, r_w - r_l),
            -sp.log(sigma(beta * ((l_w - r_w) - (l_l - r_l)))),
            "If the pair keeps its rank, or is alone, this is DPO.",
        ),
        equal(
            sp.Subs(loss, (m_ref, l_w, l_l), (r_w - r_l, r_w, r_l)),
            sp.log(2),
            "At the reference, where every pair has its own rank.",
        ),
    ),
    assumptions=("A derivative is taken where no two log-ratios of the batch are equal.",),
)
