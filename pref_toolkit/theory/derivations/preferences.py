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
            "The chance that an answer with score $s_w$ is preferred to one with score $s_l$.",
        ),
        equal(
            P(s_w, s_l), sigma(s_w - s_l), "Divide above and below by $e^{s_w}$: only the difference of scores matters."
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
            "The loss is the negative log-likelihood; the winner must win by a margin $m$.",
        ),
        equal(loss, -sp.log(sigma(s_w - s_l - m)), "The loss of a pair, as implemented."),
        equal(
            sp.Derivative(loss, s_w),
            -sigma(-gap),
            "It lifts the winner's score by the probability the model gives to the mistake.",
        ),
        equal(sp.Derivative(loss, s_l), sigma(-gap), "It lowers the loser's by the same amount."),
        equal(
            sp.Derivative(loss, s_w) + sp.Derivative(loss, s_l),
            sp.Integer(0),
            "Since a shift changes nothing, the gradient along a shift is zero.",
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
            "Log-likelihood of $N_w$ wins and $N_l$ losses at difference $d = s_w - s_l$.",
        ),
        equal(
            sp.Derivative(ell(d), d),
            N_w - (N_w + N_l) * sigma(d),
            "Its gradient is the number of wins seen minus the number expected.",
        ),
        equal(
            sp.Subs(sp.Derivative(ell(d), d), d, sp.log(N_w / N_l)),
            sp.Integer(0),
            "It is zero where the model's odds are the observed odds.",
        ),
        argue(
            r"N_l \to 0 \implies \hat d = \log\frac{N_w}{N_l} \to \infty",
            "With no loss observed the estimate has no finite value: a preference never contradicted asks for an "
            "infinite difference. DPO inherits this.",
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
            "The first is chosen among all three, the second among the two that are left; the third has no rival.",
        ),
        equal(
            P(s_1, s_2, s_3)
            + P(s_1, s_3, s_2)
            + P(s_2, s_1, s_3)
            + P(s_2, s_3, s_1)
            + P(s_3, s_1, s_2)
            + P(s_3, s_2, s_1),
            sp.Integer(1),
            "These are the probabilities of the six rankings.",
        ),
        equal(
            P(s_1, s_2, s_3) + P(s_1, s_3, s_2) + P(s_3, s_1, s_2),
            sigma(s_1 - s_2),
            "Two responses are ordered as Bradley-Terry says, whatever the third is worth.",
        ),
        define(ranked, -sp.log(P(s_1, s_2, s_3)), "The loss is the negative log-likelihood of the ranking."),
        equal(
            ranked,
            -(s_1 - sp.log(all_three)) - (s_2 - sp.log(last_two)),
            "The loss, as implemented, for three responses.",
        ),
        equal(
            sp.Derivative(ranked, s_1),
            sp.exp(s_1) / all_three - 1,
            "At each choice the one chosen is lifted by the probability it lacked,",
        ),
        equal(
            sp.Derivative(ranked, s_2),
            sp.exp(s_2) / all_three + sp.exp(s_2) / last_two - 1,
            "and each of the others lowered by its own:",
        ),
        equal(
            sp.Derivative(ranked, s_3),
            sp.exp(s_3) / all_three + sp.exp(s_3) / last_two,
            "the last one loses twice.",
        ),
        equal(P(c, c, c), sp.Rational(1, 6), "Equal scores make all rankings equally likely: the loss is $\\log 3!$."),
        define(
            total(t),
            over(j, sp.exp(score(j) + t * g(j))),
            "Any number of responses. Let $K$ be left at some choice, with scores $s(i)$, and let $t$ move them by $g(i)$.",
        ),
        define(first(i, t), sp.exp(score(i) + t * g(i)) / total(t), "The chance of $i$ to be the one chosen."),
        equal(
            over(i, first(i, t)),
            sp.Integer(1),
            "One is chosen. This holds at every choice, so the probabilities of all rankings sum to 1, whatever $K$ is.",
        ),
        equal(
            sp.log(first(i, t) / first(j, t)),
            score(i) - score(j) + t * (g(i) - g(j)),
            "Of two responses, the odds do not depend on the others.",
        ),
        equal(
            -sp.Derivative(sp.log(first(i, t)), t),
            over(j, first(j, t) * g(j)) - g(i),
            "The slope of one choice's loss: with $g = 1$ at one response and 0 elsewhere, its own chance, less 1 if "
            "it is the one chosen. The loss of a ranking is the sum over its choices, and so is its gradient.",
        ),
    ),
    assumptions=(
        "The lines that name responses are written out for three; the last five hold for any number.",
        "Each choice among those left depends on their scores alone.",
    ),
)
