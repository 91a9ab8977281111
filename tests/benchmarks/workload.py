"""What is trained on what: model shapes, real and drawn examples in token ids."""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedTokenizerFast

from pref_toolkit.data import prepare
from pref_toolkit.data.tokens import Encoded

ROOT = Path(__file__).parents[2]
HH = ROOT.parent / "shared" / "data" / "hh_harmless_dev.jsonl.gz"
TEXT_VOCABULARY = 8_000
"""Byte-pair tokens learnt from the HH text itself. Each reads 3.9 characters on average, as we believe of Llama's, too."""
RANK = 16

SHAPES: dict[str, dict[str, Any]] = {
    "small": {
        "type": LlamaConfig,
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
    },
    "tiny": {
        "type": LlamaConfig,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "mistral-7b": {
        "type": MistralConfig,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "sliding_window": None,
    },
}


@dataclass(frozen=True)
class Profile:
    """Lengths of prompts and responses in tokens: the logarithms are normal with these means and deviations."""

    prompt: tuple[float, float]
    response: tuple[float, float]

    def draw(self, count: int, vocabulary: int, max_length: int, seed: int) -> list[Encoded]:
        """Pairs of random tokens, cut as real ones are; prompts that fill ``max_length`` are drawn again."""
        rng = random.Random(seed)
        length = lambda of: max(1, round(rng.lognormvariate(*of)))
        tokens = lambda n: [rng.randrange(3, vocabulary) for _ in range(n)]
        pairs: list[Encoded] = []
        while len(pairs) < count:
            prompt = length(self.prompt)
            if prompt < max_length:
                responses = [tokens(min(length(self.response), max_length - prompt)) for _ in range(2)]
                pairs.append(Encoded(tokens(prompt), responses, where=f"drawn {len(pairs)}"))
        return pairs


PROFILES = {
    # Mean and deviation of the logarithms over the 1,487 HH pairs that fit into 512 of our tokens.
    "hh": Profile((4.37, 0.97), (3.45, 0.89)),
    # Our choice of what instruction data with long answers looks like: medians of 110 and 245 tokens. Nothing was measured.
    "long answers": Profile((4.7, 0.9), (5.5, 0.6)),
}


@dataclass(frozen=True)
class Data:
    """Pairs and where they come from."""

    pairs: list[Encoded]
    source: str


def pairs(profile: str, count: int, *, vocabulary: int, max_length: int, seed: int = 0) -> Data:
    """``count`` pairs of a profile: real ones for ``hh`` where the file is there, else drawn ones. The source says which."""
    if profile == "hh" and HH.is_file() and vocabulary >= TEXT_VOCABULARY:
        rows = [json.loads(line) for line in gzip.decompress(HH.read_bytes()).decode().split("\n") if line]
        encoded, _ = prepare(rows, _tokenizer(text for row in rows for text in row.values()), max_length=max_length)
        random.Random(seed).shuffle(encoded)
        source = f"real HH pairs ({len(encoded)} fit), byte-pair tokenizer of {TEXT_VOCABULARY} tokens learnt from them"
        return Data(encoded[:count], source)
    drawn = PROFILES[profile].draw(count, vocabulary, max_length, seed)
    medians = [round(2.718281828**mean) for mean, _ in (PROFILES[profile].prompt, PROFILES[profile].response)]
    source = f"random tokens, log-normal lengths with medians of {medians[0]} (prompt) and {medians[1]} (response)"
    return Data(drawn, source)


def _tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<pad>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def with_more_responses(examples: list[Encoded], k: int) -> list[Encoded]:
    """The same prompts with K responses: their own two, and then those of the examples that follow."""
    more = []
    for n, example in enumerate(examples):
        others = [r for m in range(1, len(examples)) for r in examples[(n + m) % len(examples)].responses]
        more.append(Encoded(example.prompt, (example.responses + others)[:k], example.where))
    return more


def config(shape: str, vocabulary: int) -> Any:
    """Of a causal language model; output layer and embeddings are two matrices."""
    kwargs = dict(SHAPES[shape])
    return kwargs.pop("type")(
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        **kwargs,
    )


def base_model(shape: str, vocabulary: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """A causal language model with random weights, the same ones for the same arguments, made on its device."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config(shape, vocabulary), dtype=dtype)
    return model.requires_grad_(False).eval()


def sharing_weights(model: Any) -> Any:
    """A second model around the same frozen parameters, so that contestants can each wrap their own."""
    return copy.deepcopy(model, {id(value): value for value in model.parameters()})


def spread_adapters(model: Any) -> None:
    """Give every adapter a second factor that is not zero: policy and reference then differ, and no gradient is zero."""
    generator = torch.Generator().manual_seed(1)
    for name, value in sorted(model.named_parameters()):
        if "lora_" in name:
            value.data.copy_(0.02 * torch.randn(value.shape, generator=generator))
