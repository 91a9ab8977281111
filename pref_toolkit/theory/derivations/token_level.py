"""Token level: losses that read more of a response than its summed log-probability."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, assume, define, equal
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import D, L, alpha, beta, l_l, l_w, r_l, r_w, rho_l, rho_w, sigma

V = sp.Symbol("V", integer=True, positive=True)
z, y = sp.symbols("z y", integer=True)
Z, H, size, phi, phi_0 = sp.symbols("Z H V_0 phi phi_0", positive=True)
K_w, K_l, A_w, A_l, value, kl = sp.symbols("K_w K_l A_w A_l v kl", real=True)
pi, ref = (sp.Function(n, positive=True) for n in (r"\pi", r"\mathrm{ref}"))
q, advantage = (sp.Function(n, real=True) for n in "QA")


def over_vocabulary(term: sp.Expr) -> sp.Sum:
    """The sum over the vocabulary, index ``z``."""
    return sp.Sum(term, (z, 1, V))


PER_TOKEN = (
    assume(
        over_vocabulary(ref(z)), sp.Integer(1), "The reference's next-token distribution, over a vocabulary of $V$."
    ),
    define(
        q(z),
        beta * sp.log(pi(z) / ref(z)) + beta * sp.log(Z),
        "At one position the policy is RLHF's optimum for these token values $Q$.",
    ),
    define(value, over_vocabulary(ref(z) * q(z)), "The position's value is the mean of these under the reference."),
    define(advantage(z), q(z) - value, "A token's advantage is what it has beyond that."),
    define(
        kl,
        over_vocabulary(ref(z) * sp.log(ref(z) / pi(z))),
        "The divergence from reference to policy at that position.",
    ),
    equal(
        advantage(y),
        beta * sp.log(pi(y) / ref(y)) + beta * kl,
        "The reference sums to 1, so the advantage is the log-ratio plus the divergence. $Z$ is gone.",
    ),
)

TOKEN_ASSUMPTIONS = (
    "Preferences follow Bradley-Terry on the sum of advantages over a response's tokens.",
    "$K$ is the sum over a response's positions of the divergence from the reference to the policy.",
)

k, n = sp.Symbol("k", integer=True), sp.Symbol("n_w", integer=True, positive=True)
at, telescoped, written, by_policy, by_reference, apart = (
    sp.Function(name, real=True) for name in (r"\nu", "T", r"\mathcal{A}", r"\lambda", r"\lambda_{r}", r"\kappa")
)


def along(term: sp.Expr) -> sp.Sum:
    """The sum over the positions of the chosen response, index ``k``."""
    return sp.Sum(term, (k, 1, n))


full = L(l_w, l_l, K_w, K_l)

tdpo1 = Derivation(
    name="tdpo1",
    title="TDPO: preferences from token-level advantages",
    steps=(
        *PER_TOKEN,
        *MARGIN,
        define(
            telescoped(k),
            at(1) - at(k + 1),
            "An advantage is $Q$ less the value $\\nu(k)$ of its position; $Q$ is the token's reward plus the value of the "
            "next position. So the reward of the first $k$ tokens exceeds their advantages by this:",
        ),
        equal(telescoped(sp.Integer(0)), sp.Integer(0), "it is nothing before the first token,"),
        equal(
            telescoped(k) - telescoped(k - 1),
            at(k) - at(k + 1),
            "and each position adds its own value less the next one's.",
        ),
        argue(
            r"\sum_{k=1}^{n} \text{reward}(k) = \sum_{k=1}^{n} A(k) + \nu(1) - \nu(n + 1), \quad \nu(n + 1) = 0",
            "Position by position. The value $\\nu(1)$ is the prompt's, the same for both responses: rewards of two "
            "responses differ by their sums of advantages.",
        ),
        define(
            written(k),
            beta * (by_policy(k) - by_reference(k)) + beta * apart(k),
            "The advantage of the token written at position $k$, as proved above, with $\\lambda(k)$ and $\\lambda_r(k)$ "
            "its log-probabilities and $\\kappa(k)$ the divergence there.",
        ),
        assume(along(by_policy(k)), l_w, "Over the chosen response the log-probabilities sum to $l_w$"),
        assume(along(by_reference(k)), r_w, "and $r_w$,"),
        assume(along(apart(k)), K_w, "and the divergences to $K_w$."),
        define(A_w, beta * (rho_w + K_w), "Summed over the chosen response's tokens,"),
        equal(along(written(k)), A_w, "as these are the sums of the terms,"),
        define(A_l, beta * (rho_l + K_l), "and in the same way over the rejected one's."),
        define(full, -sp.log(sigma(A_w - A_l)), "Bradley-Terry's loss on the sums."),
        equal(full, -sp.log(sigma(beta * (D - (K_l - K_w)))), "The loss, as implemented."),
        equal(
            sp.Derivative(full, l_w),
            -beta * sigma(-beta * (D - (K_l - K_w))),
            "On the log-probabilities the pull has DPO's form.",
        ),
        equal(
            sp.Derivative(full, l_l),
            beta * sigma(-beta * (D - (K_l - K_w))),
            "The rejected response is pulled down as hard.",
        ),
        equal(
            sp.Derivative(full, K_w),
            -beta * sigma(-beta * (D - (K_l - K_w))),
            "The divergences are pulled on as well: the chosen response's grows,",
        ),
        equal(sp.Derivative(full, K_l), beta * sigma(-beta * (D - (K_l - K_w))), "and the rejected one's shrinks."),
        equal(L(r_w, r_l, sp.Integer(0), sp.Integer(0)), sp.log(2), "At the reference, where both divergences are 0."),
    ),
    assumptions=TOKEN_ASSUMPTIONS,
)

part = L(l_w, l_l, K_l)
shifted = sp.Symbol("d", real=True)

tdpo2 = Derivation(
    name="tdpo2",
    title="TDPO, second version: the chosen response's divergence is not trained",
    steps=(
        *MARGIN,
        define(
            shifted,
            beta * alpha * (K_l - K_w),
            "The difference of divergences, weighted by $\\alpha$. $K_w$ enters as a number, without gradient, or the "
            "loss would drive the policy away from the reference where it is right.",
        ),
        define(part, -sp.log(sigma(beta * D - shifted)), "Bradley-Terry's loss on the margin less that."),
        equal(part, -sp.log(sigma(beta * (D - alpha * (K_l - K_w)))), "The loss, as implemented."),
        equal(
            sp.Derivative(part, l_w),
            -beta * sigma(-beta * (D - alpha * (K_l - K_w))),
            "On the log-probabilities the pull has DPO's form,",
        ),
        equal(sp.Derivative(part, l_l), beta * sigma(-beta * (D - alpha * (K_l - K_w))), "equal on both."),
        equal(
            sp.Derivative(part, K_l),
            alpha * beta * sigma(-beta * (D - alpha * (K_l - K_w))),
            "The rejected response's divergence shrinks, $\\alpha$ times as hard.",
        ),
        equal(L(r_w, r_l, K_w), sp.log(2), "At the reference, where the two divergences are equal: both are 0."),
        equal(sp.Subs(part, alpha, 0), -sp.log(sigma(beta * D)), "With $\\alpha = 0$ this is DPO."),
        equal(
            sp.Subs(part, alpha, 1),
            -sp.log(sigma(beta * (rho_w + K_w) - beta * (rho_l + K_l))),
            "With $\\alpha = 1$ it has the value of the first version, Bradley-Terry on sums of advantages, but the "
            "chosen response's divergence is not trained.",
        ),
    ),
    assumptions=TOKEN_ASSUMPTIONS,
)

loss = L(l_w, l_l)
dispersion = sp.Function(r"\varphi", real=True)
spread = sp.Symbol(r"\psi", positive=True)
agreed = sp.Function("P", positive=True)
t = sp.Symbol("t", real=True)

mallows_dpo = Derivation(
    name="mallows_dpo",
    title="Mallows-DPO: agree more where people agree",
    steps=(
        *MARGIN,
        define(
            dispersion(H),
            -phi_0 * sp.log(H / sp.log(size)),
            "How concentrated opinions are on a prompt is read off the reference's mean token entropy $\\bar H$, "
            "against its largest value, the logarithm of the size $V$ of the vocabulary.",
        ),
        equal(dispersion(sp.log(size)), sp.Integer(0), "Where the reference is undecided the pair says nothing."),
        equal(sp.Derivative(dispersion(H), H), -phi_0 / H, "The surer the reference, the larger $\\varphi$."),
        define(
            spread,
            sp.exp(-phi),
            "From here on $\\varphi$ is that number, without gradient. The dispersion $\\psi$ of Mallows' model is this.",
        ),
        define(
            agreed(t),
            1 / (1 + spread**t),
            "In Mallows' model a ranking at distance $d$ from the agreed one has weight $\\psi^d$. Two "
            "responses have two rankings: the agreed one, at distance 0, and the other, at distance $t$.",
        ),
        equal(
            sp.log(agreed(sp.Integer(1)) / (1 - agreed(sp.Integer(1)))),
            phi,
            "So the log-odds of neighbours are minus the logarithm of the dispersion, $\\varphi$,",
        ),
        equal(agreed(t), sigma(phi * t), "and at distance $t$ they are $\\varphi t$: Bradley-Terry, with a scale."),
        define(
            loss,
            -sp.log(agreed(beta * D)),
            "The difference of the two rewards is put for the distance, and the loss is the negative log-likelihood.",
        ),
        equal(loss, -sp.log(sigma(phi * beta * D)), "The loss, as implemented."),
        equal(
            sp.Derivative(loss, l_w), -phi * beta * sigma(-phi * beta * D), "It is DPO with a $\\beta$ for each prompt,"
        ),
        equal(sp.Derivative(loss, l_l), phi * beta * sigma(-phi * beta * D), "on both responses."),
        equal(L(r_w, r_l), sp.log(2), "At the reference."),
        equal(sp.Subs(loss, phi, 1), -sp.log(sigma(beta * D)), "With $\\varphi = 1$ this is DPO."),
    ),
    assumptions=(
        "Rankings follow a Mallows model with a dispersion for each prompt, and the distance of two rankings is the "
        "difference of two rewards.",
        "The dispersion is what the reference's entropy suggests, up to a constant factor $\\varphi_0$ of its logarithm.",
    ),
)

h_w, h_l, k_w, k_l, desensitised, part_w, part_l = sp.symbols("h_w h_l k_w k_l margin_ld u_w u_l", real=True)
split = L(l_w, l_l, h_w, h_l)

ld_dpo = Derivation(
    name="ld_dpo",
    title="LD-DPO: the tail of the longer response counts less",
    steps=(
        define(
            part_w,
            (h_w + alpha * (l_w - h_w)) - (k_w + alpha * (r_w - k_w)),
            "The chosen response's log-ratio, its tail weighted by $\\alpha$. $h$ is the log-probability of the first "
            "$\\min(n_w, n_l)$ tokens under the policy, $k$ under the reference.",
        ),
        define(part_l, (h_l + alpha * (l_l - h_l)) - (k_l + alpha * (r_l - k_l)), "The same for the rejected one."),
        define(desensitised, part_w - part_l, "The margin of these."),
        equal(
            desensitised,
            alpha * ((l_w - r_w) - (l_l - r_l)) + (1 - alpha) * ((h_w - k_w) - (h_l - k_l)),
            "It lies between the margin of the whole responses and that of their heads.",
        ),
        define(split, -sp.log(sigma(beta * desensitised)), "DPO's loss on it."),
        equal(
            split,
            -sp.log(sigma(beta * (alpha * ((l_w - r_w) - (l_l - r_l)) + (1 - alpha) * ((h_w - k_w) - (h_l - k_l))))),
            "The loss, as implemented.",
        ),
        equal(
            sp.Derivative(split, l_w),
            -alpha * beta * sigma(-beta * desensitised),
            "A token of a tail enters through $l$ alone: it is pulled $\\alpha$ times as hard as by DPO,",
        ),
        equal(sp.Derivative(split, l_l), alpha * beta * sigma(-beta * desensitised), "on both responses."),
        equal(
            sp.Derivative(split, h_w),
            -(1 - alpha) * beta * sigma(-beta * desensitised),
            "A token of a head enters through $l$ and $h$, and the two shares make DPO's pull,",
        ),
        equal(sp.Derivative(split, h_l), (1 - alpha) * beta * sigma(-beta * desensitised), "again on both."),
        equal(L(r_w, r_l, k_w, k_l), sp.log(2), "At the reference: the tail is weighted there too."),
        equal(
            sp.Subs(split, alpha, 1),
            -sp.log(sigma(beta * ((l_w - r_w) - (l_l - r_l)))),
            "With $\\alpha = 1$ this is DPO.",
        ),
    ),
)

w_w, w_l = sp.symbols("w_w w_l", real=True)
weight = sp.Symbol("w", positive=True)
plain = sp.Function(r"\mathcal{S}", real=True)
cost = sp.Function("c", real=True)
drawn, now, exact = (sp.Function(name, positive=True) for name in (r"\mu", r"\pi", r"\omega"))


def over_pairs(term: sp.Expr) -> sp.Sum:
    """The sum over all ``K`` pairs that may be drawn, index ``y``."""
    return sp.Sum(term, (y, 1, sp.Symbol("K", integer=True, positive=True)))


wpo = Derivation(
    name="wpo",
    title="WPO: pairs the policy might have written count more",
    steps=(
        *MARGIN,
        define(plain(l_w, l_l), -sp.log(sigma(beta * D)), "DPO's loss."),
        define(
            weight,
            sp.Min(1, sp.exp(w_w + w_l)),
            "The weight of a pair, a number without gradient: $w_w$ and $w_l$ are means over tokens of the "
            "log-probability less its expected level, $\\log \\pi_t - \\log \\sum_v \\pi_t(v)^2$.",
        ),
        equal(
            sp.log(1 / V) - sp.log(sp.Sum((1 / V) ** 2, (z, 1, V))),
            sp.Integer(0),
            "The level is such that a token drawn from a uniform distribution has weight 1, however large the "
            "vocabulary.",
        ),
        define(loss, weight * plain(l_w, l_l), "The weighted loss."),
        equal(loss, -sp.Min(1, sp.exp(w_w + w_l)) * sp.log(sigma(beta * D)), "The loss, as implemented."),
        equal(sp.Derivative(loss, l_w), -weight * beta * sigma(-beta * D), "DPO's pull, weighted,"),
        equal(sp.Derivative(loss, l_l), weight * beta * sigma(-beta * D), "on both responses."),
        equal(L(r_w, r_l), weight * sp.log(2), "At the reference."),
        define(exact(y), now(y) / drawn(y), "Had pair $y$, drawn from $\\mu$, this weight,"),
        equal(
            over_pairs(drawn(y) * exact(y) * cost(y)),
            over_pairs(now(y) * cost(y)),
            "the mean of any cost would be the one over pairs drawn from the policy. WPO's weights are not quite these: they "
            "are means per token, at most 1, and do not know $\\mu$.",
        ),
    ),
)
