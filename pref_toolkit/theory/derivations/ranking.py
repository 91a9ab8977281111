"""Losses that rank: the hinge of RSO and the calibration of SLiC-HF."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, define, equal
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import (
    D,
    L,
    indicator,
    l_l,
    l_w,
    lam,
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
l_target = sp.Symbol("l_target", real=True)
calibration = sp.Function(r"\mathcal{C}", real=True)

loss = L(l_w, l_l)

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
            "and none beyond the margin $1 / \\gamma$, here by $u > 0$: such a pair teaches nothing any more.",
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
        define(
            loss,
            sp.Subs(calibration(l_w, l_l) - lam * l_target, l_target, l_w),
            "A supervised response is kept likely; where none is given the chosen one serves.",
        ),
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
        equal(sp.Derivative(loss, l_l), indicator(delta - l_w + l_l), "the rejected one is lowered only so long."),
        equal(L(t, t), delta - lam * t, "Two responses that are equally likely."),
        equal(
            calibration(l_w, l_l) / delta,
            relu(1 - (l_w - l_l) / delta),
            "Without the supervised term, in units of $\\delta$: the hinge loss above, reference-free, with "
            "$\\gamma = 1 / \\delta$.",
        ),
    ),
    assumptions=("There is no reference: likelihoods themselves are compared.",),
)
