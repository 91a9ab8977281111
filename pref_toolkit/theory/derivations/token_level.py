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
        over_vocabulary(ref(z)),
        sp.Integer(1),
        "The reference's next-token distribution sums to 1 over a vocabulary of $V$ tokens.",
    ),
    define(
        q(z),
        beta * sp.log(pi(z) / ref(z)) + beta * sp.log(Z),
        "At one position the policy is RLHF's optimum for these token values $Q$.",
    ),
    define(value, over_vocabulary(ref(z) * q(z)), "The value of the position is the mean of $Q$ under the reference."),
    define(advantage(z), q(z) - value, "The advantage of a token is its $Q$ less the value of the position."),
    define(
        kl,
        over_vocabulary(ref(z) * sp.log(ref(z) / pi(z))),
        "This is the divergence from the reference to the policy at that position.",
    ),
    equal(
        advantage(y),
        beta * sp.log(pi(y) / ref(y)) + beta * kl,
        r"The reference sums to 1, so the advantage is the log-ratio plus the divergence, both times $\beta$. The "
        "normaliser $Z$ is gone.",
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
            r"An advantage is $Q$ less the value $\nu(k)$ of its position, and $Q$ is the token's reward plus the "
            "value of the next position. So the reward of the first $k$ tokens exceeds their advantages by this.",
        ),
        equal(telescoped(sp.Integer(0)), sp.Integer(0), "The excess is 0 before the first token."),
        equal(
            telescoped(k) - telescoped(k - 1),
            at(k) - at(k + 1),
            "Each position adds its own value less the value of the next one to the excess.",
        ),
        argue(
            r"\sum_{k=1}^{n} \text{reward}(k) = \sum_{k=1}^{n} A(k) + \nu(1) - \nu(n + 1), \quad \nu(n + 1) = 0",
            r"Adding up over the positions shows that the sums of rewards and of advantages differ by $\nu(1)$. "
            "This value is the prompt's and the same for both responses, so the rewards of two responses differ by "
            "their sums of advantages.",
        ),
        define(
            written(k),
            beta * (by_policy(k) - by_reference(k)) + beta * apart(k),
            r"This is the advantage of the token at position $k$, as proved above. $\lambda(k)$ and $\lambda_r(k)$ "
            r"are its log-probabilities under policy and reference, and $\kappa(k)$ is the divergence there.",
        ),
        assume(along(by_policy(k)), l_w, "The policy's log-probabilities sum to $l_w$ over the chosen response."),
        assume(along(by_reference(k)), r_w, "The reference's log-probabilities sum to $r_w$ over the chosen response."),
        assume(along(apart(k)), K_w, "The divergences sum to $K_w$ over the chosen response."),
        define(A_w, beta * (rho_w + K_w), "This is the sum of the advantages over the chosen response."),
        equal(
            along(written(k)),
            A_w,
            "The advantages of its tokens have this sum, because the sums of the three terms are known.",
        ),
        define(
            A_l, beta * (rho_l + K_l), "In the same way this is the sum of the advantages over the rejected response."
        ),
        define(full, -sp.log(sigma(A_w - A_l)), "The loss is Bradley-Terry's on the two sums."),
        equal(full, -sp.log(sigma(beta * (D - (K_l - K_w)))), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(full, l_w),
            -beta * sigma(-beta * (D - (K_l - K_w))),
            "The pull on the chosen log-probability has DPO's form.",
        ),
        equal(
            sp.Derivative(full, l_l),
            beta * sigma(-beta * (D - (K_l - K_w))),
            "The rejected log-probability is pulled down as hard.",
        ),
        equal(
            sp.Derivative(full, K_w),
            -beta * sigma(-beta * (D - (K_l - K_w))),
            "The loss also pulls on the divergences. The chosen response's divergence grows.",
        ),
        equal(
            sp.Derivative(full, K_l),
            beta * sigma(-beta * (D - (K_l - K_w))),
            "The rejected response's divergence shrinks.",
        ),
        equal(
            L(r_w, r_l, sp.Integer(0), sp.Integer(0)),
            sp.log(2),
            "At the reference both divergences are 0, and the loss has this value.",
        ),
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
            r"This is the difference of the divergences, weighted by $\alpha$. $K_w$ enters as a number without "
            "gradient, or the loss would drive the policy away from the reference where it is right.",
        ),
        define(
            part, -sp.log(sigma(beta * D - shifted)), "The loss is Bradley-Terry's on the margin less that difference."
        ),
        equal(part, -sp.log(sigma(beta * (D - alpha * (K_l - K_w)))), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(part, l_w),
            -beta * sigma(-beta * (D - alpha * (K_l - K_w))),
            "The pull on the chosen log-probability has DPO's form.",
        ),
        equal(
            sp.Derivative(part, l_l),
            beta * sigma(-beta * (D - alpha * (K_l - K_w))),
            "The pull on the rejected log-probability has the same size.",
        ),
        equal(
            sp.Derivative(part, K_l),
            alpha * beta * sigma(-beta * (D - alpha * (K_l - K_w))),
            r"The rejected response's divergence shrinks, and the pull on it is $\alpha$ times as hard.",
        ),
        equal(
            L(r_w, r_l, K_w),
            sp.log(2),
            "At the reference both divergences are 0, so they are equal, and the loss has this value.",
        ),
        equal(sp.Subs(part, alpha, 0), -sp.log(sigma(beta * D)), r"With $\alpha = 0$ this is DPO's loss."),
        equal(
            sp.Subs(part, alpha, 1),
            -sp.log(sigma(beta * (rho_w + K_w) - beta * (rho_l + K_l))),
            r"With $\alpha = 1$ the loss has the value of the first version, which is Bradley-Terry's loss on sums "
            "of advantages. But the chosen response's divergence is not trained.",
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
            "The method reads off the reference how concentrated opinions are on a prompt. It compares the "
            r"reference's mean token entropy $\bar H$ with its largest value, the logarithm of the size $V$ of the "
            "vocabulary.",
        ),
        equal(dispersion(sp.log(size)), sp.Integer(0), "Where the reference is undecided, the pair says nothing."),
        equal(sp.Derivative(dispersion(H), H), -phi_0 / H, r"The surer the reference is, the larger $\varphi$ is."),
        define(
            spread,
            sp.exp(-phi),
            r"From here on $\varphi$ is that number, without gradient. The dispersion $\psi$ of Mallows' model is "
            "this.",
        ),
        define(
            agreed(t),
            1 / (1 + spread**t),
            r"In Mallows' model a ranking at distance $d$ from the agreed one has weight $\psi^d$. Two responses "
            "have two rankings: the agreed one at distance 0, and the other one at distance $t$. The agreed one "
            "has this probability.",
        ),
        equal(
            sp.log(agreed(sp.Integer(1)) / (1 - agreed(sp.Integer(1)))),
            phi,
            r"So the log-odds of two neighbours are $\varphi$, which is minus the logarithm of the dispersion.",
        ),
        equal(
            agreed(t),
            sigma(phi * t),
            r"At distance $t$ the log-odds are $\varphi t$, so the model is Bradley-Terry's with a scale.",
        ),
        define(
            loss,
            -sp.log(agreed(beta * D)),
            "The method puts the difference of the two rewards in the place of the distance, and the loss is the "
            "negative log-likelihood.",
        ),
        equal(loss, -sp.log(sigma(phi * beta * D)), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(loss, l_w),
            -phi * beta * sigma(-phi * beta * D),
            r"The pull on the chosen response is DPO's with a $\beta$ for each prompt.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            phi * beta * sigma(-phi * beta * D),
            "The pull on the rejected response has the same size.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference the loss has this value."),
        equal(sp.Subs(loss, phi, 1), -sp.log(sigma(beta * D)), r"With $\varphi = 1$ this is DPO's loss."),
    ),
    assumptions=(
        "Rankings follow a Mallows model with a dispersion for each prompt, and the distance of two rankings is the "
        "difference of two rewards.",
        r"The reference's entropy gives the logarithm of the dispersion, up to a constant factor $\varphi_0$.",
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
            r"This is the chosen response's log-ratio, in which the tail is weighted by $\alpha$. $h$ is the "
            r"log-probability of the first $\min(n_w, n_l)$ tokens under the policy, and $k$ is the same under the "
            "reference.",
        ),
        define(
            part_l,
            (h_l + alpha * (l_l - h_l)) - (k_l + alpha * (r_l - k_l)),
            "This is the rejected response's log-ratio, weighted in the same way.",
        ),
        define(desensitised, part_w - part_l, "This is the margin of the two weighted log-ratios."),
        equal(
            desensitised,
            alpha * ((l_w - r_w) - (l_l - r_l)) + (1 - alpha) * ((h_w - k_w) - (h_l - k_l)),
            "The margin lies between that of the whole responses and that of their heads.",
        ),
        define(split, -sp.log(sigma(beta * desensitised)), "The loss is DPO's on this margin."),
        equal(
            split,
            -sp.log(sigma(beta * (alpha * ((l_w - r_w) - (l_l - r_l)) + (1 - alpha) * ((h_w - k_w) - (h_l - k_l))))),
            "The toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(split, l_w),
            -alpha * beta * sigma(-beta * desensitised),
            r"A token of the chosen response's tail enters through $l$ alone, so it is pulled $\alpha$ times as "
            "hard as by DPO.",
        ),
        equal(
            sp.Derivative(split, l_l),
            alpha * beta * sigma(-beta * desensitised),
            "A token of the rejected response's tail is pulled as hard, in the other direction.",
        ),
        equal(
            sp.Derivative(split, h_w),
            -(1 - alpha) * beta * sigma(-beta * desensitised),
            "A token of the chosen response's head enters through $l$ and $h$, and the two shares sum to DPO's pull.",
        ),
        equal(
            sp.Derivative(split, h_l),
            (1 - alpha) * beta * sigma(-beta * desensitised),
            "A token of the rejected response's head enters through both as well.",
        ),
        equal(
            L(r_w, r_l, k_w, k_l),
            sp.log(2),
            "At the reference the loss has this value, because the tail is weighted there too.",
        ),
        equal(
            sp.Subs(split, alpha, 1),
            -sp.log(sigma(beta * ((l_w - r_w) - (l_l - r_l)))),
            r"With $\alpha = 1$ this is DPO's loss.",
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
        define(plain(l_w, l_l), -sp.log(sigma(beta * D)), "This is DPO's loss."),
        define(
            weight,
            sp.Min(1, sp.exp(w_w + w_l)),
            "This is the weight of a pair, a number without gradient. $w_w$ and $w_l$ are means over tokens of the "
            r"log-probability less its expected level, which is $\log \pi_t - \log \sum_v \pi_t(v)^2$.",
        ),
        equal(
            sp.log(1 / V) - sp.log(sp.Sum((1 / V) ** 2, (z, 1, V))),
            sp.Integer(0),
            "With this level a token drawn from a uniform distribution has weight 1, however large the vocabulary is.",
        ),
        define(loss, weight * plain(l_w, l_l), "The loss is DPO's times the weight."),
        equal(
            loss,
            -sp.Min(1, sp.exp(w_w + w_l)) * sp.log(sigma(beta * D)),
            "The toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -weight * beta * sigma(-beta * D),
            "The pull on the chosen response is DPO's times the weight.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            weight * beta * sigma(-beta * D),
            "The pull on the rejected response is DPO's times the weight as well.",
        ),
        equal(L(r_w, r_l), weight * sp.log(2), "At the reference the loss has this value."),
        define(exact(y), now(y) / drawn(y), r"Let pair $y$ be drawn from $\mu$ and have this weight."),
        equal(
            over_pairs(drawn(y) * exact(y) * cost(y)),
            over_pairs(now(y) * cost(y)),
            "The weighted mean of any cost is then its mean over pairs drawn from the policy. WPO's weights are "
            r"not quite these: they are means per token, they are at most 1, and they do not know $\mu$.",
        ),
    ),
)
