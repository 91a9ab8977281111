"""Closed forms, optima and shapes that no table of values shows: what must hold of the losses, each computed."""

import math
import pickle
from itertools import permutations

import pytest
import torch

from pref_toolkit import losses
from pref_toolkit.logps import Logps

BETA = 0.7


def pairs(chosen, rejected) -> Logps:
    return Logps.pair(torch.as_tensor(chosen, dtype=torch.float64), torch.as_tensor(rejected, dtype=torch.float64))


def at_margin(t: torch.Tensor) -> tuple[Logps, Logps]:
    """Pairs whose margin D is ``t``."""
    return pairs(t, torch.zeros_like(t)), pairs(torch.zeros_like(t), torch.zeros_like(t))


def softmax_policy(n: int, seed: int = 0) -> torch.Tensor:
    """Log-probabilities of n actions."""
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).log_softmax(0)


def population_gradient(loss, logp: torch.Tensor, ref: torch.Tensor, weight, **hyperparameters) -> torch.Tensor:
    """Gradient in the logits of sum over ordered pairs of weight[y, y'] loss(y preferred to y')."""
    logits = logp.clone().requires_grad_()
    y, z = torch.tensor(list(permutations(range(len(logp)), 2))).T
    policy = logits.log_softmax(0)
    each = loss(pairs(policy[y], policy[z]), pairs(ref[y], ref[z]), **hyperparameters)
    return torch.autograd.grad((weight[y, z] * each).sum(), logits)[0]


def test_the_gradient_of_dpo_is_beta_sigmoid_of_minus_beta_D():
    sums = torch.tensor([[-3.0, -5.0], [-9.0, -2.0]], dtype=torch.float64, requires_grad=True)
    reference = pairs([-4.0, -4.0], [-4.5, -1.0])
    D = losses.margin(Logps(sums, torch.ones(2, 2)), reference)
    losses.dpo(Logps(sums, torch.ones(2, 2)), reference, beta=BETA).sum().backward()
    strength = BETA * torch.sigmoid(-BETA * D.detach())
    torch.testing.assert_close(sums.grad, torch.stack([-strength, strength], dim=1), rtol=1e-12, atol=0)


def test_dpo_as_a_function_of_the_two_probabilities():
    """Signs always differ, and the smaller probability has the larger gradient: |dL/dq| / |dL/dp| = p / q."""
    p = torch.tensor([0.2, 0.05, 0.6], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([0.1, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    ref_w, ref_l = torch.tensor([0.3, 0.2, 0.1]).double(), torch.tensor([0.1, 0.4, 0.1]).double()
    loss = losses.dpo(pairs(p.log(), q.log()), pairs(ref_w.log(), ref_l.log()), beta=BETA)
    a, z = (ref_w / ref_l) ** BETA, q / p
    torch.testing.assert_close(loss, torch.log(1 + a * z**BETA), rtol=1e-12, atol=0)
    loss.sum().backward()
    C = (a * BETA * z ** (BETA - 1) / (1 + a * z**BETA)).detach()
    torch.testing.assert_close(p.grad, (-C * z / p).detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(q.grad, (C / p).detach(), rtol=1e-12, atol=0)


def test_the_population_optimum_of_dpo_is_that_of_rlhf():
    reward, ref = torch.tensor([1.0, -0.5, 0.3, 2.0], dtype=torch.float64), softmax_policy(4)
    optimum = (ref + reward / BETA).log_softmax(0)
    bradley_terry = torch.sigmoid(reward[:, None] - reward[None, :])
    gradient = population_gradient(losses.dpo, optimum, ref, bradley_terry, beta=BETA)
    torch.testing.assert_close(gradient, torch.zeros(4).double(), rtol=0, atol=1e-15)
    assert population_gradient(losses.dpo, ref, ref, bradley_terry, beta=BETA).abs().max() > 0.01


def test_a_tabular_softmax_never_lowers_the_chosen_response():
    """log pi(y_w) moves by beta sigma(-beta D) (1 - p + q) > 0 to first order, here on 10,000 random draws."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(10_000, 5, dtype=torch.float64, generator=generator)).requires_grad_()
    ref = torch.randn(10_000, 5, dtype=torch.float64, generator=generator).log_softmax(1)
    logp = logits.log_softmax(1)
    policy, reference = Logps(logp[:, :2], torch.ones(10_000, 2)), Logps(ref[:, :2], torch.ones(10_000, 2))
    (step,) = torch.autograd.grad(losses.dpo(policy, reference, beta=BETA).sum(), logits, retain_graph=True)
    (up,) = torch.autograd.grad(logp[:, 0].sum(), logits)
    p, q = logp[:, :2].detach().exp().T
    first_order = BETA * torch.sigmoid(-BETA * losses.margin(policy, reference)).detach() * (1 - p + q)
    torch.testing.assert_close(-(step * up).sum(1), first_order, rtol=1e-9, atol=1e-15)
    assert (first_order > 0).all()


def test_the_chosen_response_falls_where_the_gradients_agree_too_well():
    """To first order log pi(y_w) moves by beta sigma(-beta D) (|g_w|^2 - <g_w, g_l>), g = grad log pi, shared parameters."""
    generator = torch.Generator().manual_seed(0)
    falls = []
    for _ in range(200):
        features = torch.randn(4, 2, dtype=torch.float64, generator=generator)
        state = torch.randn(2, dtype=torch.float64, generator=generator).requires_grad_()
        reference = Logps(torch.randn(1, 2, dtype=torch.float64, generator=generator), torch.ones(1, 2))
        logp = (features @ state).log_softmax(0)
        policy = Logps(logp[None, :2], torch.ones(1, 2))
        g_w, g_l = (torch.autograd.grad(logp[k], state, retain_graph=True)[0] for k in (0, 1))
        (gradient,) = torch.autograd.grad(losses.dpo(policy, reference, beta=BETA).sum(), state)
        pull = BETA * torch.sigmoid(-BETA * losses.margin(policy, reference)).item()
        rate = pull * (g_w @ g_w - g_w @ g_l).item()
        after = (features @ (state - 1e-6 * gradient)).log_softmax(0)[0]
        assert (after - logp[0]).item() / 1e-6 == pytest.approx(rate, abs=1e-4)
        falls.append(rate < 0)
    assert 20 < sum(falls) < 180


@pytest.mark.parametrize(
    "loss, hyperparameters, step, stays",
    [
        (losses.dpo, {"beta": 0.1}, 1.0, False),
        (losses.dpo_nll, {"beta": 0.1, "alpha": 0.2}, 1.0, True),
        (losses.dpop, {"beta": 0.1, "lam": 50.0}, 0.1, True),
    ],
    ids=["dpo", "dpo_nll", "dpop"],
)
def test_displacement_in_two_dimensions(loss, hyperparameters, step, stays):
    """Shared parameters: DPO ranks the pair right and empties the chosen action; a supervised term or DPOP keeps it."""
    actions = torch.tensor([[1, 0.1], [1, -0.1], [0, 1], [0, -1]], dtype=torch.float64)
    state = torch.tensor([2.0, 0.0], dtype=torch.float64)
    one = torch.ones(1, 2)
    reference = Logps((actions @ state).log_softmax(0)[None, :2], one)
    for _ in range(5000):
        state.requires_grad_()
        policy = Logps((actions @ state).log_softmax(0)[None, :2], one)
        (gradient,) = torch.autograd.grad(loss(policy, reference, **hyperparameters).sum(), state)
        state = (state - step * gradient).detach()
    w, l = (actions @ state).softmax(0)[:2].tolist()  # noqa: E741
    assert w > l
    assert w > 0.4 if stays else w < 0.01
    if loss is losses.dpo_nll:
        assert w > 0.95


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0])
def test_ipo_has_a_finite_optimum_where_dpo_has_none(tau):
    total_order = torch.ones(3, 3, dtype=torch.float64).triu(1)
    uniform = torch.full((3,), 1 / 3, dtype=torch.float64).log()
    optimum = (-torch.arange(3, dtype=torch.float64) / (3 * tau)).log_softmax(0)
    wins = torch.tensor([5, 3, 1], dtype=torch.float64) / 6  # E_y'[p(y beats y')] under the uniform reference
    torch.testing.assert_close(optimum, (uniform + wins / tau).log_softmax(0), rtol=1e-12, atol=0)
    at_rest = population_gradient(losses.ipo, optimum, uniform, total_order, tau=tau)
    torch.testing.assert_close(at_rest, torch.zeros(3).double(), rtol=0, atol=1e-13)
    pushed = population_gradient(losses.dpo, optimum, uniform, total_order, beta=tau)
    assert pushed[0] < -0.01  # DPO still raises the best action
    two = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    p = torch.sigmoid(torch.tensor(1 / (2 * tau), dtype=torch.float64))
    even = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    at_rest = population_gradient(losses.ipo, torch.stack([p, 1 - p]).log(), even, two, tau=tau)
    torch.testing.assert_close(at_rest, torch.zeros(2).double(), rtol=0, atol=1e-12)
    expected = {0.1: 0.9933, 0.5: 0.7311, 1.0: 0.6225}[tau]
    assert p.item() == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("eps", [0.1, 0.3])
def test_the_optimum_of_cdpo(eps):
    t = torch.tensor([(1 - eps) / eps], dtype=torch.float64).log().requires_grad_()
    losses.cdpo(*at_margin(t / BETA), beta=BETA, eps=eps).sum().backward()
    assert t.grad.item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("eps", [0.1, 0.3])
def test_robust_dpo_is_unbiased_under_flips_and_unbounded_below(eps):
    D = torch.linspace(-30, 30, 61, dtype=torch.float64)
    kept, flipped = (losses.robust_dpo(*at_margin(d), beta=BETA, eps=eps) for d in (D, -D))
    clean = losses.dpo(*at_margin(D), beta=BETA)
    torch.testing.assert_close((1 - eps) * kept + eps * flipped, clean, rtol=1e-12, atol=1e-12)
    far = losses.robust_dpo(*at_margin(torch.tensor([1e3, 1e6]).double()), beta=BETA, eps=eps)
    assert far[0] < -50 and far[1] < 900 * far[0]


@pytest.mark.parametrize("lam", [0.4, 1.0])
def test_the_population_update_of_spin(lam):
    """pi' ~ pi (p_data / pi)^(1 / lam): at rest there, and nowhere else; p_data in one step at lam = 1."""
    data, previous = softmax_policy(4, seed=1), softmax_policy(4, seed=2)
    update = (previous + (data - previous) / lam).log_softmax(0)
    weight = (data[:, None] + previous[None, :]).exp()
    gradient = population_gradient(losses.spin, update, previous, weight, lam=lam)
    torch.testing.assert_close(gradient, torch.zeros(4).double(), rtol=0, atol=1e-14)
    assert (update - data).abs().max() < 1e-12 or lam != 1
    moved = population_gradient(losses.spin, previous, previous, weight, lam=lam)
    assert moved.abs().max() > 0.01
    fixed = population_gradient(losses.spin, data, data, (data[:, None] + data[None, :]).exp(), lam=lam)
    torch.testing.assert_close(fixed, torch.zeros(4).double(), rtol=0, atol=1e-14)


def test_plackett_luce_is_a_distribution_over_rankings():
    scores = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64)
    rankings = torch.stack([scores[list(order)] for order in permutations(range(4))])
    assert torch.exp(-losses.plackett_luce(rankings)).sum().item() == pytest.approx(1, abs=1e-14)


def test_discopop_rises_around_the_start():
    """Neither monotone nor convex at tau = 0.05: it rises for t = beta D between about -0.12 and 0.07 only."""
    t = torch.linspace(-1, 1, 2001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(losses.discopop(*at_margin(t / 0.05), beta=0.05, tau=0.05).sum(), t)
    rising = t[slope > 0].tolist()
    assert (min(rising), max(rising)) == pytest.approx((-0.12, 0.07), abs=0.005)
    assert len(rising) == round((max(rising) - min(rising)) / 1e-3) + 1
    assert (slope.diff() < 0).any() and (slope.diff() > 0).any()


def test_exponentials_go_on_as_their_tangent_above_30():
    t = torch.tensor([29.0, 30.0, 31.0, 1e4], dtype=torch.float64, requires_grad=True)
    loss = losses.spin(*at_margin(-t / BETA), lam=BETA, link="exponential")
    tangent = torch.tensor(30.0).double().exp()
    expected = torch.stack([t[0].exp(), tangent, 2 * tangent, (1e4 - 29) * tangent])
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    (slope,) = torch.autograd.grad(loss.sum(), t)
    torch.testing.assert_close(slope, torch.stack([t[0].exp(), *3 * [tangent]]).detach(), rtol=1e-12, atol=0)
    # A loss of this size is its argument, beta / alpha times the exponential less 1.
    loss = losses.f_dpo(*at_margin(-t / 0.4), beta=0.4, divergence="alpha", alpha=0.4)
    torch.testing.assert_close(loss, expected - 1, rtol=1e-12, atol=0)


@pytest.mark.parametrize("alpha", [0.5, 1e-2, 1e-4, 1e-6])
def test_f_dpo_keeps_its_digits_at_a_small_alpha(alpha):
    """In float32, where 1 / alpha in both terms of a difference would leave few of them."""
    policy, reference = (
        pairs([-12.0, -3.0, -40.0], [-15.0, -9.0, -38.0]),
        pairs([-14.0, -4.0, -41.0], [-14.0, -5.0, -37.5]),
    )
    single = [Logps(record.sums.float(), record.tokens) for record in (policy, reference)]
    found, expected = (losses.f_dpo(*r, divergence="alpha", alpha=alpha) for r in (single, (policy, reference)))
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


def test_kto_is_bounded_and_confident_mistakes_stop_learning():
    rho = torch.tensor([-1e3, -10.0, 0.0, 10.0, 1e3], dtype=torch.float64)[:, None].requires_grad_()
    one = torch.ones(5, 1)
    labels = torch.ones(5, dtype=torch.bool)
    loss = losses.kto(Logps(rho, one), Logps(0 * rho.detach(), one), labels, torch.zeros(1), lam_D=0.4, lam_U=3.0)
    assert ((loss >= 0) & (loss <= 0.4)).all()
    loss.sum().backward()
    assert rho.grad[0].abs() < 1e-40 < rho.grad[2].abs()


def test_the_reference_point_of_kto_is_a_mean_and_not_below_0():
    """Mean first, clamp after: -3 and 1 are 0 together, -1 and 3 are 1."""
    policy, reference = (Logps(torch.tensor([[nats]]).double(), torch.ones(1, 1)) for nats in (-12.0, -14.0))
    for kl, z0 in (((-3.0, 1.0), 0.0), ((-1.0, 3.0), 1.0)):
        found = losses.kto(policy, reference, torch.tensor([True]), torch.tensor(kl), beta=BETA)
        assert found.item() == pytest.approx(1 / (1 + math.exp(BETA * (2 - z0))), abs=1e-15)


def test_exo_is_0_only_where_the_policy_has_the_labels_odds():
    t = torch.tensor([0.9 / 0.1], dtype=torch.float64).log()
    assert losses.exo(*at_margin(t / BETA), beta=BETA, eps=0.1).item() == pytest.approx(0, abs=1e-15)
    assert (losses.exo(*at_margin(torch.cat([t - 0.1, t + 0.1]) / BETA), beta=BETA, eps=0.1) > 1e-4).all()


def test_sppo_has_its_minimum_at_the_scaled_win_rates():
    wins = torch.tensor([[0.8, 0.3]], dtype=torch.float64)
    rho = (wins - 0.5) / 0.1
    zero = torch.zeros(1, 2, dtype=torch.float64)
    assert losses.sppo(Logps(rho, zero + 1), Logps(zero, zero + 1), wins, beta=0.1).item() == pytest.approx(
        0, abs=1e-20
    )


def test_rrhf_follows_the_scores_not_the_columns():
    sums = torch.tensor([[-4.0, -9.0, -6.0]], dtype=torch.float64)
    tokens, scores = torch.tensor([[4, 3, 3]]), torch.tensor([[0.1, 0.9, 0.5]])
    expected = losses.rrhf(Logps(sums, tokens), scores)
    # means -1, -3, -2: the two worse ones lead the best by 2 and 1, the worst the middle one by 1
    assert expected.item() == pytest.approx(2 + 1 + 1 + 9)
    for order in permutations(range(3)):
        columns = list(order)
        found = losses.rrhf(Logps(sums[:, columns], tokens[:, columns]), scores[:, columns])
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)


def test_rrhf_wants_a_score_for_each_response():
    """One more would be compared with nothing, or broadcast."""
    policy = Logps(torch.zeros(2, 3), torch.ones(2, 3))
    for shape in ((2, 4), (1, 3), (3,)):
        with pytest.raises(ValueError, match=r"scores must have shape \(2, 3\), got"):
            losses.rrhf(policy, torch.zeros(shape))


def test_rrhf_does_not_compare_equal_scores():
    policy = Logps(torch.tensor([[-4.0, -9.0]]), torch.tensor([[2, 2]]))
    assert losses.rrhf(policy, torch.tensor([[0.5, 0.5]])).item() == 4


def test_aot_pairs_the_ranks_of_the_batch():
    policy, reference = pairs([5.0, 1.0, 3.0], [0.0, 0.0, 0.0]), pairs([0.2, 0.1, 0.3], [0.0, 0.0, 0.0])
    expected = torch.log1p(torch.exp(-torch.tensor([5 - 0.3, 1 - 0.1, 3 - 0.2], dtype=torch.float64)))
    torch.testing.assert_close(losses.aot(policy, reference, beta=1.0), expected, rtol=1e-12, atol=0)


def test_tdpo_stops_the_gradient_of_the_chosen_only_in_its_second_version():
    kl = torch.tensor([[2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    records = pairs([-3.0], [-4.0]), pairs([-3.5], [-3.0])
    (first,) = torch.autograd.grad(losses.tdpo1(*records, kl).sum(), kl)
    (second,) = torch.autograd.grad(losses.tdpo2(*records, kl).sum(), kl)
    assert first[0, 0] == -first[0, 1] != 0
    assert second[0, 0] == 0 != second[0, 1]


@pytest.mark.parametrize(
    "loss, argument, wrong, reason, row, response",
    [
        (losses.odpo, "scores", [[2.0, 1.0], [1.0, 1.0]], "higher, got 1 against 1", 1, None),
        (losses.odpo, "scores", [[2.0, 3.0], [1.0, 0.0]], "higher, got 2 against 3", 0, None),
        (losses.odpo, "scores", [[2.0, 1.0], [float("nan"), 0.0]], "higher, got nan against 0", 1, None),
        (losses.sppo, "win_probabilities", [[1.0, 0.0], [0.5, 1.5]], "in [0, 1], got 1.5", 1, 1),
        (losses.sppo, "win_probabilities", [[1.0, -0.5], [0.5, 1.5]], "in [0, 1], got -0.5", 0, 1),
        (losses.sppo, "win_probabilities", [[float("nan"), 0.0], [0.5, 0.5]], "in [0, 1], got nan", 0, 0),
    ],
)
def test_impossible_inputs_are_named_by_row(loss, argument, wrong, reason, row, response):
    records = pairs([0.0, 0.0], [0.0, 0.0]), pairs([0.0, 0.0], [0.0, 0.0])
    with pytest.raises(losses.RowError) as raised:
        loss(*records, **{argument: torch.tensor(wrong)})
    for error in (raised.value, pickle.loads(pickle.dumps(raised.value))):  # as it comes from another process
        assert error.reason.endswith(reason) and (error.row, error.response) == (row, response)
        assert type(error.row) is int
        assert str(error) == f"{error.reason} in row {row}" + (f", response {response}" if response is not None else "")


@pytest.mark.parametrize(
    "loss, shape, message",
    [
        (losses.bradley_terry, (4,), r"rewards must have shape \(4, 2\), got \(4,\)"),
        (losses.bradley_terry, (4, 1, 2), r"rewards must have shape \(4, 2\), got \(4, 1, 2\)"),
        (losses.bradley_terry, (4, 3), "a pair loss wants K=2 responses to each prompt, got K=3"),
        (losses.plackett_luce, (4,), r"plackett_luce wants rewards of shape \(B, K\), got \(4,\)"),
        (losses.plackett_luce, (4, 1), "a ranking loss wants K >= 2 responses to each prompt, got K=1"),
    ],
)
def test_rewards_are_a_table_of_prompts_and_responses(loss, shape, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(shape))


def test_labels_must_be_booleans():
    """-1 for undesirable would read as true."""
    one = Logps(torch.zeros(2, 1), torch.ones(2, 1))
    with pytest.raises(
        ValueError, match=r"desirable must be booleans of shape \(2,\), got torch.int64 of shape \(2,\)"
    ):
        losses.kto(one, one, torch.tensor([1, -1]), torch.zeros(2))


def test_kto_wants_a_mismatched_pair():
    one = Logps(torch.zeros(2, 1), torch.ones(2, 1))
    with pytest.raises(ValueError, match="at least one mismatched log-ratio in kl, got none"):
        losses.kto(one, one, torch.tensor([True, False]), torch.zeros(0))


def test_ld_dpo_wants_heads_of_the_shorter_length():
    policy = Logps(torch.tensor([[-4.0, -9.0]]), torch.tensor([[2, 5]]))
    with pytest.raises(ValueError, match=r"policy_head must hold the first min\(n_w, n_l\) tokens"):
        losses.ld_dpo(policy, policy, policy, policy)
    head = Logps(torch.tensor([[-4.0, -5.0]]), torch.tensor([[2, 2]]))
    with pytest.raises(ValueError, match=r"reference_head must hold the first min\(n_w, n_l\) tokens"):
        losses.ld_dpo(policy, policy, head, policy)
    twice, one_row = Logps(policy.sums.repeat(2, 1), policy.tokens.repeat(2, 1)), head  # one row would be read as both
    with pytest.raises(ValueError, match="policy_head must hold"):
        losses.ld_dpo(twice, twice, one_row, one_row)


@pytest.mark.parametrize("name, argument", [("spin", "link"), ("gpo", "link"), ("f_dpo", "divergence")])
def test_an_unknown_choice_is_refused(name, argument):
    records = pairs([0.0], [0.0]), pairs([0.0], [0.0])
    with pytest.raises(ValueError, match=f"{argument} must be one of .*got 'cubic'"):
        losses.METHODS[name].loss(*records, **{argument: "cubic"})
