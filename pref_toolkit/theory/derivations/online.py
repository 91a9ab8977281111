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
            "Rejection sampling keeps a response drawn from the reference with this probability. $M$ is the "
            "highest reward.",
        ),
        argue(
            r"a(y) \le 1 \quad\text{as}\quad r(y) \le M",
            "This number is a probability if no response has a higher reward than $M$.",
        ),
        define(A, over(y, ref(y) * accept(y)), "This is the share of the draws that are kept."),
        define(kept(y), ref(y) * accept(y) / A, "This is the distribution of the kept draws."),
        define(Z, over(y, ref(y) * sp.exp(r(y) / beta)), "This is the partition function of RLHF."),
        define(best(y), ref(y) * sp.exp(r(y) / beta) / Z, "This is the optimum of RLHF."),
        equal(over(y, kept(y)), sp.Integer(1), "The probabilities of the kept draws sum to 1."),
        equal(
            kept(y),
            best(y),
            "The kept draws have the distribution of RLHF's optimum, whatever $M$ is, and no policy was trained.",
        ),
        equal(
            A,
            sp.exp((beta * sp.log(Z) - M) / beta),
            r"The further $M$ lies above $\beta \log Z$, the value of the optimum, the fewer draws are kept.",
        ),
        argue(
            r"\beta \to \infty:\; a \to 1, \qquad \beta \to 0:\; a(y) \to 0 \text{ where } r(y) < M",
            r"A large $\beta$ keeps every draw, and a small one keeps only the best response.",
        ),
    ),
    assumptions=(
        "There is one prompt with a finite number $K$ of responses. The rewards are known, and the draws are made "
        "with replacement and without end.",
    ),
)

online_ipo = Derivation(
    name="online_ipo",
    title="Online IPO and IPO-MD: where the policy comes to rest",
    steps=(
        define(h, 1 / (2 * tau), "This is IPO's target for the margin."),
        define(
            label(D, p),
            p * (D - h) ** 2 + (1 - p) * (-D - h) ** 2,
            "Two responses have the margin $D$, and the first is preferred with probability $p$. This is the mean "
            "of IPO's loss over the label.",
        ),
        equal(label(-D, 1 - p), label(D, p), "The mean loss is the same whichever response is named first."),
        assume(
            over(j, mu(j)),
            sp.Integer(1),
            r"Both responses of a pair are drawn from $\mu$, which may be any distribution.",
        ),
        define(
            expected(log_ratio),
            over(j, mu(j) * label(log_ratio - rho(j), chance(i, j))),
            r"Response $i$ has the log-ratio $\rho$, and its opponent $j$ is drawn from $\mu$. This is the expected "
            "loss of their pair. No gradient flows through the draws.",
        ),
        define(w(i), over(j, chance(i, j) * mu(j)), r"This is the chance that $i$ beats a draw from $\mu$."),
        define(mean_rho, over(j, mu(j) * rho(j)), r"This is the mean log-ratio of a draw from $\mu$."),
        equal(
            sp.Derivative(expected(log_ratio), log_ratio),
            2 * (log_ratio - mean_rho) - (2 * w(i) - 1) / tau,
            "The expected loss has this slope in the log-ratio of $i$.",
        ),
        equal(
            sp.Subs(
                sp.Derivative(expected(log_ratio), log_ratio), log_ratio, mean_rho + (w(i) - sp.Rational(1, 2)) / tau
            ),
            sp.Integer(0),
            r"The slope is zero for every response $i$ if each log-ratio is $w(i) / \tau$, up to one constant.",
        ),
        argue(
            r"\sum_i \mu(i)\, w(i) = \tfrac12 \quad\text{since}\quad p(i, j) + p(j, i) = 1",
            r"Such log-ratios exist. Of two draws from $\mu$ each wins half the time, so the mean of these "
            r"log-ratios under $\mu$ is $\bar\rho$, as it has to be.",
        ),
        argue(
            r"\pi(i) \;\propto\; \mathrm{ref}(i)\, e^{w(i) / \tau}",
            r"So IPO rests where the policy is the reference tilted by the chance to beat $\mu$. With $\mu$ fixed "
            r"this is IPO's optimum. With $\mu = \pi$ it is online IPO's rest point, and with the mixture of $\pi$ "
            r"and the reference it is IPO-MD's. In the last two cases $w$ depends on $\pi$, and the line is an "
            "equation to be solved.",
        ),
        assume(
            over(j, policy(j)),
            sp.Integer(1),
            r"The next lines are about a game of two policies. The first policy is $\pi_1$, whose probabilities sum "
            "to 1.",
        ),
        assume(over(j, other(j)), sp.Integer(1), r"The second policy is $\pi'$, whose probabilities sum to 1 as well."),
        define(
            table(i, j),
            lead_u(i) * lead_v(j) - lead_v(i) * lead_u(j),
            "The preferences $p(i, j) - 1/2$ change their sign when $i$ and $j$ are swapped. Any such table is a "
            "sum of tables of this form. We write out one of them, because every line below is linear in the "
            "table.",
        ),
        equal(table(i, j) + table(j, i), sp.Integer(0), "The table changes its sign when $i$ and $j$ are swapped."),
        define(
            F(i),
            over(j, (sp.Rational(1, 2) + table(i, j)) * policy(j)) - tau * sp.log(policy(i) / ref(i)),
            r"This is the chance of response $i$ to beat $\pi_1$, less $\tau$ times its log-ratio. Online IPO rests "
            "where this number is the same for all responses.",
        ),
        define(
            G(i),
            over(j, (sp.Rational(1, 2) + table(i, j)) * other(j)) - tau * sp.log(other(i) / ref(i)),
            r"This is the same quantity for $\pi'$.",
        ),
        equal(
            over(i, other(i) * (c + tau * sp.log(policy(i) / ref(i)) - tau * sp.log(other(i) / ref(i)))),
            c - tau * over(i, other(i) * sp.log(other(i) / policy(i))),
            r"Let $F$ be the same number $c$ for all responses, and let a policy $\pi'$ play against $\pi_1$. Its "
            r"chance to win, less $\tau$ times its divergence from the reference, is this, which is largest at "
            r"$\pi' = \pi_1$. So the rest point is a Nash equilibrium of the game with that penalty.",
        ),
        equal(
            over(i, (policy(i) - other(i)) * over(j, table(i, j) * (policy(j) - other(j)))),
            sp.Integer(0),
            "The preferences cancel between two policies.",
        ),
        equal(
            over(i, (policy(i) - other(i)) * (F(i) - G(i))),
            -tau
            * (over(i, policy(i) * sp.log(policy(i) / other(i))) + over(i, other(i) * sp.log(other(i) / policy(i)))),
            "So only the two divergences are left of this sum, and the game is strictly monotone.",
        ),
        argue(
            r"F = c,\; F' = c' \;\implies\; \pi_1 = \pi'",
            "If both policies are rest points, the left side of the last line is $(c - c')(1 - 1) = 0$. So both "
            "divergences are 0, and online IPO has only one rest point.",
        ),
    ),
    assumptions=(
        "There is one prompt with a finite number $K$ of responses, a tabular policy, and the population of pairs.",
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
            r"The opponent is the geometric mixture of policy and reference, with a share $\eta\tau$ of the "
            "reference. This is its normaliser.",
        ),
        define(
            played(i),
            sp.exp((1 - eta * tau) * sp.log(policy(i)) + eta * tau * sp.log(ref(i))) / Z,
            "This is the mixture.",
        ),
        argue(
            r"w(i) = \sum_j p(i, j)\, m(j)",
            "This is the chance that response $i$ beats the mixture. No gradient flows through it.",
        ),
        define(A, over(i, played(i) * sp.exp(eta * w(i))), "The step has this normaliser."),
        define(step(i), played(i) * sp.exp(eta * w(i)) / A, "The step tilts the mixture by the chance to win."),
        equal(over(i, played(i)), sp.Integer(1), "The probabilities of the mixture sum to 1, so it is a policy."),
        equal(
            over(i, step(i)), sp.Integer(1), "The probabilities after the step sum to 1, so this is a policy as well."
        ),
        assume(over(i, lead(i)), sp.Integer(1), "Let $q$ be any policy."),
        equal(
            over(i, lead(i) * (eta * w(i) - sp.log(lead(i) / played(i)))),
            sp.log(A) - over(i, lead(i) * sp.log(lead(i) / step(i))),
            r"The chance of $q$ to beat the mixture, times $\eta$, less the divergence of $q$ from the mixture, is "
            "largest where $q$ is the step, because the last sum is a divergence.",
        ),
        equal(
            sp.log(step(i) / policy(i)),
            eta * (w(i) - tau * sp.log(policy(i) / ref(i))) - sp.log(Z) - sp.log(A),
            "The step leaves the policy unchanged where the first bracket is the same number for all responses. "
            r"This is IPO-MD's rest point, with a share $\eta\tau$ of the reference.",
        ),
        argue(
            r"\eta \to 0: \quad m \to \pi_1",
            "A shorter step has less of the reference in its opponent. Its rest point tends to that of online IPO, "
            "which is the Nash policy of the game with the penalty.",
        ),
    ),
    assumptions=(
        "There is one prompt with a finite number $K$ of responses, a tabular policy, and the exact chance to win.",
    ),
)

xpo = Derivation(
    name="xpo",
    title="XPO: the likelihood of the reference's responses measures how much a policy promises",
    steps=(
        define(
            partition(t),
            over(y, sp.exp(z(y) + t * g(y))),
            "A parameter $t$ of a softmax moves the logit of response $y$ at the rate $g(y)$. This is the normaliser.",
        ),
        define(pi(y, t), sp.exp(z(y) + t * g(y)) / partition(t), "This is the policy."),
        define(
            r(y),
            beta * sp.log(pi(y, t) / ref(y)) + c,
            "This policy would be the optimum of RLHF for this reward, which is known up to a number $c$.",
        ),
        define(
            V,
            beta * sp.log(over(y, ref(y) * sp.exp(r(y) / beta))),
            r"This is the value of that optimum, $\beta \log Z$.",
        ),
        equal(V, c, "The value of the optimum is the number $c$."),
        assume(over(y, ref(y)), sp.Integer(1), "The reference is a policy, so its probabilities sum to 1."),
        equal(
            V - over(y, ref(y) * r(y)),
            beta * over(y, ref(y) * sp.log(ref(y) / pi(y, t))),
            "By this reward the optimum is worth this much more than the reference. So the less likely a policy "
            "makes the reference's responses, the more it promises.",
        ),
        equal(
            sp.Derivative(over(y, ref(y) * sp.log(pi(y, t))), t),
            over(y, (ref(y) - pi(y, t)) * g(y)),
            r"XPO adds $\alpha$ times the mean of $\log \pi$ over the reference's responses to the loss. Descent "
            "raises the logits of the responses that the policy writes more often than the reference does, and "
            "lowers the others.",
        ),
    ),
    assumptions=("There is one prompt with a finite number $K$ of responses, and each has a positive probability.",),
)
