"""Displacement, SPIN, best-of-n, RSO and Nash policies on worlds whose answer is known."""

import numpy as np
import pytest
import torch

from pref_toolkit import losses
from pref_toolkit.theory import bandits
from pref_toolkit.theory.bandits import Comparisons, minimise
from pref_toolkit.theory.best_of_n import best_of_n
from pref_toolkit.theory.displacement import displacement
from pref_toolkit.theory.nash import mixture, nash_policy
from pref_toolkit.theory.rso import acceptance
from pref_toolkit.theory.spin import spin_update

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
    near(spin_update(data, data, lam), data, 1e-15)
    near(spin_update(REFERENCE, data, 1.0), data, 1e-15)
    policy, gaps = REFERENCE, []
    for _ in range(60):
        policy = spin_update(policy, data, lam)
        gaps.append(float(bandits.kl(data, policy)))
    near(policy, data, 1e-9)
    assert lam == 1 or gaps[:30] == sorted(gaps[:30], reverse=True)


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
    near(exact.sum(), 1, 1e-14)
    if n == 1:
        near(exact, REFERENCE, 1e-14)
    generator = torch.Generator().manual_seed(0)
    draws = torch.multinomial(REFERENCE.expand(200_000, 4), n, replacement=True, generator=generator)
    kept = draws.gather(1, REWARD[draws].argmax(dim=1, keepdim=True))
    near(torch.bincount(kept.flatten(), minlength=4) / 200_000, exact, 0.005)
    assert bandits.kl(exact, REFERENCE) <= np.log(n) - (n - 1) / n + 1e-12


@pytest.mark.parametrize("beta", [0.2, 1.0, 1e9])
def test_what_rso_keeps_follows_the_rlhf_optimum(beta):
    kept = REFERENCE * acceptance(REWARD, beta)
    best, log_z = bandits.rlhf_optimum(REFERENCE, REWARD, beta)
    near(kept / kept.sum(), best, 1e-14)
    near(kept.sum(), torch.exp(log_z - REWARD.max() / beta), 1e-14)


def test_rso_goes_from_the_reference_to_the_best_response():
    near(acceptance(REWARD, 1e9), [1, 1, 1, 1], 1e-8)
    near(acceptance(REWARD, 1e-3), [0, 0, 1, 0], 1e-12)


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
