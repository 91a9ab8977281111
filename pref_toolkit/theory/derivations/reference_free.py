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
        define(p_w, sp.exp(l_w / n_w), "This is the chosen response's probability per token, as a geometric mean."),
        define(p_l, sp.exp(l_l / n_l), "This is the rejected response's probability per token."),
        define(odds(t), sp.exp(t) / (1 - sp.exp(t)), "These are the odds of an event with log-probability $t$."),
        define(
            log_odds(t),
            t - sp.log(1 - sp.exp(t)),
            "This is the logarithm of the odds, in the form that the code computes.",
        ),
        equal(sp.log(odds(t)), log_odds(t), "The logarithm of the odds has this form."),
        define(g, log_odds(l_w / n_w) - log_odds(l_l / n_l), "This is the logarithm of the ratio of the two odds."),
        define(
            loss,
            -sp.log(p_w) + lam * sp.log(1 + odds(l_l / n_l) / odds(l_w / n_w)),
            "The loss is the supervised loss of the chosen response, and a penalty on the rejected response's odds "
            "against it.",
        ),
        equal(loss, -l_w / n_w - lam * sp.log(sigma(g)), "The toolkit implements this form of the loss."),
        equal(
            sp.Derivative(log_odds(t), t),
            1 / (1 - sp.exp(t)),
            r"The slope of the log-odds grows without bound as $t \to 0$.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -1 / n_w - lam * sigma(-g) / (n_w * (1 - p_w)),
            "The chosen response is always raised, and raised more than by the supervised term alone.",
        ),
        equal(
            sp.Derivative(loss, l_l),
            lam * sigma(-g) / (1 - p_l) / n_l,
            "The rejected response is lowered, and lowered harder if it is likelier.",
        ),
        equal(
            L(c * n_w, c * n_l),
            -c + lam * sp.log(2),
            "Where both means are the same, the loss has this value.",
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
        define(
            L(l), -l / divisor(n_w), "The loss of one response is divided by $c$, which is 1 or its number of tokens."
        ),
        equal(L(l), -l / divisor(n_w), "The toolkit implements this form of the loss."),
        equal(sp.Derivative(L(l), l), -1 / divisor(n_w), "The response is always raised."),
        assume(over(data(y)), sp.Integer(1), "The data draw response $y$ with probability $p(y)$."),
        assume(over(policy(y)), sp.Integer(1), "The policy is a distribution."),
        define(cost, -over(data(y) * sp.log(policy(y))), "This is the expected loss of a sum, for which $c = 1$."),
        define(entropy, -over(data(y) * sp.log(data(y))), "This is the entropy of the data."),
        define(
            bent(u),
            u - 1 - sp.log(u),
            "This function of $u > 0$ is 0 at 1 and above 0 elsewhere, as RLHF's proof shows.",
        ),
        equal(
            cost,
            entropy + over(data(y) * bent(policy(y) / data(y))),
            "The expected loss is the entropy plus an average of values of this function. So it is least where the "
            "policy is the distribution of the data, and only there.",
        ),
        define(
            n_0, over(data(y) / length(y)), "A mean per token has $c = n$. This is the mean of $1 / n$ over the data."
        ),
        define(learned(y), data(y) / length(y) / n_0, "This is the distribution of the data, tilted by $1 / n$."),
        equal(over(learned(y)), sp.Integer(1), "The tilted probabilities sum to 1, so this is a distribution."),
        define(
            per_token, -over(data(y) * sp.log(policy(y)) / length(y)), "This is the expected loss of a mean per token."
        ),
        equal(
            per_token,
            n_0 * (-over(learned(y) * sp.log(learned(y))) + over(learned(y) * bent(policy(y) / learned(y)))),
            "This loss is least where the policy is the tilted distribution. So means per token learn to prefer "
            "short responses, by $1 / n$.",
        ),
    ),
    assumptions=(
        "The lines on the policy assume one prompt with a finite number $K$ of responses, and a tabular policy.",
    ),
    choices={
        "response": define(divisor(n), sp.Integer(1), "This choice is a sum over tokens."),
        "token": define(divisor(n), n, "This choice is a mean over tokens."),
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
            rho_w,
            l_w - r,
            "Let the reference give the same log-probability $r$ to both responses. This is the chosen "
            "response's log-ratio.",
        ),
        define(rho_l, l_l - r, "This is the rejected response's log-ratio."),
        define(
            loss,
            -sp.log(sigma(beta * (rho_w - rho_l))) - alpha * l_w / n_w,
            "The loss is DPO's, and the supervised loss of the chosen response takes the place of the missing pull "
            "to the reference.",
        ),
        equal(
            loss,
            -sp.log(sigma(beta * (l_w - l_l))) - alpha * l_w / n_w,
            "The reference drops out, and the toolkit implements this form of the loss.",
        ),
        equal(
            sp.Derivative(loss, l_w),
            -beta * sigma(-beta * (l_w - l_l)) - alpha / n_w,
            "The chosen response is raised even where the pair is won.",
        ),
        equal(
            sp.Derivative(loss, l_l), beta * sigma(-beta * (l_w - l_l)), "The rejected response is lowered as in DPO."
        ),
        equal(L(t, t), sp.log(2) - alpha * t / n_w, "If the two responses are equally likely, the loss is this."),
        define(
            with_lead(x, lead),
            -sp.log(sigma(x - lead)),
            r"Now take a reference that is as good as the data, and that prefers the chosen response by $d / \beta$ "
            r"nats. If the policy leads by $x / \beta$, DPO's loss is this.",
        ),
        equal(
            sp.exp(with_lead(x, 0) + lead) - sp.exp(with_lead(x, lead)),
            sp.exp(lead) - 1,
            "The exponential of CPO's preference loss plus $d$ exceeds the exponential of that loss by this.",
        ),
        positive(
            sp.exp(lead) - 1,
            "The excess is positive. So CPO's loss bounds DPO's against an ideal reference from above, but for the "
            "number $d$, which does not depend on the policy. The bound is tight for pairs that are ranked far "
            "wrong. The supervised term is least at the distribution of the data, as SFT's derivation shows.",
        ),
    ),
)
