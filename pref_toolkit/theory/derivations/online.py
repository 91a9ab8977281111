"""Methods that draw from the policy: RSO's selection, online IPO's fixed point, Nash-MD's step, XPO's bonus."""

from __future__ import annotations

import sympy as sp

from pref_toolkit.theory.derivations.derivation import Derivation, argue, assume, define, equal
from pref_toolkit.theory.derivations.symbols import D, beta, tau

K = sp.Symbol("K", integer=True, positive=True)
y, i, j = sp.symbols("y i j", integer=True)
Z, A = sp.symbols("Z A", positive=True)
t, M, h, p, log_ratio, V = sp.symbols("t M h p rho V", real=True)
mean_rho = sp.Symbol(r"\bar{\rho}", real=True)
eta = sp.Symbol("eta", positive=True)
ref, kept, best, accept, mu = (
    sp.Function(n, positive=True) for n in (r"\mathrm{ref}", r"\pi_{\mathrm{kept}}", r"\pi^{*}", "a", r"\mu")
)
r, z, g, w, rho = (sp.Function(n, real=True) for n in ("r", "z", "g", "w", r"\rho"))
pi = sp.Function(r"\pi", positive=True)
partition, chance = sp.Function("Z", positive=True), sp.Function("p", positive=True)
label, expected = sp.Function("q", real=True), sp.Function(r"\mathcal{E}", real=True)
lead_u, lead_v, table, F, G = (sp.Function(n, real=True) for n in ("u", "v", "A", "F", "F'"))
other = sp.Function(r"\pi'", positive=True)
policy = sp.Function(r"\pi_1", positive=True)
c = sp.Symbol("c", real=True)


def over(index: sp.Symbol, term: sp.Expr) -> sp.Sum:
    """The sum over all responses, with this index."""
    return sp.Sum(term, (index, 1, K))


rso = Derivation(
    name="rso",
    title="RSO: the distribution of the draws that rejection sampling keeps",
    steps=(
        define(
            accept(y),
            sp.exp((r(y) - M) / beta),
            "A response drawn from the reference is kept with this probability; $M$ is the highest reward.",
        ),
        argue(r"a(y) \le 1 \quad\text{as}\quad r(y) \le M", "It is a probability, if no response has a higher reward."),
        define(A, over(y, ref(y) * accept(y)), "The share of draws that is kept."),
        define(kept(y), ref(y) * accept(y) / A, "The distribution of the kept draws."),
        define(Z, over(y, ref(y) * sp.exp(r(y) / beta)), "The partition function of RLHF."),
        define(best(y), ref(y) * sp.exp(r(y) / beta) / Z, "The optimum of RLHF."),
        equal(over(y, kept(y)), sp.Integer(1), "Its probabilities sum to 1."),
        equal(kept(y), best(y), "It is that optimum, without a policy being trained, whatever $M$ is."),
        equal(
            A,
            sp.exp((beta * sp.log(Z) - M) / beta),
            "The further $M$ lies above $\\beta \\log Z$, the value of the optimum, the fewer draws are kept.",
        ),
        argue(
            r"\beta \to \infty:\; a \to 1, \qquad \beta \to 0:\; a(y) \to 0 \text{ where } r(y) < M",
            "A large $\\beta$ keeps every draw, a small one only the best response.",
        ),
    ),
    assumptions=(
        "One prompt with a finite number $K$ of responses, rewards known, draws with replacement and without end.",
    ),
)

online_ipo = Derivation(
    name="online_ipo",
    title="Online IPO and IPO-MD: where the policy comes to rest",
    steps=(
        define(h, 1 / (2 * tau), "IPO's target for the margin."),
        define(
            label(D, p),
            p * (D - h) ** 2 + (1 - p) * (-D - h) ** 2,
            "IPO's loss of two responses at margin $D$, of which the first is preferred with probability $p$, in the "
            "mean over the label.",
        ),
        equal(label(-D, 1 - p), label(D, p), "It does not matter which of the two is named first."),
        assume(over(j, mu(j)), sp.Integer(1), "Both responses of a pair are drawn from $\\mu$, whatever that is."),
        define(
            expected(log_ratio),
            over(j, mu(j) * label(log_ratio - rho(j), chance(i, j))),
            "The expected loss of response $i$ at log-ratio $\\rho$ against an opponent $j$ from $\\mu$. No gradient flows "
            "through the draws.",
        ),
        define(w(i), over(j, chance(i, j) * mu(j)), "How often $i$ beats a draw from $\\mu$."),
        define(mean_rho, over(j, mu(j) * rho(j)), "The mean log-ratio of a draw."),
        equal(
            sp.Derivative(expected(log_ratio), log_ratio),
            2 * (log_ratio - mean_rho) - (2 * w(i) - 1) / tau,
            "The slope in the log-ratio of $i$.",
        ),
        equal(
            sp.Subs(
                sp.Derivative(expected(log_ratio), log_ratio), log_ratio, mean_rho + (w(i) - sp.Rational(1, 2)) / tau
            ),
            sp.Integer(0),
            "It is zero for every response $i$ where each log-ratio is $w(i) / \\tau$, up to one constant.",
        ),
        argue(
            r"\sum_i \mu(i)\, w(i) = \tfrac12 \quad\text{since}\quad p(i, j) + p(j, i) = 1",
            "Such log-ratios exist: their mean under $\\mu$ is $\\bar\\rho$, as it has to be, because of two draws from $\\mu$ "
            "each is the winner half the time.",
        ),
        argue(
            r"\pi(i) \;\propto\; \mathrm{ref}(i)\, e^{w(i) / \tau}",
            "So there the policy is the reference tilted by the chance to beat $\\mu$. With $\\mu$ fixed this is "
            "IPO's optimum; with $\\mu = \\pi$ it is online IPO's, with the mixture of $\\pi$ and the reference "
            "IPO-MD's. In the last two $w$ depends on $\\pi$, and the line is an equation to be solved.",
        ),
        assume(over(j, policy(j)), sp.Integer(1), "The game: $\\pi_1$ is a policy"),
        assume(over(j, other(j)), sp.Integer(1), "and $\\pi'$ another one."),
        define(
            table(i, j),
            lead_u(i) * lead_v(j) - lead_v(i) * lead_u(j),
            "The preferences $p(i, j) - 1/2$ change their sign when $i$ and $j$ are swapped. Any such table is a sum of "
            "tables of this form; one is written out, and every line below is linear in it.",
        ),
        equal(table(i, j) + table(j, i), sp.Integer(0), "It changes its sign."),
        define(
            F(i),
            over(j, (sp.Rational(1, 2) + table(i, j)) * policy(j)) - tau * sp.log(policy(i) / ref(i)),
            "A response's chance to beat $\\pi_1$, less $\\tau$ times its log-ratio. Online IPO rests where this is "
            "the same number for all responses.",
        ),
        define(
            G(i),
            over(j, (sp.Rational(1, 2) + table(i, j)) * other(j)) - tau * sp.log(other(i) / ref(i)),
            "The same for $\\pi'$.",
        ),
        equal(
            over(i, other(i) * (c + tau * sp.log(policy(i) / ref(i)) - tau * sp.log(other(i) / ref(i)))),
            c - tau * over(i, other(i) * sp.log(other(i) / policy(i))),
            "Where $F = c$, a policy $\\pi'$ that plays against $\\pi_1$ wins this much, less its own divergence from the "
            "reference: most with $\\pi' = \\pi_1$. So the rest point is a Nash equilibrium of the game with that penalty.",
        ),
        equal(
            over(i, (policy(i) - other(i)) * over(j, table(i, j) * (policy(j) - other(j)))),
            sp.Integer(0),
            "Between two policies the preferences cancel,",
        ),
        equal(
            over(i, (policy(i) - other(i)) * (F(i) - G(i))),
            -tau
            * (over(i, policy(i) * sp.log(policy(i) / other(i))) + over(i, other(i) * sp.log(other(i) / policy(i)))),
            "and only the two divergences are left: the game is strictly monotone.",
        ),
        argue(
            r"F = c,\; F' = c' \;\implies\; \pi_1 = \pi'",
            "If both are rest points the left side is $(c - c')(1 - 1) = 0$, so both divergences are 0: "
            "online IPO has one rest point.",
        ),
    ),
    assumptions=(
        "One prompt with a finite number $K$ of responses, a tabular policy, and the population of pairs.",
        "Pairs are drawn anew all the time, but no gradient flows through the draw.",
    ),
)

step, lead, played = (sp.Function(n, positive=True) for n in (r"\pi_{+}", "q", "m"))
nash_md = Derivation(
    name="nash_md",
    title="Nash-MD: a step of mirror descent from the mixture, and where it comes to rest",
    steps=(
        define(
            Z,
            over(i, sp.exp((1 - eta * tau) * sp.log(policy(i)) + eta * tau * sp.log(ref(i)))),
            "The opponent is the geometric mixture of policy and reference, with a share $\\eta\\tau$ of the reference. Its "
            "normaliser",
        ),
        define(
            played(i),
            sp.exp((1 - eta * tau) * sp.log(policy(i)) + eta * tau * sp.log(ref(i))) / Z,
            "and the mixture itself.",
        ),
        argue(r"w(i) = \sum_j p(i, j)\, m(j)", "How often response $i$ beats it. No gradient flows through this."),
        define(A, over(i, played(i) * sp.exp(eta * w(i))), "The normaliser of the step"),
        define(step(i), played(i) * sp.exp(eta * w(i)) / A, "and the step: the mixture, tilted by the chance to win."),
        equal(over(i, played(i)), sp.Integer(1), "The mixture is a policy,"),
        equal(over(i, step(i)), sp.Integer(1), "and so is the step."),
        assume(over(i, lead(i)), sp.Integer(1), "Let $q$ be any policy."),
        equal(
            over(i, lead(i) * (eta * w(i) - sp.log(lead(i) / played(i)))),
            sp.log(A) - over(i, lead(i) * sp.log(lead(i) / step(i))),
            "Its chance to beat the mixture, times $\\eta$, less its divergence from the mixture, is largest at the step: "
            "the last sum is a divergence.",
        ),
        equal(
            sp.log(step(i) / policy(i)),
            eta * (w(i) - tau * sp.log(policy(i) / ref(i))) - sp.log(Z) - sp.log(A),
            "The step leaves the policy alone where the first bracket is the same number for all responses: IPO-MD's rest "
            "point, with a share $\\eta\\tau$ of the reference.",
        ),
        argue(
            r"\eta \to 0: \quad m \to \pi_1",
            "A shorter step has less of the reference in its opponent, and its rest point tends to that of online IPO, the "
            "Nash policy of the game with the penalty.",
        ),
    ),
    assumptions=("One prompt with a finite number $K$ of responses, a tabular policy, and the exact chance to win.",),
)

xpo = Derivation(
    name="xpo",
    title="XPO: the likelihood of the reference's responses measures how much a policy promises",
    steps=(
        define(
            partition(t),
            over(y, sp.exp(z(y) + t * g(y))),
            "A parameter $t$ of a softmax moves the logit of response $y$ by $g(y)$.",
        ),
        define(pi(y, t), sp.exp(z(y) + t * g(y)) / partition(t), "The policy."),
        define(
            r(y),
            beta * sp.log(pi(y, t) / ref(y)) + c,
            "The reward for which this policy would be the optimum of RLHF: known but for a number $c$.",
        ),
        define(V, beta * sp.log(over(y, ref(y) * sp.exp(r(y) / beta))), "The value of that optimum, $\\beta \\log Z$,"),
        equal(V, c, "is $c$."),
        assume(over(y, ref(y)), sp.Integer(1), "The reference is a policy,"),
        equal(
            V - over(y, ref(y) * r(y)),
            beta * over(y, ref(y) * sp.log(ref(y) / pi(y, t))),
            "and by this reward the optimum is worth that much more than the reference. So a policy promises the more, the "
            "less likely it makes the reference's responses.",
        ),
        equal(
            sp.Derivative(over(y, ref(y) * sp.log(pi(y, t))), t),
            over(y, (ref(y) - pi(y, t)) * g(y)),
            "XPO adds $\\alpha$ times the mean of $\\log \\pi$ over the reference's responses to the loss. Its descent raises "
            "the logits of what the policy writes more often than the reference does, and lowers the others.",
        ),
    ),
    assumptions=("One prompt with a finite number $K$ of responses, each of positive probability.",),
)
