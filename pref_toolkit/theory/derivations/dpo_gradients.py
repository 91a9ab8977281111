"""The effect of DPO's gradient on the chosen response, and two losses that protect it: DPO + NLL and DPO-Positive."""

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
shared = sp.Symbol("u", positive=True)
c, u, v, kept, v_1, v_2 = sp.symbols("c u v m v_1 v_2", real=True)
g_w1, g_w2, g_l1, g_l2 = sp.symbols("g_w1 g_w2 g_l1 g_l2", real=True)
norm = sp.Symbol(r"\lVert g_{w}\rVert^{2}", real=True)
inner = sp.Symbol(r"\langle g_{w}, g_{l}\rangle", real=True)

loss = L(l_w, l_l)
pull = beta * sigma(-beta * D)

displacement = Derivation(
    name="displacement",
    title="When the chosen response falls",
    steps=(
        positive(pull, "So hard does DPO's loss of one pair pull up the one log-probability and down the other."),
        define(
            v_1,
            g_w1 - g_l1,
            "Down its gradient the parameters move along this vector, times the pull. $g_w$ and $g_l$ are the gradients "
            "of the two log-probabilities by all parameters,",
        ),
        define(v_2, g_w2 - g_l2, "of which two are written out: more only add terms of the same form."),
        equal(
            g_w1 * v_1 + g_w2 * v_2,
            (g_w1**2 + g_w2**2) - (g_w1 * g_l1 + g_w2 * g_l2),
            "A small step changes the chosen log-probability in proportion to this: it falls if and only if "
            "$\\langle g_w, g_l\\rangle > \\lVert g_w\\rVert^2$.",
        ),
        equal(
            (shared / p) ** 2 - (shared / p) * (shared / q),
            shared**2 * (q - p) / (p**2 * q),
            "One extreme. Suppose that the *probabilities* $p$ of the chosen and $q$ of the rejected response have the "
            "same gradient, of length $u$. Then $g_w$ and $g_l$ point the same way and have lengths $u / p$ and "
            "$u / q$; $\\lVert g_w\\rVert^2 - \\langle g_w, g_l\\rangle$ has the sign of $q - p$,",
        ),
        equal(
            (shared / p) * (shared / q) - (shared / q) ** 2,
            shared**2 * (q - p) / (p * q**2),
            "and so has $\\langle g_w, g_l\\rangle - \\lVert g_l\\rVert^2$, which moves the rejected one: both "
            "rise if $p < q$, both fall if $p > q$.",
        ),
        define(
            p,
            1 - q - rest,
            "The other extreme: a tabular softmax, in which each response has a logit of its own. All others together "
            "have probability $o$.",
        ),
        define(
            norm,
            (1 - p) ** 2 + q**2 + squares,
            "By the logits, the gradient of the chosen log-probability is $1 - p$ at its own and minus the probability "
            "at any other; its squared length, with $S$ the sum of squares over the others,",
        ),
        define(inner, -p * (1 - p) - q * (1 - q) + squares, "and its product with the gradient of the rejected one."),
        equal(norm - inner, 1 - p + q, "The others cancel,"),
        equal(1 - p + q, rest + 2 * q, "and this remains,"),
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
        equal(
            sp.Derivative(loss, l_w) + sp.Derivative(loss, l_l),
            -beta * lam * sigma(-beta * kept) * indicator(r_w - l_w),
            "DPO's two pulls cancel where both responses move together. These do not: they lift both until the chosen one is "
            "back at the reference.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference the loss is DPO's."),
        equal(
            L(r_w - q, r_l - q),
            sp.log(1 + sp.exp(beta * lam * q)),
            "When both fall by $q > 0$ nats DPO stays at $\\log 2$; this loss rises.",
        ),
    ),
    assumptions=("A derivative where policy and reference agree on the chosen response is taken from one side.",),
)
