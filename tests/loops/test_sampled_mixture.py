"""Sampling from the geometric mixture of two views."""

import numpy as np
import pytest
import torch
from scipy import stats

from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.models import tiny
from pref_toolkit.training.policy import Policy

PROMPTS = [[5, 9, 11], [7], [8, 8, 8, 8, 12]]


@pytest.fixture(scope="module")
def policy():
    model, tokenizer = tiny()
    torch.manual_seed(0)
    made = Policy.to_train(model, tokenizer, TrainConfig(lora_rank=2), longest=32)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(40)  # else all tokens are about equally likely
        for weight in made.weights().values():
            weight += 0.5 * torch.randn_like(weight)
    return made


def likeliest(policy, prompt, share, number):
    """The likeliest token of the mixture at each place, from whole forwards without a cache."""
    ids = list(prompt)
    for _ in range(number):
        logs = []
        for view in ("policy", "start"):
            with policy.view(view):
                logs.append(policy.model(input_ids=torch.tensor([ids])).logits[0, -1].double().log_softmax(-1))
        ids.append(int(((1 - share) * logs[0] + share * logs[1]).argmax()))
        if ids[-1] == policy.tokenizer.eos_token_id:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_each_token_is_the_mixtures(policy, share):
    drawn = policy.sample(PROMPTS, max_new_tokens=6, temperature=1e-6, mixture=share, reference="start")
    assert drawn == [likeliest(policy, prompt, share, 6) for prompt in PROMPTS]


def test_the_first_tokens_have_the_mixtures_distribution(policy):
    logs = []
    for view in ("policy", "start"):
        with policy.view(view):
            logs.append(policy.model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].double().log_softmax(-1))
    wanted = (0.5 * (logs[0] + logs[1])).softmax(-1).numpy()
    drawn = policy.sample([PROMPTS[0]] * 5000, max_new_tokens=1, mixture=0.5, reference="start")
    counts = np.bincount([ids[0] for ids in drawn], minlength=len(wanted))
    often = wanted.argsort()[::-1][:20]
    grouped = lambda counts: np.append(counts[often], counts.sum() - counts[often].sum())
    seen, tested = grouped(counts), [grouped(5000 * p) for p in (wanted, logs[0].exp().numpy())]
    assert stats.chisquare(seen, tested[0]).pvalue > 1e-3
    assert stats.chisquare(seen, tested[1]).pvalue < 1e-6  # it is not the policy's own


def test_it_is_a_function_of_the_seed_and_leaves_torchs_own_state(policy):
    before = torch.get_rng_state()
    settings = {"max_new_tokens": 5, "mixture": 0.5, "reference": "start"}
    one, same, other = (policy.sample(PROMPTS, seed=seed, **settings) for seed in (1, 1, 2))
    assert one == same != other
    assert torch.equal(before, torch.get_rng_state())
