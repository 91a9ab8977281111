"""IPO: the regularised probability of being preferred, its optimum, and a squared loss with the same optimum."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, assume, define, equal
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import D, L, l_l, l_w, r_l, r_w, sigma, tau

Z, P_w, P_l, p = sp.symbols("Z P_w P_l p", positive=True)
t, h = sp.symbols("t h", real=True)
flipped = sp.Function(r"\mathcal{L}_p", real=True)
once, both = (sp.Function(name, real=True) for name in (r"\mathcal{L}_1", r"\mathcal{L}_2"))

K = sp.Symbol("K", integer=True, positive=True)
i, j = sp.symbols("i j", integer=True)
mu = sp.Function(r"\mu", positive=True)
beats, w, eta, lead_u, lead_v = (sp.Function(name, real=True) for name in ("p", "w", r"\eta", "u", "v"))


def over(index: sp.Symbol, term: sp.Expr) -> sp.Sum:
    """The sum over all responses, with this index."""
    return sp.Sum(term, (index, 1, K))


loss = L(l_w, l_l)
target = 1 / (2 * tau)

ipo = Derivation(
    name="ipo",
    title="IPO: preferences themselves, regularised, without a reward in between",
    steps=(
        *MARGIN,
        argue(
            r"\max_\pi\; \mathbb{E}_{y \sim \pi}\, p(y \succ \mu) - \tau\, \mathrm{KL}(\pi \,\Vert\, \mathrm{ref})",
            r"The objective is that of RLHF with the chance $p(y \succ \mu)$ of beating a response of $\mu$ where "
            r"the reward was, and $\tau$ where $\beta$ was. So its optimum is the reference, tilted by that chance.",
        ),
        define(
            h,
            sp.log(sp.exp(r_w + P_w / tau) / Z) - sp.log(sp.exp(r_l + P_l / tau) / Z) - r_w + r_l,
            "If $P_w$ and $P_l$ are the chances of the two responses, this is the margin of that optimum.",
        ),
        equal(
            h,
            (P_w - P_l) / tau,
            r"The margin is the difference of the two chances over $\tau$. It is bounded by $1 / \tau$, whatever "
            "the data are.",
        ),
        assume(
            over(i, mu(i)),
            sp.Integer(1),
            r"The chances are unknown, and only labels are drawn. Both responses come from $\mu$, whose "
            "probabilities sum to 1.",
        ),
        define(
            beats(i, j),
            sp.Rational(1, 2) + lead_u(i) * lead_v(j) - lead_v(i) * lead_u(j),
            "This is the chance that $i$ is preferred to $j$. When they are swapped, $p(i, j) - 1/2$ changes its "
            "sign, and any table with this property is a sum of tables of this form. One is enough, because the "
            "lines below are linear in the table, apart from terms that are the same on both sides.",
        ),
        define(w(i), over(j, mu(j) * beats(i, j)), r"This is the chance of $i$ against $\mu$."),
        equal(over(i, mu(i) * w(i)), sp.Rational(1, 2), "Of two draws each wins half the time."),
        equal(
            over(
                i,
                over(
                    j,
                    mu(i)
                    * mu(j)
                    * (
                        (eta(i) - eta(j) - (w(i) - w(j)) / tau) ** 2
                        - beats(i, j) * (eta(i) - eta(j) - 1 / tau) ** 2
                        - (1 - beats(i, j)) * (eta(i) - eta(j)) ** 2
                    ),
                ),
            ),
            over(i, over(j, mu(i) * mu(j) * ((w(i) - w(j)) ** 2 - beats(i, j)))) / tau**2,
            r"Let $\eta$ be the policy's log-ratios. Compare two squares: the distance of the policy's margin from "
            r"the optimum's, and its distance from $1/\tau$ times a label of 1 or 0. Their means differ by a number "
            "that does not depend on the policy. For a single pair this is false, because the label's mean is "
            "$p(i, j)$ and not the difference of chances. It is true of the mean over both responses.",
        ),
        argue(
            r"\operatorname{supp} \mu = \operatorname{supp} \mathrm{ref}",
            r"So both squares have the same minimum. It is the optimum above if $\mu$ draws every response that the "
            "reference can write, because the loss does not depend on a response that is never drawn.",
        ),
        define(
            once(t),
            (t - 1 / tau) ** 2,
            r"Therefore the margin $t$ of a pair is fitted to $1/\tau$ times its label. The label is 1 for the pair "
            "as it was labelled, which gives this square.",
        ),
        define(
            both(t),
            (once(t) + t**2) / 2,
            "The label is 0 for the same pair turned round, and both squares count one half.",
        ),
        define(loss, both(D) - sp.Rational(1, 4) / tau**2, "The loss is this mean less a constant."),
        equal(
            loss, (D - target) ** 2, "The toolkit implements this form of the loss, in which the square is completed."
        ),
        equal(
            sp.Derivative(loss, l_w),
            2 * (D - target),
            "The pull on the chosen response is twice the distance from the target.",
        ),
        equal(sp.Derivative(loss, l_l), -2 * (D - target), "The pull on the rejected response is the opposite one."),
        equal(
            sp.Subs(sp.Derivative(loss, l_w), l_w, r_w + l_l - r_l + target),
            sp.Integer(0),
            r"At the margin $1 / (2\tau)$ both pulls are zero. DPO's pulls never are.",
        ),
        equal(L(r_w, r_l), 1 / (4 * tau**2), "At the reference the loss has this value."),
        define(
            flipped(t),
            p * (t - target) ** 2 + (1 - p) * (-t - target) ** 2,
            "If the first response of a pair wins with probability $p$, this is the expected loss at margin $t$.",
        ),
        equal(
            sp.Subs(sp.Derivative(flipped(t), t), t, (p - (1 - p)) / (2 * tau)),
            sp.Integer(0),
            "The slope of the expected loss is zero at a margin in proportion to the difference of the two chances.",
        ),
        equal(
            sp.Derivative(flipped(t), (t, 2)),
            sp.Integer(2),
            "The second derivative is positive, so the expected loss is least at this margin only.",
        ),
        equal(
            sp.exp(target) / 2 / (sp.exp(target) / 2 + sp.Rational(1, 2)),
            sigma(target),
            "Take two responses, a uniform reference, and a preference that is never contradicted. The winner's "
            "probability still stays below 1.",
        ),
    ),
    assumptions=("The policy can represent the optimum.", "Each pair's label is drawn with the true chance."),
)
