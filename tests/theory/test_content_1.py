"""What derivations argue in words, or prove for a few responses, holds for numbers too. Everything is float64."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_softmax, logsumexp, softmax

CLOSE = 1e-12


def simplex(rng, k):
    return rng.dirichlet(np.ones(k))


def nll(t):
    return np.logaddexp(0, -t)


def graph(k, pairs):
    """For each pair one row: 1 at the one, -1 at the other."""
    rows = np.zeros((len(pairs), k))
    for row, (i, j) in zip(rows, pairs):
        row[i], row[j] = 1, -1
    return rows


CONNECTED = [(0, 1), (1, 2), (2, 3), (3, 4)]
APART = [(0, 1), (1, 2), (3, 4)]


@pytest.mark.parametrize(("pairs", "free"), [(CONNECTED, 1), (APART, 2)], ids=["connected", "two parts"])
def test_dpos_minimum_is_unique_if_the_pairs_connect_all_responses(pairs, free):
    """The expected loss bends along every direction but those that move one connected part as a whole."""
    rng = np.random.default_rng(0)
    edges, reward = graph(5, pairs), rng.normal(size=5)
    p = expit(edges @ reward)

    def slope(b):
        return edges.T @ (expit(edges @ b) - p)

    assert np.abs(slope(reward + 3.0)).max() < CLOSE
    t = edges @ rng.normal(size=5)
    bending = np.linalg.eigvalsh(edges.T @ np.diag(expit(t) * expit(-t)) @ edges)
    assert (bending < 1e-12).sum() == free and (bending > 1e-3).sum() == 5 - free
    # Moving one part by itself leaves minima that are other policies.
    other = reward + np.array([0, 0, 0, 2.0, 2.0])
    assert (np.abs(slope(other)).max() < CLOSE) == (free == 2)


@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_dpos_minimum_under_bradley_terry_is_rlhfs_optimum(beta):
    rng = np.random.default_rng(1)
    edges, reward, ref = graph(5, CONNECTED), rng.normal(size=5), simplex(rng, 5)
    p = expit(edges @ reward)

    def loss(logits):
        t = edges @ (beta * (log_softmax(logits) - np.log(ref)))
        return (p * nll(t) + (1 - p) * nll(-t)).sum(), beta * edges.T @ (expit(t) - p)

    found = minimize(loss, np.zeros(5), jac=True, method="BFGS", options={"gtol": 1e-12})
    tilted = np.log(ref) + reward / beta
    np.testing.assert_allclose(softmax(found.x), np.exp(tilted - logsumexp(tilted)), rtol=1e-6)


@pytest.mark.parametrize("tau", [0.2, 1.0])
def test_ipos_labels_and_chances_give_losses_that_differ_by_a_constant(tau):
    """Azar et al., Proposition 3, for any table of preferences; pair by pair it is not so."""
    rng = np.random.default_rng(2)
    k = 6
    upper = np.triu(rng.uniform(0, 1, (k, k)), 1)
    p = upper + np.tril(1 - upper.T, -1) + np.eye(k) / 2
    mu = simplex(rng, k)
    chance = p @ mu

    def both(eta):
        h = eta[:, None] - eta[None, :]
        by_chance = (h - (chance[:, None] - chance[None, :]) / tau) ** 2
        by_label = p * (h - 1 / tau) ** 2 + (1 - p) * h**2
        return by_chance - by_label

    gaps = [both(rng.normal(0, 3, k)) for _ in range(8)]
    means = [mu @ gap @ mu for gap in gaps]
    assert np.ptp(means) < 1e-10 / tau**2
    assert np.ptp([gap[0, 1] for gap in gaps]) > 0.1


def test_a_chosen_response_falls_where_the_gradients_agree_too_well():
    """First-order changes under plain gradient descent, for losses that pull the two responses differently."""
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(200):
        features, parameters = rng.normal(size=(4, 3)), rng.normal(size=3)
        up, down, step = rng.uniform(0.1, 1), rng.uniform(0.1, 1), 1e-6

        def logp(theta, features=features):
            return log_softmax(features @ theta)

        g = features - softmax(features @ parameters) @ features  # by the parameters, a row for each response
        moved = logp(parameters + step * (up * g[0] - down * g[1])) - logp(parameters)
        expected = up * (g[0] @ g[0]) - down * (g[0] @ g[1])
        assert abs(moved[0] / step - expected) < 1e-3 * (1 + g[0] @ g[0] + g[1] @ g[1]) ** 2
        seen.add(bool(expected < 0))
    assert seen == {True, False}


def test_in_a_tabular_softmax_it_never_falls():
    rng = np.random.default_rng(4)
    for k in (2, 3, 8) * 20:
        p = simplex(rng, k)
        g = np.eye(k) - p  # the gradient of each log-probability by the logits
        np.testing.assert_allclose(g[0] @ g[0] - g[0] @ g[1], 1 - p[0] + p[1], atol=CLOSE)
        assert g[0] @ g[0] > g[0] @ g[1]


@pytest.mark.parametrize("with_reference", [False, True], ids=["simpo", "dpo_norm"])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_a_reward_per_token_is_that_of_the_optimum_of_a_length_weighted_entropy(beta, with_reference):
    """The policy whose mean log-ratios are its rewards is the best one; without a reference that is SimPO's."""
    rng = np.random.default_rng(5)
    for _ in range(5):
        n, reward = rng.integers(1, 20, 5), rng.normal(size=5)
        log_ref = np.log(simplex(rng, 5)) if with_reference else np.zeros(5)

        def log_optimum(c, n=n, reward=reward, log_ref=log_ref):
            return log_ref + n * (reward + c) / beta

        def objective(log_pi, n=n, reward=reward, log_ref=log_ref):
            return np.exp(log_pi) @ (reward + beta * (1 - (log_pi - log_ref)) / n)

        c = brentq(lambda c: logsumexp(log_optimum(c)), -50, 50, xtol=1e-14)
        best = log_optimum(c)
        assert abs(logsumexp(best)) < 1e-9
        others = [log_softmax(best + rng.normal(0, scale, 5)) for scale in (0.01, 0.1, 1, 3) for _ in range(50)]
        assert all(objective(other) <= objective(best) + CLOSE for other in others)
        assert objective(np.full(5, -np.log(5))) < objective(best) - 1e-3  # so the best one is no accident of rounding


def test_the_price_on_length_enters_bradley_terry_with_a_plus():
    rng = np.random.default_rng(7)
    beta, alpha, n, reward, ref = 0.7, 0.1, rng.integers(1, 20, 5), rng.normal(size=5), simplex(rng, 5)
    tilted = np.log(ref) + (reward - alpha * n) / beta
    rho = tilted - logsumexp(tilted) - np.log(ref)
    objective = lambda log_pi: np.exp(log_pi) @ (reward - alpha * n - beta * (log_pi - np.log(ref)))
    best = rho + np.log(ref)
    assert all(objective(log_softmax(best + rng.normal(0, 1, 5))) < objective(best) for _ in range(100))
    for i in range(5):
        for j in range(5):
            assert abs(beta * (rho[i] - rho[j]) + alpha * (n[i] - n[j]) - (reward[i] - reward[j])) < CLOSE


def test_cpos_preference_loss_bounds_dpos_against_a_reference_that_leads():
    rng = np.random.default_rng(8)
    x, lead = rng.normal(0, 10, 1000), rng.exponential(3, 1000)
    gap = nll(x) + lead - nll(x - lead)
    lost = x < -20
    assert (gap[~lost] > 0).all()
    assert lost.any() and (np.abs(gap[lost]) < 1e-6).all()  # tight there, up to rounding
    assert (nll(x - lead) >= nll(x)).all()


def test_doubt_about_the_reward_is_a_supervised_term():
    """The value of RLHF's optimum less a baseline's mean reward is the baseline's supervised loss, up to a constant."""
    rng = np.random.default_rng(9)
    beta, ref, base = 0.4, simplex(rng, 6), simplex(rng, 6)
    differences = []
    for _ in range(6):
        reward = rng.normal(0, 2, 6)
        tilted = np.log(ref) + reward / beta
        log_pi = tilted - logsumexp(tilted)
        differences.append(beta * logsumexp(tilted) - base @ reward + beta * base @ log_pi)
    assert np.ptp(differences) < CLOSE
    assert abs(differences[0] - beta * base @ np.log(ref)) < CLOSE


def test_the_least_favourable_reward_is_found_by_dpo_with_a_supervised_term():
    """Over rewards: eta times Bradley-Terry's loss plus RLHF's value less a baseline's mean reward."""
    rng = np.random.default_rng(13)
    beta, eta, ref, base = 0.4, 2.0, simplex(rng, 4), simplex(rng, 4)
    edges = graph(4, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
    asked, wins = rng.uniform(0, 1, 6), rng.uniform(0, 1, 6)

    def misfit(reward):
        gaps = edges @ reward
        return eta * asked @ (wins * nll(gaps) + (1 - wins) * nll(-gaps))

    def over_rewards(reward):
        return misfit(reward) + beta * logsumexp(np.log(ref) + reward / beta) - base @ reward

    def over_policies(logits):
        log_pi = log_softmax(logits)
        return misfit(beta * (log_pi - np.log(ref))) - beta * base @ log_pi + beta * base @ np.log(ref)

    reward, policy = (
        minimize(f, np.zeros(4), method="BFGS", options={"gtol": 1e-9}) for f in (over_rewards, over_policies)
    )
    assert abs(reward.fun - policy.fun) < 1e-10
    np.testing.assert_allclose(softmax(np.log(ref) + reward.x / beta), softmax(policy.x), rtol=1e-5)


def test_a_policy_that_never_gives_a_response_is_not_rlhfs_optimum():
    rng = np.random.default_rng(10)
    for _ in range(50):
        beta, ref, reward = rng.uniform(1, 3), np.full(4, 1 / 4), rng.uniform(-2, 2, 4)
        policy = np.append(simplex(rng, 3), 0.0)

        def value(pi, beta=beta, ref=ref, reward=reward):
            given = pi > 0
            return pi @ reward - beta * pi[given] @ np.log(pi[given] / ref[given])

        moved = (1 - 1e-8) * policy + 1e-8 * np.eye(4)[3]
        assert value(moved) > value(policy)


@pytest.mark.parametrize("per_token", [False, True])
def test_supervised_learning_ends_at_the_data_and_means_per_token_at_a_tilt_of_it(per_token):
    rng = np.random.default_rng(11)
    data, n = simplex(rng, 5), rng.integers(1, 20, 5)
    weights = data / (n if per_token else 1)
    found = minimize(lambda z: -weights @ log_softmax(z), np.zeros(5), method="BFGS", options={"gtol": 1e-12})
    np.testing.assert_allclose(softmax(found.x), weights / weights.sum(), rtol=1e-5)


def test_chi_pos_optimum_gives_its_reward_back_and_grows_no_faster():
    rng = np.random.default_rng(12)
    beta, ref, reward = 0.5, simplex(rng, 5), rng.normal(0, 3, 5)

    def objective(logits):
        pi = softmax(logits)
        z = pi / ref
        return -(pi @ reward - beta * ref @ (z * np.log(z) + (z - 1) ** 2 / 2))

    found = minimize(objective, np.zeros(5), method="BFGS", options={"gtol": 1e-10})
    z = softmax(found.x) / ref
    nu = reward - beta * (z + np.log(z))
    assert np.ptp(nu) < 1e-4
    raised = z > 1
    assert raised.any() and (z[raised] < (reward[raised] - nu[raised]) / beta).all()
