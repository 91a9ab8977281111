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
            r"The score of a response is DPO's reward without its constant, with $\gamma$ for $\beta$.",
        ),
        define(s_l, gamma * rho_l, "This is the score of the rejected response."),
        define(loss, relu(1 - (s_w - s_l)), "The loss asks the winner's score to lead by at least 1."),
        equal(loss, relu(1 - gamma * D), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(loss, l_w),
            -gamma * indicator(1 - gamma * D),
            "The pull on the chosen response is constant while the pair is not won by enough.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            gamma * indicator(1 - gamma * D),
            "The pull on the rejected response is constant and of the same size.",
        ),
        equal(
            sp.Subs(sp.Derivative(loss, l_w), l_w, r_w + l_l - r_l + 1 / gamma + u),
            sp.Integer(0),
            r"Beyond the margin $1 / \gamma$, here by $u > 0$, there is no pull. Such a pair has no effect on "
            "training any more.",
        ),
        equal(L(r_w, r_l), sp.Integer(1), "At the reference the loss is 1."),
        equal(
            relu(1 - gamma * D),
            gamma * relu(1 / gamma - D),
            r"In nats the loss is $\gamma$ times a hinge that asks for a margin of $1 / \gamma$.",
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
            r"The calibration term asks the chosen response to be likelier by $\delta$ nats.",
        ),
        define(
            with_target,
            calibration(l_w, l_l) - lam * l_target,
            "The supervised term keeps a supervised response likely.",
        ),
        equal(
            with_target,
            relu(delta - l_w + l_l) - lam * l_target,
            "With a separate supervised response the toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(with_target, l_w),
            -indicator(delta - l_w + l_l),
            "The chosen response is raised while the pair is not won by enough.",
        ),
        equal(
            sp.Derivative(with_target, l_l),
            indicator(delta - l_w + l_l),
            "The rejected response is lowered while the pair is not won by enough.",
        ),
        equal(sp.Derivative(with_target, l_target), -lam, "The supervised response is always raised."),
        define(loss, separate(l_w, l_l, l_w), "If no supervised response is given, the chosen response serves as one."),
        equal(
            loss,
            relu(delta - l_w + l_l) - lam * l_w,
            "Without a separate supervised response the toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -indicator(delta - l_w + l_l) - lam,
            "The chosen response is always raised, and raised more while the pair is not won by enough.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            indicator(delta - l_w + l_l),
            "The rejected response is lowered only while the pair is not won by enough.",
        ),
        equal(L(t, t), delta - lam * t, "If the two responses are equally likely, the loss is this."),
        equal(
            L(l_w + t, l_l + t),
            loss - lam * t,
            "If both responses fall together, the calibration term does not change, and the supervised term rises "
            r"by $\lambda$ for each nat.",
        ),
        equal(
            calibration(l_w, l_l) / delta,
            relu(1 - (l_w - l_l) / delta),
            r"In units of $\delta$, the loss without its supervised term is the hinge loss above without a "
            r"reference and with $\gamma = 1 / \delta$.",
        ),
    ),
    assumptions=("There is no reference, and the likelihoods themselves are compared.",),
)

lead = sp.Symbol("gamma", nonnegative=True)

click = Derivation(
    name="click",
    title="Click: contrast the model's own samples, and keep the data likely",
    steps=(
        define(
            calibration(l_w, l_l),
            relu(lead - l_w + l_l),
            r"A good sample of the model must be likelier than a bad one of the same prompt by $\gamma$ nats.",
        ),
        define(
            with_target,
            -l_target / n_target + alpha * calibration(l_w, l_l),
            "The loss also learns the data's response, as a mean per token.",
        ),
        equal(
            with_target,
            -l_target / n_target + alpha * relu(lead - l_w + l_l),
            "With a separate response of the data the toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(with_target, l_w),
            -alpha * indicator(lead - l_w + l_l),
            "The good sample is raised while its lead is too small.",
        ),
        equal(
            sp.Derivative(with_target, l_l),
            alpha * indicator(lead - l_w + l_l),
            "The bad sample is lowered while that lead is too small.",
        ),
        equal(sp.Derivative(with_target, l_target), -1 / n_target, "The data's response is always raised."),
        define(
            loss,
            sp.Subs(separate(l_w, l_l, l_target), (l_target, n_target), (l_w, n_w)),
            "If no response of the data is given, the good sample serves as one.",
        ),
        equal(
            loss,
            -l_w / n_w + alpha * relu(lead - l_w + l_l),
            "Without a separate response of the data the toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -1 / n_w - alpha * indicator(lead - l_w + l_l),
            r"The good sample is always raised, and by $\alpha$ more while its lead is too small.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            alpha * indicator(lead - l_w + l_l),
            "The bad sample is lowered only while the lead is too small.",
        ),
        equal(L(t, t), -t / n_w + alpha * lead, "If the two samples are equally likely, the loss is this."),
        equal(
            L(l_w + t, l_l + t),
            loss - t / n_w,
            "If both samples fall together, the contrastive term does not change, and only the data's term rises.",
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
        define(mean_1, l_1 / n_1, "This is the mean log-probability per token of the response that scores highest."),
        define(mean_2, l_2 / n_2, "This is the mean log-probability per token of the response that scores second."),
        define(mean_3, l_3 / n_3, "This is the mean log-probability per token of the response that scores lowest."),
        define(
            calibration(t),
            relu(t),
            "If the worse response is likelier by $t$ nats per token, this costs $t$, and otherwise it costs "
            "nothing. There is no margin.",
        ),
        define(
            listed,
            calibration(mean_2 - mean_1) + calibration(mean_3 - mean_1) + calibration(mean_3 - mean_2) - weight * l_1,
            "The loss adds the costs of all pairs of different score and the supervised loss of the best response, "
            "which is a sum over its tokens.",
        ),
        equal(
            listed,
            relu(mean_2 - mean_1) + relu(mean_3 - mean_1) + relu(mean_3 - mean_2) - weight * l_1,
            "The toolkit implements this form of the loss, here for three responses.",
        ),
        equal(
            sp.Derivative(listed, l_1),
            -(indicator(mean_2 - mean_1) + indicator(mean_3 - mean_1)) / n_1 - weight,
            "The best response is raised once for each response that is likelier, and it is always raised by the "
            "supervised term.",
        ),
        equal(
            sp.Derivative(listed, l_2),
            (indicator(mean_2 - mean_1) - indicator(mean_3 - mean_2)) / n_2,
            "The middle response is lowered against better ones and raised against worse ones.",
        ),
        equal(
            sp.Derivative(listed, l_3),
            (indicator(mean_3 - mean_1) + indicator(mean_3 - mean_2)) / n_3,
            "The last response is lowered while it is likelier than another.",
        ),
        equal(
            L(n_1 * (t + u + v), n_2 * (t + u), n_3 * t),
            -weight * n_1 * (t + u + v),
            "If the order is right, only the supervised term is left.",
        ),
        define(
            ranked(t),
            sp.Sum(relu(worse(j) - t), (j, 1, N_worse)) + sp.Sum(relu(t - better(j)), (j, 1, N_better)),
            "The next line holds for any number of responses. It adds up all costs of one response whose mean is "
            "$t$, against those that score lower, with the means $a(j)$, and against those that score higher, with "
            "the means $b(j)$.",
        ),
        equal(
            sp.Derivative(ranked(t), t),
            sp.Sum(indicator(t - better(j)), (j, 1, N_better)) - sp.Sum(indicator(worse(j) - t), (j, 1, N_worse)),
            "The slope of these costs is the number of better responses that it leads, minus the number of worse "
            "ones that lead it.",
        ),
    ),
    assumptions=(
        "The lines that name responses are written out for three, with scores in falling order. The last two hold "
        "for any number.",
    ),
)
