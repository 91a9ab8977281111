"""Sampling in padded batches against one prompt at a time, token by token."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from pref_toolkit.data import encode_prompt
from pref_toolkit.training import adapters, models
from pref_toolkit.training.generation import generate, sample

_, TOKENIZER = models.tiny()
EOS = TOKENIZER.eos_token_id
PROMPTS = ["a", "what is it", "no", "a much longer prompt than the others", "what is it"]
IDS = [encode_prompt(TOKENIZER, prompt) for prompt in PROMPTS]


def small(kind):
    torch.manual_seed(1)
    size = {"vocab_size": len(TOKENIZER), "initializer_range": 0.3}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **size)).eval()
    llama = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, **size)
    model = LlamaForCausalLM(llama).eval()
    if kind == "llama":
        return model
    adapted = adapters.with_adapters(model, rank=4, alpha=None, dropout=0.5)
    for weight in adapters.trainable(adapted).values():
        torch.nn.init.normal_(weight, std=0.3)
    return adapted.eval()


@torch.no_grad()
def one_at_a_time(model, prompt, steps, ends=(EOS,)):
    """Greedy, without padding, mask, cache or library."""
    ids = list(prompt)
    for _ in range(steps):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt) :]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["llama", "gpt2", "lora"])
def test_greedy_batches_equal_one_prompt_at_a_time(kind):
    model = small(kind)
    expected = [one_at_a_time(model, prompt, 8) for prompt in IDS]
    assert len({tuple(e) for e in expected}) > 2
    for batch_size in (2, 256):
        assert sample(model, TOKENIZER, IDS, max_new_tokens=8, temperature=0, batch_size=batch_size) == expected


@pytest.mark.usefixtures("float64")
def test_it_stops_at_eos_and_at_the_model_s_further_end_tokens():
    model = small("llama")
    free = one_at_a_time(model, IDS[1], 8, ends=())
    model.generation_config.eos_token_id = [EOS, free[3]]
    ended = sample(model, TOKENIZER, IDS, max_new_tokens=8, temperature=0)
    assert ended == [one_at_a_time(model, prompt, 8, ends=(EOS, free[3])) for prompt in IDS]
    assert ended[1][-1] == free[3] and len(ended[1]) <= 4


def test_samples_repeat_with_their_seed_and_leave_torch_s_state_alone():
    model = small("llama")
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    first = sample(model, TOKENIZER, IDS, max_new_tokens=8, seed=3)
    assert torch.equal(torch.rand(2), expected)
    assert sample(model, TOKENIZER, IDS, max_new_tokens=8, seed=3) == first
    assert sample(model, TOKENIZER, IDS, max_new_tokens=8, seed=4) != first
    assert first[1] != first[4]  # the same prompt twice gets two samples


@pytest.mark.parametrize("temperature", [1, 0.5])
def test_samples_follow_the_model_s_own_distribution(temperature):
    """The first token's frequencies against softmax(logits / T), whatever the generation config of the model says."""
    model = small("llama")
    model.generation_config.update(top_k=1, repetition_penalty=5.0, min_new_tokens=9, suppress_tokens=list(range(100)))
    before = model.generation_config.to_dict()
    with torch.no_grad():
        expected = (model(torch.tensor([IDS[1]])).logits[0, -1] / temperature).softmax(-1)
    n = 8000
    drawn = sample(model, TOKENIZER, [IDS[1]] * n, max_new_tokens=1, temperature=temperature, batch_size=2000)
    share = torch.bincount(torch.tensor([d[0] for d in drawn]), minlength=len(expected)) / n
    likely = expected > 0.005
    assert likely.sum() > 5
    assert ((share - expected).abs()[likely] < 5 * (expected * (1 - expected) / n).sqrt()[likely]).all()
    assert model.generation_config.to_dict() == before


def test_dropout_is_off_inside_and_back_on_afterwards():
    model = small("lora")
    expected = sample(model, TOKENIZER, IDS, max_new_tokens=4, seed=0)
    model.train()
    assert sample(model, TOKENIZER, IDS, max_new_tokens=4, seed=0) == expected
    assert model.training


def test_the_padding_token_and_side_of_the_tokenizer_do_not_matter():
    model = small("gpt2")
    _, tokenizer = models.tiny()
    expected = sample(model, tokenizer, IDS, max_new_tokens=6, temperature=0)
    tokenizer.padding_side = "right"
    tokenizer.pad_token = None
    assert sample(model, tokenizer, IDS, max_new_tokens=6, temperature=0) == expected
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("right", None)


def test_generate_is_the_text_of_sample():
    model, tokenizer = models.load("lab", precision="float32")
    asked = ["12+27=", "70+70="]
    texts = generate(model, tokenizer, asked, max_new_tokens=12, seed=5)
    ids = sample(model, tokenizer, [encode_prompt(tokenizer, p) for p in asked], max_new_tokens=12, seed=5)
    assert all(row[-1] == tokenizer.eos_token_id for row in ids)
    assert texts == [tokenizer.decode(row[:-1]) for row in ids]


@pytest.mark.parametrize("setting", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}])
def test_impossible_settings_are_refused(setting):
    with pytest.raises(ValueError, match="must be"):
        sample(small("llama"), TOKENIZER, IDS, **{"max_new_tokens": 4, **setting})
