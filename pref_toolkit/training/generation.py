"""Prompts -> sampled answers, with the prompt ids that training uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from pref_toolkit.data import encode_prompt
from pref_toolkit.training.models import NotFiniteError
from pref_toolkit.training.scoring import evaluation


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
) -> list[list[int]]:
    """Responses in token ids, each ending in EOS unless it was cut at ``max_new_tokens``.

    Args:
        model: any causal language model of transformers, or a PeftModel around one.
        tokenizer: for its EOS.
        prompts: ids of each prompt, from :func:`pref_toolkit.data.encode_prompt`.
        max_new_tokens: longest response.
        temperature: divides the logits; 0 takes the likeliest token each time.
        seed: of the samples; torch's random state is left as it was found.
        batch_size: prompts generated side by side. The samples depend on it.

    Returns:
        One list of ids for each prompt, in order.

    Raises:
        NotFiniteError: if the model's probabilities are not finite.
    """
    eos = tokenizer.eos_token_id
    device = next(model.parameters()).device
    settings: dict[str, Any] = {"do_sample": temperature > 0, "max_new_tokens": max_new_tokens}
    if temperature > 0:
        settings |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}
    responses: list[list[int]] = []
    starts = range(0, len(prompts), batch_size)
    with evaluation(model), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for start in tqdm(starts, desc="samples", leave=False, disable=len(starts) < 2):
            group = prompts[start : start + batch_size]
            width = max(map(len, group))
            ids = torch.tensor([[eos] * (width - len(p)) + p for p in group], device=device)
            seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in group], device=device)
            try:
                out = model.generate(input_ids=ids, attention_mask=seen, eos_token_id=eos, pad_token_id=eos, **settings)
            except RuntimeError as error:
                if "probability tensor" not in str(error):
                    raise
                raise NotFiniteError("the probabilities of the next token are not finite") from None
            responses += [_until(row, eos) for row in out[:, width:].tolist()]
    return responses


def _until(ids: list[int], eos: int) -> list[int]:
    return ids[: ids.index(eos) + 1] if eos in ids else ids


def generate(model: Any, tokenizer: Any, prompts: Sequence[Any], **settings: Any) -> list[str]:
    """Answers as text to prompts as text or chat messages; settings as in :func:`sample`."""
    ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    return [tokenizer.decode(r, skip_special_tokens=True) for r in sample(model, tokenizer, ids, **settings)]
