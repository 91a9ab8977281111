"""Beyond pairs: losses that read scores, several rejected responses, or single labelled answers."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, define, equal, nonnegative, positive
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import D, L, alpha, beta, l_l, l_w, lam, r_l, r_w, s_l, s_w, sigma

gap, eps, Z = sp.symbols("Delta eps Z", positive=True)
t, w, offset = sp.symbols("t p_w o", real=True)
beats = sp.Function("P", positive=True)

K = sp.Symbol("K", integer=True, positive=True)
i, j, y = sp.symbols("i j y", integer=True)
x = sp.Symbol("x", real=True)
temperature, rest = sp.symbols("beta_r o", positive=True)
chosen, share, label, best, moved = (sp.Function(n, positive=True) for n in ("p", "p", "q", r"\pi^{*}", "N"))
policy, ref = (sp.Function(n, positive=True) for n in (r"\pi", r"\mathrm{ref}"))
reward, ratio = (sp.Function(n, real=True) for n in ("r", r"\rho"))

loss = L(l_w, l_l)


def over(index: sp.Symbol, term: sp.Expr) -> sp.Sum:
    """The sum over ``K`` responses, with this index."""
    return sp.Sum(term, (index, 1, K))


odpo = Derivation(
    name="odpo",
    title="DPO with an offset: some preferences are stronger",
    steps=(
        *MARGIN,
        define(s_w, s_l + gap, r"The judge gives the chosen response the higher score, by $\Delta > 0$."),
        define(
            offset,
            alpha * sp.log(s_w - s_l),
            "The policy's rewards should differ by this offset, which grows with the difference of the scores.",
        ),
        argue(
            r"\Pr(\hat s_w - \hat s_l > o) = \sigma(\beta D - o), \quad \hat s = \beta \rho + \text{Gumbel noise}",
            "The difference of two Gumbel variables is logistic.",
        ),
        define(
            beats(t),
            sigma(t - offset),
            "If the rewards differ by $t$, this is the chance of a lead beyond the offset.",
        ),
        equal(beats(t), 1 - sigma(offset - t), "The chance is 1 minus the chance of a smaller lead."),
        define(loss, -sp.log(beats(beta * D)), "The loss is the negative logarithm of this chance."),
        equal(
            loss, -sp.log(sigma(beta * D - alpha * sp.log(s_w - s_l))), "The toolkit implements this form of the loss."
        ),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(offset - beta * D),
            "The pull on the chosen response goes on until the lead exceeds the offset.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(offset - beta * D),
            "The pull on the rejected response has the same size.",
        ),
        equal(
            L(r_w, r_l),
            sp.log(1 + (s_w - s_l) ** alpha),
            r"At the reference the loss has this value. With $\alpha = 0$, or with scores that differ by 1, it is "
            "DPO's.",
        ),
    ),
    assumptions=("Rewards carry Gumbel noise.",),
)

l_1, l_2, l_3, r_1, r_2, r_3 = sp.symbols("l_1 l_2 l_3 r_1 r_2 r_3", real=True)
rho_1, rho_2, rho_3, s_1, s_2, s_3 = sp.symbols("rho_1 rho_2 rho_3 s_1 s_2 s_3", real=True)
p_1, p_2, p_3 = sp.symbols("p_1 p_2 p_3", positive=True)
listed = L(l_1, l_2, l_3)
total = sp.exp(beta * rho_1) + sp.exp(beta * rho_2) + sp.exp(beta * rho_3)

s_dpo = Derivation(
    name="s_dpo",
    title="S-DPO: one chosen response against several",
    steps=(
        define(rho_1, l_1 - r_1, "This is the chosen response's log-ratio."),
        define(rho_2, l_2 - r_2, "This is the first rejected response's log-ratio."),
        define(rho_3, l_3 - r_3, "This is the second rejected response's log-ratio."),
        define(
            s_1,
            beta * rho_1 + beta * sp.log(Z),
            "This is the chosen response's reward for which the policy is RLHF's optimum.",
        ),
        define(
            s_2, beta * rho_2 + beta * sp.log(Z), "This is the first rejected response's reward, with the same $Z$."
        ),
        define(
            s_3,
            beta * rho_3 + beta * sp.log(Z),
            "This is the second rejected response's reward. Its $Z$ is the same too, because the prompt is the same.",
        ),
        define(
            listed,
            -sp.log(sp.exp(s_1) / (sp.exp(s_1) + sp.exp(s_2) + sp.exp(s_3))),
            "The loss is the negative logarithm of Plackett-Luce's probability that the chosen response is first. "
            "The order of the others does not enter.",
        ),
        equal(
            listed,
            sp.log(1 + sp.exp(beta * (rho_2 - rho_1)) + sp.exp(beta * (rho_3 - rho_1))),
            "The toolkit implements this form of the loss.",
        ),
        define(p_1, sp.exp(beta * rho_1) / total, "This is the probability that the chosen response is first."),
        define(p_2, sp.exp(beta * rho_2) / total, "This is the probability that the first rejected response is first."),
        define(
            p_3, sp.exp(beta * rho_3) / total, "This is the probability that the second rejected response is first."
        ),
        equal(
            sp.Derivative(listed, l_1),
            -beta * (1 - p_1),
            "The chosen response is raised by 1 minus its own probability.",
        ),
        equal(sp.Derivative(listed, l_2), beta * p_2, "The first rejected response is lowered by its own probability."),
        equal(
            sp.Derivative(listed, l_3),
            beta * p_3,
            "The second rejected response is lowered by its own probability as well. So the strongest rival is "
            "lowered most.",
        ),
        equal(L(r_1, r_2, r_3), sp.log(3), "At the reference the loss has this value."),
        argue(
            r"\rho_3 \to -\infty \implies \mathcal{L} \to -\log \sigma(\beta(\rho_1 - \rho_2))",
            "A rejected response that becomes impossible drops out. With one rejected response left the loss is DPO's.",
        ),
        define(
            chosen(t),
            sp.exp(beta * t) / (sp.exp(beta * t) + over(i, sp.exp(beta * ratio(i)))),
            r"Let any number $K$ of rejected responses have the log-ratios $\rho(i)$. If the chosen response has "
            "the log-ratio $t$, this is the probability that it is first.",
        ),
        equal(
            -sp.log(chosen(t)),
            sp.log(1 + over(i, sp.exp(beta * (ratio(i) - t)))),
            "The loss has this form for any $K$.",
        ),
        equal(
            sp.Derivative(-sp.log(chosen(t)), t),
            -beta * (1 - chosen(t)),
            "The pull on the chosen response has this form for any $K$.",
        ),
        define(
            moved(x),
            sp.exp(beta * t) + sp.exp(beta * x) + rest,
            "Let one rejected response have the log-ratio $x$, and let $o$ be the sum over the others. This is the "
            "denominator of the probabilities.",
        ),
        equal(
            sp.Derivative(-sp.log(sp.exp(beta * t) / moved(x)), x),
            beta * sp.exp(beta * x) / moved(x),
            "The pull down on that response is its own probability, again for any $K$.",
        ),
    ),
    assumptions=(
        "The lines that name responses are written out for two rejected ones, and the last five hold for any number.",
    ),
)

exo = Derivation(
    name="exo",
    title="EXO: the divergence from the policy to the labels, not from the labels to the policy",
    steps=(
        *MARGIN,
        define(
            w,
            sp.exp(beta * l_w - beta * r_w) / (sp.exp(beta * l_w - beta * r_w) + sp.exp(beta * l_l - beta * r_l)),
            r"This is the policy's share of the chosen response, tilted by $\beta$ against the reference.",
        ),
        equal(w, sigma(beta * D), "The share is a function of the margin."),
        define(
            loss,
            w * sp.log(w / (1 - eps)) + (1 - w) * sp.log((1 - w) / eps),
            r"The loss is the divergence from the policy's shares to the label's, which are $1 - \epsilon$ and "
            r"$\epsilon$. DPO's loss is the divergence in the other direction.",
        ),
        equal(
            loss,
            sigma(beta * D) * (sp.log(sigma(beta * D)) - sp.log(1 - eps))
            + sigma(-beta * D) * (sp.log(sigma(-beta * D)) - sp.log(eps)),
            "The toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            beta * sigma(beta * D) * sigma(-beta * D) * (beta * D - sp.log((1 - eps) / eps)),
            "The target is finite, and the pull on the chosen response fades where the policy is sure, right or wrong.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            -beta * sigma(beta * D) * sigma(-beta * D) * (beta * D - sp.log((1 - eps) / eps)),
            "The pull on the rejected response has the same size.",
        ),
        equal(
            L(r_w, r_l), -sp.log(2) - (sp.log(1 - eps) + sp.log(eps)) / 2, "At the reference the loss has this value."
        ),
        define(
            share(i),
            (policy(i) / ref(i)) ** beta / over(y, (policy(y) / ref(y)) ** beta),
            "These are the same shares for $K$ responses.",
        ),
        define(
            label(i),
            sp.exp(reward(i) / temperature) / over(y, sp.exp(reward(y) / temperature)),
            r"The labels come from the rewards of the responses, at temperature $\beta_r$. The loss is the "
            "divergence from the shares to these labels.",
        ),
        equal(
            sp.log(share(i) / share(j)),
            beta * (sp.log(policy(i) / ref(i)) - sp.log(policy(j) / ref(j))),
            "The loss is 0 only if all shares equal the labels. Ratios of shares give the differences of log-ratios.",
        ),
        equal(
            sp.log(label(i) / label(j)),
            (reward(i) - reward(j)) / temperature,
            "Ratios of labels give the differences of rewards.",
        ),
        define(
            best(i),
            ref(i) * sp.exp(reward(i) / (beta * temperature)) / Z,
            r"This is RLHF's optimum for a divergence that costs $\beta \beta_r$ a nat.",
        ),
        equal(
            beta * (sp.log(best(i) / ref(i)) - sp.log(best(j) / ref(j))),
            (reward(i) - reward(j)) / temperature,
            "The log-ratios of this optimum have just these differences.",
        ),
        equal(
            (best(i) / ref(i)) ** beta / over(y, (best(y) / ref(y)) ** beta),
            label(i),
            "The shares of the optimum are the labels. So the loss is 0 there, and it is 0 elsewhere only if the "
            "policy differs by one common factor on the $K$ responses.",
        ),
    ),
    assumptions=(
        r"The loss is that of a pair. With more responses the code divides $\epsilon$ among the rejected ones, "
        "which is our choice and not derived. The lines on $K$ responses are about labels from rewards.",
    ),
)

l, r, rho, z_0, delta = sp.symbols("l r rho z_0 delta", real=True)  # noqa: E741  the papers' letter
s = sp.Symbol("s", real=True)
worth = sp.Function("v", real=True)
labelled = L(l)
certain = sp.Function(r"\mathcal{B}", real=True)

kto = Derivation(
    name="kto",
    title="KTO: gains and losses against a reference point",
    steps=(
        define(rho, l - r, r"This is the answer's log-ratio. It is the answer's reward in units of $1 / \beta$."),
        define(
            worth(t),
            lam * sigma(s * beta * t),
            "This is the worth of an answer at distance $t$ from the reference point. It is concave in gains, "
            "convex in losses and bounded. The sign $s$ is $+1$ for a desirable answer and $-1$ for an undesirable "
            r"one, and $\lambda$ is the weight of that kind.",
        ),
        define(
            labelled,
            lam - worth(rho - z_0),
            "The loss is the distance to the largest worth, and no gradient flows through $z_0$.",
        ),
        equal(labelled, lam * (1 - sigma(s * beta * (rho - z_0))), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(labelled, l),
            -s * lam * beta * sigma(s * beta * (rho - z_0)) * sigma(-s * beta * (rho - z_0)),
            "The pull is largest at the reference point and fades on both sides.",
        ),
        nonnegative(lam * sigma(-s * beta * (rho - z_0)), "This product is never negative."),
        equal(
            labelled,
            lam * sigma(-s * beta * (rho - z_0)),
            r"The product is the loss, because $1 - \sigma(t) = \sigma(-t)$.",
        ),
        nonnegative(lam * sigma(s * beta * (rho - z_0)), "This product is never negative either."),
        equal(
            lam - labelled,
            lam * sigma(s * beta * (rho - z_0)),
            r"The product is $\lambda$ minus the loss. So the loss is bounded, and answers far on the wrong side "
            "are hardly pulled.",
        ),
        equal(
            sp.Subs(labelled, (l, z_0), (r, 0)),
            lam / 2,
            "At the reference the divergence $z_0$ is 0, and the loss has this value.",
        ),
    ),
    assumptions=("Worth is judged against the mean reward $z_0$ of mismatched answers, which estimates a divergence.",),
)

bco = Derivation(
    name="bco",
    title="BCO: a binary classifier whose logit is the reward",
    steps=(
        define(rho, l - r, "This is the answer's log-ratio."),
        define(
            labelled,
            -sp.log(1 / (1 + sp.exp(-s * (beta * rho - delta)))),
            r"The loss is a logistic regression of the label $s = \pm 1$ on the reward, which is shifted by "
            r"$\delta$, the mean reward so far.",
        ),
        equal(labelled, -sp.log(sigma(s * (beta * rho - delta))), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(labelled, l),
            -s * beta * sigma(-s * (beta * rho - delta)),
            "A desirable answer is raised and an undesirable one is lowered, as far as the classifier errs. The "
            "shift carries no gradient.",
        ),
        define(certain(t), -sp.log(sigma(t)), "The classifier's loss at logit $t$ is DPO's loss at margin $t$."),
        equal(
            sp.exp(certain(s_w - delta) + certain(delta - s_l)) - sp.exp(certain(s_w - s_l)),
            sp.exp(delta - s_w) + sp.exp(s_l - delta),
            "A desirable answer has the reward $s_w$, and an undesirable one has $s_l$. The exponential of the sum "
            "of their losses exceeds that of DPO's loss by this.",
        ),
        positive(
            sp.exp(delta - s_w) + sp.exp(s_l - delta),
            "The excess is positive, so the classifier's loss bounds DPO's from above, for every shift.",
        ),
        equal(
            sp.Subs(labelled, (l, delta), (r, 0)),
            sp.log(2),
            "At the reference the mean reward is 0, and the loss has this value.",
        ),
    ),
)
