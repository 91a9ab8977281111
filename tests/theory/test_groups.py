"""Exact means and variances of policy gradients, against autograd and against sums written another way."""

from itertools import product
from math import comb

import numpy as np
import pytest
import torch

from pref_toolkit.theory import groups

POLICY = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
REWARD = torch.tensor([0.2, -0.4, 1.0, 0.5], dtype=torch.float64)
TOKENS = torch.tensor([3, 1, 7, 2])


def gradient_of_mean(values, policy=POLICY):
    """The gradient of ``sum_y pi(y) values(y)`` by the logits, by autograd."""
    logits = policy.log().requires_grad_()
    return torch.autograd.grad(logits.softmax(-1) @ values, logits)[0]


def near(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_every_group_is_there_once():
    found = groups.every_group(POLICY, 3)
    assert len({tuple(row) for row in found.responses.tolist()}) == len(found.chances) == 64
    near(found.chances.sum(), 1)


@pytest.mark.parametrize(
    ("k", "baseline", "factor"),
    [
        (1, 0.0, 1),
        (3, 0.0, 1),
        (2, 0.7, 1),
        (2, "others", 1),
        (4, "others", 1),
        (2, "group", 1 / 2),
        (4, "group", 3 / 4),
    ],
)
def test_the_mean_is_the_gradient_up_to_the_factor_of_the_group(k, baseline, factor):
    near(groups.estimate(POLICY, REWARD, k, baseline).mean, factor * gradient_of_mean(REWARD))


@pytest.mark.parametrize(("baseline", "deviation"), [(0.3, False), ("group", True), ("others", False)])
def test_the_moments_are_sums_over_groups(baseline, deviation):
    p, r = POLICY.numpy(), REWARD.numpy()
    first, squares = np.zeros(4), 0.0
    for drawn in product(range(4), repeat=3):
        x = r[list(drawn)]
        mean = {"group": x.mean(), "others": (x.sum() - x) / 2}.get(baseline, baseline)
        a = x - mean
        if deviation:
            a = a / x.std() if np.ptp(x) else 0 * a
        g = np.mean([a[i] * (np.eye(4)[drawn[i]] - p) for i in range(3)], axis=0)
        first += p[list(drawn)].prod() * g
        squares += p[list(drawn)].prod() * g @ g
    found = groups.estimate(POLICY, REWARD, 3, baseline, deviation=deviation)
    near(found.mean, first)
    near(found.variance, squares - first @ first)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("k", [2, 5, 8])
def test_the_deviation_weights_a_prompt_by_how_hard_it_is(p, k):
    """The mean over the number c of right responses of s / (p (1 - p)), with s the deviation of the group."""
    chance = [comb(k, c) * p**c * (1 - p) ** (k - c) for c in range(k + 1)]
    weight = np.dot(chance, [np.sqrt(c * (k - c)) / k for c in range(k + 1)]) / (p * (1 - p))
    policy, right = torch.tensor([p, 1 - p], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    found = groups.estimate(policy, right, k, "group", deviation=True)
    near(found.mean, weight * gradient_of_mean(right, policy))


def test_in_a_large_group_the_weight_is_one_over_the_deviation_of_the_reward():
    c = np.arange(2001)
    for p in (0.1, 0.5, 0.7):
        drawn = torch.distributions.Binomial(torch.tensor(2000.0).double(), torch.tensor(p).double())
        chance = drawn.log_prob(torch.as_tensor(c).double()).exp().numpy()
        s, limit = chance @ np.sqrt(c * (2000 - c)) / 2000, np.sqrt(p * (1 - p))
        np.testing.assert_allclose(s / (p * (1 - p)), 1 / limit, rtol=2e-3)
        step = 1e-6  # and that is the slope of 2 arcsin(sqrt(p))
        slope = (np.arcsin(np.sqrt(p + step)) - np.arcsin(np.sqrt(p - step))) / step
        np.testing.assert_allclose(slope, 1 / limit, rtol=1e-6)


def test_a_length_makes_it_the_gradient_of_another_objective():
    found = groups.estimate(POLICY, REWARD, 2, 0.3, tokens=TOKENS)
    near(found.mean, gradient_of_mean((REWARD - 0.3) / TOKENS))


@pytest.mark.parametrize(("rewards", "baseline"), [([1.0], "others"), ([1.0, 2.0], "mean")])
def test_what_is_refused(rewards, baseline):
    with pytest.raises(ValueError, match="baseline wants"):
        groups.advantages(rewards, baseline)


def test_a_group_of_equal_rewards_has_no_advantage():
    assert torch.equal(groups.advantages([0.1] * 7, "group", deviation=True), torch.zeros(7).double())
