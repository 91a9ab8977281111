"""Losses without a reference: supervised learning alone, and ORPO and CPO, which keep it as a term."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, assume, define, equal, positive
from pref_toolkit.theory.derivations.symbols import L, alpha, beta, lam, n_l, n_w, sigma

# Odds need probabilities strictly below 1.
l_w, l_l, t, c = sp.symbols("l_w l_l t c", negative=True)
p_w, p_l = sp.symbols("p_w p_l", positive=True)
g = sp.Symbol("g", real=True)
odds, log_odds = (sp.Function(name, real=True) for name in (r"\mathrm{odds}", r"\mathrm{logodds}"))

loss = L(l_w, l_l)

orpo = Derivation(
    name="orpo",
    title="ORPO: supervised tuning plus the odds ratio of the two responses",
    steps=(
        define(p_w, sp.exp(l_w / n_w), "The chosen response's probability per token, as a geometric mean."),
        define(p_l, sp.exp(l_l / n_l), "The rejected one's."),
        define(odds(t), sp.exp(t) / (1 - sp.exp(t)), "The odds of something with log-probability $t$,"),
        define(log_odds(t), t - sp.log(1 - sp.exp(t)), "and their logarithm:"),
        equal(sp.log(odds(t)), log_odds(t), "it is what the code computes."),
        define(g, log_odds(l_w / n_w) - log_odds(l_l / n_l), "The logarithm of the ratio of odds."),
        define(
            loss,
            -sp.log(p_w) + lam * sp.log(1 + odds(l_l / n_l) / odds(l_w / n_w)),
            "The supervised loss of the chosen response, and a penalty on the rejected one's odds against it.",
        ),
        equal(loss, -l_w / n_w - lam * sp.log(sigma(g)), "The loss, as implemented."),
        equal(
            sp.Derivative(log_odds(t), t),
            1 / (1 - sp.exp(t)),
            "The slope of the log-odds grows without bound as $t \\to 0$.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -1 / n_w - lam * sigma(-g) / (n_w * (1 - p_w)),
            "The chosen response is lifted, always more than by the supervised term alone;",
        ),
        equal(
            sp.Derivative(loss, l_l),
            lam * sigma(-g) / (1 - p_l) / n_l,
            "the rejected one is lowered, and harder if it is likelier.",
        ),
        equal(
            L(c * n_w, c * n_l),
            -c + lam * sp.log(2),
            "Where both means are the same.",
        ),
    ),
    assumptions=("No response has probability 1.",),
)

l = sp.Symbol("l", real=True)  # noqa: E741  the papers' letter
K = sp.Symbol("K", integer=True, positive=True)
y = sp.Symbol("y", integer=True)
u, n, n_0 = sp.symbols("u n N", positive=True)
cost, entropy, per_token = sp.symbols("C H C_n", real=True)
data, policy, learned, length = (sp.Function(name, positive=True) for name in ("p", r"\pi", "q", "n"))
divisor, bent = sp.Function("c", positive=True), sp.Function("f", real=True)


def over(term: sp.Expr) -> sp.Sum:
    """The sum over all responses, index ``y``."""
    return sp.Sum(term, (y, 1, K))


sft = Derivation(
    name="sft",
    title="Supervised fine-tuning: the most likely policy",
    steps=(
        define(L(l), -l / divisor(n_w), "The loss of one response, divided by $c$: 1, or its number of tokens."),
        equal(L(l), -l / divisor(n_w), "The loss, as implemented."),
        equal(sp.Derivative(L(l), l), -1 / divisor(n_w), "The response is lifted, always."),
        assume(over(data(y)), sp.Integer(1), "The data draw response $y$ with probability $p(y)$."),
        assume(over(policy(y)), sp.Integer(1), "The policy is a distribution."),
        define(cost, -over(data(y) * sp.log(policy(y))), "The expected loss of a sum, $c = 1$,"),
        define(entropy, -over(data(y) * sp.log(data(y))), "and the entropy of the data."),
        define(
            bent(u),
            u - 1 - sp.log(u),
            "This function of $u > 0$ is 0 at 1 and above 0 elsewhere, as RLHF's proof shows.",
        ),
        equal(
            cost,
            entropy + over(data(y) * bent(policy(y) / data(y))),
            "The expected loss is the entropy and an average of its values: least where the policy is the data's "
            "distribution, and only there.",
        ),
        define(n_0, over(data(y) / length(y)), "With a mean per token, $c = n$: the mean of $1 / n$ over the data,"),
        define(learned(y), data(y) / length(y) / n_0, "and the data's distribution, tilted by it."),
        equal(over(learned(y)), sp.Integer(1), "It is a distribution,"),
        define(per_token, -over(data(y) * sp.log(policy(y)) / length(y)), "and the expected loss"),
        equal(
            per_token,
            n_0 * (-over(learned(y) * sp.log(learned(y))) + over(learned(y) * bent(policy(y) / learned(y)))),
            "is least where the policy is that one: means per token learn to prefer short responses, by $1 / n$.",
        ),
    ),
    assumptions=(
        "For the lines on the policy: one prompt with a finite number $K$ of responses, and a tabular policy.",
    ),
    choices={
        "response": define(divisor(n), sp.Integer(1), "A sum over tokens."),
        "token": define(divisor(n), n, "A mean over tokens."),
    },
)

r = sp.Symbol("r", real=True)
rho_w, rho_l = sp.symbols("rho_w rho_l", real=True)

lead, x = sp.Symbol("d", positive=True), sp.Symbol("x", real=True)
with_lead = sp.Function(r"\mathcal{D}", real=True)

cpo = Derivation(
    name="cpo",
    title="CPO: DPO with a reference that likes all responses equally",
    steps=(
        define(
            rho_w, l_w - r, "Let the reference give the same log-probability $r$ to both responses: to the chosen one"
        ),
        define(rho_l, l_l - r, "and to the rejected one."),
        define(
            loss,
            -sp.log(sigma(beta * (rho_w - rho_l))) - alpha * l_w / n_w,
            "DPO's loss, and the supervised loss of the chosen response in the place of the missing pull to the "
            "reference.",
        ),
        equal(
            loss,
            -sp.log(sigma(beta * (l_w - l_l))) - alpha * l_w / n_w,
            "The reference drops out. The loss, as implemented.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * (l_w - l_l)) - alpha / n_w,
            "The chosen response is lifted even where the pair is won;",
        ),
        equal(sp.Derivative(loss, l_l), beta * sigma(-beta * (l_w - l_l)), "the rejected one is lowered as in DPO."),
        equal(L(t, t), sp.log(2) - alpha * t / n_w, "Two responses that are equally likely."),
        define(
            with_lead(x, lead),
            -sp.log(sigma(x - lead)),
            "Now a reference that is as good as the data, and prefers the chosen response: its own lead is $d / \\beta$ nats. "
            "DPO's loss, where the policy leads by $x / \\beta$, is this;",
        ),
        equal(
            sp.exp(with_lead(x, 0) + lead) - sp.exp(with_lead(x, lead)),
            sp.exp(lead) - 1,
            "exponentials of CPO's preference loss plus $d$, and of that loss",
        ),
        positive(
            sp.exp(lead) - 1,
            "differ by something positive. So CPO's loss bounds DPO's against an ideal reference from above, but for the "
            "number $d$, which does not depend on the policy. The bound is tight for pairs that are ranked far wrong. The "
            "supervised term is least at the distribution of the data, as SFT's derivation shows.",
        ),
    ),
)
