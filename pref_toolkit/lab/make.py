"""Make the lab's supervised model: ``python -m pref_toolkit.lab.make [directory]``.

A Llama of two layers learns from random text: prompts of the train split, each with a response. About one response in five
has a wrong number, off by one, two or ten. The model learns these errors and makes more of them on unseen prompts, which
leaves room for training on preferences.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pref_toolkit.lab.language import CLOSINGS, OPENINGS, answer, operand_pairs, styled
from pref_toolkit.lab.shipped import MODEL_PATH
from pref_toolkit.lab.tokenizer import build_tokenizer

ERROR = 0.22
MISTAKES = (-10, -2, -1, 1, 2, 10)
OPENING_WEIGHTS = (0.5, 0.3, 0.2)
CLOSING_WEIGHTS = (0.6, 0.2, 0.2)
STEPS = 720
BATCH_SIZE = 128
LEARNING_RATE = 4e-3
IGNORED = -100


def written(prompt: str, rng: random.Random) -> str:
    """A response of the training text, whose number is wrong with probability ``ERROR``."""
    number = answer(prompt) + (rng.choice(MISTAKES) if rng.random() < ERROR else 0)
    return styled(number, rng.choices(OPENINGS, OPENING_WEIGHTS)[0], rng.choices(CLOSINGS, CLOSING_WEIGHTS)[0])


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The model with random weights. Two choices shorten training: weights of size 1/sqrt(width), and a small RoPE base."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            initializer_range=0.1,
            rope_parameters={"rope_type": "default", "rope_theta": 100.0},
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def batch(
    tokenizer: PreTrainedTokenizerFast, asked: list[str], rng: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """``(B, T)`` token ids and labels; only responses and their EOS are labelled."""
    prompt_ids = tokenizer(asked).input_ids
    response_ids = tokenizer([written(p, rng) + tokenizer.eos_token for p in asked], add_special_tokens=False).input_ids
    width = max(len(p) + len(r) for p, r in zip(prompt_ids, response_ids))
    ids = torch.full((len(asked), width), tokenizer.pad_token_id)
    labels = torch.full((len(asked), width), IGNORED)
    for i, (prompt, response) in enumerate(zip(prompt_ids, response_ids)):
        end = len(prompt) + len(response)
        ids[i, :end] = torch.tensor(prompt + response)
        labels[i, len(prompt) : end] = torch.tensor(response)
    return ids, labels


def tune(steps: int = STEPS, seed: int = 0) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, float]:
    """Tune a model. Returns it, its tokenizer and its mean loss over the last tenth of the steps, in nats per token.

    Tuning uses one thread, because the order of additions, and with it the weights, depends on the number of threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rng = random.Random(seed)
    tokenizer = build_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(tokenizer)
    pool = [f"{a}+{b}=" for a, b in operand_pairs("train")]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    losses = []
    for _ in tqdm(range(steps), desc="supervised tuning"):
        ids, labels = batch(tokenizer, rng.choices(pool, k=BATCH_SIZE), rng)
        logits = model(ids).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    torch.set_num_threads(threads)
    last = losses[-max(1, steps // 10) :]
    return model.eval(), tokenizer, sum(last) / len(last)


def make(directory: Path, *, steps: int = STEPS, seed: int = 0) -> dict[str, Any]:
    """Tune a model and save weights, tokenizer, configuration and ``provenance.json``, which says how they were made."""
    began, began_cpu = time.perf_counter(), time.process_time()
    model, tokenizer, loss = tune(steps, seed)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    provenance = {
        "made_by": "python -m pref_toolkit.lab.make",
        "data": "made by the script itself; no other text was used",
        "licence": "Apache-2.0",
        "seed": seed,
        "steps": steps,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "wrong_in_the_data": ERROR,
        "final_loss": round(loss, 4),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sha256": hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest(),
    }
    (directory / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")
    return provenance


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m pref_toolkit.lab.make", description="Make the lab's supervised model."
    )
    parser.add_argument("directory", nargs="?", type=Path, default=MODEL_PATH, help="where to put it")
    print(json.dumps(make(parser.parse_args().directory), indent=1))
