"""The loss of a policy gradient: against NumPy, and its mean gradient against exact sums over all groups of draws."""

import numpy as np
import pytest
import torch

from pref_toolkit import losses
from pref_toolkit.logps import Logps
from pref_toolkit.theory import bandits, groups

CLOSE = {"rtol": 1e-12, "atol": 1e-13}  # a dozen terms of size 3 in float64, which may cancel
GRPO = {"baseline": "group", "divide": "deviation", "per": "token", "kl": "k3", "kl_in": "loss"}
SETTINGS = [
    {},
    {"baseline": "none"},
    {"baseline": "group", "eps": 0.05},
    GRPO,
    GRPO | {"kl": "k2", "beta": 0.5},
    {"kl": "k2", "beta": 0.5},
    {"kl": "k3", "beta": 0.5, "per": "token"},
    {"kl": "k1", "kl_in": "loss"},
]


def drawn(seed=0, b=3, k=4, t=5):
    """Random inputs in float64: token log-probabilities of policy, reference and drawer, lengths and scores."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, t + 1, (b, k))
    tokens[0, 0] = t
    policy = -rng.exponential(1, (b, k, t))
    near = lambda spread: policy + rng.normal(0, spread, policy.shape)
    return policy, near(0.5), near(0.3), tokens, rng.normal(0, 1, (b, k))


def formula(
    pol,
    ref,
    old,
    n,
    s,
    *,
    beta=0.05,
    baseline="others",
    divide="none",
    per="response",
    eps=0.2,
    kl="k1",
    kl_in="reward",
):
    """Written from the papers, one response and token at a time."""
    B, K = n.shape
    estimate = {"k1": lambda x: x, "k2": lambda x: x * x / 2, "k3": lambda x: np.exp(-x) - 1 + x}[kl]
    out = np.zeros(B)
    for b in range(B):
        price = [[estimate(pol[b, k, t] - ref[b, k, t]) for t in range(n[b, k])] for k in range(K)]
        reward = [s[b, k] - (beta * sum(price[k]) if kl_in == "reward" else 0) for k in range(K)]
        for k in range(K):
            others = [reward[j] for j in range(K) if j != k]
            A = reward[k] - {"none": 0, "group": np.mean(reward), "others": np.mean(others)}[baseline]
            A /= np.std(reward) if divide == "deviation" else 1
            total = 0
            for t in range(n[b, k]):
                w = np.exp(pol[b, k, t] - old[b, k, t])
                total += min(w * A, np.clip(w, 1 - eps, 1 + eps) * A)
                total -= beta * price[k][t] if kl_in == "loss" else 0
            out[b] -= total / (n[b, k] if per == "token" else 1) / K
    return out


def records(pol, ref, n):
    inside = np.arange(pol.shape[2]) < n[..., None]
    both = [Logps(torch.tensor((x * inside).sum(-1)), torch.tensor(n)) for x in (pol, ref)]
    return [*both, torch.tensor(pol), torch.tensor(ref)]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_it_is_the_formula(settings):
    pol, ref, old, n, s = drawn()
    loss = losses.policy_gradient(*records(pol, ref, n), torch.tensor(s), torch.tensor(old), **settings)
    np.testing.assert_allclose(
        loss, formula(pol, ref, old, n, s, **settings), rtol=1e-12, atol=1e-13
    )  # a dozen terms of size 3 in float64, which may cancel
    own = losses.policy_gradient(*records(pol, ref, n), torch.tensor(s), **settings)
    np.testing.assert_allclose(
        own, formula(pol, ref, pol, n, s, **settings), rtol=1e-12, atol=1e-13
    )  # a dozen terms of size 3 in float64, which may cancel


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_what_lies_behind_the_last_token_is_not_read(settings):
    pol, ref, old, n, s = drawn()
    behind = np.arange(pol.shape[2]) >= n[..., None]
    one, other = (
        losses.policy_gradient(
            *records(pol, ref, n)[:2], *(torch.tensor(np.where(behind, x, v)) for v in (pol, ref)), torch.tensor(s),
            torch.tensor(np.where(behind, x, old)), **settings,
        ) for x in (0.0, -900.0)
    )  # fmt: skip
    assert torch.equal(one, other)


def mean_gradient(policy, reference, reward, k, tokens, **settings):
    """The loss's gradient by the logits, its mean and variance over all groups of k draws; responses are one token each."""
    responses, chances = groups.every_group(policy, k)
    out = []
    for chosen in responses:
        logits = policy.log().requires_grad_()
        lp = logits.log_softmax(-1)[chosen][None]
        ref, n = reference.log()[chosen][None], tokens[chosen][None]
        # A response of n tokens has its log-probability on the first of them.
        spread = lambda x, n=n: torch.nn.functional.pad(x[..., None], (0, int(n.max()) - 1))
        loss = losses.policy_gradient(
            Logps(lp, n), Logps(ref, n), spread(lp), spread(ref), reward[chosen][None], **settings
        )
        out.append(-torch.autograd.grad(loss.sum(), logits)[0])
    out = torch.stack(out)
    mean = chances @ out
    return mean, chances @ (out - mean).square().sum(1)


pi = torch.tensor([0.45, 0.30, 0.10, 0.15], dtype=torch.float64)
start = torch.tensor([0.25, 0.25, 0.30, 0.20], dtype=torch.float64)
reward = torch.tensor([2.0, 3.0, 3.4, 1.5], dtype=torch.float64)
lengths = torch.tensor([2, 2, 4, 8])


def exact(value):
    logits = pi.log().requires_grad_()
    return torch.autograd.grad(value(logits.log_softmax(-1)), logits)[0]


@pytest.mark.parametrize("baseline", ["none", "others"])
@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_the_mean_over_all_groups_is_the_gradient_of_the_objective(baseline, beta):
    mean, variance = mean_gradient(pi, start, reward, 3, lengths, baseline=baseline, beta=beta)
    wanted = exact(lambda logp: logp.exp() @ (reward - beta * (logp - start.log())))
    torch.testing.assert_close(mean, wanted, rtol=1e-10, atol=1e-12)
    if baseline == "others":  # which is what a baseline is for
        assert variance < mean_gradient(pi, start, reward, 3, lengths, baseline="none", beta=beta)[1] / 2


def test_remax_is_unbiased_with_less_variance_than_no_baseline():
    greedy = reward[pi.argmax()]
    mean, variance = mean_gradient(pi, start, reward - greedy, 1, lengths, baseline="none", beta=0.0)
    torch.testing.assert_close(mean, exact(lambda logp: logp.exp() @ reward), rtol=1e-10, atol=1e-12)
    plain = mean_gradient(pi, start, reward, 1, lengths, baseline="none", beta=0.0)[1]
    assert variance < plain / 4


@pytest.mark.parametrize(
    "settings, switches",
    [
        ({"baseline": "group"}, {"baseline": "group"}),
        ({"baseline": "group", "divide": "deviation"}, {"baseline": "group", "deviation": True}),
        (
            {"baseline": "group", "divide": "deviation", "per": "token"},
            {"baseline": "group", "deviation": True, "tokens": lengths},
        ),
    ],
)
def test_grpos_bias_is_the_one_that_is_known(settings, switches):
    mean, variance = mean_gradient(pi, start, reward, 3, lengths, beta=0.0, **settings)
    known = groups.estimate(pi, reward, 3, **switches)
    torch.testing.assert_close(mean, known.mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(variance, known.variance, rtol=1e-9, atol=1e-12)
    cosine = torch.cosine_similarity(mean, exact(lambda logp: logp.exp() @ reward), dim=0)
    assert (cosine < 0.99) == ("per" in settings)


@pytest.mark.parametrize("kl, side", [("k1", None), ("k2", "policy"), ("k3", "reference")])
def test_in_the_loss_each_estimator_has_its_own_gradient(kl, side):
    """k1 has none, k2 that of KL(policy || reference), k3 that of KL(reference || policy)."""
    one = torch.ones(4, dtype=torch.int64)
    mean, _ = mean_gradient(pi, start, 0 * reward, 2, one, baseline="none", beta=1.0, kl=kl, kl_in="loss")
    wanted = {
        None: torch.zeros(4, dtype=torch.float64),
        "policy": exact(lambda logp: -logp.exp() @ (logp - start.log())),
        "reference": exact(lambda logp: start @ logp),
    }[side]
    torch.testing.assert_close(mean, wanted, rtol=1e-10, atol=1e-12)


def test_on_its_optimum_it_rests():
    """With the price in the reward, the mean gradient is 0 where policy = ref exp(r / beta) / Z."""
    optimum, _ = bandits.rlhf_optimum(start, reward, 0.7)
    mean, _ = mean_gradient(optimum, start, reward, 2, lengths, beta=0.7)
    torch.testing.assert_close(mean, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_ratio_beyond_the_clip_gains_nothing_more():
    one = torch.ones(1, 1)
    for ratio, score, moves in [(1.1, 1, True), (1.3, 1, False), (0.7, 1, True), (0.7, -1, False), (1.3, -1, True)]:
        tokens = torch.full((1, 1, 1), ratio).log().requires_grad_()
        record = Logps(tokens.detach()[..., 0], one)
        loss = losses.policy_gradient(
            record, record, tokens, tokens.detach(), score * one, 0 * tokens.detach(), baseline="none", beta=0.0
        )
        assert (torch.autograd.grad(loss.sum(), tokens)[0] != 0).item() == moves


def test_equal_scores_teach_nothing():
    pol, ref, _, n, _ = drawn()
    loss = losses.policy_gradient(
        *records(pol, ref, n), torch.full((3, 4), 0.1, dtype=torch.float64), **GRPO | {"beta": 0.0}
    )
    assert torch.equal(loss, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"scores": torch.zeros(3)}, r"scores must have shape \(3, 4\), got \(3,\)"),
        ({"reference_tokens": torch.zeros(3, 4, 2)}, r"reference_tokens must have shape \(3, 4, 5\)"),
        ({"drawn_tokens": torch.zeros(3, 4)}, r"drawn_tokens must have shape \(3, 4, 5\)"),
    ],
)
def test_wrong_shapes_are_named(changes, sentence):
    pol, ref, _, n, s = drawn()
    names = ("policy", "reference", "policy_tokens", "reference_tokens")
    given = dict(zip(names, records(pol, ref, n))) | {"scores": torch.tensor(s)} | changes
    with pytest.raises(ValueError, match=sentence):
        losses.policy_gradient(**given)


def test_a_single_response_has_no_others():
    pol, ref, _, n, s = (x[:, :1] for x in drawn())
    with pytest.raises(ValueError, match="a baseline of 'others' wants K >= 2 responses to each prompt, got K=1"):
        losses.policy_gradient(*records(pol, ref, n), torch.tensor(s))


def test_it_is_no_method_of_rows():
    assert "policy_gradient" not in losses.METHODS
    with pytest.raises(ValueError, match="no method 'policy_gradient'"):
        losses.find("policy_gradient")
