"""A dated ledger of errors and differences that we found in books, papers and code, our own among them.

Every entry has two numbers on one small example, computed here: what the source's words or code come to, and what is right. The
pair of most entries has D = 3 nats, see :mod:`pref_toolkit.losses.disagreements`. An entry about a version stays in the ledger
after the source is corrected, and says so. The ids never change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pref_toolkit.logps import Logps
from pref_toolkit.losses.disagreements import (
    ANSWER,
    ANSWER_REFERENCE,
    DESIRABLE,
    DISAGREEMENTS,
    MEAN_POLICY,
    MEAN_REFERENCE,
    POLICY,
    REFERENCE,
    pair,
)
from pref_toolkit.losses.labels import bco, kto
from pref_toolkit.losses.lists import exo, odpo, rrhf
from pref_toolkit.losses.pairs import (
    aot,
    cdpo,
    click,
    cpo,
    discopop,
    dpo,
    dpo_nll,
    f_dpo,
    ipo,
    orpo,
    robust_dpo,
    simpo,
)
from pref_toolkit.losses.token_distributions import mallows_dpo, wpo

Kind = Literal["wrong", "unclear", "differs"]
Numbers = Callable[[], tuple[float, float]]

KINDS: dict[Kind, str] = {
    "wrong": "the source says or computes something that contradicts its own definition, or the method that it names",
    "unclear": "the source allows two readings, and they have different values",
    "differs": "the source is consistent, and computes something else by the same name than the paper or the toolkit",
}
"""What the kinds of entries mean."""

TOLERANCE = 1e-3
"""The two numbers of every entry differ by more than this, relative to the larger one."""


@dataclass(frozen=True)
class Source:
    """Where something is said.

    Args:
        name: the book, paper, library or repository.
        version: release, commit or version of the paper that we read; "as cited by" if we read it through another text.
        place: file and line, or section and equation.
    """

    name: str
    version: str
    place: str

    def __str__(self) -> str:
        return f"{self.name}, {self.version}: {self.place}"


@dataclass(frozen=True)
class Erratum:
    """One entry of the ledger.

    Args:
        id: ``E`` and a number, which never changes.
        seen: the day on which we saw it, as ``2026-11-25``.
        kind: one of :data:`KINDS`.
        source: where it is.
        says: what the source says, in our words.
        right: what is right or, where sources differ, what the paper or the toolkit has.
        quantity: what the two numbers are.
        numbers: the value by the source and the value by ``right``, for one small example.

    Example:
        >>> entry = ERRATA[0]
        >>> entry.id, entry.kind, str(entry.source)
        ('E01', 'wrong', 'RLHF book, commit a66b0bf: code/direct_alignment/loss.py:432')
        >>> theirs, ours = entry.numbers()
        >>> f"{theirs:.3f} {ours:.3f}"
        '0.500 0.458'
    """

    id: str
    seen: str
    kind: Kind
    source: Source
    says: str
    right: str
    quantity: str
    numbers: Numbers


FIRST, SECOND = "2026-11-25", "2026-11-27"
"""The days of our readings."""


def _rlhf(place: str) -> Source:
    return Source("RLHF book", "commit a66b0bf", place)


def _oxrl(place: str) -> Source:
    return Source("oxRL", "1.7.2", f"oxrl/algs/{place}")


def _trl(place: str) -> Source:
    return Source("TRL", "1.16.0", f"trl/{place}")


def _trl_docs(place: str) -> Source:
    return Source("TRL documentation", "commit f2cd577", f"docs/source/paper_index.md:{place}")


def _survey(place: str) -> Source:
    return Source("Winata et al., a survey of preference tuning", "arXiv:2409.11564v2", place)


def _own(place: str, commit: str = "e19427c") -> Source:
    return Source("pref_toolkit", f"commit {commit}", place)


def _shared(name: str) -> Numbers:
    """The numbers of an entry of DISAGREEMENTS, theirs first."""

    def numbers() -> tuple[float, float]:
        ours, theirs = DISAGREEMENTS[name].numbers()
        return theirs, ours

    return numbers


def _both(theirs: Callable[[], Tensor | float], ours: Callable[[], Tensor | float]) -> Numbers:
    return lambda: (float(theirs()), float(ours()))


def _softplus(t: float) -> float:
    return max(t, 0.0) + math.log1p(math.exp(-abs(t)))


def _sigmoid(t: float) -> float:
    return math.exp(-_softplus(-t))


BETA, D, RHO_W, RHO_L = 0.1, 3.0, 2.0, -1.0  # of the pair of most entries

# Log-ratios of two answers, each after its own prompt and each after the other's, nats.
MATCHED, MISMATCHED = torch.tensor([1.0, 3.0]), torch.tensor([0.2, 0.4])
MATCHED_CHOSEN = torch.tensor([2.0, 4.0])


def _kto(kl: Tensor, desirable: bool = True) -> Tensor:
    """KTO's loss of the chosen response as a desirable answer, or of the rejected one as an undesirable answer."""
    if desirable:
        return kto(ANSWER, ANSWER_REFERENCE, DESIRABLE, kl)
    answer, reference = (Logps(record.sums[:, 1:], record.tokens[:, 1:]) for record in (POLICY, REFERENCE))
    return kto(answer, reference, torch.tensor([False]), kl)


def _bco(shift: float) -> Tensor:
    """BCO's loss of the pair's two answers together."""
    answers, references = (Logps(record.sums.T, record.tokens.T) for record in (POLICY, REFERENCE))
    return bco(answers, references, torch.tensor([True, False]), torch.tensor(shift), beta=BETA).sum()


def _ipo_target(p: float, tau: float = 0.1) -> float:
    """The margin at which IPO's expected loss is least, for a preference of probability p."""
    return (2 * p - 1) / (2 * tau)


def _log1mexp() -> tuple[float, float]:
    x = torch.tensor(-1e-8)  # exp(x) is 1 in float32
    return torch.log1p(-torch.exp(x)).item(), torch.log(-torch.expm1(x)).item()


def _orpo_slope() -> tuple[float, float]:
    sums = POLICY.sums.clone().requires_grad_(True)
    policy = Logps(sums, POLICY.tokens)
    odds_term = orpo(policy, lam=0.1) + policy.per_token().chosen
    slope = torch.autograd.grad(odds_term.sum(), sums)[0][0, 0].item() * POLICY.tokens[0, 0].item()
    return -slope, slope


def _implicit_reward() -> tuple[float, float]:
    beta, reward, reference = 1.0, torch.tensor([2.0, 1.0, 0.0]), torch.full((3,), 1 / 3)
    log_z = (reward / beta + reference.log()).logsumexp(0)
    log_ratio = reward / beta - log_z
    return (beta * log_ratio[0]).item(), (beta * log_ratio[0] + beta * log_z).item()


def _wpo_alignment() -> tuple[float, float]:
    """Every next-token distribution is uniform over four tokens."""
    log_p, log_sum_of_squares = -math.log(4), -math.log(4)
    weights = torch.full((1, 2), log_p - log_sum_of_squares)
    theirs = min(1.0, math.exp(2 * log_p)) * dpo(POLICY, REFERENCE).item()
    return theirs, wpo(POLICY, REFERENCE, weights, beta=BETA).item()


def _wpo_slope() -> tuple[float, float]:
    """Two pairs, the second at policy = reference, with oxRL's weights and their sum as the divisor."""
    tokens = torch.tensor([[4, 10], [4, 10]])
    reference = Logps(torch.full((2, 2), -14.0, dtype=torch.float64), tokens)
    slopes = []
    for detached in (False, True):
        sums = torch.tensor([[-12.0, -15.0], [-14.0, -14.0]], dtype=torch.float64, requires_grad=True)
        weights = (sums / tokens).sum(dim=1).exp().clamp(max=1)
        weights = weights.detach() if detached else weights
        loss = (weights * dpo(Logps(sums, tokens), reference)).sum() / weights.sum()
        slopes.append(torch.autograd.grad(loss, sums)[0][0, 0].item())
    return slopes[0], slopes[1]


def _beta_dpo_slope() -> tuple[float, float]:
    alpha, mean = 0.5, 0.0
    slopes = []
    for detached in (False, True):
        margin = torch.tensor(D, requires_grad=True)
        beta = BETA * (1 + alpha * (margin - mean))
        beta = beta.detach() if detached else beta
        loss = -torch.nn.functional.logsigmoid(beta * margin)
        slopes.append(torch.autograd.grad(loss, margin)[0].item())
    return slopes[0], slopes[1]


def _forward_kl() -> float:
    return _softplus(-(BETA * D + BETA * (math.exp(-RHO_W) - math.exp(-RHO_L))))


def _jensen_shannon() -> float:
    return _softplus(-(BETA * D - (_softplus(RHO_W) - _softplus(RHO_L))))


def _alpha_divergence(alpha: float = 0.5) -> float:
    return _softplus(-(math.exp(-alpha * RHO_L) - math.exp(-alpha * RHO_W)) / alpha)


def _aot() -> tuple[float, float]:
    policy = Logps.pair(torch.tensor([-12.0, -10.0]), torch.tensor([-15.0, -10.0]))
    reference = Logps.pair(torch.tensor([-14.0, -13.0]), torch.tensor([-14.0, -14.0]))
    rho = policy.sums - reference.sums
    unpaired = rho[:, 0].sort().values - rho[:, 1].sort().values
    theirs = -torch.nn.functional.logsigmoid(BETA * unpaired).mean()
    return theirs.item(), aot(policy, reference, beta=BETA).mean().item()


def _exo_one_hot() -> float:
    log_p = (BETA * (POLICY.sums - REFERENCE.sums)).log_softmax(dim=1)
    return (log_p.exp() * (log_p - torch.tensor([[1.0, 0.0]]).log())).sum().item()


def _exo_authors() -> float:
    log_p = (BETA * (POLICY.sums - REFERENCE.sums)).log_softmax(dim=1)
    return (log_p.exp() * (log_p - torch.tensor([[0.0, -10.0]]))).sum().item()


def _bco_shift() -> tuple[float, float]:
    """Three desirable answers with rho = 2, one undesirable with rho = -1."""
    desirable, undesirable = [BETA * RHO_W] * 3, [BETA * RHO_L]
    of_all = sum(desirable + undesirable) / 4
    of_labels = (sum(desirable) / 3 + sum(undesirable) / 1) / 2
    theirs, ours = (
        bco(ANSWER, ANSWER_REFERENCE, DESIRABLE, torch.tensor(shift), beta=BETA).item() for shift in (of_all, of_labels)
    )
    return theirs, ours


def _rrhf_code(weight: float, row: int = 192) -> float:
    """The authors' loss of two responses: their ranking term, and the best one's sum over a padded row."""
    scores = torch.tensor([[1.0, 0.0]])
    ranking = rrhf(POLICY, scores, weight=0.0).item()
    return weight * ranking - POLICY.chosen.item() / row


def _rrhf_supervised(row: int = 192) -> tuple[float, float]:
    scores = torch.tensor([[1.0, 0.0]])
    ours = rrhf(POLICY, scores, weight=1.0) - rrhf(POLICY, scores, weight=0.0)
    return -POLICY.chosen.item() / row, ours.item()


def _arpo() -> float:
    """CPO's loss with the rejected log-probability times a penalty, at the default coefficients 0.9 and 0.4."""
    gap = abs((MEAN_POLICY.chosen - MEAN_POLICY.rejected).item())
    penalty = min(0.9 * math.exp(0.4 * gap) - 1, 1.0)
    scaled = Logps(POLICY.sums * torch.tensor([[1.0, penalty]]), POLICY.tokens)
    return cpo(scaled, beta=BETA, alpha=1.0).item()


def _mallows(factor: float) -> float:
    """The entropy of the reference is half of the largest possible one."""
    return mallows_dpo(POLICY, REFERENCE, torch.tensor([-factor * math.log(0.5)])).item()


def _normaliser(beta: float = 1e-3) -> tuple[float, float]:
    """Half of the responses always win and half never do: what stands for ``log Z``, and ``log Z``."""
    win = torch.tensor([1.0, 0.0], dtype=torch.float64)
    return 0.5 / beta, (win / beta + math.log(0.5)).logsumexp(0).item()


def _discopop_old(beta: float = 0.1) -> tuple[float, float]:
    return discopop(POLICY, REFERENCE, beta=beta, tau=beta).item(), discopop(POLICY, REFERENCE, beta=beta).item()


def _log_of_sigmoid() -> tuple[float, float]:
    policy, reference = (Logps(record.sums.float(), record.tokens) for record in (pair(-2000, 0), pair(0, 0)))
    theirs = -torch.log(torch.sigmoid(BETA * (policy.chosen - policy.rejected)))
    return theirs.item(), dpo(policy, reference).item()


def _cycle(steps: int = 400) -> tuple[float, float]:
    """DPO of 0 over 1, 1 over 2 and 2 over 0, once each: the infimum without contradictions, and the minimum."""
    log_ratios = torch.tensor([1.0, 0.0, -0.5], dtype=torch.float64, requires_grad=True)

    def loss(values: Tensor) -> Tensor:
        record = Logps.pair(values, values.roll(-1))
        return dpo(record, Logps.pair(torch.zeros_like(values), torch.zeros_like(values)), beta=1.0).mean()

    for _ in range(steps):
        (slope,) = torch.autograd.grad(loss(log_ratios), log_ratios)
        log_ratios = (log_ratios - 2 * slope).detach().requires_grad_(True)
    never_contradicted = dpo(pair(10_000, 0), pair(0, 0), beta=1.0)
    return never_contradicted.item() + 0.0, loss(log_ratios).item()


def _coverage() -> tuple[float, float]:
    """Three responses with rewards 1, 0 and 3, of which only the first two are compared; uniform reference, beta = 1.

    The optimum of RLHF has minimal loss. So has the policy that plain gradient descent from the reference finds, which leaves
    the logit of the third response alone.
    """
    optimum = torch.tensor([1.0, 0.0, 3.0]).softmax(0)
    found = torch.tensor([0.5, -0.5, 0.0]).softmax(0)
    return optimum[2].item(), found[2].item()


def _widest_gap(tau: float = 0.1) -> tuple[float, float]:
    """IPO on three responses in a total order: the target of a pair, and the log-ratio of the best to the worst."""
    target = 1 / (2 * tau)
    pairs = torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [1.0, 0.0, -1.0]], dtype=torch.float64)
    log_ratios = torch.linalg.pinv(pairs) @ torch.full((3,), target, dtype=torch.float64)
    return target, (log_ratios[0] - log_ratios[2]).item()


def _matched_kl() -> tuple[float, float]:
    """Two responses, (1/2, 1/2) under the reference and (0.6, 0.4) under the policy; the first is the desirable one."""
    policy = torch.tensor([0.6, 0.4], dtype=torch.float64)
    log_ratios = (policy / 0.5).log()
    return (policy * log_ratios).sum().item(), log_ratios[0].item()


def _rrhf_pull(weight: float, row: int, n: int = 50, k: int = 4) -> float:
    """Ranking pull over supervised pull on a token of the best of k responses of n tokens, ranked last, in a row."""
    return weight * ((k - 1) / n) / (1 / row)


def _mean_of_two(estimator: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of an estimator of the divergence from (0.8, 0.2) over draws of the policy (0.5, 0.5), by their log-ratios."""
    policy = torch.tensor([0.5, 0.5], dtype=torch.float64)
    return policy @ estimator((policy / torch.tensor([0.8, 0.2], dtype=torch.float64)).log())


def _pull_of_the_first_token(per_token: bool) -> float:
    """Gradient of a divergence by the logit of the first of two tokens, after which alone policy and reference differ."""
    logits = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    second = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    first, rho = logits.softmax(-1)[:, None], (second / 0.5).log()
    ratio = first / first.detach()
    if per_token:  # the ratio times k3 of each token; the first token's k3 is 0
        loss = (first.detach() * second * (ratio * (1 / ratio - 1 + ratio.log()) + torch.exp(-rho) - 1 + rho)).sum()
    else:
        loss = (first * second * (ratio.log() + rho)).sum()
    return float(torch.autograd.grad(loss, logits)[0][0])


ERRATA: tuple[Erratum, ...] = (
    # The RLHF book: text and code.
    Erratum(
        "E01",
        FIRST,
        "wrong",
        _rlhf("code/direct_alignment/loss.py:432"),
        "KTO's reference point is estimated on rejected answers that are rolled by one row, so as to pair each with another "
        "prompt; then their mean is taken. The log-ratios are rolled, not the answers, and a mean does not see their order",
        "z0 = max(0, mean of log-ratios of answers scored after another prompt); the code's is that of the matched answers",
        "KTO's loss of a desirable answer; matched log-ratios 1 and 3, mismatched 0.2 and 0.4",
        _both(lambda: _kto(MATCHED.roll(1)), lambda: _kto(MISMATCHED)),
    ),
    Erratum(
        "E02",
        FIRST,
        "wrong",
        _rlhf("code/direct_alignment/loss.py:112"),
        "a comment on cDPO sets log sigmoid(x) + log sigmoid(-x) = log 1; the code below it is right",
        "the probabilities add up to 1, their logarithms to log(sigmoid(x) sigmoid(-x)), at most -2 log 2",
        "the sum at x = 0.3",
        _both(
            lambda: math.log(_sigmoid(0.3) + _sigmoid(-0.3)),
            lambda: math.log(_sigmoid(0.3)) + math.log(_sigmoid(-0.3)),
        ),
    ),
    Erratum(
        "E03",
        FIRST,
        "wrong",
        _rlhf("code/direct_alignment/loss.py:143 and :173"),
        "IPO's target margin 1 / (2 beta) comes from a preference probability of 0.5; the code has the right target",
        "the best margin for a preference of probability p is (2 p - 1) / (2 tau): 0 at p = 0.5, and 1 / (2 tau) at p = 1",
        "margin with the least expected loss at p = 0.5, and at p = 1, in nats; tau = 0.1",
        _both(lambda: _ipo_target(0.5), lambda: _ipo_target(1.0)),
    ),
    Erratum(
        "E04",
        FIRST,
        "differs",
        _rlhf("code/direct_alignment/loss.py:199 and :230"),
        "SimPO is -log sigmoid(beta (lbar_w - lbar_l - gamma)): gamma is the ratio of the authors' script, and is said to be",
        "eq. 6 of the paper: -log sigmoid(beta (lbar_w - lbar_l) - gamma)",
        "SimPO's loss at the code's defaults beta = 2, gamma = 0.5",
        _both(lambda: simpo(POLICY, beta=2.0, gamma=2.0 * 0.5), lambda: simpo(POLICY, beta=2.0, gamma=0.5)),
    ),
    Erratum(
        "E05",
        SECOND,
        "wrong",
        _rlhf("code/direct_alignment/loss.py:245"),
        "log(1 - exp(x)) is to be computed as log1p(-exp(x)) for x near 0, and as log(-expm1(x)) far from it; the code below "
        "has it the other way round, which is right",
        "log(-expm1(x)) near 0, log1p(-exp(x)) below about -0.69",
        "log(1 - exp(x)) at x = -1e-8 in float32",
        _log1mexp,
    ),
    Erratum(
        "E06",
        SECOND,
        "wrong",
        _rlhf("code/direct_alignment/loss.py:377"),
        "KTO's paper suggests about 1.33 for the weight of undesirable answers; the code has as many of each kind",
        "lam_D n_D / (lam_U n_U) between 1 and 4/3 (arXiv:2402.01306; in its later version 3/2, as cited by others): it "
        "is the desirable answers that may weigh more",
        "lam_D n_D / (lam_U n_U) for equal numbers: the suggestion, and the least that the paper wants",
        _both(lambda: 1 / 1.33, lambda: 1.0),
    ),
    Erratum(
        "E07",
        FIRST,
        "wrong",
        _rlhf("code/direct_alignment/README.md:276"),
        "the paper of ODPO is given as arXiv:2403.00409",
        "arXiv:2402.10571 (Amini et al.); the number given belongs to robust DPO, which is another loss",
        "robust DPO's loss, and ODPO's for scores 3 and 1",
        _both(lambda: robust_dpo(POLICY, REFERENCE), lambda: odpo(POLICY, REFERENCE, torch.tensor([[3.0, 1.0]]))),
    ),
    Erratum(
        "E08",
        FIRST,
        "wrong",
        _rlhf("book/chapters/08-direct-alignment.md:248"),
        "IPO is the choice Psi(q) = log(q / (1 - q))",
        "that choice is RLHF's and DPO's; IPO's Psi is the identity (Azar et al., arXiv:2310.12036)",
        "log-probability gap of the optimum, preference 0.9, tau = 0.1, in nats",
        _shared("ipo_psi"),
    ),
    Erratum(
        "E09",
        FIRST,
        "wrong",
        _rlhf("book/chapters/08-direct-alignment.md:248"),
        "cDPO is cited to the paper of DPO, whose loss has no share of wrong labels",
        "Mitchell's note on noisy preferences (2023): (1 - eps) sp(-beta D) + eps sp(beta D)",
        "the loss of eq. 7 of DPO's paper, and cDPO's at eps = 0.1",
        _both(lambda: dpo(POLICY, REFERENCE), lambda: cdpo(POLICY, REFERENCE, eps=0.1)),
    ),
    Erratum(
        "E10",
        FIRST,
        "wrong",
        _rlhf("book/chapters/08-direct-alignment.md:253"),
        "beside its supervised pull ORPO has a small penalty on the chosen response",
        "the odds-ratio term falls as the chosen response becomes likelier; it is the rejected one that is penalised",
        "slope of the odds-ratio term in lbar_w: of a penalty of that size, and its own",
        _orpo_slope,
    ),
    Erratum(
        "E11",
        FIRST,
        "unclear",
        _rlhf("book/chapters/08-direct-alignment.md:254"),
        "SimPO changes DPO a little, by averaging log-probabilities; read so, it keeps the reference and has no margin",
        "SimPO has means, no reference, and a target margin gamma",
        "DPO on means per token with beta = 2, and SimPO at its defaults",
        _both(lambda: dpo(MEAN_POLICY, MEAN_REFERENCE, beta=2.0), lambda: simpo(POLICY)),
    ),
    Erratum(
        "E12",
        FIRST,
        "unclear",
        _rlhf("book/chapters/08-direct-alignment.md:58 and :190"),
        "the reward is beta log(pi / ref) in one equation and has beta log Z added in another",
        "r = beta log(pi* / ref) + beta log Z; without log Z it is the reward up to a constant of the prompt, which "
        "differences do not see",
        "the first of three rewards 2, 1, 0; uniform reference, beta = 1",
        _implicit_reward,
    ),
    # oxRL.
    Erratum(
        "E13",
        FIRST,
        "wrong",
        _oxrl("rdpo.py:103"),
        "R-DPO has the logit beta D - alpha (n_w - n_l) and is meant to penalise length",
        "from E[r - alpha n] - beta KL the logit is beta D + alpha (n_w - n_l); with a minus a longer chosen response gets a "
        "larger pull",
        "R-DPO's loss, alpha = 0.1",
        _shared("r_dpo_sign"),
    ),
    Erratum(
        "E14",
        FIRST,
        "wrong",
        _oxrl("kto.py:64"),
        "KTO's loss is -log sigmoid(+-beta (rho - z0)), which is not bounded",
        "lam (1 - sigmoid(+-beta (rho - z0))), between 0 and lam",
        "loss of a desirable answer at z0 = 0",
        _both(lambda: _softplus(-BETA * RHO_W), lambda: _kto(torch.zeros(1))),
    ),
    Erratum(
        "E15",
        FIRST,
        "wrong",
        _oxrl("kto.py:55"),
        "z0 is a running mean over the chosen answers after their own prompts, said to be the paper's",
        "the paper takes answers after other prompts, of the present batch",
        "KTO's loss of a desirable answer; chosen log-ratios 2 and 4 in every batch, mismatched ones 0.2 and 0.4",
        _both(lambda: _kto(MATCHED_CHOSEN), lambda: _kto(MISMATCHED)),
    ),
    Erratum(
        "E16",
        FIRST,
        "wrong",
        _oxrl("kto.py:60"),
        "z0 is used below 0, too",
        "z0 = max(0, mean), since it stands for a divergence",
        "KTO's loss of a desirable answer, mean log-ratio -3",
        _both(lambda: _sigmoid(-BETA * (RHO_W + 3)), lambda: _kto(torch.tensor([-3.0]))),
    ),
    Erratum(
        "E17",
        SECOND,
        "wrong",
        _oxrl("robust_dpo.py:102"),
        "robust DPO is -((1 - eps) log sigmoid(beta D) + eps log sigmoid(-beta D)) / (1 - 2 eps), said to be unbiased: "
        "cDPO's loss times a constant",
        "the second term has the other sign: only then does the mean over flipped labels equal DPO's loss on clean ones",
        "the loss at eps = 0.1",
        _both(lambda: cdpo(POLICY, REFERENCE, eps=0.1) / 0.8, lambda: robust_dpo(POLICY, REFERENCE, eps=0.1)),
    ),
    Erratum(
        "E18",
        FIRST,
        "differs",
        _oxrl("wpo.py:122"),
        "WPO's weight is exp(lbar_w + lbar_l)",
        "the authors subtract log sum_v pi_t(v)^2 from each token's log-probability, so that a policy's own samples weigh "
        "about 1 however unsure it is (wzhouad/WPO, commit a104458, scripts/run_wpo.py:77)",
        "weighted loss if all next-token distributions are uniform over four tokens, before oxRL's division",
        _wpo_alignment,
    ),
    Erratum(
        "E19",
        FIRST,
        "wrong",
        _oxrl("wpo.py:122"),
        "the gradient also flows through WPO's weights, so that a pair can lower its loss by becoming unlikely",
        "the weights are constants (wzhouad/WPO, commit a104458, scripts/run_wpo.py:84)",
        "slope of the batch's loss in l_w of the first of two pairs, with the weights of oxRL",
        _wpo_slope,
    ),
    Erratum(
        "E20",
        FIRST,
        "differs",
        _oxrl("wpo.py:134"),
        "the weighted losses are divided by the sum of the weights, so that in a batch of one pair the weight cancels",
        "the mean over pairs of weight times loss",
        "loss of a batch of one pair with log weights -0.5 and -0.2",
        _both(
            lambda: dpo(POLICY, REFERENCE),
            lambda: wpo(POLICY, REFERENCE, torch.tensor([[-0.5, -0.2]]), beta=BETA),
        ),
    ),
    Erratum(
        "E21",
        FIRST,
        "wrong",
        _oxrl("betadpo.py:120"),
        "beta-DPO's beta of a pair, beta (1 + alpha (D - mean)), is differentiated with the loss",
        "it is a constant of the step: the authors detach it, as cited by issue 1 of junkangwu/beta-DPO",
        "slope of the loss in D at alpha = 0.5, mean 0",
        _beta_dpo_slope,
    ),
    Erratum(
        "E22",
        FIRST,
        "wrong",
        _oxrl("odpo.py:91"),
        "ODPO's offset is one constant, 1 by default",
        "alpha log(s_w - s_l), larger for pairs that differ more; a constant offset is a margin",
        "the loss of a pair with scores 3 and 1",
        _both(lambda: _softplus(-(BETA * D - 1)), lambda: odpo(POLICY, REFERENCE, torch.tensor([[3.0, 1.0]]))),
    ),
    Erratum(
        "E23",
        FIRST,
        "differs",
        _oxrl("bco.py:94"),
        "BCO's loss of a pair has no reward shift",
        "-log sigmoid(+-(beta rho - delta)) with a shift delta, a running mean of rewards, here 0.5",
        "sum of the losses of both answers of the pair",
        _both(lambda: _bco(0.0), lambda: _bco(0.5)),
    ),
    Erratum(
        "E24",
        SECOND,
        "wrong",
        _oxrl("fdpo.py:132"),
        "f-DPO with the forward KL has the logit beta D + beta (exp(-rho_w) - exp(-rho_l))",
        "f'(u) = -1 / u, hence beta (exp(-rho_l) - exp(-rho_w)): the sign is the other one, and D is not there",
        "the loss",
        _both(_forward_kl, lambda: f_dpo(POLICY, REFERENCE, divergence="forward_kl")),
    ),
    Erratum(
        "E25",
        SECOND,
        "wrong",
        _oxrl("fdpo.py:136"),
        "f-DPO with the Jensen-Shannon divergence has the logit beta D - (sp(rho_w) - sp(rho_l)): beta scales one term of two",
        "beta (log sigmoid(rho_w) - log sigmoid(rho_l)) = beta (D - (sp(rho_w) - sp(rho_l)))",
        "the loss",
        _both(_jensen_shannon, lambda: f_dpo(POLICY, REFERENCE, divergence="jensen_shannon")),
    ),
    Erratum(
        "E26",
        SECOND,
        "wrong",
        _oxrl("fdpo.py:140"),
        "f-DPO with an alpha-divergence has no beta: (exp(-alpha rho_l) - exp(-alpha rho_w)) / alpha",
        "beta times that",
        "the loss at alpha = 0.5",
        _both(_alpha_divergence, lambda: f_dpo(POLICY, REFERENCE, divergence="alpha", alpha=0.5)),
    ),
    Erratum(
        "E27",
        SECOND,
        "unclear",
        _oxrl("aot.py:95"),
        "AOT sorts the log-ratios of chosen and of rejected responses apart, and does not say that the paper has two versions",
        "that is AOT unpaired; AOT paired sorts the margins of policy and reference, as ours and TRL's loss named aot",
        "mean loss of two pairs",
        _aot,
    ),
    # TRL.
    Erratum(
        "E28",
        FIRST,
        "differs",
        _trl("trainer/dpo_trainer.py:1400"),
        "IPO's margin is of means per token; a comment there says that the authors' own results have this form. HALOs has "
        "it, too (commit 4831988, train/trainers.py:800); TRL's online trainer and eric-mitchell's code sum",
        "eq. 17 of the paper as printed: sums",
        "IPO's loss at tau = 0.1",
        _shared("ipo_sum_or_mean"),
    ),
    Erratum(
        "E29",
        FIRST,
        "differs",
        _trl("experimental/cpo/cpo_trainer.py:890"),
        "SimPO in the CPO trainer has CPO's supervised term unless cpo_alpha is set to 0, as the documentation says one should",
        "SimPO has no supervised term",
        "SimPO's loss at the defaults of the toolkit",
        _shared("simpo_in_cpo"),
    ),
    Erratum(
        "E30",
        FIRST,
        "unclear",
        _trl("experimental/cpo/cpo_trainer.py:726, trainer/dpo_trainer.py:1429"),
        "label_smoothing is cDPO's share of wrong labels in one trainer, robust DPO's in another",
        "two methods, with two losses: here robust DPO's beside cDPO's",
        "the loss at eps = 0.1",
        _shared("label_smoothing"),
    ),
    Erratum(
        "E31",
        FIRST,
        "differs",
        _trl("trainer/dpo_trainer.py:1388"),
        "label_smoothing has no effect on the default loss sigmoid, on which it meant cDPO up to commit a68fb89",
        "cDPO at eps = 0.1, as in eric-mitchell's code (commit f8b8c0f, trainers.py:82)",
        "the loss with label_smoothing = 0.1",
        _shared("label_smoothing_ignored"),
    ),
    Erratum(
        "E32",
        FIRST,
        "differs",
        _trl("trainer/dpo_trainer.py:1433"),
        "bco_pair has no reward shift",
        "-log sigmoid(+-(beta rho - delta)), here with delta = 0.05",
        "loss of the chosen answer",
        _shared("bco_without_shift"),
    ),
    Erratum(
        "E33",
        FIRST,
        "differs",
        _trl("trainer/dpo_trainer.py:1443"),
        "sppo_hard has no half before the squares, win probabilities 1 and 0, and beta = 0.1 unless it is set; its "
        "comment says that the paper's probabilities are soft",
        "half the squares, beta = 0.001, as in the authors' code (uclaml/SPPO, commit 5e61c4e, sppo/trainer.py:877)",
        "the loss with win probabilities 1 and 0",
        _shared("sppo_scale"),
    ),
    Erratum(
        "E34",
        FIRST,
        "differs",
        _trl("experimental/orpo/orpo_trainer.py:799"),
        "ORPO's supervised term is over prompt and response, as a comment says; so it is in the authors' code unless "
        "disable_prompt_loss is set (xfactlab/orpo, commit 208d2d6, src/orpo_trainer.py:49)",
        "over the response, as in eq. 6 of the paper",
        "ORPO's loss; a prompt of 6 tokens and 9 nats",
        _shared("orpo_prompt"),
    ),
    Erratum(
        "E35",
        FIRST,
        "differs",
        _trl("trainer/dpo_trainer.py:1498, experimental/cpo/cpo_trainer.py:832"),
        "the supervised term is a mean over all tokens of a batch, which changes when the batch is split; the authors of "
        "CPO have it, too (fe1ixxu/ALMA, commit 10360c3, utils/cpo_trainer.py:737)",
        "a mean per token of each response, then a mean over responses",
        "the supervised term of two responses, 12 nats of 4 tokens and 15 of 10",
        _shared("nll_mean"),
    ),
    Erratum(
        "E36",
        FIRST,
        "differs",
        _trl("trainer/dpo_trainer.py:1370"),
        "the alpha of an alpha-divergence is such that 1 gives the reverse KL",
        "0 gives the reverse KL, as in the paper of f-DPO: their alpha is 1 minus ours",
        "f-DPO's loss at alpha = 0.1",
        _shared("f_dpo_alpha"),
    ),
    Erratum(
        "E37",
        FIRST,
        "differs",
        _trl("trainer/dpo_trainer.py:1524"),
        "WPO's weight is not bounded; eq. 2 of the paper, as cited there, has no bound",
        "at most 1, as in the authors' code (wzhouad/WPO, commit a104458, scripts/run_wpo.py:83)",
        "WPO's loss, log weights 0.5 and 0.2",
        _shared("wpo_clamp"),
    ),
    Erratum(
        "E38",
        FIRST,
        "wrong",
        Source("TRL", "commits 4e7f0a5 to a68fb89", "trl/trainer/dpo_trainer.py:1720 of a68fb89"),
        "LD-DPO weights the tail in the policy only, so that the margin does not start at 0; no longer so in 1.16.0",
        "the tail is weighted in policy and reference",
        "LD-DPO's loss at policy = reference",
        _shared("ld_dpo_reference"),
    ),
    Erratum(
        "E39",
        FIRST,
        "wrong",
        _trl_docs("932"),
        "the formula printed for BCO on pairs is DPO's",
        "the loss of the trainer: -log sigmoid(beta rho_w) - log sigmoid(-beta rho_l)",
        "the formula's value, and that of the loss bco_pair",
        _both(lambda: dpo(POLICY, REFERENCE), lambda: _bco(0.0)),
    ),
    Erratum(
        "E40",
        FIRST,
        "wrong",
        _trl_docs("862"),
        "the settings that reproduce EXO leave label_smoothing at 0, where the loss is infinite; the trainer then stops "
        "with an error that says so",
        "label_smoothing = 0.001, which the error recommends",
        "EXO's loss",
        _both(_exo_one_hot, lambda: exo(POLICY, REFERENCE, eps=1e-3)),
    ),
    Erratum(
        "E41",
        FIRST,
        "differs",
        Source("TRL", "commit f2cd577", "trl/experimental/bco/bco_trainer.py:1259"),
        "BCO's shift is the running mean of beta rho over all answers. This toolkit had the same at commit e19427c "
        "(pref_toolkit/losses/labels.py:89); TRL 1.16.0 has no such trainer any more",
        "half the sum of the means of desirable and of undesirable answers, as cited by notes on the paper",
        "loss of a desirable answer after three desirable answers with rho = 2 and an undesirable one with -1",
        _bco_shift,
    ),
    # Authors' code.
    Erratum(
        "E42",
        FIRST,
        "differs",
        Source("SimPO, authors' code", "commit 1b3e8f3", "scripts/simpo_trainer.py:578"),
        "the script asks for the ratio of gamma to beta; so does HALOs (commit 4831988, train/trainers.py:819)",
        "eq. 6 of the paper has gamma itself",
        "SimPO's loss if 1 is passed, beta = 2",
        _shared("simpo_gamma"),
    ),
    Erratum(
        "E43",
        FIRST,
        "unclear",
        Source("RRHF, authors' code", "commit e1a2b61", "train.py:78"),
        "the ranking term is multiplied by 100 by default, and by 1 in all three launch scripts (train.sh:29)",
        "1: what the paper has and what the scripts run",
        "the code's loss of two responses in a row of 192 tokens, the better one ranked last",
        _both(lambda: _rrhf_code(100.0), lambda: _rrhf_code(1.0)),
    ),
    Erratum(
        "E44",
        FIRST,
        "differs",
        Source("RRHF, authors' code", "commit e1a2b61", "train.py:256"),
        "the supervised term is a mean over the whole padded row, prompt and padding included",
        "the paper's: the sum over the tokens of the best response",
        "the supervised term, 12 nats in a row of 192 tokens",
        _rrhf_supervised,
    ),
    Erratum(
        "E45",
        FIRST,
        "differs",
        Source("Click, authors' code", "commit 494e904", "models/blender_contrast_05.py:106 and :109"),
        "alpha is the margin and GAMMA the weight",
        "the paper's letters: alpha is the weight and gamma the margin",
        "Click's loss if the values 20 and 0.5 of the script are passed by the code's letters, and by the paper's",
        _both(lambda: click(POLICY, alpha=20.0, gamma=0.5), lambda: click(POLICY, alpha=0.5, gamma=20.0)),
    ),
    Erratum(
        "E46",
        FIRST,
        "differs",
        Source("CPO, authors' code", "commit 10360c3", "utils/cpo_trainer.py:606"),
        "the rejected log-probability is multiplied by min(1, 0.9 exp(0.4 |lbar_w - lbar_l|) - 1), which is ARPO's loss "
        "of the later X-ALMA; the trainer is still named CPO",
        "CPO's paper: -log sigmoid(beta (l_w - l_l)) and the supervised term",
        "the loss at beta = 0.1",
        _both(_arpo, lambda: cpo(POLICY)),
    ),
    Erratum(
        "E47",
        FIRST,
        "differs",
        Source("EXO, authors' code", "commit a8ab360", "src/align_stage/loss.py:71 and :100"),
        "the label has log-probabilities 0 and -10, so that eps is about 4.5e-5",
        "eps = 0.001, eq. 16 of the paper as cited by TRL",
        "EXO's loss",
        _both(_exo_authors, lambda: exo(POLICY, REFERENCE, eps=1e-3)),
    ),
    Erratum(
        "E48",
        SECOND,
        "unclear",
        Source("MallowsPO, authors' code", "RainbowPO, commit d9cad54", "trl/trainer/dpo_trainer.py:1270"),
        "a setting named after the mean of -log dispersion, 0.29, multiplies -log dispersion; the README says scaling factor",
        "if it is that mean one divides by it, so that phi is 1 on average, as we read the paper",
        "the loss, for an entropy half as large as can be",
        _both(lambda: _mallows(0.29), lambda: _mallows(1 / 0.29)),
    ),
    Erratum(
        "E49",
        FIRST,
        "unclear",
        Source("ORPO, authors' code", "commit 208d2d6", "src/args.py:25"),
        "the weight of the odds-ratio term is 1.0 by default, and 0.1 or 0.05 in the scripts",
        "0.1, which scripts/run_mistral_orpo_beta.sh:8 sets",
        "ORPO's loss",
        _both(lambda: orpo(POLICY, lam=1.0), lambda: orpo(POLICY, lam=0.1)),
    ),
    Erratum(
        "E50",
        FIRST,
        "unclear",
        Source("SPPO, authors' code", "commit 5e61c4e", "sppo/trainer.py:877, eq. 4.7 of arXiv:2405.00675"),
        "1 / (2 beta) stands for log Z. That is right if every response wins half the time",
        "it is a lower bound: where half of the responses always win and half never do, log Z is almost twice as large",
        "log Z at beta = 0.001, in nats",
        _normaliser,
    ),
    Erratum(
        "E51",
        SECOND,
        "differs",
        Source("SPPO, authors' code", "commit 5e61c4e", "sppo/trainer.py:886"),
        "kto_pair compares a rejected answer with the mean log-ratio of the chosen answers after their own prompts",
        "KTO's paper scores answers after other prompts; a comment there says that an earlier report had it so",
        "loss of an undesirable answer; chosen log-ratios 2 and 4, mismatched ones 0.2 and 0.4",
        _both(lambda: _kto(MATCHED_CHOSEN, False), lambda: _kto(MISMATCHED, False)),
    ),
    Erratum(
        "E52",
        FIRST,
        "differs",
        Source("DiscoPOP, authors' code", "commit 3307865", "src/alignment/gpo.py:342"),
        "an older version of the loss mixes by sigmoid(D), which is sigmoid(beta D / tau) with tau = beta",
        "tau = 0.05, the version below it in the same file; the two agree at beta = 0.05 only",
        "DiscoPOP's loss at beta = 0.1",
        _discopop_old,
    ),
    # Tutorials, other libraries, other papers.
    Erratum(
        "E53",
        FIRST,
        "differs",
        Source(
            "Raschka, LLMs from scratch",
            "commit 28c65cd",
            "ch07/04_preference-tuning-with-dpo/dpo-from-scratch.ipynb:2010",
        ),
        "DPO with beta = 0.1 on mean log-probabilities per token: DPO normalised by length, with a pull to the reference "
        "that is weaker by about the length",
        "eq. 7 of the paper: sums",
        "DPO's loss at beta = 0.1",
        _shared("dpo_on_means"),
    ),
    Erratum(
        "E54",
        FIRST,
        "wrong",
        Source("Tinker cookbook", "commit f77a8a3", "tinker_cookbook/preference/train_dpo.py:145"),
        "the logged margin has beta in it twice; corrected in commit bc22ba7. The loss was right",
        "the difference of the rewards, in which beta is already",
        "margin of the pair",
        _both(lambda: BETA * (BETA * RHO_W - BETA * RHO_L), lambda: BETA * RHO_W - BETA * RHO_L),
    ),
    Erratum(
        "E55",
        SECOND,
        "wrong",
        Source("Tinker cookbook", "commit f77a8a3", "tinker_cookbook/preference/train_dpo.py:138"),
        "DPO's loss is computed as the logarithm of a sigmoid, 0 in float32 below about -104; corrected in commit 6fdb5f8",
        "the sigmoid's logarithm in one step: beta D nats",
        "DPO's loss at beta D = -200, in float32",
        _log_of_sigmoid,
    ),
    Erratum(
        "E56",
        SECOND,
        "wrong",
        Source("MaxText", "commit 002d18c", "MaxText/train.py, dpo_loss_fn; issue 1530 names line 317 of acb0433"),
        "beta multiplies the margin before the loss and in the loss: beta^2 D. The maintainers have since replaced this code",
        "beta D",
        "DPO's loss at beta = 0.1",
        _both(lambda: dpo(POLICY, REFERENCE, beta=BETA**2), lambda: dpo(POLICY, REFERENCE, beta=BETA)),
    ),
    Erratum(
        "E57",
        FIRST,
        "wrong",
        _survey("eqs. 55 and 56"),
        "the objective E[r - alpha n] - beta KL is said to give the logit beta D - alpha (n_w - n_l)",
        "it gives beta D + alpha (n_w - n_l)",
        "R-DPO's loss, alpha = 0.1",
        _shared("r_dpo_sign"),
    ),
    Erratum(
        "E58",
        SECOND,
        "differs",
        _survey("eq. 44"),
        "IPO's loss is (beta D - 1/2)^2",
        "eq. 17 of the paper: (D - 1 / (2 tau))^2, which has the same minimum and is larger by 1 / tau^2, so are its gradients",
        "IPO's loss at beta = tau = 0.1",
        _both(lambda: (BETA * D - 0.5) ** 2, lambda: ipo(POLICY, REFERENCE, tau=BETA)),
    ),
    Erratum(
        "E59",
        SECOND,
        "unclear",
        _survey("table 11 and eq. 44"),
        "IPO is the square (x - 1)^2 of x = beta D in the table, and (x - 1/2)^2 in the equation: beta is not the same in both",
        "with the paper's tau in the place of beta, the equation",
        "margin with the least loss at beta = 0.1, in nats",
        _both(lambda: 1 / BETA, lambda: 1 / (2 * BETA)),
    ),
    Erratum(
        "E60",
        SECOND,
        "differs",
        _survey("eq. 57"),
        "CPO's supervised term is the sum log pi(y_w)",
        "the authors' code takes a mean per token (fe1ixxu/ALMA, commit 10360c3, utils/cpo_trainer.py:724), and so do we",
        "CPO's loss",
        _both(lambda: cpo(POLICY, alpha=0.0) - POLICY.chosen, lambda: cpo(POLICY)),
    ),
    Erratum(
        "E61",
        SECOND,
        "wrong",
        Source("Cal-DPO", "as cited by issue 1 of tengxiao1/Cal-DPO (2024-11-21)", "appendix B.1"),
        "the pseudocode's target of the chosen log-ratio is beta / 2; the authors answered there that eq. 10 is right",
        "eq. 10: 1 / (2 beta)",
        "target at beta = 0.1, in nats",
        _both(lambda: 0.5 * BETA, lambda: 1 / (2 * BETA)),
    ),
    # This toolkit and its book.
    Erratum(
        "E62",
        FIRST,
        "wrong",
        _own("book/methods/dpo.md:464"),
        "where each pair is labelled once no preference is contradicted, so that DPO has no minimum",
        "labels of three pairs can form a cycle; then DPO has one, at the reference. Of two responses the sentence is true",
        "least mean loss over 0 > 1, 1 > 2, 2 > 0: if nothing were contradicted, and as found by descent",
        _cycle,
    ),
    Erratum(
        "E63",
        FIRST,
        "wrong",
        _own("book/methods/dpo.md:923"),
        "with Bradley-Terry preferences and any policy allowed the minimum of DPO is the optimum of RLHF",
        "only if the compared pairs connect all responses; otherwise there are many minima, and the start decides",
        "probability of the response that is in no pair: in the optimum, and in another minimum",
        _coverage,
    ),
    Erratum(
        "E64",
        FIRST,
        "unclear",
        _own("book/methods/ipo.md:142"),
        "IPO pulls a pair back that leads by more than 1 / (2 tau); read as a bound on all margins",
        "the loss of that pair does so; other pairs can hold it there. Best and worst of three end 2 / (3 tau) apart",
        "margin in nats at tau = 0.1",
        _widest_gap,
    ),
    Erratum(
        "E65",
        FIRST,
        "wrong",
        _own("book/methods/ranking.md:250 and :273"),
        "in RRHF's code the ranking pull on a token is 300 times the supervised one",
        "the scripts set the weight 1, and the supervised mean is over a padded row of 192 tokens",
        "ratio of the pulls for four responses of 50 tokens",
        _both(lambda: _rrhf_pull(100.0, row=50), lambda: _rrhf_pull(1.0, row=192)),
    ),
    Erratum(
        "E66",
        FIRST,
        "wrong",
        _own("book/loops/self_play.md:245"),
        "the usual lambda of SPIN is 0.1, where exact iterations move away from the data",
        "the authors use 0.1 in iterations 0 to 2 and 5.0 in iteration 3 (uclaml/SPIN, commit a12ba80, "
        "scripts/finetune_iter3.sh:21), where they converge",
        "factor |1 - 1 / lambda| of the log-ratio to the data in an exact iteration",
        _both(lambda: abs(1 - 1 / 0.1), lambda: abs(1 - 1 / 5.0)),
    ),
    Erratum(
        "E67",
        FIRST,
        "wrong",
        _own("pref_toolkit/losses/labels.py:49"),
        "KTO's z0 is biased low if it is estimated on matched answers",
        "matched desirable answers can give too much: the estimate moves with the labels",
        "KL(policy || reference), which the estimate would lie below, and the estimate; two responses, in nats",
        _matched_kl,
    ),
    Erratum(
        "E68",
        FIRST,
        "wrong",
        _own("pref_toolkit/losses/pairs.py:167"),
        "Click's defaults are alpha = 1 and gamma = 1, a margin of one nat between sums",
        "0.5 and 20 nats, as in the first of the authors' scripts",
        "Click's loss",
        _both(lambda: click(POLICY, alpha=1.0, gamma=1.0), lambda: click(POLICY)),
    ),
    Erratum(
        "E69",
        FIRST,
        "wrong",
        _own("pref_toolkit/losses/pairs.py:264"),
        "Pang et al. (iterative RPO) and Liu et al. (RPO) are given as one method with alpha = 1, beta = 0.1",
        "Liu et al. have 0.005 and 0.01, as cited by TRL (commit f2cd577, docs/source/paper_index.md:1034)",
        "the loss at the values given, and at those that Liu et al. have",
        _both(
            lambda: dpo_nll(POLICY, REFERENCE, beta=0.1, alpha=1.0),
            lambda: dpo_nll(POLICY, REFERENCE, beta=0.01, alpha=0.005),
        ),
    ),
    Erratum(
        "E70",
        SECOND,
        "wrong",
        _own("pref_toolkit/losses/token_distributions.py:96", "0a55e5a"),
        "the authors of MallowsPO divide -log dispersion by the constant 0.29",
        "their code multiplies by it, see E48",
        "phi of their code, for an entropy half as large as can be",
        _both(lambda: -math.log(0.5) / 0.29, lambda: -0.29 * math.log(0.5)),
    ),
    # Policy gradients.
    Erratum(
        "E71",
        SECOND,
        "wrong",
        _rlhf("code/policy_gradients/loss.py:30 and :33"),
        "k3 on draws of the policy is r - 1 - log r with r = policy / reference",
        "r = reference / policy: the other ratio is for draws of the reference",
        "mean over the policy's draws, which is to be KL(policy || reference); two responses, in nats",
        _both(lambda: _mean_of_two(lambda v: v.exp() - 1 - v), lambda: _mean_of_two(lambda v: torch.exp(-v) - 1 + v)),
    ),
    Erratum(
        "E72",
        SECOND,
        "wrong",
        _rlhf("code/policy_gradients/loss.py:59"),
        "k1 is the reference's log-probability less the policy's",
        "the policy's less the reference's",
        "mean over the policy's draws, which is to be KL(policy || reference); two responses, in nats",
        _both(lambda: _mean_of_two(lambda v: -v), lambda: _mean_of_two(lambda v: v)),
    ),
    Erratum(
        "E73",
        SECOND,
        "wrong",
        _trl("trainer/grpo_config.py:352"),
        "k3 of each token times the token's ratio has the unbiased gradient of the divergence",
        "it leaves out that a token decides how far the later ones are from the reference",
        "gradient by the first token's logit; responses of two tokens, which differ only after the first",
        _both(lambda: _pull_of_the_first_token(True), lambda: _pull_of_the_first_token(False)),
    ),
)
"""Every entry, in the order of its id."""
