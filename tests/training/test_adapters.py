"""Adapters that somebody else saved: loaded, compared with, trained on, saved, and loaded again without this package."""

import json
import math
import warnings

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from rounding import CLOSE, everything_in_float64, rounding
from safetensors.torch import load_file, save_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from pref_toolkit import TrainConfig, train
from pref_toolkit.data import prepare
from pref_toolkit.errors import ModelError
from pref_toolkit.training import adapters, models
from pref_toolkit.training.models import tiny
from pref_toolkit.training.policy import Policy

# peft 0.21 reads a name that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QUICK = {"batch_size": 4, "max_steps": 2, "held_out": 2, "samples": 1, "sample_tokens": 4, "learning_rate": 1e-3}
# Relative, where models are loaded in float32: two layers, each with six sums over states, one over the MLP and one over keys,
# then logits and softmax.
ROUNDING = rounding(2 * (6 * 64 + 128 + 60) + 64 + 259, 1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A directory with a small model in float32 and its tokenizer, as a hub would have it."""
    directory = tmp_path_factory.mktemp("base")
    _, tokenizer = tiny()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def tuned(base, directory, **settings):
    """An adapter by plain peft, three steps of supervised tuning away from its base, saved; the path."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    config = {"r": 4, "target_modules": ["q_proj", "v_proj", "up_proj"], "task_type": "CAUSAL_LM"} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy = get_peft_model(model, LoraConfig(**config))
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=0.03)
    ids = torch.randint(3, 200, (4, 24))
    for _ in range(3):
        policy(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy.save_pretrained(directory)
    return str(directory)


def sums(model, examples):
    """``(B, K)`` log-probabilities by the model's own forward, one unpadded sequence at a time, in float64 after the logits."""
    out = []
    model.eval()
    for example in examples:
        for response in example.responses:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([example.prompt + response])).logits[0].double()
            start = len(example.prompt) - 1
            log_p = logits.log_softmax(-1)[start : start + len(response)]
            out.append(log_p.gather(-1, torch.tensor(response)[:, None]).sum())
    return torch.stack(out).view(len(examples), -1)


KINDS = {
    "plain": {},
    "scaled by the root of the rank": {"use_rslora": True},
    "weight-decomposed": {"use_dora": True},
    "with a bias of its own": {"lora_bias": True},
    "with dropout": {"lora_dropout": 0.3},
    "of several ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 5}},
    "and an output layer": {"modules_to_save": ["lm_head"]},
    "and a norm": {"modules_to_save": ["norm"]},
    "and embeddings": {"modules_to_save": ["embed_tokens"]},
}


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
@pytest.mark.filterwarnings("ignore:.*LoRA tensor.* have invalid shape")
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_plain_peft_is_start_and_reference(kind, base, rows, tmp_path):
    path = tuned(base, tmp_path / "sft", **KINDS[kind])
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), path)
    bare = AutoModelForCausalLM.from_pretrained(base)
    examples, _ = prepare(rows, tiny()[1])
    before, without = sums(plain, examples), sums(bare, examples)
    assert (before - without).abs().max() > 0.1  # the adapter says something

    run = train(path, None, rows, "dpo", TrainConfig(**QUICK | {"learning_rate": 3e-2}, output=str(tmp_path / "run")))
    if kind != "with dropout":  # which is on in training, and changes what an adapter says that says something
        assert run.steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert run.before["margin"] == pytest.approx(0, abs=1e-6)
    # Three views of one base: what was handed over, the base without it, and the policy, which has moved.
    assert torch.allclose(run.policy.logps(examples, view="start").sums, before, rtol=ROUNDING)
    assert torch.allclose(run.policy.logps(examples, view=None).sums, without, rtol=ROUNDING)
    now = run.policy.logps(examples).sums
    assert (now - before).abs().max() > 1  # nats: far more than rounding

    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "run" / "adapter"))
    assert torch.allclose(sums(loaded, examples), now, rtol=ROUNDING)
    start = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "run" / "start"))
    assert torch.equal(sums(start, examples), before)


def test_a_trained_adapter_says_the_same_in_plain_peft(base, rows, tmp_path):
    """To 1e-5 nats, in float64: a sum of hundreds of nats in float32 has no such digit."""
    path, tokenizer = tuned(base, tmp_path / "sft"), tiny()[1]
    examples, _ = prepare(rows, tokenizer)
    with everything_in_float64():
        bare = lambda: AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
        config = TrainConfig(**QUICK, output=str(tmp_path / "run"))
        run = train(PeftModel.from_pretrained(bare(), path), tokenizer, rows, "dpo", config)
        loaded = PeftModel.from_pretrained(bare(), str(tmp_path / "run" / "adapter"))
        assert (sums(loaded, examples) - run.policy.logps(examples).sums).abs().max() < 1e-5
    assert run.steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("kind", ["plain", "and an output layer"])
def test_the_base_can_be_the_reference_instead(kind, base, rows, tmp_path):
    path = tuned(base, tmp_path / "sft", **KINDS[kind])
    config = TrainConfig(**QUICK | {"held_out": 0, "batch_size": 12, "max_steps": 1}, reference="base")
    tokenizer = tiny()[1]
    examples, _ = prepare(rows, tokenizer)
    with everything_in_float64():
        bare = lambda: AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
        run = train(PeftModel.from_pretrained(bare(), path), tokenizer, rows, "dpo", config, beta=0.1)
        policy, reference = sums(PeftModel.from_pretrained(bare(), path), examples), sums(bare(), examples)
    margin = (policy - reference)[:, 0] - (policy - reference)[:, 1]
    by_hand = -logsigmoid(0.1 * margin).mean().item()
    assert abs(by_hand - math.log(2)) > 1e-2
    assert run.steps[0]["loss"] == pytest.approx(by_hand, rel=CLOSE)


def test_a_second_run_is_compared_with_the_first(base, rows, tmp_path):
    first = train(str(base), None, rows, "dpo", TrainConfig(**QUICK, output=str(tmp_path / "1")))
    examples, _ = prepare(rows, tiny()[1])
    result = first.policy.logps(examples).sums
    second = train(str(tmp_path / "1"), None, rows, "dpo", TrainConfig(**QUICK, output=str(tmp_path / "2")))
    assert second.steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert torch.equal(second.policy.logps(examples, view="start").sums, result)
    third = train(str(tmp_path / "2"), None, rows, "dpo", TrainConfig(**QUICK, output=str(tmp_path / "3")))
    start = third.policy.logps(examples, view="start").sums
    assert torch.equal(start, second.policy.logps(examples).sums) and not torch.equal(start, result)
    identity = json.loads((tmp_path / "3" / "run.json").read_text())["identity"]
    assert identity["start adapter"] == second.policy.fingerprint("policy")


def test_a_continued_run_still_knows_its_start(base, rows, tmp_path):
    path = tuned(base, tmp_path / "sft", lora_dropout=0.3)
    settings = {**QUICK, "max_steps": 4}
    straight = train(path, None, rows, "dpo", TrainConfig(**settings, output=str(tmp_path / "straight")))
    train(path, None, rows, "dpo", TrainConfig(**settings | {"max_steps": 2}, output=str(tmp_path / "split")))
    split = train(path, None, rows, "dpo", TrainConfig(**settings, output=str(tmp_path / "split"), resume=True))
    same = lambda row: {k: v for k, v in row.items() if k not in ("seconds", "kl")}
    assert [same(row) for row in straight.steps] == [same(row) for row in split.steps]
    other = tuned(base, tmp_path / "other", r=2)
    with pytest.raises(ValueError, match=r"these differ: .*start adapter"):
        train(other, None, rows, "dpo", TrainConfig(**settings, output=str(tmp_path / "split"), resume=True))


def test_a_reward_model_is_a_view_with_a_head_on_the_same_base(base, rows, tmp_path):
    judge = train(
        str(base), None, rows, "bradley_terry", TrainConfig(**QUICK | {"max_steps": 9}, output=str(tmp_path / "judge"))
    )
    policy = train(str(base), None, rows, "dpo", TrainConfig(**QUICK)).policy
    examples, _ = prepare(rows, tiny()[1])
    own, expected = policy.logps(examples).sums, judge.policy.rewards(examples)
    assert expected.std() > 0
    policy.add("judge", tmp_path / "judge" / "adapter")
    assert torch.allclose(policy.rewards(examples, view="judge"), expected, rtol=ROUNDING, atol=ROUNDING)
    assert torch.equal(policy.logps(examples).sums, own)
    again = Policy.load(str(tmp_path / "judge"))
    assert torch.allclose(again.rewards(examples), expected, rtol=ROUNDING, atol=ROUNDING)
    # Trained on, a reward model keeps what it learnt.
    on = train(str(tmp_path / "judge"), None, rows, "bradley_terry", TrainConfig(**QUICK))
    assert on.before["margin"] == pytest.approx(judge.after["margin"], rel=ROUNDING, abs=ROUNDING)


def rewritten(path, file, change):
    target = path / file
    content = json.loads(target.read_text())
    target.write_text(json.dumps(content | change))


def without_a_weight(path):
    weights = load_file(path / adapters.WEIGHTS)
    weights.pop(sorted(weights)[0])
    save_file(weights, path / adapters.WEIGHTS)


def with_one_more(path):
    weights = load_file(path / adapters.WEIGHTS)
    save_file(weights | {"base_model.model.lm_head.weight": torch.zeros(3)}, path / adapters.WEIGHTS)


MISFITS = {
    "no base": (
        lambda p: rewritten(p, "adapter_config.json", {"base_model_name_or_path": None}),
        "names no base model",
    ),
    "broken configuration": (lambda p: (p / "adapter_config.json").write_text("{"), "configuration cannot be read"),
    "another rank": (lambda p: rewritten(p, "adapter_config.json", {"r": 7}), "does not fit its base: .*size mismatch"),
    "other layers": (
        lambda p: rewritten(p, "adapter_config.json", {"target_modules": ["k_proj"]}),
        "does not fit its base: adapter_model.safetensors (lacks|has more)",
    ),
    "layers that are not there": (
        lambda p: rewritten(p, "adapter_config.json", {"target_modules": ["c_attn"]}),
        "does not fit its base: ",
    ),
    "a weight too few": (without_a_weight, "does not fit its base: adapter_model.safetensors lacks"),
    "a weight too many": (with_one_more, "does not fit its base: .*lm_head"),
    "half a file": (
        lambda p: (p / adapters.WEIGHTS).write_bytes((p / adapters.WEIGHTS).read_bytes()[:100]),
        "does not fit its base: ",
    ),
    "no weights": (lambda p: (p / adapters.WEIGHTS).unlink(), "does not fit its base: "),
    "a classifier's": (lambda p: rewritten(p, "adapter_config.json", {"task_type": "SEQ_CLS"}), "task_type='SEQ_CLS'"),
    "biases": (lambda p: rewritten(p, "adapter_config.json", {"bias": "all"}), "bias='all'"),
    "pissa": (
        lambda p: rewritten(p, "adapter_config.json", {"init_lora_weights": "pissa_niter_4"}),
        "init_lora_weights=",
    ),
    "trained tokens": (
        lambda p: rewritten(p, "adapter_config.json", {"trainable_token_indices": [1, 2]}),
        "trainable_token_indices=",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_an_adapter_that_does_not_fit_is_refused_in_one_sentence(misfit, base, tmp_path):
    change, told = MISFITS[misfit]
    tuned(base, tmp_path / "sft")
    change(tmp_path / "sft")
    with pytest.raises(ModelError, match=told) as refused:
        models.load(str(tmp_path / "sft"))
    assert str(tmp_path / "sft") in str(refused.value) and "\n" not in str(refused.value)


def test_an_adapter_that_is_not_lora_is_refused_by_its_kind(rows, tmp_path):
    model, tokenizer = tiny()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy = get_peft_model(
            model, IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[])
        )
    with pytest.raises(ModelError, match="IA3 adapter, and only LoRA"):
        train(policy, tokenizer, rows, config=TrainConfig(**QUICK))


def test_a_tied_embedding_in_modules_to_save_is_refused_by_name(rows):
    model, tokenizer = tiny()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy = get_peft_model(
            model, LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM")
        )
    with pytest.raises(ModelError, match="modules_to_save holds embed_tokens, which this model ties"):
        train(policy, tokenizer, rows, config=TrainConfig(**QUICK))


CANARY = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForCausalLM
class Config(LlamaConfig):
    model_type = "ours_to_watch"
class Model(LlamaForCausalLM):
    config_class = Config
"""


def test_code_that_comes_with_a_model_is_never_run(base, tmp_path, monkeypatch):
    """Not even where a terminal says yes."""
    import shutil

    directory, marker = tmp_path / "model", tmp_path / "marker"
    shutil.copytree(base, directory)
    (directory / "canary.py").write_text(CANARY.format(marker=str(marker)))
    auto = {"AutoConfig": "canary.Config", "AutoModelForCausalLM": "canary.Model"}
    rewritten(directory, "config.json", {"model_type": "ours_to_watch", "auto_map": auto})
    monkeypatch.setattr("builtins.input", lambda *_: "yes")
    with pytest.raises(ModelError, match="cannot be loaded"):
        models.load(str(directory))
    assert not marker.exists()
