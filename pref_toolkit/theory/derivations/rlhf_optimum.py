"""The optimum of RLHF's objective over a finite set of responses."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, assume, define, equal, nonnegative
from pref_toolkit.theory.derivations.symbols import beta

K = sp.Symbol("K", integer=True, positive=True)
y, i, j = sp.symbols("y i j", integer=True)
Z, t, x = sp.symbols("Z t x", positive=True)
J, KL = sp.symbols("J kl", real=True)
pi, ref, best = (sp.Function(n, positive=True) for n in (r"\pi", r"\mathrm{ref}", r"\pi^{*}"))
r = sp.Function("r", real=True)
f = sp.Function("f", real=True)


def over_responses(term: sp.Expr) -> sp.Sum:
    """The sum over all responses, index ``y``."""
    return sp.Sum(term, (y, 1, K))


rlhf = Derivation(
    name="rlhf",
    title="The policy that maximises reward minus beta times the divergence from the reference",
    steps=(
        assume(
            over_responses(pi(y)),
            sp.Integer(1),
            "The probabilities of any policy over the $K$ responses to one prompt sum to 1.",
        ),
        define(
            J,
            over_responses(pi(y) * (r(y) - beta * sp.log(pi(y) / ref(y)))),
            r"The objective is the expected reward minus $\beta$ times the divergence from the reference.",
        ),
        define(Z, over_responses(ref(y) * sp.exp(r(y) / beta)), "The partition function is a sum over every response."),
        define(
            best(y),
            ref(y) * sp.exp(r(y) / beta) / Z,
            "The candidate for the optimum is the reference, tilted by the reward.",
        ),
        equal(over_responses(best(y)), sp.Integer(1), "The candidate is a policy, because its probabilities sum to 1."),
        define(
            KL,
            over_responses(pi(y) * sp.log(pi(y) / best(y))),
            "This is the divergence of any policy from the candidate.",
        ),
        equal(J, beta * sp.log(Z) - beta * KL, "The objective is a constant minus that divergence."),
        define(
            f(t), t - 1 - sp.log(t), "A divergence is never negative. To see this, look at this function for $t > 0$."
        ),
        equal(f(sp.Integer(1)), sp.Integer(0), "The function is zero at 1."),
        nonnegative((t - 1) * (1 - 1 / t), "This product is never negative."),
        equal(
            (t - 1) * sp.Derivative(f(t), t),
            (t - 1) * (1 - 1 / t),
            "So the function falls before 1 and rises after it.",
        ),
        equal(
            KL, over_responses(pi(y) * f(best(y) / pi(y))), "The divergence is an average of values of the function."
        ),
        argue(
            r"J(\pi) \le \beta \log Z, \quad\text{with equality only at } \pi = \pi^{*}",
            "So every term of the divergence is at least zero, and all terms are zero only where the two policies "
            "agree. The candidate is the one optimum among policies that give every response a positive "
            "probability.",
        ),
        equal(
            sp.Derivative(x * (r(y) - beta * sp.log(x / ref(y))), x),
            r(y) - beta * sp.log(x / ref(y)) - beta,
            "One response's share in the objective, at probability $x$, has this slope.",
        ),
        argue(
            r"x \to 0:\quad x \log x \to 0, \qquad r(y) - \beta \log(x / \mathrm{ref}(y)) - \beta \to \infty",
            "Suppose that a policy never gives $y$, so that the term of $y$ is 0. Then the slope by the "
            "probability of $y$ is infinite, and the slope by a response that the policy gives is not. Moving a "
            "little probability to $y$ raises the objective, so no such policy is an optimum either.",
        ),
        equal(
            r(y),
            beta * sp.log(best(y) / ref(y)) + beta * sp.log(Z),
            r"The optimum gives the reward back, up to $\log Z$.",
        ),
        equal(
            r(i) - r(j),
            beta * sp.log(best(i) / ref(i)) - beta * sp.log(best(j) / ref(j)),
            "In a difference of rewards of one prompt $Z$ drops out. DPO starts here.",
        ),
    ),
    assumptions=(
        "There is one prompt with a finite number $K$ of responses, each of positive probability under the reference.",
        "Sums are finite, and nothing is said about infinitely many responses.",
    ),
)
