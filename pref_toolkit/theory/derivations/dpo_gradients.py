"""The effect of DPO's gradient on the chosen response, and two losses that protect it: DPO + NLL and DPO-Positive."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, assume, define, equal, positive
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

up, down = sp.symbols("a b", positive=True)
z_w, z_l, z_o = sp.symbols("z_w z_l z_o", real=True)
p_w, p_l, p_o = sp.symbols("p_w p_l p_o", positive=True)
link, log_w, log_l = (sp.Function(name, real=True) for name in ("f", r"\lambda_{w}", r"\lambda_{l}"))
total = sp.Function("T", positive=True)

loss = L(l_w, l_l)

displacement = Derivation(
    name="displacement",
    title="When the chosen response falls",
    steps=(
        equal(
            sp.Derivative(link(l_w - l_l), l_w) + sp.Derivative(link(l_w - l_l), l_l),
            sp.Integer(0),
            "A loss of the margin pulls on both log-probabilities equally. In general a loss of a pair pulls the "
            "chosen one up by $a$ and the rejected one down by $b$, and here $a = b$.",
        ),
        define(
            v_1,
            up * g_w1 - down * g_l1,
            "Gradient descent moves the parameters along this vector. $g_w$ and $g_l$ are the gradients of the two "
            "log-probabilities by the parameters.",
        ),
        define(
            v_2,
            up * g_w2 - down * g_l2,
            "Two parameters are written out, because more of them only add terms of the same form.",
        ),
        equal(
            g_w1 * v_1 + g_w2 * v_2,
            up * (g_w1**2 + g_w2**2) - down * (g_w1 * g_l1 + g_w2 * g_l2),
            "A small step changes the chosen log-probability in proportion to this. With $a = b$ it falls if and "
            r"only if $\langle g_w, g_l\rangle > \lVert g_w\rVert^2$.",
        ),
        equal(
            g_l1 * v_1 + g_l2 * v_2,
            up * (g_w1 * g_l1 + g_w2 * g_l2) - down * (g_l1**2 + g_l2**2),
            "The step changes the rejected log-probability in proportion to this.",
        ),
        equal(
            (shared / p) ** 2 - (shared / p) * (shared / q),
            shared**2 * (q - p) / (p**2 * q),
            "In one extreme case the *probabilities* $p$ of the chosen and $q$ of the rejected response have the "
            "same gradient, of length $u$. Then $g_w$ and $g_l$ point the same way and have the lengths $u / p$ "
            r"and $u / q$. So $\lVert g_w\rVert^2 - \langle g_w, g_l\rangle$ has the sign of $q - p$.",
        ),
        equal(
            (shared / p) * (shared / q) - (shared / q) ** 2,
            shared**2 * (q - p) / (p * q**2),
            r"The rejected log-probability moves by $\langle g_w, g_l\rangle - \lVert g_l\rVert^2$, which has the "
            "same sign. So both rise if $p < q$, and both fall if $p > q$.",
        ),
        define(
            total(z_w, z_l, z_o),
            sp.exp(z_w) + sp.exp(z_l) + sp.exp(z_o) + rest,
            "In the other extreme case, a tabular softmax, each response has a logit of its own. Beside the pair "
            "one more response is written out, with logit $z_o$, and $o$ is the sum over all others. This is the "
            "normaliser.",
        ),
        define(log_w(z_w, z_l, z_o), z_w - sp.log(total(z_w, z_l, z_o)), "This is the chosen log-probability."),
        define(log_l(z_w, z_l, z_o), z_l - sp.log(total(z_w, z_l, z_o)), "This is the rejected log-probability."),
        define(p_w, sp.exp(z_w) / total(z_w, z_l, z_o), "This is the probability of the chosen response."),
        define(p_l, sp.exp(z_l) / total(z_w, z_l, z_o), "This is the probability of the rejected response."),
        define(p_o, sp.exp(z_o) / total(z_w, z_l, z_o), "This is the probability of the third response."),
        equal(
            sp.Derivative(log_w(z_w, z_l, z_o), z_w),
            1 - p_w,
            "The chosen log-probability has this slope by its own logit.",
        ),
        equal(sp.Derivative(log_w(z_w, z_l, z_o), z_l), -p_l, "It has this slope by the rejected response's logit."),
        equal(sp.Derivative(log_w(z_w, z_l, z_o), z_o), -p_o, "It has a slope of the same form by every other logit."),
        equal(
            sp.Derivative(log_l(z_w, z_l, z_o), z_w),
            -p_w,
            "The rejected log-probability has this slope by the chosen response's logit.",
        ),
        equal(sp.Derivative(log_l(z_w, z_l, z_o), z_l), 1 - p_l, "It has this slope by its own logit."),
        equal(sp.Derivative(log_l(z_w, z_l, z_o), z_o), -p_o, "It has a slope of the same form by every other logit."),
        define(
            norm,
            (1 - p_w) ** 2 + p_l**2 + squares,
            "So this is the squared length of the chosen response's gradient, with $S$ the sum of squares over all "
            "other responses.",
        ),
        define(
            inner,
            -p_w * (1 - p_w) - p_l * (1 - p_l) + squares,
            "This is the product of the chosen response's gradient with the rejected one's.",
        ),
        equal(norm - inner, 1 - p_w + p_l, "All other terms cancel in the difference of the two."),
        equal(
            1 - p_w + p_l,
            (2 * sp.exp(z_l) + sp.exp(z_o) + rest) / total(z_w, z_l, z_o),
            "The difference is this quotient.",
        ),
        positive(
            (2 * sp.exp(z_l) + sp.exp(z_o) + rest) / total(z_w, z_l, z_o),
            "The quotient is positive. So in a tabular softmax a loss of the margin never lowers the chosen "
            "response of its one pair.",
        ),
    ),
    assumptions=("The derivation takes the first order in the step size, one pair, and plain gradient descent.",),
)

K = sp.Symbol("K", integer=True, positive=True)
y = sp.Symbol("y", integer=True)
Z = sp.Symbol("Z", positive=True)
base, policy, reference = (sp.Function(name, positive=True) for name in (r"\mu", r"\pi", r"\mathrm{ref}"))
reward = sp.Function("r", real=True)


def over(term: sp.Expr) -> sp.Sum:
    """The sum over all responses, index ``y``."""
    return sp.Sum(term, (y, 1, K))


dpo_nll = Derivation(
    name="dpo_nll",
    title="DPO + NLL: the chosen response is also learnt",
    steps=(
        *MARGIN,
        define(u, -sp.log(sigma(beta * D)), "This is DPO's loss, which sees only the margin."),
        define(v, -l_w / n_w, "This is the supervised loss of the chosen response, a mean per token."),
        define(loss, u + alpha * v, r"The loss adds the two with the weight $\alpha$."),
        equal(loss, -sp.log(sigma(beta * D)) - alpha * l_w / n_w, "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * D) - alpha / n_w,
            "The chosen response is still pulled up when the margin is already large.",
        ),
        equal(sp.Derivative(loss, l_l), beta * sigma(-beta * D), "The pull on the rejected response is DPO's."),
        equal(
            L(l_w + c, l_l + c),
            loss - alpha * c / n_w,
            "If both responses fall by the same amount, DPO's loss does not change, while this loss rises with "
            "every nat.",
        ),
        equal(L(r_w, r_l), sp.log(2) - alpha * r_w / n_w, "At the reference the loss has this value."),
        assume(
            over(base(y)),
            sp.Integer(1),
            "The next lines give a reason for such a term. Suppose that the reward is in doubt. Among the rewards "
            r"that fit the pairs, take the one for which RLHF's optimum gains least on a policy $\mu$ that is known "
            "to be safe, such as the one that wrote the chosen responses.",
        ),
        define(
            reward(y),
            beta * sp.log(policy(y) / reference(y)) + beta * sp.log(Z),
            r"The policy $\pi$ is RLHF's optimum for this reward. The value of the optimum is $\beta \log Z$, as "
            "RLHF's proof shows.",
        ),
        equal(
            beta * sp.log(Z) - over(base(y) * reward(y)),
            -beta * over(base(y) * sp.log(policy(y))) + beta * over(base(y) * sp.log(reference(y))),
            r"The gain on the mean reward of $\mu$ is $\beta$ times the supervised loss of $\mu$'s responses, plus "
            "a number that does not depend on the policy. So this doubt is a supervised term, which is a sum over "
            "tokens where the code has a mean.",
        ),
        argue(
            r"\min_r\left\{\eta\, \mathcal{L}_{\mathrm{BT}}(r) + \max_\pi J_r(\pi) - \mathbb{E}_{\mu}[r]\right\} = "
            r"\min_\pi\left\{\eta\, \mathcal{L}_{\mathrm{DPO}}(\pi) - "
            r"\beta\, \mathbb{E}_{\mu}[\log \pi]\right\} + \text{const}",
            r"Let $\eta$ weigh the fit to the pairs, which is Bradley-Terry's loss, against that gain. Each reward "
            "has its optimal policy, and in terms of it the fit is DPO's loss. So DPO + NLL finds the least "
            r"favourable reward, with $\alpha = \beta / \eta$ on sums.",
        ),
    ),
    assumptions=("The last lines assume one prompt with a finite number $K$ of responses, and a tabular policy.",),
)

dpop = Derivation(
    name="dpop",
    title="DPO-Positive: a chosen response below the reference is charged",
    steps=(
        *MARGIN,
        define(
            kept,
            D - lam * relu(r_w - l_w),
            r"This is the margin less $\lambda$ for each nat that the chosen response has lost.",
        ),
        define(loss, -sp.log(sigma(beta * kept)), "The loss is DPO's on that margin."),
        equal(
            loss, -sp.log(sigma(beta * (D - lam * relu(r_w - l_w)))), "The toolkit implements this form of the loss."
        ),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * kept) * (1 + lam * indicator(r_w - l_w)),
            r"Below the reference the chosen response is raised $1 + \lambda$ times as hard as by DPO at that "
            "margin.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            beta * sigma(-beta * kept),
            "The rejected response is lowered as by DPO at that margin.",
        ),
        equal(
            sp.Derivative(loss, l_w) + sp.Derivative(loss, l_l),
            -beta * lam * sigma(-beta * kept) * indicator(r_w - l_w),
            "DPO's two pulls cancel where both responses move together. These pulls do not cancel: they raise both "
            "responses until the chosen one is back at the reference.",
        ),
        equal(L(r_w, r_l), sp.log(2), "At the reference the loss is DPO's."),
        equal(
            L(r_w - q, r_l - q),
            sp.log(1 + sp.exp(beta * lam * q)),
            r"If both responses fall by $q > 0$ nats, DPO's loss stays at $\log 2$, while this loss rises.",
        ),
    ),
    assumptions=("Where policy and reference agree on the chosen response, the derivative is taken from one side.",),
)
