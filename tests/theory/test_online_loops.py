"""Online DPO beside GRPO, the loops' rest points on a cycle of preferences, Nash-MD, XPO's bonus, and RSO's pools."""

import numpy as np
import pytest
import torch

from pref_toolkit import losses
from pref_toolkit.logps import Logps
from pref_toolkit.theory import bandits, groups
from pref_toolkit.theory.exact_loops import mixture, nash_policy

double = torch.float64
CYCLE = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]], dtype=double)
REFERENCE = torch.tensor([0.6, 0.3, 0.1], dtype=double)
REWARD = torch.tensor([0.3, -0.4, 1.0], dtype=double)
POLICIES = torch.tensor([[0.6, 0.3, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.1, 0.2, 0.7]], dtype=double)


def near(a, b, within=1e-12):
    np.testing.assert_allclose(a, b, rtol=0, atol=within)


def slope(loss, policy, reference, opponents, chance, **given):
    """By the logits, of the mean loss over two draws of ``opponents`` and their label; no gradient through the draws."""
    logits = policy.log().requires_grad_()
    pairs = torch.cartesian_prod(*2 * [torch.arange(len(policy))])
    weights = 2 * opponents[pairs].prod(1) * chance[pairs[:, 0], pairs[:, 1]]
    records = (Logps(logp[pairs], torch.ones_like(pairs)) for logp in (logits.log_softmax(0), reference.log()))
    return torch.autograd.grad((weights * loss(*records, **given)).sum(), logits)[0]


def grpo_of_labels(policy, reference, chance, factor=torch.ones_like):
    """GRPO's ascent direction with K = 2 and a reward of 1 for the winner, each pair times ``factor`` of its margin."""
    logits = policy.log().requires_grad_()
    pairs = torch.cartesian_prod(*2 * [torch.arange(len(policy))])  # the winner first
    weights = 2 * policy[pairs].prod(1) * chance[pairs[:, 0], pairs[:, 1]]
    drawn, start = logits.log_softmax(0)[pairs], reference.log()[pairs]
    records = [Logps(logp, torch.ones_like(pairs)) for logp in (drawn, start)]
    given = {"beta": 0.0, "baseline": "group", "divide": "deviation", "per": "token"}
    won = torch.tensor([1.0, 0.0], dtype=double).expand(len(pairs), 2)
    loss = losses.policy_gradient(*records, drawn[..., None], start[..., None], won, **given)
    weights = weights * factor(losses.margin(*records).detach())
    return -torch.autograd.grad((weights * loss).sum(), logits)[0]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_at_the_reference_online_dpo_is_beta_times_grpo_with_groups_of_two(policy, beta):
    better = (REWARD[:, None] > REWARD).double() + torch.eye(3, dtype=double) / 2
    for chance in (better, bandits.bradley_terry(REWARD), CYCLE):
        near(
            -slope(losses.dpo, policy, policy, policy, chance, beta=beta), beta * grpo_of_labels(policy, policy, chance)
        )
    # A judge who is never wrong gives the labels that the rewards themselves give after the division.
    grpo = groups.estimate(policy, REWARD, 2, "group", deviation=True).mean
    near(-slope(losses.dpo, policy, policy, policy, better, beta=beta), beta * grpo)
    assert grpo.abs().max() > 0.01


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_elsewhere_a_pair_has_the_factor_2_beta_sigma_of_minus_its_margin(policy, beta):
    weighed = grpo_of_labels(policy, REFERENCE, CYCLE, lambda D: 2 * beta * torch.sigmoid(-beta * D))
    near(-slope(losses.dpo, policy, REFERENCE, policy, CYCLE, beta=beta), weighed)


def descended(loss, opponents, steps, rate, **given):
    policy = REFERENCE
    for _ in range(steps):
        policy = (policy.log() - rate * slope(loss, policy, REFERENCE, opponents(policy), CYCLE, **given)).softmax(-1)
    return policy


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6])
def test_descent_on_a_cycle_comes_to_the_fixed_point_of_its_own_opponents(share):
    found = descended(losses.ipo, lambda p: mixture(p, REFERENCE, share), 300, 0.05, tau=0.1)
    near(found, nash_policy(CYCLE, REFERENCE, 0.1, share), 0.01)
    others = [nash_policy(CYCLE, REFERENCE, 0.1, s) for s in (0.0, 0.25, 0.6) if s != share]
    assert all((found - other).abs().max() > 0.02 for other in others)


def test_dpo_on_fixed_pairs_of_the_cycle_goes_elsewhere():
    found = descended(losses.dpo, lambda p: torch.full((3,), 1 / 3, dtype=double), 1500, 20.0, beta=0.1)
    near(found, [0.9276, 0.0318, 0.0405], 5e-4)
    assert all((found - nash_policy(CYCLE, REFERENCE, 0.1, s)).abs().max() > 0.3 for s in (0.0, 0.25))


@pytest.mark.parametrize("eta", [0.05, 0.5, 2.0])
def test_nash_md_rests_at_ipo_mds_point_with_a_share_eta_tau(eta):
    tau, policy = 0.1, REFERENCE
    for _ in range(4000):
        opponent = mixture(policy, REFERENCE, eta * tau)
        policy = (opponent.log() + eta * CYCLE @ opponent).softmax(-1)
    near(policy, nash_policy(CYCLE, REFERENCE, tau, eta * tau), 1e-6)


def test_a_shorter_step_of_nash_md_rests_nearer_to_the_nash_policy():
    nash = nash_policy(CYCLE, REFERENCE, 0.1)
    apart = [float((nash_policy(CYCLE, REFERENCE, 0.1, eta * 0.1) - nash).abs().max()) for eta in (2.0, 0.5, 0.05)]
    assert apart == sorted(apart, reverse=True) and apart[-1] < 0.002 < 0.02 < apart[0]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_a_policy_promises_beta_times_the_divergence_of_the_reference_from_it(policy, beta):
    implied = beta * (policy / REFERENCE).log() + 0.7
    optimum, log_z = bandits.rlhf_optimum(REFERENCE, implied, beta)
    near(optimum, policy)
    near(beta * log_z - REFERENCE @ implied, beta * bandits.kl(REFERENCE, policy))
    logits = policy.log().requires_grad_()
    near(torch.autograd.grad(REFERENCE @ logits.log_softmax(0), logits)[0], REFERENCE - policy)
