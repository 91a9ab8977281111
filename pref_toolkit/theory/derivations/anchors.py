"""Anchors: losses that see the chosen and the rejected response apart, or a batch as a whole."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, define, equal, nonnegative, positive
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import (
    L,
    beta,
    l_l,
    l_w,
    r_l,
    r_w,
    rho_l,
    rho_w,
    sigma,
    slope,
)

order = sp.Symbol("alpha", positive=True)
t, b_w, b_l, m, m_ref = sp.symbols("t b_w b_l m m_ref", real=True)
single = sp.Function(r"\mathcal{S}", real=True)

loss = L(l_w, l_l)
logistic = -sp.log(sigma(t))

REWARDS = (
    define(b_w, beta * rho_w, "This is the chosen response's reward."),
    define(b_l, beta * rho_l, "This is the rejected response's reward. Each response has a reward by itself."),
)

q_w = sp.Symbol("q_w", positive=True)
weight, total = sp.symbols("w Z", positive=True)
K = sp.Symbol("K", integer=True, positive=True)
y = sp.Symbol("y", integer=True)
classify, reward = (sp.Function(n, real=True) for n in (r"\mathcal{C}", "r"))
noise, tilt = (sp.Function(n, positive=True) for n in (r"\mathrm{ref}", r"\pi^{*}"))


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
            "A classifier with logit $b$ tells good responses from noise. It sees each response as good with its "
            "share of the preference, $q_w$ or $1 - q_w$, and it sees a draw of the reference, uniform over the "
            "two responses, as noise.",
        ),
        define(loss, single(sp.Integer(1)), "The chosen response has the whole preference."),
        equal(
            loss,
            -sp.log(sigma(b_w)) - sp.log(sigma(-b_w)) / 2 - sp.log(sigma(-b_l)) / 2,
            "The toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            beta * (sp.Rational(3, 2) * sigma(b_w) - 1),
            r"The chosen response has a target of its own, which is a reward with $\sigma(b_w) = 2 / 3$.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(b_l) / 2,
            "The rejected response is always lowered, with a pull that fades.",
        ),
        equal(
            slope(-sp.log(sigma(t)) - sp.log(sigma(-t)) / 2, t, sp.log(2)),
            sp.Integer(0),
            r"The target is $b_w = \log 2$. Below it the chosen response rises, whatever the rejected one does.",
        ),
        equal(L(r_w, r_l), 2 * sp.log(2), "At the reference the loss has this value."),
        define(
            classify(t),
            -weight * sp.log(sigma(t)) - sp.log(sigma(-t)),
            "The next lines are about the population of responses. A response of reward $r$ is good with weight $w "
            r"= e^{r / \alpha} / Z$ against weight 1 of the reference's noise, where $Z$ is the mean of $e^{r / "
            r"\alpha}$ under the reference. At logit $t$ the response has this share of the loss.",
        ),
        equal(
            sp.Derivative(classify(t), t),
            (weight + 1) * sigma(t) - weight,
            "The share has this slope.",
        ),
        equal(
            sp.Derivative(classify(t), (t, 2)),
            (weight + 1) * sigma(t) * sigma(-t),
            "The slope itself has this derivative.",
        ),
        positive((weight + 1) * sigma(t) * sigma(-t), "The derivative is positive, so the slope grows everywhere."),
        equal(
            slope(classify(t), t, sp.log(weight)),
            sp.Integer(0),
            r"So the share has one minimum, at the logit $\log w = r / \alpha - \log Z$, response by response. DPO "
            "fixes only differences of log-ratios.",
        ),
        define(total, over(y, noise(y) * sp.exp(reward(y) / order)), "This is $Z$ over $K$ responses."),
        define(
            tilt(y),
            noise(y) * sp.exp(sp.log(sp.exp(reward(y) / order) / total)),
            r"This is the reference, moved by that logit, with $\beta = 1$.",
        ),
        equal(
            over(y, tilt(y)),
            sp.Integer(1),
            r"Its probabilities sum to 1. So the minimum is a policy, and it is RLHF's optimum at $\alpha$ "
            "itself.",
        ),
    ),
    assumptions=("The last lines assume a tabular policy and the population of responses.",),
)

apo_zero = Derivation(
    name="apo_zero",
    title="APO-zero: the chosen response up, the rejected one down",
    steps=(
        *MARGIN[:2],
        *REWARDS,
        define(single(t), 1 - sigma(t), "This loss rewards $t > 0$ and is bounded on both sides."),
        define(
            loss,
            single(b_w) + single(-b_l),
            "The loss asks for a chosen reward above zero and a rejected reward below zero.",
        ),
        equal(loss, 1 - sigma(b_w) + sigma(b_l), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(b_w) * sigma(-b_w),
            "The pull on the chosen response depends on its own reward only.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(b_l) * sigma(-b_l),
            "The pull on the rejected response depends on its own reward only. Both pulls are hardest near the "
            "reference.",
        ),
        nonnegative((sigma(t) - sp.Rational(1, 2)) ** 2, "A square is never negative."),
        equal(
            sp.Rational(1, 4) - sigma(t) * sigma(-t),
            (sigma(t) - sp.Rational(1, 2)) ** 2,
            r"So the product $\sigma(t)\,\sigma(-t)$ is at most 1/4, and no pull exceeds $\beta / 4$.",
        ),
        equal(L(r_w, r_l), sp.Integer(1), "At the reference the loss has this value."),
    ),
)

apo_down = Derivation(
    name="apo_down",
    title="APO-down: both down, the rejected one further",
    steps=(
        *MARGIN[:2],
        *REWARDS,
        define(single(t), 1 - sigma(t), "This loss rewards $t > 0$ and is bounded on both sides."),
        define(
            loss,
            single(-b_w) + single(b_w - b_l),
            "The loss asks for a chosen reward below zero and above the rejected one.",
        ),
        equal(loss, sigma(b_w) + (1 - sigma(b_w - b_l)), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(loss, l_w),
            beta * (sigma(b_w) * sigma(-b_w) - sigma(b_w - b_l) * sigma(b_l - b_w)),
            "The two aims pull the chosen response in opposite directions.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(b_w - b_l) * sigma(b_l - b_w),
            "The rejected response is only ever lowered.",
        ),
        equal(
            sp.Subs(sp.Derivative(loss, l_w), (l_w, l_l), (r_w, r_l)),
            sp.Integer(0),
            "At the reference the two aims balance, so only the rejected response moves.",
        ),
        equal(L(r_w, r_l), sp.Integer(1), "At the reference the loss has this value."),
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
            "The policy's log-ratios of chosen to rejected should be larger than the reference's as a "
            "distribution: the smallest above the smallest, the second above the second, and so on. So the loss "
            "sorts both and compares them rank by rank.",
        ),
        define(
            crosswise(a),
            cost(x - a) + cost(x + b) - cost(x) - cost(x + b - a),
            r"Two pairs have values that differ by $b \ge 0$ under the policy and by $a \ge 0$ under the reference, "
            "and the policy's lower value exceeds the reference's by $x$. Crosswise matching compares each lower "
            "value with the other side's higher one. With a cost $c$ it costs this much more than matching by "
            "rank.",
        ),
        equal(crosswise(sp.Integer(0)), sp.Integer(0), "The extra cost is 0 at $a = 0$."),
        equal(
            sp.Derivative(crosswise(a), a),
            slope(cost(t), t, x + b - a) - slope(cost(t), t, x - a),
            "As $a$ grows, the extra cost grows by the difference of two slopes, the first at the larger point. If "
            "$c$ is convex, this difference is never negative, so crosswise matching never costs less.",
        ),
        define(
            single(t), logistic, r"The next lines prove the same for AOT's own cost, which is this at $t = \beta x$."
        ),
        equal(
            sp.exp(single(t - sp.log(1 + v_1)) + single(t + sp.log(1 + v_2)))
            - sp.exp(single(t) + single(t + sp.log(1 + v_2) - sp.log(1 + v_1))),
            sp.exp(-t) * v_1 * v_2 / (1 + v_2),
            r"Let $\beta a = \log(1 + v_1)$ and $\beta b = \log(1 + v_2)$. The exponentials of the crosswise cost "
            "and of the cost by rank then differ by this.",
        ),
        nonnegative(
            sp.exp(-t) * v_1 * v_2 / (1 + v_2),
            r"The difference is never negative, because $v_1 \ge 0$ and $v_2 \ge 0$. So for two pairs matching by "
            "rank never costs more than crosswise matching.",
        ),
        argue(
            r"\sum_i c\left(m_{(i)} - m^{\mathrm{ref}}_{(i)}\right) \le "
            r"\sum_i c\left(m_{(i)} - m^{\mathrm{ref}}_{(s(i))}\right)",
            "The same holds for any number of pairs, any other matching $s$ and any convex cost $c$. Two pairs "
            "that are matched crosswise can be swapped without raising the cost, until all are sorted.",
        ),
        define(m, l_w - l_l, "This is the policy's log-ratio of this pair."),
        define(
            loss,
            -sp.log(sigma(beta * m - beta * m_ref)),
            "The loss compares it with the reference's log-ratio of the same rank in the batch.",
        ),
        equal(loss, -sp.log(sigma(beta * ((l_w - l_l) - m_ref))), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * (m - m_ref)),
            "The pull on the chosen response is DPO's with another pair's reference.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(-beta * (m - m_ref)),
            "The pull on the rejected response has the same size, because ranks change only at ties.",
        ),
        equal(
            sp.Subs(loss, m_ref, r_w - r_l),
            -sp.log(sigma(beta * ((l_w - r_w) - (l_l - r_l)))),
            "If the pair keeps its rank, or is alone in the batch, the loss is DPO's.",
        ),
        equal(
            sp.Subs(loss, (m_ref, l_w, l_l), (r_w - r_l, r_w, r_l)),
            sp.log(2),
            "At the reference every pair has its own rank, and the loss has this value.",
        ),
    ),
    assumptions=("A derivative is taken where no two log-ratios of the batch are equal.",),
)
