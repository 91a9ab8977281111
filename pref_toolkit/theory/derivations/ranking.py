"""Ranking losses: the hinge of RSO, the calibration of SLiC-HF, the contrast of Click and the ranks of RRHF."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, define, equal
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import (
    D,
    L,
    alpha,
    indicator,
    l_l,
    l_w,
    lam,
    n_w,
    r_l,
    r_w,
    relu,
    rho_l,
    rho_w,
    s_l,
    s_w,
)

gamma = sp.Symbol("gamma", positive=True)
delta = sp.Symbol("delta", positive=True)
u = sp.Symbol("u", positive=True)
t = sp.Symbol("t", real=True)
l_target = sp.Symbol(r"l_{\mathrm{target}}", real=True)
n_target = sp.Symbol(r"n_{\mathrm{target}}", positive=True)
calibration = sp.Function(r"\mathcal{C}", real=True)
separate = sp.Function(r"\mathcal{L}_{\mathrm{target}}", real=True)

loss = L(l_w, l_l)
with_target = separate(l_w, l_l, l_target)

hinge_dpo = Derivation(
    name="hinge_dpo",
    title="The hinge loss of RSO: a support vector machine on the margin",
    steps=(
        *MARGIN,
        define(
            s_w,
            gamma * rho_w,
            "The score of a response: DPO's reward without its constant, with $\\gamma$ for $\\beta$.",
        ),
        define(s_l, gamma * rho_l, "The same for the rejected one."),
        define(loss, relu(1 - (s_w - s_l)), "The winner's score must lead by at least 1."),
        equal(loss, relu(1 - gamma * D), "The loss, as implemented."),
        equal(
            sp.Derivative(loss, l_w),
            -gamma * indicator(1 - gamma * D),
            "A constant pull while the pair is not won by enough,",
        ),
        equal(sp.Derivative(loss, l_l), gamma * indicator(1 - gamma * D), "the same on the rejected one,"),
        equal(
            sp.Subs(sp.Derivative(loss, l_w), l_w, r_w + l_l - r_l + 1 / gamma + u),
            sp.Integer(0),
            "and none beyond the margin $1 / \\gamma$, here by $u > 0$: such a pair has no effect on training any more.",
        ),
        equal(L(r_w, r_l), sp.Integer(1), "At the reference the loss is 1."),
        equal(
            relu(1 - gamma * D),
            gamma * relu(1 / gamma - D),
            "Seen in nats it is $\\gamma$ times a hinge that wants a margin of $1 / \\gamma$.",
        ),
    ),
    assumptions=("A derivative at the kink is taken from the side where the pair is won.",),
)

slic_hf = Derivation(
    name="slic_hf",
    title="SLiC-HF: rank the two likelihoods, and keep a supervised response likely",
    steps=(
        define(
            calibration(l_w, l_l),
            relu(delta - l_w + l_l),
            "Calibration: the chosen response must be likelier by $\\delta$ nats.",
        ),
        define(with_target, calibration(l_w, l_l) - lam * l_target, "A supervised response is kept likely."),
        equal(
            with_target,
            relu(delta - l_w + l_l) - lam * l_target,
            "The loss, as implemented, with a separate supervised response.",
        ),
        equal(sp.Derivative(with_target, l_w), -indicator(delta - l_w + l_l), "The chosen response is lifted"),
        equal(
            sp.Derivative(with_target, l_l),
            indicator(delta - l_w + l_l),
            "and the rejected one lowered while the pair is not won by enough,",
        ),
        equal(sp.Derivative(with_target, l_target), -lam, "the supervised one is lifted always."),
        define(loss, separate(l_w, l_l, l_w), "Where no supervised response is given the chosen one serves."),
        equal(
            loss,
            relu(delta - l_w + l_l) - lam * l_w,
            "The loss, as implemented, without a separate supervised response.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -indicator(delta - l_w + l_l) - lam,
            "The chosen response is lifted always, and more so while the pair is not won by enough;",
        ),
        equal(
            sp.Derivative(loss, l_l),
            indicator(delta - l_w + l_l),
            "the rejected one is lowered only while the pair is not won by enough.",
        ),
        equal(L(t, t), delta - lam * t, "Two responses that are equally likely."),
        equal(
            L(l_w + t, l_l + t),
            loss - lam * t,
            "If both fall together, the calibration does not change; the supervised term rises by $\\lambda$ for each nat.",
        ),
        equal(
            calibration(l_w, l_l) / delta,
            relu(1 - (l_w - l_l) / delta),
            "Without the supervised term, in units of $\\delta$: the hinge loss above, reference-free, with "
            "$\\gamma = 1 / \\delta$.",
        ),
    ),
    assumptions=("There is no reference: likelihoods themselves are compared.",),
)

lead = sp.Symbol("gamma", nonnegative=True)

click = Derivation(
    name="click",
    title="Click: contrast the model's own samples, and keep the data likely",
    steps=(
        define(
            calibration(l_w, l_l),
            relu(lead - l_w + l_l),
            "A good sample of the model must be likelier than a bad one of the same prompt by $\\gamma$ nats.",
        ),
        define(
            with_target,
            -l_target / n_target + alpha * calibration(l_w, l_l),
            "The data's response is learned, as a mean per token.",
        ),
        equal(
            with_target,
            -l_target / n_target + alpha * relu(lead - l_w + l_l),
            "The loss, as implemented, with a separate response of the data.",
        ),
        equal(
            sp.Derivative(with_target, l_w),
            -alpha * indicator(lead - l_w + l_l),
            "The good sample is lifted",
        ),
        equal(
            sp.Derivative(with_target, l_l),
            alpha * indicator(lead - l_w + l_l),
            "and the bad one lowered while the lead is too small,",
        ),
        equal(sp.Derivative(with_target, l_target), -1 / n_target, "the data's response is lifted always."),
        define(
            loss,
            sp.Subs(separate(l_w, l_l, l_target), (l_target, n_target), (l_w, n_w)),
            "Where no response of the data is given the good sample serves.",
        ),
        equal(
            loss,
            -l_w / n_w + alpha * relu(lead - l_w + l_l),
            "The loss, as implemented, without a separate response of the data.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -1 / n_w - alpha * indicator(lead - l_w + l_l),
            "The good sample is lifted, by $\\alpha$ more while its lead is too small;",
        ),
        equal(
            sp.Derivative(loss, l_l),
            alpha * indicator(lead - l_w + l_l),
            "the bad one is lowered only while the lead is too small.",
        ),
        equal(L(t, t), -t / n_w + alpha * lead, "Two samples that are equally likely."),
        equal(
            L(l_w + t, l_l + t),
            loss - t / n_w,
            "When both fall together the contrast sees nothing; only the data's term charges for it.",
        ),
    ),
    assumptions=("The formula is that of the paper and of its authors' code.", "There is no reference."),
)

l_1, l_2, l_3, mean_1, mean_2, mean_3 = sp.symbols("l_1 l_2 l_3 m_1 m_2 m_3", real=True)
n_1, n_2, n_3, v = sp.symbols("n_1 n_2 n_3 v", positive=True)
weight = sp.Symbol("weight", nonnegative=True)
listed = L(l_1, l_2, l_3)
j = sp.Symbol("j", integer=True)
N_worse, N_better = sp.symbols(r"N_{\mathrm{worse}} N_{\mathrm{better}}", integer=True, positive=True)
worse, better, ranked = (sp.Function(name, real=True) for name in ("a", "b", r"\mathcal{R}"))

rrhf = Derivation(
    name="rrhf",
    title="RRHF: order the means per token as the scores order the responses",
    steps=(
        define(mean_1, l_1 / n_1, "Mean log-probability per token of the response that scores highest,"),
        define(mean_2, l_2 / n_2, "of the next"),
        define(mean_3, l_3 / n_3, "and of the last."),
        define(
            calibration(t),
            relu(t),
            "If the worse response is likelier by $t$ nats per token, this costs $t$; otherwise it costs nothing. There is "
            "no margin.",
        ),
        define(
            listed,
            calibration(mean_2 - mean_1) + calibration(mean_3 - mean_1) + calibration(mean_3 - mean_2) - weight * l_1,
            "All pairs of different score, and supervised learning of the best response, by its sum.",
        ),
        equal(
            listed,
            relu(mean_2 - mean_1) + relu(mean_3 - mean_1) + relu(mean_3 - mean_2) - weight * l_1,
            "The loss, as implemented, for three responses.",
        ),
        equal(
            sp.Derivative(listed, l_1),
            -(indicator(mean_2 - mean_1) + indicator(mean_3 - mean_1)) / n_1 - weight,
            "The best response is lifted once for each response that is likelier, and always by the supervised term;",
        ),
        equal(
            sp.Derivative(listed, l_2),
            (indicator(mean_2 - mean_1) - indicator(mean_3 - mean_2)) / n_2,
            "one in the middle is lowered against better ones, lifted against worse;",
        ),
        equal(
            sp.Derivative(listed, l_3),
            (indicator(mean_3 - mean_1) + indicator(mean_3 - mean_2)) / n_3,
            "the last one is lowered while it is likelier than another.",
        ),
        equal(
            L(n_1 * (t + u + v), n_2 * (t + u), n_3 * t),
            -weight * n_1 * (t + u + v),
            "In the right order only the supervised term is left.",
        ),
        define(
            ranked(t),
            sp.Sum(relu(worse(j) - t), (j, 1, N_worse)) + sp.Sum(relu(t - better(j)), (j, 1, N_better)),
            "Any number of responses. All costs of one response, whose mean is $t$: against those that score lower, of "
            "means $a(j)$, and against those that score higher, of means $b(j)$.",
        ),
        equal(
            sp.Derivative(ranked(t), t),
            sp.Sum(indicator(t - better(j)), (j, 1, N_better)) - sp.Sum(indicator(worse(j) - t), (j, 1, N_worse)),
            "Its slope is the number of better responses that it leads, minus the number of worse ones that lead it.",
        ),
    ),
    assumptions=(
        "The lines that name responses are written out for three, with scores in falling order; the last two hold for any "
        "number.",
    ),
)
