"""Prompts -> sampled answers, with the prompt ids that training uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import GenerationConfig

from pref_toolkit.data import encode_prompt
from pref_toolkit.errors import Complaint, NotFiniteError
from pref_toolkit.training import attention, layers
from pref_toolkit.training.modes import base_of, evaluation
from pref_toolkit.training.protocols import Adapted, CausalLM, Tokenizer


def sample(
    model: CausalLM | Adapted,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
) -> list[list[int]]:
    """Responses in token ids, each ending in EOS unless it was cut at ``max_new_tokens``.

    These are samples of the policy itself, whose log-probabilities the losses read. Of a model's ``generation_config`` only the
    further end tokens count; its top-k, penalties and suppressed tokens would make another policy of it.

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
        ValueError: if ``max_new_tokens`` is below 1, or the temperature is negative or not finite.
        NotFiniteError: if the model's probabilities are not finite.
    """
    if max_new_tokens < 1:
        raise Complaint(f"max_new_tokens must be at least 1, got {max_new_tokens!r}")
    if not 0 <= temperature < float("inf"):
        raise Complaint(f"temperature must be a finite number >= 0, got {temperature!r}")
    base = base_of(model)
    eos = tokenizer.eos_token_id
    ends = sorted({eos, *_ids(base.generation_config.eos_token_id)})
    device = next(model.parameters()).device
    most = {"max_new_tokens": max_new_tokens, "eos_token_id": ends, "pad_token_id": eos}
    settings = GenerationConfig(do_sample=temperature > 0, **most)
    if temperature > 0:
        settings.update(temperature=float(temperature), top_k=0, top_p=1.0)
    groups = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    random_state = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    cheaper = layers.patched(layers.adapters_in_place(model))
    with evaluation(model), _generation_config(base, settings), cheaper, random_state, attention.without_cudnn():
        torch.manual_seed(seed)
        out: list[list[int]] = []
        for group in (bar := _progress(groups)):
            out += [_until(row, ends) for row in _continued(base, group, eos, device)]
            _show_speed(bar, out)
        return out


def sample_mixture(
    model: CausalLM | Adapted,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    views: Sequence[Callable[[], AbstractContextManager[None]]],
    share: float,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
) -> list[list[int]]:
    """Responses of the geometric mixture of two views, ``pi^(1 - share) ref^share``, normalised at each token.

    The product of these tokens' probabilities is not the geometric mixture of whole responses, which would need a sum over all
    of them. Source: Munos et al. 2023, arXiv:2312.00886, section 4; Calandriello et al. 2024, arXiv:2403.08635.

    Args:
        model, tokenizer, prompts, max_new_tokens, temperature, seed, batch_size: as for :func:`sample`.
        views: two contexts, in which the model is the one and the other.
        share: weight of the second.
    """
    base = base_of(model)
    eos = tokenizer.eos_token_id
    ends = sorted({eos, *_ids(base.generation_config.eos_token_id)})
    device = next(model.parameters()).device
    random_state = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    groups = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    out: list[list[int]] = []
    with torch.no_grad(), random_state, attention.without_cudnn():
        torch.manual_seed(seed)
        for group in (bar := _progress(groups)):
            ids, seen = _padded(group, eos, device)
            last, said, caches = ids, ids[:, :0], [None, None]
            while (
                said.shape[1] < max_new_tokens and not torch.isin(said, torch.tensor(ends, device=device)).any(1).all()
            ):
                mixed = torch.zeros(())
                for n, (view, weight) in enumerate(zip(views, (1 - share, share))):
                    with view():
                        positions = (seen.cumsum(1) - 1).clamp(min=0)[:, -last.shape[1] :]
                        inputs = {"input_ids": last, "attention_mask": seen, "position_ids": positions}
                        told = model(**inputs, past_key_values=caches[n], use_cache=True)
                    caches[n] = told.past_key_values
                    mixed = mixed + weight * told.logits[:, -1].float().log_softmax(-1)
                last = torch.multinomial((mixed / temperature).softmax(-1), 1)
                said = torch.cat([said, last], dim=1)
                seen = torch.cat([seen, torch.ones_like(last)], dim=1)
            out += [_until(row, ends) for row in said.tolist()]
            _show_speed(bar, out)
    return out


def _progress(groups: Sequence[Sequence[list[int]]]) -> tqdm[Sequence[list[int]]]:
    """The groups, with a bar if there are several."""
    return tqdm(groups, desc="samples", leave=False, disable=len(groups) < 2)


def _show_speed(bar: tqdm[Any], responses: Sequence[list[int]]) -> None:
    """How many tokens of responses came in a second, behind the bar."""
    if not bar.disable:
        bar.set_postfix({"tok/s": f"{sum(map(len, responses)) / bar.format_dict['elapsed']:.0f}"})


def _padded(prompts: Sequence[list[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts padded on the left, and which positions are theirs."""
    width = max(map(len, prompts))
    ids = torch.tensor([[padding] * (width - len(p)) + p for p in prompts], device=device)
    seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, seen


def _continued(model: CausalLM, prompts: Sequence[list[int]], padding: int, device: torch.device) -> list[list[int]]:
    """What the model writes behind each prompt; the prompts are padded on the left."""
    ids, seen = _padded(prompts, padding, device)
    try:
        out: Tensor = model.generate(input_ids=ids, attention_mask=seen)
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        raise NotFiniteError("the probabilities of the next token are not finite") from None
    return out[:, ids.shape[1] :].tolist()


@contextmanager
def _generation_config(model: CausalLM, settings: GenerationConfig) -> Iterator[None]:
    """Inside, the model's own settings are replaced: those handed to ``generate`` would be completed by them."""
    before, model.generation_config = model.generation_config, settings
    try:
        yield
    finally:
        model.generation_config = before


def _ids(one_or_more: int | list[int] | None) -> list[int]:
    return [one_or_more] if isinstance(one_or_more, int) else one_or_more or []


def _until(ids: list[int], ends: list[int]) -> list[int]:
    """The ids up to the first end token, which is kept."""
    return next((ids[: i + 1] for i, token in enumerate(ids) if token in ends), ids)


def generate(model: CausalLM | Adapted, tokenizer: Tokenizer, prompts: Sequence[Any], **settings: Any) -> list[str]:
    """Answers as text to prompts as text or chat messages; settings as in :func:`sample`."""
    ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    responses = sample(model, tokenizer, ids, **settings)
    return [tokenizer.decode(r, skip_special_tokens=True, clean_up_tokenization_spaces=False) for r in responses]
