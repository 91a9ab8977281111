"""Two modules on one frozen base: the gradients of OFS-DPO, and the sum that COFS-DPO forms."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, define, equal
from pref_toolkit.theory.derivations.symbols import alpha, beta, r_l, r_w, sigma

F_w, F_l, S_w, S_l = sp.symbols("l^{F}_{w} l^{F}_{l} l^{S}_{w} l^{S}_{l}", real=True)
# SymPy sorts factors by name; names in braces print beta D instead of D beta.
D_F, D_S, E, R = sp.symbols("{D}_{F} {D}_{S} {E} {R}", real=True)
fast, slow = sp.Function(r"\mathcal{L}_{F}", real=True), sp.Function(r"\mathcal{L}_{S}", real=True)

ofs_dpo = Derivation(
    name="ofs_dpo",
    title="OFS-DPO: the gradients of the fast and of the slow module",
    steps=(
        define(D_F, (F_w - r_w) - (F_l - r_l), "This is the margin of the fast module."),
        define(D_S, (S_w - r_w) - (S_l - r_l), "This is the margin of the slow module, over the same reference."),
        define(
            E,
            (F_w - S_w) - (F_l - S_l),
            "This is the lead of the fast module. It says by how much more the fast module prefers the chosen "
            "response.",
        ),
        equal(E, D_F - D_S, "The lead is the difference of the margins, and the reference drops out."),
        define(R, -sp.log(sigma(beta * E)), "This term is the race. It is small where the fast module leads."),
        define(
            fast(F_w, F_l),
            -sp.log(sigma(beta * D_F)) + alpha * R,
            r"The fast module's loss is DPO's plus $\alpha$ times the race, so the fast module seeks the lead. The "
            "slow module is held fixed here.",
        ),
        define(
            slow(S_w, S_l),
            -sp.log(sigma(beta * D_S)) - alpha * R,
            r"The slow module's loss is DPO's minus $\alpha$ times the race, so it seeks the opposite. The fast "
            "module is held fixed here.",
        ),
        equal(
            sp.Derivative(fast(F_w, F_l), F_w),
            -beta * sigma(-beta * D_F) - alpha * beta * sigma(-beta * E),
            "DPO and the race both lift the fast module's chosen response.",
        ),
        equal(
            sp.Derivative(fast(F_w, F_l), F_l),
            beta * sigma(-beta * D_F) + alpha * beta * sigma(-beta * E),
            "Together they lower the fast module's rejected response as hard.",
        ),
        equal(
            sp.Derivative(slow(S_w, S_l), S_w),
            -beta * sigma(-beta * D_S) - alpha * beta * sigma(-beta * E),
            "DPO and the race lift the slow module's chosen response as well, and the race lifts it exactly as "
            "hard as the fast module's.",
        ),
        equal(
            sp.Derivative(slow(S_w, S_l), S_l),
            beta * sigma(-beta * D_S) + alpha * beta * sigma(-beta * E),
            "Together they lower the slow module's rejected response as hard. So the race speeds up both modules, "
            "most where the slow one is ahead.",
        ),
        equal(
            fast(S_w, S_l),
            -sp.log(sigma(beta * D_S)) + alpha * sp.log(2),
            r"Where both modules agree, the race is $\log 2$, and the losses of the two modules differ only by its "
            "sign.",
        ),
        equal(
            sp.Subs(sp.Derivative(fast(F_w, F_l), F_w), (F_w, F_l), (S_w, S_l)),
            -beta * sigma(-beta * D_S) - alpha * beta / 2,
            "The fast module has this gradient where both modules agree.",
        ),
        equal(
            sp.Subs(sp.Derivative(slow(S_w, S_l), S_w), (S_w, S_l), (F_w, F_l)),
            -beta * sigma(-beta * D_F) - alpha * beta / 2,
            "The slow module has the same gradient there. Only different learning rates or different starts part "
            "the two modules.",
        ),
        argue(
            r"D_S \to \infty:\quad \mathcal{L}_{S} \to -\infty \quad\text{if}\quad \alpha > 0",
            "The slow module's loss has no lower bound. As the slow module runs ahead of a fixed fast one, "
            r"$-\alpha R$ falls linearly.",
        ),
    ),
    assumptions=(
        "These are the losses as we read the paper's equations 3 to 6. Nobody here has checked them against its text.",
    ),
)

rank = sp.Symbol("r", integer=True, positive=True)
k = sp.Symbol("k", integer=True)
B_1, B_2, A_1, A_2 = (sp.Function(n, real=True) for n in ("B_1", "B_2", r"\mathnormal{A}_1", r"\mathnormal{A}_2"))
weight, together, apart, twice = sp.symbols("a U V W", real=True)


def over_rank(term: sp.Expr) -> sp.Sum:
    """The sum over the rank of the adapters, index ``k``."""
    return sp.Sum(term, (k, 1, rank))


cofs_dpo = Derivation(
    name="cofs_dpo",
    title="COFS-DPO: add up the weight updates, not their factors",
    steps=(
        define(
            together,
            over_rank(weight * B_1(k) * A_1(k) + (1 - weight) * B_2(k) * A_2(k)),
            "This is one entry of $a B_1 A_1 + (1 - a) B_2 A_2$, the weighted sum of two domains' updates of rank "
            "$r$. $B(k)$ runs along a row of $B$, and $A(k)$ runs down a column of $A$.",
        ),
        define(
            apart,
            over_rank((weight * B_1(k) + (1 - weight) * B_2(k)) * (weight * A_1(k) + (1 - weight) * A_2(k))),
            "This is the same entry if the factors are averaged apart and then multiplied.",
        ),
        equal(
            together - apart,
            weight * (1 - weight) * over_rank((B_1(k) - B_2(k)) * (A_1(k) - A_2(k))),
            "The two entries differ, unless the domains share one of the factors or one weight is zero.",
        ),
        define(
            twice,
            over_rank((weight * B_1(k) - (1 - weight) * B_1(k)) * (weight * A_1(k) - (1 - weight) * A_1(k))),
            "Let both domains find the same update, of which the second has the factors $-B_1$ and $-A_1$. "
            "Averaging the factors apart then makes this entry.",
        ),
        equal(
            twice,
            (2 * weight - 1) ** 2 * over_rank(B_1(k) * A_1(k)),
            "The update shrinks, and with equal weights it is gone. The weighted sum of the two updates is the "
            "update itself.",
        ),
    ),
    assumptions=("There are two domains, with the weights $a$ and $1 - a$. More domains work alike.",),
)
