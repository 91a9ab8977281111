"""Displacement, SPIN, best-of-n, RSO and Nash policies on worlds whose answer is known."""

from itertools import product

import numpy as np
import pytest
import torch

from pref_toolkit import losses
from pref_toolkit.logps import Logps
from pref_toolkit.theory import bandits
from pref_toolkit.theory.bandits import Comparisons, minimise
from pref_toolkit.theory.exact_loops import (
    acceptance,
    best_of_n,
    displacement,
    mixture,
    nash_policy,
    spin_update,
)

REFERENCE = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
REWARD = torch.tensor([0.2, -0.4, 1.0, 0.2], dtype=torch.float64)
CYCLE = [[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]]


def near(a, b, within):
    np.testing.assert_allclose(a, b, rtol=0, atol=within)


def test_dpo_displaces_the_chosen_response():
    path = displacement(losses.dpo, beta=0.1)
    w, l, z, _ = path[-1]  # noqa: E741  the papers' letter
    assert w > l
    assert w < 0.01 < path[0, 0]
    assert z > 0.95


def test_supervised_learning_of_the_chosen_response_holds_it_up():
    path = displacement(losses.dpo_nll, beta=0.1, alpha=0.2)
    assert path[-1, 0] > 0.95
    near(path[-1, 0], 0.98, 0.01)


@pytest.mark.parametrize(("loss", "given"), [(losses.ipo, {"tau": 0.1}), (losses.dpop, {"beta": 0.1, "lam": 50.0})])
def test_smaller_steps_for_steeper_losses(loss, given):
    path = displacement(loss, learning_rate=0.1, **given)
    assert bool(torch.isfinite(path).all())
    assert path[-1, 0] > path[-1, 1]


def test_a_tabular_softmax_never_lowers_the_chosen_response_on_a_single_pair():
    """One step of every size on 10,000 random policies: log pi(y_w) never falls."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(10_000, 6, dtype=torch.float64, generator=generator)
    step = 10 ** torch.linspace(-3, 2, 10_000, dtype=torch.float64)
    gradient = torch.zeros_like(logits)
    gradient[:, 0], gradient[:, 1] = -0.5, 0.5
    after = torch.log_softmax(logits - step[:, None] * gradient, dim=1)
    assert bool((after[:, 0] > torch.log_softmax(logits, dim=1)[:, 0]).all())


@pytest.mark.parametrize("lam", [1.0, 3.0])
def test_spin_ends_at_the_data(lam):
    data = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    near(spin_update(data, data, lam), data, 1e-12)
    near(spin_update(REFERENCE, data, 1.0), data, 1e-12)
    policy, gaps = REFERENCE, []
    for _ in range(60):
        policy = spin_update(policy, data, lam)
        gaps.append(float(bandits.kl(data, policy)))
    near(policy, data, 1e-9)
    assert lam == 1 or gaps[:30] == sorted(gaps[:30], reverse=True)


@pytest.mark.parametrize("lam", [0.1, 0.6, 1.0, 3.0])
def test_spin_moves_every_policy_that_is_not_the_data(lam):
    data = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    exchanged, slightly_off = data[[1, 0, 2, 3]], data + 0.01 * torch.tensor([1, -1, 0, 0])
    drawn = torch.softmax(torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1)
    for policy in (REFERENCE, torch.full_like(data, 0.25), exchanged, slightly_off, *drawn):
        step = bandits.kl(spin_update(policy, data, lam), policy)
        assert step > 0.01 * bandits.kl(data, policy) > 1e-6


@pytest.mark.parametrize(
    "lam, arrives", [(0.3, False), (0.4, False), (0.5, False), (0.51, True), (0.6, True), (5.0, True)]
)
def test_spin_reaches_the_data_for_a_lam_above_one_half_only(lam, arrives):
    """A round multiplies the log-ratio to the data by 1 - 1 / lam."""
    data, policy = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64), REFERENCE

    def away(pi):
        ratio = (pi / data).log()
        return ratio - ratio.mean()

    for _ in range(300 if arrives else 4):  # exact rounds below 1/2 soon leave the range of float64
        before, policy = policy, spin_update(policy, data, lam)
        near(away(policy), (1 - 1 / lam) * away(before), 1e-9)
    if arrives:
        near(policy, data, 1e-5)  # 0.51 is left with 0.961^300 = 6e-6 of the log-ratio
    else:
        assert away(policy).norm() > away(REFERENCE).norm() - 1e-9


@pytest.mark.parametrize("lam", [0.1, 1.0, 5.0])
def test_round_0_of_logistic_spin_is_dpo_in_loss_and_gradient(lam):
    generator = torch.Generator().manual_seed(0)
    policy, reference = 10 * torch.randn(2, 100, 2, dtype=torch.float64, generator=generator)
    policy.requires_grad_()
    records = Logps(policy, torch.ones(100, 2)), Logps(reference, torch.ones(100, 2))
    spin, dpo = losses.spin(*records, lam=lam), losses.dpo(*records, beta=lam)
    assert torch.equal(spin, dpo)
    one, other = (torch.autograd.grad(loss.sum(), policy)[0] for loss in (spin, dpo))
    assert torch.equal(one, other) and bool((one != 0).any())


def test_each_generation_over_the_last_repeats_the_last_change():
    """Chosen from pi_t, rejected from pi_(t-1), reference pi_t: the log-ratio of the next step is 1 / lam of the last one."""
    lam, last, now = 2.0, REFERENCE, torch.softmax(REFERENCE.log() + torch.tensor([0.5, 0.0, -0.5, 0.2]), dim=-1)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    weights = (now[:, None] * last[None, :]).flatten()
    path = minimise(losses.spin, Comparisons(pairs, weights), now, steps=1500, learning_rate=2.0, lam=lam)
    near(path[-1], torch.softmax(now.log() + (now / last).log() / lam, dim=-1), 1e-6)


def test_spins_update_is_the_minimiser_of_its_loss():
    """Iteration 0 with the logistic link is DPO on pairs of a data response and a response of the policy."""
    lam, data = 2.0, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    weights = (data[:, None] * REFERENCE[None, :]).flatten()
    path = minimise(losses.dpo, Comparisons(pairs, weights), REFERENCE, steps=1500, learning_rate=4.0, beta=lam)
    near(path[-1], spin_update(REFERENCE, data, lam), 1e-6)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_best_of_n_is_what_draws_give(n):
    exact = best_of_n(REFERENCE, REWARD, n)
    near(exact.sum(), 1, 1e-12)
    if n == 1:
        near(exact, REFERENCE, 1e-12)
    generator = torch.Generator().manual_seed(0)
    draws = torch.multinomial(REFERENCE.expand(200_000, 4), n, replacement=True, generator=generator)
    kept = draws.gather(1, REWARD[draws].argmax(dim=1, keepdim=True))
    near(torch.bincount(kept.flatten(), minlength=4) / 200_000, exact, 0.005)
    assert bandits.kl(exact, REFERENCE) <= np.log(n) - (n - 1) / n + 1e-12


@pytest.mark.parametrize("beta", [0.2, 1.0, 1e9])
def test_what_rso_keeps_follows_the_rlhf_optimum(beta):
    kept = REFERENCE * acceptance(REWARD, beta)
    best, log_z = bandits.rlhf_optimum(REFERENCE, REWARD, beta)
    near(kept / kept.sum(), best, 1e-12)
    near(kept.sum(), torch.exp(log_z - REWARD.max() / beta), 1e-12)


def test_rso_goes_from_the_reference_to_the_best_response():
    near(acceptance(REWARD, 1e9), [1, 1, 1, 1], 1e-8)
    near(acceptance(REWARD, 1e-3), [0, 0, 1, 0], 1e-12)


@pytest.mark.parametrize("reward", [REWARD, REWARD[[2, 0, 2, 1]]])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_rso_with_a_beta_near_0_keeps_the_best_of_its_draws(reward, n):
    """Over every pool of n draws: what is kept first has the chance that is its share of the pool's acceptance."""
    kept = torch.zeros(4, dtype=torch.float64)
    for pool in map(list, product(range(4), repeat=n)):
        accept = acceptance(reward[pool], 1e-3)
        kept.index_add_(0, torch.tensor(pool), REFERENCE[pool].prod() * accept / accept.sum())
    near(kept, best_of_n(REFERENCE, reward, n), 1e-12)


# By hand: the scores of the two responses are (1/4, -1/4) and (-3/4, 3/4).
@pytest.mark.parametrize(
    ("reward", "baseline", "variance"),
    [
        ((11.0, 10.0), 0.0, 39.3984375),
        ((11.0, 10.0), 11.0, 0.2109375),  # the greedy response's
        ((1.0, 0.0), 0.0, 0.0234375),
        ((1.0, 0.0), 1.0, 0.2109375),  # here it does harm
        ((1.0, 0.0), 0.25, 0.0),  # the best one
    ],
)
def test_a_baseline_changes_the_variance_of_the_policy_gradient_and_not_its_mean(reward, baseline, variance):
    r = torch.tensor(reward, dtype=torch.float64)
    logits = torch.tensor([0.75, 0.25], dtype=torch.float64).log().requires_grad_()
    pi = torch.softmax(logits, dim=-1)
    (gradient,) = torch.autograd.grad((pi * r).sum(), logits, retain_graph=True)
    scores = torch.stack([torch.autograd.grad(pi[y].log(), logits, retain_graph=True)[0] for y in range(2)])
    estimates = (r - baseline)[:, None] * scores
    chance = pi.detach()[:, None]
    near((chance * estimates).sum(dim=0), gradient, 1e-12)
    near((chance * (estimates - gradient) ** 2).sum(), variance, 1e-12)


def slope_of_ipo(policy, opponents, reference, tau):
    """Gradient in the logits of ``losses.ipo`` over every pair of draws from ``opponents``, labelled by CYCLE."""
    logits = policy.log().requires_grad_()
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    i, j = pairs.T
    weights = opponents[i] * opponents[j] * 2 * torch.tensor(CYCLE, dtype=torch.float64)[i, j]
    ref = torch.tensor(reference, dtype=torch.float64).log()
    records = (Logps(logp[pairs], torch.ones_like(pairs)) for logp in (logits.log_softmax(0), ref))
    return torch.autograd.grad((weights * losses.ipo(*records, tau=tau)).sum(), logits)[0]


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_online_ipo_rests_at_the_nash_policy_and_nowhere_near(tau, weight):
    """Pairs from the policy itself (online IPO) or from its mixture with the reference (IPO-MD), no gradient through draws."""
    reference = (0.6, 0.3, 0.1)
    rest = nash_policy(CYCLE, reference, tau, weight)
    near(slope_of_ipo(rest, mixture(rest, reference, weight), reference, tau), np.zeros(3), 1e-9)
    for move in torch.eye(3, dtype=torch.float64):
        moved = torch.softmax(rest.log() + 0.1 * move, dim=-1)
        slope = slope_of_ipo(moved, mixture(moved, reference, weight), reference, tau)
        assert slope.abs().max() > 1e-3


def test_the_nash_policy_of_the_cycle():
    policy = nash_policy(CYCLE, (0.6, 0.3, 0.1), tau=0.1)
    near(policy, [0.4927, 0.1541, 0.3531], 5e-5)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_nash_policy_is_its_own_best_answer(weight):
    chance, reference, tau = torch.tensor(CYCLE, dtype=torch.float64), (0.6, 0.3, 0.1), 0.2
    policy = nash_policy(CYCLE, reference, tau, weight)
    against = chance @ mixture(policy, reference, weight)
    value = bandits.rlhf_value(policy, reference, against, tau)
    others = torch.softmax(2 * torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).double(), dim=-1)
    assert all(bandits.rlhf_value(p, reference, against, tau) < value for p in others)
    near(value, tau * bandits.rlhf_optimum(reference, against, tau)[1], 1e-11)


def test_no_fixed_point_is_said():
    with pytest.raises(ArithmeticError, match="no fixed point"):
        nash_policy(CYCLE, (0.6, 0.3, 0.1), tau=0.003)
