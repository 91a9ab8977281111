"""What the lab says of a policy, against what is known of it."""

import json
import math

import pytest
import torch
from rounding import CLOSE, everything_in_float64

from pref_toolkit import lab
from pref_toolkit.lab.evaluation import chances_of_being_right
from pref_toolkit.training import adapters, models


def test_the_supervised_model_is_its_own_equal():
    model, tokenizer = lab.load()
    judged = lab.evaluate(model, tokenizer, n=400, seed=0)
    assert judged["kl"] == 0 and judged["kl_error"] == 0
    low, high = judged["win_rate_interval"]  # two standard errors to each side
    assert abs(judged["win_rate"] - 0.5) < high - low
    assert judged["frontier"] == pytest.approx(judged["chance"], abs=CLOSE)
    assert abs(judged["distance"]) < 4 * math.sqrt(0.25 / 400)
    assert json.loads(json.dumps(judged)) == judged
    few = lab.evaluate(model, tokenizer, n=50, seed=0)
    assert few == lab.evaluate(model, tokenizer, n=50, seed=0) != lab.evaluate(model, tokenizer, n=50, seed=1)


def sharpened():
    """The supervised model at half its temperature: every logit doubled."""
    model, tokenizer = lab.load()
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    return model, tokenizer


def test_a_sharper_model_is_right_more_often_and_its_kl_is_that_of_its_tokens():
    model, tokenizer = sharpened()
    model.train()
    judged = lab.evaluate(model, tokenizer, n=600, seed=0)
    assert model.training
    assert judged["win_rate_interval"][0] > 0.5
    assert judged["after"]["accuracy"] > judged["before"]["accuracy"]
    low, high = judged["after"]["accuracy_interval"]
    assert low < judged["after"]["accuracy"] < high
    assert judged["chance"] < judged["frontier"] <= 1
    assert judged["distance"] == pytest.approx(judged["frontier"] - judged["after"]["accuracy"])
    assert 0.5 * judged["win_rate"] < judged["after"]["accuracy"]
    assert judged["kl"] == pytest.approx(_kl_of_tokens(model), abs=4 * judged["kl_error"])
    assert judged["after"]["politeness"] < judged["before"]["politeness"]


def _kl_of_tokens(policy, n=300):
    """KL(policy || supervised) from the whole distribution of each token along the policy's samples."""
    supervised, tokenizer = lab.load()
    total = 0.0
    for i, prompt in enumerate(lab.prompts(n, 9, "test")):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(i)
            for _ in range(12):
                p, q = (m(ids).logits[0, -1].log_softmax(-1) for m in (policy, supervised))
                total += (p.exp() * (p - q)).sum().item()
                token = torch.multinomial(p.exp(), 1)
                ids = torch.cat([ids, token[None]], dim=1)
                if token.item() == tokenizer.eos_token_id:
                    break
    return total / n


def test_the_chance_of_being_right_is_the_sum_over_nine_responses():
    model, tokenizer = lab.load()
    right = [
        "39", "39 thanks", "39 thank you", "it is 39", "it is 39 thanks", "it is 39 thank you",
        "the answer is 39", "the answer is 39 thanks", "the answer is 39 thank you",
    ]  # fmt: skip
    total = 0.0
    with everything_in_float64():
        model.double()
        for response in right:
            ids = tokenizer("12+27=" + response + "</s>", return_tensors="pt").input_ids
            with torch.no_grad():
                logps = model(ids).logits[0].log_softmax(-1)
            total += logps[6:-1].gather(-1, ids[0, 7:, None]).sum().exp().item()
        assert chances_of_being_right(model, tokenizer, ["12+27="])[0] == pytest.approx(total, rel=CLOSE)


def test_an_adapter_on_the_lab_s_model_is_judged_against_it():
    model, tokenizer = lab.load()
    policy = adapters.with_adapters(model, rank=2, alpha=None, dropout=0.0)
    judged = lab.evaluate(policy, tokenizer, n=50, seed=0)
    assert judged["kl"] == 0  # a new adapter adds 0


def test_a_policy_is_compared_with_the_model_that_it_began_with():
    supervised, tokenizer = lab.load()
    sharp, _ = sharpened()
    judged = lab.evaluate(sharp, tokenizer, n=50, seed=0, start=sharp)
    assert judged["kl"] == 0 and judged["after"] == lab.evaluate(sharp, tokenizer, n=50, seed=0)["after"]
    back = lab.evaluate(supervised, tokenizer, n=400, seed=0, start=sharp)
    assert back["kl"] > 0.1 and back["win_rate_interval"][1] < 0.5
    assert back["before"]["accuracy"] > back["after"]["accuracy"]


def test_the_description_prints_what_was_measured():
    model, tokenizer = sharpened()
    judged = lab.evaluate(model, tokenizer, n=50, seed=0)
    text = lab.describe(judged)
    for value in (judged["before"]["accuracy"], judged["after"]["accuracy"], judged["win_rate"], judged["frontier"]):
        assert f"{value:.1%}" in text
    assert f"{judged['kl']:.3f}" in text and f"{judged['after']['length']:.2f}" in text


def test_another_model_s_tokenizer_and_too_many_prompts_are_refused():
    model, tokenizer = lab.load()
    with pytest.raises(ValueError, match="lab's tokenizer"):
        lab.evaluate(*models.tiny(), n=10)
    with pytest.raises(ValueError, match=r"1[0-9]{3} unseen prompts, fewer than n=5000"):
        lab.evaluate(model, tokenizer, n=5000)


def test_the_best_of_several_by_a_reward_is_no_worse_the_more_the_reward_knows():
    """A head of zeros takes the first sample, so it is a draw of the supervised model; its KL bound is that of best-of-n."""
    model, tokenizer = lab.load()
    head = adapters.new_reward_head(model)
    judged = lab.evaluate_best_of(model, head, tokenizer, of=4, n=200, seed=0)
    assert judged["kl"] == pytest.approx(math.log(4) - 3 / 4)
    assert judged["before"] == lab.evaluate(model, tokenizer, n=200, seed=0)["before"]
    assert judged["after"]["accuracy"] == pytest.approx(judged["chance"], abs=0.1)
    assert judged["distance"] == pytest.approx(judged["frontier"] - judged["after"]["accuracy"])
