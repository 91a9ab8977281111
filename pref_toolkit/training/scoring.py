"""Batches -> log-probabilities of responses, and the frozen reference inside a LoRA policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pref_toolkit.data.batches import Batch, pack, separate
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.logps import Logps


class Scorer(nn.Module):
    """A causal language model that answers with summed response log-probabilities.

    Prompts are shared between their responses where the architecture allows it, which is tried out once on random tokens.
    ``route`` says which way is taken and why.

    Args:
        model: any causal language model of transformers, or a PeftModel around one.
        longest: most tokens in a prompt + response that will be scored.
    """

    def __init__(self, model: nn.Module, longest: int) -> None:
        super().__init__()
        self.model = model
        obstacle = self._obstacle(longest)
        self.shares_prompts = obstacle is None
        self.route = "one row per prompt" if obstacle is None else f"one row per response: {obstacle}"

    def collate(self, examples: Sequence[Encoded]) -> Batch:
        """The layout this model can score."""
        return (pack if self.shares_prompts else separate)(examples)

    def forward(self, batch: Batch) -> Tensor:
        """``(B, K)`` summed log-probabilities in nats, in float32 or the model's precision if that is higher."""
        logits = self._packed_logits(batch) if batch.packed else self._separate_logits(batch)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logps = logits.gather(-1, batch.targets[:, None])[:, 0] - logits.logsumexp(-1)
        return logps.new_zeros(batch.tokens.numel()).index_add(0, batch.owner, logps).view(batch.tokens.shape)

    def _packed_logits(self, batch: Batch) -> Tensor:
        dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point())
        # Additive, because eager attention would add a boolean mask as zeros and ones.
        mask = torch.zeros((), dtype=dtype, device=batch.row.device).where(batch.mask(), torch.finfo(dtype).min)
        return self.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=mask[None, None],
            logits_to_keep=batch.scored,
            use_cache=False,
        ).logits[0]

    def _separate_logits(self, batch: Batch) -> Tensor:
        logits = self.model(input_ids=batch.input_ids, attention_mask=(batch.row >= 0).long(), use_cache=False).logits
        return logits.flatten(0, 1)[batch.scored]

    def _obstacle(self, longest: int) -> str | None:
        """Why prompts cannot be shared, or None. A mask handed to the model replaces a sliding window of its own."""
        config: Any = self.model.config
        for name in ("sliding_window", "attention_chunk_size"):
            window = getattr(config, name, None)
            if window is not None and longest > window:
                return f"{longest} tokens are more than the model's {name} of {window}"
        return self._trial()

    def _trial(self) -> str | None:
        """Score random tokens both ways; they must differ far less than two prompts do."""
        config: Any = self.model.config
        random = torch.Generator().manual_seed(0)
        draw = lambda n: torch.randint(config.vocab_size, (n,), generator=random).tolist()
        responses = [draw(5), draw(6)]
        examples, others = ([Encoded(draw(8), responses, where="trial")] for _ in range(2))
        device = next(self.model.parameters()).device
        with evaluation(self.model):
            alone, other = (self(separate(e).to(device)) for e in (examples, others))
            try:
                shared = self(pack(examples).to(device))
            except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
                return f"{type(self.model).__name__} does not take a mask and positions ({type(error).__name__})"
        if (shared - alone).abs().sum() > 0.25 * (other - alone).abs().sum():
            return "the architecture does not keep responses that share a prompt apart"
        return None


def logps(scorer: nn.Module, batch: Batch) -> Logps:
    """The record a loss reads, from a scorer (or accelerate's wrapper around one)."""
    return Logps(scorer(batch), batch.tokens)


def dropout_in_adapters_only(model: nn.Module) -> None:
    """Training mode for the adapters' dropout, evaluation mode for all else.

    Policy and reference then differ by the adapters alone, and DPO's first loss is log 2 exactly.
    """
    model.eval()
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            module.train()


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Inside, all dropout is off and nothing is differentiated; each module's mode is put back afterwards."""
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in was_training:
            module.training = True


@contextmanager
def reference(model: Any) -> Iterator[None]:
    """Inside, a LoRA policy is its own frozen reference: adapters off, dropout off, nothing differentiated."""
    with evaluation(model), model.disable_adapter():
        yield
