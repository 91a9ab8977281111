"""Small models of several architectures, and examples for them."""

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
)

from pref_toolkit.data.tokens import Encoded

SMALL = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPES = {
    "llama": LlamaConfig(**SMALL, num_key_value_heads=2),
    "llama eager": LlamaConfig(**SMALL, attn_implementation="eager"),
    "mistral": MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=64),
    "qwen": Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8),
    "gemma": GemmaConfig(**SMALL, num_key_value_heads=1, head_dim=8),
    "gemma2, soft-capped": Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=64),
    "gpt2": GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=128),
}


def model_of(config, seed=0):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=config._attn_implementation).eval()
    for parameter in model.parameters():  # larger than at initialisation, so that a wrong context shows
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def examples_of(k, n=3, vocabulary=61, seed=0):
    """Ragged prompts and responses, a response of a single token among them."""
    random = torch.Generator().manual_seed(seed)
    draw = lambda length: torch.randint(3, vocabulary, (length,), generator=random).tolist()
    return [
        Encoded(draw(4 + 3 * i), [draw(1 + (5 * i + 3 * j) % 8) for j in range(k)], where=f"row {i}") for i in range(n)
    ]


@torch.no_grad()
def one_by_one(model, examples):
    """What a log-probability is: one unpadded sequence at a time, in float64 after the logits."""
    rows = []
    for example in examples:
        row = []
        for response in example.responses:
            logits = model(input_ids=torch.tensor([example.prompt + response])).logits[0].double().log_softmax(-1)
            start = len(example.prompt) - 1
            row.append(sum(logits[start + t, token].item() for t, token in enumerate(response)))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)
