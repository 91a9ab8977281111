"""What derivations argue in words, or prove for a few responses, holds for numbers too. Everything is float64."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp

from pref_toolkit import losses
from pref_toolkit.logps import Logps
from pref_toolkit.theory.bandits import kl, rlhf_optimum
from pref_toolkit.theory.exact_loops import nash_policy

CLOSE = 1e-12


def simplex(rng, k):
    return rng.dirichlet(np.ones(k))


def game(rng, k):
    """Preferences of any kind between ``k`` responses: ``p + p^T = 1``."""
    upper = np.triu(rng.uniform(0, 1, (k, k)), 1)
    return upper + np.tril(1 - upper.T, -1) + np.eye(k) / 2


@pytest.mark.parametrize("beta", [1e-3, 0.1, 1.0, 10.0])
def test_sppos_normaliser_lies_between_the_bounds_of_jensen_and_hoeffding(beta):
    rng = np.random.default_rng(0)
    for k in (2, 3, 6) * 10:
        ref = simplex(rng, k)
        wins = game(rng, k) @ ref
        assert abs(ref @ wins - 1 / 2) < CLOSE
        log_z = logsumexp(wins / beta, b=ref)
        assert 1 / (2 * beta) - CLOSE / beta <= log_z <= 1 / (2 * beta) + 1 / (8 * beta**2) + CLOSE / beta**2
        # The targets' probabilities sum to more than 1, so no policy meets all of them.
        assert np.log(ref @ np.exp(np.clip((wins - 1 / 2) / beta, None, 700))) > CLOSE


def test_sppos_target_for_a_certain_winner_is_far_beyond_the_exact_step():
    beta = 1e-3
    log_z = logsumexp(np.array([0, 1 / beta]), b=1 / 2)
    assert abs(log_z - (1 / beta - np.log(2))) < 1e-9 and round(log_z, 1) == 999.3
    gain, target, most = 1 / beta - log_z, (1 - 1 / 2) / beta, -np.log(1 / 2)
    assert abs(gain - np.log(2)) < 1e-9
    assert target == 500.0 and target > 700 * most


@pytest.mark.parametrize("tau", [0.2, 1.0])
def test_the_game_of_online_ipo_is_monotone_and_its_rest_point_a_nash_equilibrium(tau):
    rng = np.random.default_rng(1)
    for _ in range(5):
        p, ref = game(rng, 6), simplex(rng, 6)

        def value(policy, p=p, ref=ref):
            return p @ policy - tau * np.log(policy / ref)

        rest = nash_policy(p, ref, tau).numpy()
        assert np.ptp(value(rest)) < 1e-9
        for policy in (simplex(rng, 6) for _ in range(20)):
            gap = (rest - policy) @ (value(rest) - value(policy))
            apart = kl(policy, rest).item()
            assert abs(gap + tau * (apart + kl(rest, policy).item())) < 1e-9
            won = policy @ (p @ rest) - tau * kl(policy, ref).item()
            assert abs(won - (value(rest)[0] - tau * apart)) < 1e-9  # no answer is better than the rest point itself
            assert np.ptp(value(policy)) > 1e-3  # and no other of these policies is a rest point


def test_exo_is_0_at_the_optimum_of_rlhf():
    rng = np.random.default_rng(2)
    beta, temperature = 0.7, 0.4
    for _ in range(10):
        ref, reward = simplex(rng, 2), -np.sort(-rng.normal(size=2))
        eps = float(expit(-(reward[0] - reward[1]) / temperature))
        best, _ = rlhf_optimum(ref, reward, beta * temperature)
        ones = torch.ones(1, 2)
        reference = Logps(torch.tensor(ref).log()[None], ones)
        assert abs(losses.exo(Logps(best.log()[None], ones), reference, beta=beta, eps=eps).item()) < CLOSE
        assert losses.exo(reference, reference, beta=beta, eps=eps).item() > 1e-6


@pytest.mark.parametrize("k", [2, 4, 7])
def test_s_dpo_pulls_each_response_by_its_probability(k):
    rng = np.random.default_rng(3)
    policy = torch.tensor(rng.normal(-20, 2, (5, k)), requires_grad=True)
    reference = torch.tensor(rng.normal(-20, 2, (5, k)))
    ones = torch.ones(5, k)
    loss = losses.s_dpo(Logps(policy, ones), Logps(reference, ones), beta=0.7)
    (slope,) = torch.autograd.grad(loss.sum(), policy)
    p = torch.softmax(0.7 * (policy - reference), dim=1).detach()
    p[:, 0] -= 1
    np.testing.assert_allclose(slope, 0.7 * p, atol=CLOSE)
    np.testing.assert_allclose(loss.detach(), -(p[:, 0] + 1).log(), rtol=1e-10)


@pytest.mark.parametrize("k", [2, 4, 5])
def test_the_rankings_of_plackett_luce_sum_to_1_and_a_response_is_pulled_at_each_choice(k):
    rng = np.random.default_rng(4)
    scores = rng.normal(0, 2, k)
    ranked = torch.tensor(np.array([scores[list(order)] for order in permutations(range(k))]), requires_grad=True)
    loss = losses.plackett_luce(ranked)
    assert abs((-loss).exp().sum().item() - 1) < CLOSE
    (slope,) = torch.autograd.grad(loss.sum(), ranked)
    expected = np.zeros(ranked.shape)
    s = ranked.detach().numpy()
    for choice in range(k - 1):
        left = np.exp(s[:, choice:])
        expected[:, choice:] += left / left.sum(axis=1, keepdims=True)
        expected[:, choice] -= 1
    np.testing.assert_allclose(slope, expected, atol=CLOSE)


def test_rrhf_counts_the_responses_on_the_wrong_side():
    rng = np.random.default_rng(5)
    k = 6
    tokens = rng.integers(1, 20, (20, k))
    policy = torch.tensor(-tokens * rng.uniform(0.1, 3, (20, k)), requires_grad=True)
    scores = -np.sort(-rng.normal(size=(20, k)))
    loss = losses.rrhf(Logps(policy, torch.tensor(tokens)), torch.tensor(scores), weight=0.0)
    (slope,) = torch.autograd.grad(loss.sum(), policy)
    mean = policy.detach().numpy() / tokens
    for j in range(k):
        beats = (mean[:, [j]] > mean[:, :j]).sum(axis=1)
        beaten_by = (mean[:, j + 1 :] > mean[:, [j]]).sum(axis=1)
        np.testing.assert_allclose(slope[:, j], (beats - beaten_by) / tokens[:, j], atol=CLOSE)


CONVEX = {
    "logistic": lambda t: np.logaddexp(0, -t),
    "hinge": lambda t: np.maximum(0, 1 - t),
    "square": lambda t: (1 - t) ** 2,
    "exponential": lambda t: np.exp(-t),
}


@pytest.mark.parametrize("cost", CONVEX)
def test_no_matching_is_cheaper_than_that_of_ranks(cost):
    rng = np.random.default_rng(6)
    spread = []
    for _ in range(10):
        ours, refs = np.sort(rng.normal(0, 2, 5)), np.sort(rng.normal(0, 2, 5))
        costs = [CONVEX[cost](ours - refs[list(order)]).sum() for order in permutations(range(5))]
        assert costs[0] <= min(costs) + CLOSE * max(costs)
        spread.append(max(costs) - costs[0])
    assert max(spread) > 0.1  # for these costs matching matters


def test_matching_by_rank_is_not_cheapest_for_a_cost_that_is_not_convex():
    ours, refs = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    assert -((ours - refs) ** 2).sum() > -((ours - refs[::-1]) ** 2).sum()


def test_ncas_population_has_its_minimum_at_the_optimum_of_rlhf_response_by_response():
    rng = np.random.default_rng(7)
    alpha = 0.5
    ref, reward = simplex(rng, 5), rng.normal(size=5)
    best, _ = rlhf_optimum(ref, reward, alpha)
    good = torch.tensor(np.exp(reward / alpha) / (ref @ np.exp(reward / alpha)))
    ref = torch.tensor(ref)

    def population(logits):
        """For logits that need not come from a policy."""
        softplus = torch.nn.functional.softplus
        return (ref * (good * softplus(-logits) + softplus(logits))).sum()

    at = (best / ref).log().requires_grad_()
    least = population(at)
    (slope,) = torch.autograd.grad(least, at)
    np.testing.assert_allclose(slope, 0, atol=CLOSE)
    for shift in (-0.1, 0.1):  # unlike DPO's loss, it is fixed absolutely
        assert population(at + shift) > least + 1e-4
        assert population((best / ref).log() + shift * torch.eye(5, dtype=torch.float64)[0]) > least + 1e-5


def test_token_advantages_sum_to_the_reward_less_the_prompts_value():
    """A tree of all responses of three tokens over a vocabulary of three, with any rewards at its leaves."""
    rng = np.random.default_rng(8)
    beta, vocabulary, depth = 0.6, 3, 3
    reward = {leaf: rng.normal() for leaf in product(range(vocabulary), repeat=depth)}
    ref, value, policy = {}, dict(reward), {}
    for length in reversed(range(depth)):
        for start in product(range(vocabulary), repeat=length):
            q = np.array([value[(*start, token)] for token in range(vocabulary)])
            ref[start] = simplex(rng, vocabulary)
            value[start] = ref[start] @ q  # the mean under the reference, as TDPO takes it
            tilted = ref[start] * np.exp(q / beta)
            policy[start] = tilted / tilted.sum()
    for leaf, its_reward in reward.items():
        rho = divergence = 0.0
        for k in range(depth):
            start, token = leaf[:k], leaf[k]
            rho += np.log(policy[start][token] / ref[start][token])
            divergence += ref[start] @ np.log(ref[start] / policy[start])
        assert abs(beta * (rho + divergence) - (its_reward - value[()])) < CLOSE


@pytest.mark.parametrize("phi", [0.2, 1.5])
def test_neighbours_in_a_mallows_ranking_have_log_odds_phi(phi):
    """Kendall's distance counts the pairs that are turned round; the agreed ranking is 0, 1, 2, 3."""
    orders = list(permutations(range(4)))
    distance = np.array([sum(o[a] > o[b] for a in range(4) for b in range(a + 1, 4)) for o in orders])
    weight = np.exp(-phi * distance)
    for first in range(3):
        ahead = np.array([o.index(first) < o.index(first + 1) for o in orders])
        assert abs(np.log(weight[ahead].sum() / weight[~ahead].sum()) - phi) < CLOSE
