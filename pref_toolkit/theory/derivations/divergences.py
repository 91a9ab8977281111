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
            r"The objective is the reward less $\beta$ times $\sum \mathrm{ref}\, f(\pi / \mathrm{ref})$, and $\nu$ "
            "is the multiplier of the constraint that a policy sums to 1. One response's share in the objective "
            "has this slope, which is zero at the optimum.",
        ),
        define(
            s_w,
            beta * g(rho_w) + nu,
            r"So the chosen response's reward is this, with $g(\rho) = f'(e^\rho)$.",
        ),
        define(
            s_l,
            beta * g(rho_l) + nu,
            r"The rejected response's reward has the same $\nu$, if both responses have positive probability.",
        ),
        define(loss, -sp.log(sigma(s_w - s_l)), "The loss is Bradley-Terry's on these rewards."),
        equal(loss, -sp.log(sigma(beta * (g(rho_w) - g(rho_l)))), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * (g(rho_w) - g(rho_l))) * slope(g(rho), rho, rho_w),
            "The pull on the chosen response has the slope of $g$ at its log-ratio as a factor.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(-beta * (g(rho_w) - g(rho_l))) * slope(g(rho), rho, rho_l),
            "The pull on the rejected response has the slope of $g$ at its own log-ratio as a factor. So the two "
            "pulls differ, unless $g$ is a straight line.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference the loss has this value."),
        define(reverse(u), u * sp.log(u) - u + 1, "The reverse KL divergence has this $f$."),
        equal(slope(reverse(u), u, sp.exp(rho)), rho, "Its $g$ is the log-ratio itself, which makes DPO."),
        define(forward(u), -sp.log(u) + u - 1, "The forward KL divergence has this $f$."),
        equal(
            slope(forward(u), u, sp.exp(rho)), 1 - sp.exp(-rho), "It has this $g$, whose 1 cancels in the difference."
        ),
        define(
            shannon(u), u * sp.log(u) - (u + 1) * sp.log((u + 1) / 2), "The Jensen-Shannon divergence has this $f$."
        ),
        equal(
            slope(shannon(u), u, sp.exp(rho)),
            sp.log(sigma(rho)) + sp.log(2),
            "It has this $g$, which flattens for large log-ratios.",
        ),
        define(
            power(u),
            (u ** (1 - order) - (1 - order) * u - order) / (order * (order - 1)),
            r"The $\alpha$-divergence has this $f$.",
        ),
        equal(
            slope(power(u), u, sp.exp(rho)),
            (1 - sp.exp(-order * rho)) / order,
            r"It has this $g$, which lies between those of the reverse KL at $\alpha \to 0$ and of the forward KL "
            r"at $\alpha = 1$.",
        ),
    ),
    assumptions=("$f$ is convex, and its slope at 0 is infinite or the optimum has full support.",),
    choices={
        "reverse_kl": define(g(t), t, "This choice makes DPO."),
        "forward_kl": define(g(t), -sp.exp(-t), "The code continues this choice along its tangent for $t < -30$."),
        "jensen_shannon": define(g(t), sp.log(sigma(t)) + sp.log(2), "This choice is bounded above."),
        "alpha": define(g(t), (1 - sp.exp(-order * t)) / order, r"This choice needs $0 < \alpha < 1$."),
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
            "This $f$ adds two divergences, the reverse KL and half of the chi-squared one, at the ratio $u$ of "
            "policy to reference.",
        ),
        equal(sp.Derivative(both(u), (u, 2)), 1 + 1 / u, "The second derivative of $f$ is this."),
        positive(
            1 + 1 / u,
            "The second derivative is positive, so $f$ is convex. It is at least 1, however large the ratio is, "
            "while for KL it is only $1 / u$.",
        ),
        equal(
            sp.Derivative(pi * r - beta * ref * both(pi / ref) - nu * pi, pi),
            r - beta * (pi / ref + sp.log(pi / ref)) - nu,
            r"The objective is the reward less $\beta$ times that divergence, and $\nu$ is the multiplier of the "
            "constraint that a policy sums to 1. One response's share in the objective has this slope, which is "
            "zero at the optimum.",
        ),
        define(
            s_w,
            beta * (sp.exp(rho_w) + rho_w) + nu,
            "So the chosen response's reward is this, in which the ratio and its logarithm add up.",
        ),
        define(s_l, beta * (sp.exp(rho_l) + rho_l) + nu, "The rejected response's reward is this."),
        define(loss, -sp.log(sigma(s_w - s_l)), "The loss is Bradley-Terry's on these rewards."),
        equal(
            loss,
            -sp.log(sigma(beta * (sp.exp(rho_w) + rho_w - sp.exp(rho_l) - rho_l))),
            "The toolkit implements this form of the loss.",
        ),
        define(
            m,
            beta * (sp.exp(rho_w) + rho_w - sp.exp(rho_l) - rho_l),
            "This is the difference of the rewards.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-m) * (1 + sp.exp(rho_w)),
            "The chosen response is pulled the harder, the more the policy has raised it already. A small rise "
            "there makes up for a large difference of rewards.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(-m) * (1 + sp.exp(rho_l)),
            "The rejected response is pulled in the same way, and one that has become rare is pulled as by DPO.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference the loss has this value."),
        positive(
            sp.log(1 + more),
            r"At a ratio $1 + v$ above 1 this is positive, so the ratio is less than $(r - \nu) / \beta$ and grows "
            "no faster than the reward. RLHF's ratio grows as the exponential of the reward, so there a wrong "
            "reward of a rare response moves much of the policy to it.",
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
            r"In this objective each token costs $\alpha$.",
        ),
        define(
            priced(pi, ref, r, n),
            pi * (r - alpha * n) - beta * pi * sp.log(pi / ref) - nu * pi,
            r"This is one response's share in the objective. The response has reward $r$ and $n$ tokens, and $\nu$ "
            "is the multiplier of the constraint that a policy sums to 1.",
        ),
        equal(
            sp.Derivative(priced(pi, ref, r, n), pi),
            r - alpha * n - beta * sp.log(pi / ref) - beta - nu,
            "The share has this slope by the policy's probability, which is zero at the optimum.",
        ),
        define(
            best(ref, r, n),
            ref * sp.exp((r - alpha * n) / beta) / Z,
            "This is RLHF's optimum for the reward less its price.",
        ),
        equal(
            beta * sp.log(best(ref, r, n) / ref) + alpha * n + beta * sp.log(Z),
            r,
            "The optimum gives the reward back, with the price added.",
        ),
        define(
            s_w,
            beta * rho_w + alpha * n_w + beta + nu,
            "The slope leads to the same result. The chosen response's reward before the price must be this.",
        ),
        equal(
            sp.Subs(sp.Derivative(priced(pi, ref, r, n), pi), (pi, ref, r, n), (sp.exp(l_w), sp.exp(r_w), s_w, n_w)),
            sp.Integer(0),
            "With this reward the slope is zero.",
        ),
        define(
            s_l, beta * rho_l + alpha * n_l + beta + nu, "In the same way the rejected response's reward must be this."
        ),
        equal(
            s_w - s_l,
            beta * D + alpha * (n_w - n_l),
            "In the difference of the rewards the lengths enter with a plus sign.",
        ),
        define(loss, -sp.log(sigma(s_w - s_l)), "The loss is Bradley-Terry's on the rewards before the price."),
        equal(loss, -sp.log(sigma(beta * D + alpha * (n_w - n_l))), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * D - alpha * (n_w - n_l)),
            "If the chosen response is longer, the length explains part of the label, and the pair pulls less on "
            "the chosen response.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(-beta * D - alpha * (n_w - n_l)),
            "The pull on the rejected response has the same size. If the chosen response is shorter, the pair "
            "pulls more.",
        ),
        equal(L(r_w, r_l), sp.log(1 + sp.exp(-alpha * (n_w - n_l))), "At the reference the loss has this value."),
    ),
    assumptions=("People judge the reward without the price, and the policy has to pay the price.",),
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
            r"One response's share in the objective has this slope, where $\nu$ is the multiplier of the constraint "
            "that a policy sums to 1. The slope is zero at the optimum.",
        ),
        equal(
            -sp.Derivative(pi * r - beta * pi * (sp.log(pi / ref) - 1) / n - nu * pi, (pi, 2)),
            beta / (n * pi),
            "The second derivative of the share is minus this.",
        ),
        positive(beta / (n * pi), "This is positive, so the objective is strictly concave and has one optimum."),
        define(
            s_w,
            beta * rho_w / n_w + nu,
            r"So the chosen response's reward is its mean log-ratio per token, times $\beta$, and a constant.",
        ),
        define(s_l, beta * rho_l / n_l + nu, "The rejected response's reward has the same constant."),
        define(loss, -sp.log(sigma(s_w - s_l)), "The loss is Bradley-Terry's on these rewards."),
        equal(
            loss, -sp.log(sigma(beta * (rho_w / n_w - rho_l / n_l))), "The toolkit implements this form of the loss."
        ),
        define(u_norm, beta * (rho_w / n_w - rho_l / n_l), "This is the difference of the rewards."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-u_norm) / n_w,
            "Each token of the chosen response gets an equal share of one pull.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(-u_norm) / n_l,
            "Each token of the rejected response gets an equal share of the same pull. So a long response is "
            "pulled less per token.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference the loss has this value."),
        equal(
            sp.Subs(loss, (n_w, n_l), (n, n)),
            -sp.log(sigma(beta / n * (rho_w - rho_l))),
            r"If both responses have the same length, the loss is DPO's with $\beta / n$.",
        ),
        equal(
            sp.Subs(loss, (l_w, l_l), (r_w + n_w * t, r_l + n_l * t)),
            sp.log(2),
            "If every token of both responses has gained as much, the pair is even. DPO counts it as won by the "
            "longer response.",
        ),
    ),
    assumptions=("Preferences follow the Bradley-Terry model on the reward.",),
)
