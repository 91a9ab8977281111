"""What DPO's gradient does to the chosen response, and two losses that hold it up: DPO + NLL and DPO-Positive."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, define, equal, positive
from pref_toolkit.theory.derivations.margin import MARGIN
from pref_toolkit.theory.derivations.symbols import (
    D,
    L,
    alpha,
    beta,
    indicator,
    l_l,
    l_w,
    lam,
    n_w,
    r_l,
    r_w,
    relu,
    sigma,
)

p, q, rest, squares = sp.symbols("p q o S", positive=True)
c, u, v, a_1, a_2, b_1, b_2, dw_1, dw_2 = sp.symbols("c u v a_1 a_2 b_1 b_2 v_1 v_2", real=True)
norm, inner, kept = sp.symbols("N I m", real=True)

loss = L(l_w, l_l)
pull = beta * sigma(-beta * D)

displacement = Derivation(
    name="displacement",
    title="When the chosen response falls",
    steps=(
        define(dw_1, pull * (a_1 - b_1), "One parameter under gradient descent on DPO's loss of one pair; $a$ and $b$"),
        define(
            dw_2,
            pull * (a_2 - b_2),
            "are the gradients of the two log-probabilities by the parameters, of which two are written.",
        ),
        equal(
            a_1 * dw_1 + a_2 * dw_2,
            pull * ((a_1**2 + a_2**2) - (a_1 * b_1 + a_2 * b_2)),
            "To first order the chosen log-probability changes by its gradient times that step: it falls if and "
            "only if "
            "$\\langle a, b\\rangle > \\lVert a\\rVert^2$.",
        ),
        define(
            p,
            1 - q - rest,
            "In a tabular softmax, $p$ is the chosen response's probability, $q$ the rejected one's, $o$ that of "
            "all others.",
        ),
        define(
            norm,
            (1 - p) ** 2 + q**2 + squares,
            "The gradient by the logits is $1 - p$ at the chosen response and minus its probability at any "
            "other: its "
            "squared length, with $S$ the sum of squares over the others,",
        ),
        define(inner, -p * (1 - p) - q * (1 - q) + squares, "and its product with the gradient of the rejected one."),
        equal(norm - inner, 1 - p + q, "The others cancel,"),
        equal(1 - p + q, rest + 2 * q, "what is left is this,"),
        positive(rest + 2 * q, "and that is positive: in a tabular softmax one pair never lowers its chosen response."),
    ),
    assumptions=("First order in the step size, one pair, plain gradient descent.",),
)

dpo_nll = Derivation(
    name="dpo_nll",
    title="DPO + NLL: the chosen response is also learned",
    steps=(
        *MARGIN,
        define(u, -sp.log(sigma(beta * D)), "DPO's loss, which sees the margin only,"),
        define(v, -l_w / n_w, "and the supervised loss of the chosen response, a mean per token."),
        define(loss, u + alpha * v, "Their sum."),
        equal(loss, -sp.log(sigma(beta * D)) - alpha * l_w / n_w, "The loss, as implemented."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * D) - alpha / n_w,
            "The chosen response is lifted even where the pair is long won;",
        ),
        equal(sp.Derivative(loss, l_l), beta * sigma(-beta * D), "the rejected one feels DPO alone."),
        equal(
            L(l_w + c, l_l + c),
            loss - alpha * c / n_w,
            "When both responses fall together DPO sees nothing; this loss charges every nat.",
        ),
        equal(L(r_w, r_l), sp.log(2) - alpha * r_w / n_w, "At the reference."),
    ),
)

dpop = Derivation(
    name="dpop",
    title="DPO-Positive: a chosen response below the reference is charged",
    steps=(
        *MARGIN,
        define(
            kept, D - lam * relu(r_w - l_w), "The margin, less $\\lambda$ for each nat the chosen response has lost."
        ),
        define(loss, -sp.log(sigma(beta * kept)), "DPO's loss on that margin."),
        equal(loss, -sp.log(sigma(beta * (D - lam * relu(r_w - l_w)))), "The loss, as implemented."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * kept) * (1 + lam * indicator(r_w - l_w)),
            "Below the reference the chosen response is lifted $1 + \\lambda$ times as hard",
        ),
        equal(sp.Derivative(loss, l_l), beta * sigma(-beta * kept), "as the rejected one is lowered."),
        equal(L(r_w, r_l), sp.log(2), "At the reference the loss is DPO's."),
        equal(
            L(r_w - q, r_l - q),
            sp.log(1 + sp.exp(beta * lam * q)),
            "When both fall by $q > 0$ nats DPO stays at $\\log 2$; this loss rises.",
        ),
    ),
    assumptions=("A derivative where policy and reference agree on the chosen response is taken from one side.",),
)
