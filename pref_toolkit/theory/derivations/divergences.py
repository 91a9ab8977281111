"""What holds the policy: other divergences, a price beside the divergence, and a divergence per token."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, define, equal, positive
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
    rho_l,
    rho_w,
    s_l,
    s_w,
    sigma,
    slope,
)

Z, u, order, pi, ref = sp.symbols(r"Z u alpha pi \mathrm{ref}", positive=True)
t, rho, nu, r, m = sp.symbols("t rho nu r m", real=True)
f, g = (sp.Function(name, real=True) for name in "fg")

loss = L(l_w, l_l)

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
            "Maximise reward less $\\beta$ times $\\sum \\mathrm{ref}\\, f(\\pi / \\mathrm{ref})$ over "
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
            "The pull on each response has the slope of $g$ at its log-ratio as a factor:",
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
        equal(sp.Derivative(both(u), (u, 2)), 1 + 1 / u, "Its second derivative is this,"),
        positive(
            1 + 1 / u,
            "which is positive, so $f$ is convex. It is at least 1, however large the ratio is; for KL it is only $1 / u$.",
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

n = sp.Symbol("n", positive=True)
priced, best = sp.Function("g", real=True), sp.Function(r"\pi^{*}", positive=True)

r_dpo = Derivation(
    name="r_dpo",
    title="R-DPO: a price on length",
    steps=(
        *MARGIN,
        argue(
            r"\max_\pi\; \mathbb{E}_{y \sim \pi}\,[s(y) - \alpha\, n(y)] - \beta\,\mathrm{KL}(\pi \,\Vert\, "
            r"\mathrm{ref})",
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
            "If the chosen response is longer, the length explains part of the label, and the pair pulls less;",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(-beta * D - alpha * (n_w - n_l)),
            "if it is shorter, the pair pulls more.",
        ),
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
            r"\max_\pi\; \mathbb{E}_{y \sim \pi}\left[r(y) - \beta\, \frac{\log(\pi(y) / \mathrm{ref}(y)) - 1}{n(y)}"
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
