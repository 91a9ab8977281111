"""Labels that may be wrong: conservative and robust DPO."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, define, equal
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import (
    D,
    L,
    beta,
    l_l,
    l_w,
    r_l,
    r_w,
    sigma,
    slope,
)

eps = sp.Symbol("eps", positive=True)
t, m = sp.symbols("t m", real=True)
single = sp.Function(r"\mathcal{S}", real=True)
noisy = sp.Function(r"\mathcal{N}", real=True)

loss = L(l_w, l_l)
logistic = -sp.log(sigma(t))

BOTH_SIDES = (
    define(single(t), logistic, "This is DPO's loss at the reward difference $t$."),
    define(m, beta * D, "This is the policy's reward difference."),
)

cdpo = Derivation(
    name="cdpo",
    title="Conservative DPO: a share of the labels is wrong",
    steps=(
        *MARGIN,
        *BOTH_SIDES,
        define(
            loss,
            (1 - eps) * single(m) + eps * single(-m),
            r"A label is right with probability $1 - \epsilon$, and the loss is the mean over right and wrong "
            "labels.",
        ),
        equal(
            loss,
            -(1 - eps) * sp.log(sigma(beta * D)) - eps * sp.log(sigma(-beta * D)),
            "The toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            beta * (sigma(beta * D) - (1 - eps)),
            "The pull on the chosen response is the model's probability less the label's, so it ends at a finite "
            "margin.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            -beta * (sigma(beta * D) - (1 - eps)),
            "The pull on the rejected response has the same size.",
        ),
        equal(
            slope((1 - eps) * single(t) + eps * single(-t), t, sp.log((1 - eps) / eps)),
            sp.Integer(0),
            r"The pull ends where $\beta D$ is the log-odds of a right label.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference the loss has this value."),
    ),
    assumptions=("Labels are wrong independently, with a known probability below 1/2.",),
)

robust_dpo = Derivation(
    name="robust_dpo",
    title="Robust DPO: wrong labels, corrected without bias",
    steps=(
        *MARGIN,
        *BOTH_SIDES,
        define(
            noisy(t),
            ((1 - eps) * single(t) - eps * single(-t)) / (1 - 2 * eps),
            "This combines the loss of the label as it stands with the loss of the label turned round.",
        ),
        equal(
            (1 - eps) * noisy(t) + eps * noisy(-t),
            single(t),
            r"Over labels that are wrong with probability $\epsilon$, the mean of this combination is DPO's loss on "
            "right labels.",
        ),
        define(loss, noisy(m), "The combination is the loss of robust DPO."),
        equal(
            loss,
            (-(1 - eps) * sp.log(sigma(beta * D)) + eps * sp.log(sigma(-beta * D))) / (1 - 2 * eps),
            "The toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -beta * ((1 - eps) * sigma(-beta * D) + eps * sigma(beta * D)) / (1 - 2 * eps),
            "The chosen response is pulled at every margin, and pulled harder if more noise is assumed.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * ((1 - eps) * sigma(-beta * D) + eps * sigma(beta * D)) / (1 - 2 * eps),
            "The rejected response is pulled as hard, in the opposite direction.",
        ),
        equal(
            noisy(t),
            single(t) - eps * t / (1 - 2 * eps),
            "The loss is DPO's less a multiple of the margin, so it has no lower bound.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference the loss has this value."),
    ),
    assumptions=("Labels are wrong independently, with a known probability below 1/2.",),
)
