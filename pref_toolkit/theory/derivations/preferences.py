"""Preferences: the models of Bradley and Terry for pairs, of Plackett and Luce for rankings, and their likelihoods."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, define, equal, positive
from pref_toolkit.theory.derivations.symbols import L, s_l, s_w, sigma

c, m, d = sp.symbols("c m d", real=True)
N_w, N_l = sp.symbols("N_w N_l", positive=True)
P = sp.Function("P", positive=True)
ell = sp.Function(r"\ell", real=True)

loss = L(s_w, s_l)
gap = s_w - s_l - m

bradley_terry = Derivation(
    name="bradley_terry",
    title="Bradley-Terry: from scores to probabilities to a loss",
    steps=(
        define(
            P(s_w, s_l),
            sp.exp(s_w) / (sp.exp(s_w) + sp.exp(s_l)),
            "This is the chance that a response with score $s_w$ is preferred to one with score $s_l$.",
        ),
        equal(
            P(s_w, s_l),
            sigma(s_w - s_l),
            "Dividing numerator and denominator by $e^{s_w}$ shows that only the difference of the scores matters.",
        ),
        equal(P(s_w, s_l) / P(s_l, s_w), sp.exp(s_w - s_l), "The odds are the exponential of the difference."),
        equal(
            P(s_w + c, s_l + c),
            P(s_w, s_l),
            "Scores are identified only up to a shift: adding the same $c$ to every score of a prompt changes no "
            "probability.",
        ),
        define(
            loss,
            -sp.log(P(s_w - m, s_l)),
            "The loss is the negative log-likelihood, and the winner must win by a margin $m$.",
        ),
        equal(loss, -sp.log(sigma(s_w - s_l - m)), "The toolkit implements this form of the loss of a pair."),
        equal(
            sp.Derivative(loss, s_w),
            -sigma(-gap),
            "Descent raises the winner's score by the probability that the model gives to the mistake.",
        ),
        equal(sp.Derivative(loss, s_l), sigma(-gap), "Descent lowers the loser's score by the same amount."),
        equal(
            sp.Derivative(loss, s_w) + sp.Derivative(loss, s_l),
            sp.Integer(0),
            "A shift changes nothing, so the gradient along a shift is zero.",
        ),
        equal(
            sp.Derivative(loss, (s_w, 2)),
            sigma(gap) * sigma(-gap),
            "The second derivative is the variance of the outcome.",
        ),
        positive(
            sigma(gap) * sigma(-gap),
            "It is positive, so the loss is convex in the difference and has at most one minimum there.",
        ),
        define(
            ell(d),
            N_w * sp.log(sigma(d)) + N_l * sp.log(sigma(-d)),
            "This is the log-likelihood of $N_w$ wins and $N_l$ losses at the difference $d = s_w - s_l$.",
        ),
        equal(
            sp.Derivative(ell(d), d),
            N_w - (N_w + N_l) * sigma(d),
            "Its slope is the number of wins seen minus the number expected.",
        ),
        equal(
            sp.Subs(sp.Derivative(ell(d), d), d, sp.log(N_w / N_l)),
            sp.Integer(0),
            "The slope is zero where the model's odds are the observed odds.",
        ),
        argue(
            r"N_l \to 0 \implies \hat d = \log\frac{N_w}{N_l} \to \infty",
            "If no loss is observed, the estimate has no finite value: a preference that is never contradicted "
            "asks for an infinite difference. DPO inherits this.",
        ),
    ),
    assumptions=("Comparisons are independent given the scores.",),
)

K = sp.Symbol("K", integer=True, positive=True)
i, j = sp.symbols("i j", integer=True)
t = sp.Symbol("t", real=True)
score, g = (sp.Function(name, real=True) for name in "sg")
total, first = (sp.Function(name, positive=True) for name in "Zp")


def over(index: sp.Symbol, term: sp.Expr) -> sp.Sum:
    """The sum over the ``K`` responses that are left, with this index."""
    return sp.Sum(term, (index, 1, K))


s_1, s_2, s_3 = sp.symbols("s_1 s_2 s_3", real=True)
ranked = L(s_1, s_2, s_3)
all_three = sp.exp(s_1) + sp.exp(s_2) + sp.exp(s_3)
last_two = sp.exp(s_2) + sp.exp(s_3)

plackett_luce = Derivation(
    name="plackett_luce",
    title="Plackett-Luce: a ranking is a sequence of choices",
    steps=(
        define(
            P(s_1, s_2, s_3),
            sp.exp(s_1) / all_three * sp.exp(s_2) / last_two,
            "The first response is chosen among all three, and the second among the two that are left. The third "
            "has no rival.",
        ),
        equal(
            P(s_1, s_2, s_3)
            + P(s_1, s_3, s_2)
            + P(s_2, s_1, s_3)
            + P(s_2, s_3, s_1)
            + P(s_3, s_1, s_2)
            + P(s_3, s_2, s_1),
            sp.Integer(1),
            "The probabilities of the six rankings sum to 1.",
        ),
        equal(
            P(s_1, s_2, s_3) + P(s_1, s_3, s_2) + P(s_3, s_1, s_2),
            sigma(s_1 - s_2),
            "Two responses are ordered as Bradley-Terry's model says, whatever the third is worth.",
        ),
        define(ranked, -sp.log(P(s_1, s_2, s_3)), "The loss is the negative log-likelihood of the ranking."),
        equal(
            ranked,
            -(s_1 - sp.log(all_three)) - (s_2 - sp.log(last_two)),
            "The toolkit implements this form of the loss, here for three responses.",
        ),
        equal(
            sp.Derivative(ranked, s_1),
            sp.exp(s_1) / all_three - 1,
            "At each choice descent raises the score of the response chosen, by the probability that it lacked.",
        ),
        equal(
            sp.Derivative(ranked, s_2),
            sp.exp(s_2) / all_three + sp.exp(s_2) / last_two - 1,
            "At each choice descent lowers the score of each other response, by its own probability.",
        ),
        equal(
            sp.Derivative(ranked, s_3),
            sp.exp(s_3) / all_three + sp.exp(s_3) / last_two,
            "The last response loses twice, so its score is lowered twice.",
        ),
        equal(
            P(c, c, c), sp.Rational(1, 6), r"Equal scores make all rankings equally likely, so the loss is $\log 3!$."
        ),
        define(
            total(t),
            over(j, sp.exp(score(j) + t * g(j))),
            "The next lines hold for any number of responses. Let $K$ responses with scores $s(i)$ be left at some "
            "choice, and let $t$ move the scores at the rates $g(i)$.",
        ),
        define(first(i, t), sp.exp(score(i) + t * g(i)) / total(t), "This is the chance that $i$ is the one chosen."),
        equal(
            over(i, first(i, t)),
            sp.Integer(1),
            "One response is chosen. This holds at every choice, so the probabilities of all rankings sum to 1, "
            "whatever $K$ is.",
        ),
        equal(
            sp.log(first(i, t) / first(j, t)),
            score(i) - score(j) + t * (g(i) - g(j)),
            "The odds of two responses do not depend on the others.",
        ),
        equal(
            -sp.Derivative(sp.log(first(i, t)), t),
            over(j, first(j, t) * g(j)) - g(i),
            "This is the slope of one choice's loss. With $g = 1$ at one response and 0 elsewhere it is that "
            "response's chance, less 1 if it is the one chosen. The loss of a ranking is the sum over its choices, "
            "and so is its gradient.",
        ),
    ),
    assumptions=(
        "The lines that name responses are written out for three responses, and the last five hold for any number.",
        "Each choice among those left depends on their scores alone.",
    ),
)
