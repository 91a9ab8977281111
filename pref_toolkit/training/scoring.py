"""Batches -> log-probabilities of responses, and the frozen reference inside a LoRA policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor, nn

from pref_toolkit.data.batches import Batch, pack, separate
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.logps import Logps
from pref_toolkit.training import attention

Route = Literal["auto", "segments", "mask", "rows"]
"""How responses travel: packed behind their prompt, with attention by segments or through a mask; or a row to each."""


class Scorer(nn.Module):
    """A causal language model that answers with summed response log-probabilities.

    ``rows`` is the plain way: every response behind its own copy of the prompt, padded. ``mask`` shares the prompts through
    a mask over the whole sequence. ``segments`` is ``mask`` without the waste. All three give the same numbers;
    ``auto`` takes the fastest that the architecture allows, which is tried out once on random tokens.

    Args:
        model: any causal language model of transformers, or a PeftModel around one.
        longest: most tokens in a prompt + response that will be scored.
        route: which way to take.

    Attributes:
        route: the way taken.
        obstacle: why not a faster one, or None.
    """

    def __init__(self, model: nn.Module, longest: int, route: Route = "auto") -> None:
        super().__init__()
        self.model: Any = model
        self.obstacle: str | None = None
        for candidate in ("segments", "mask", "rows") if route == "auto" else (route,):
            self.route = candidate
            found = self._obstacle(longest)
            if found is None:
                return
            self.obstacle = found
        if route != "auto":
            raise ValueError(f"route {route!r} is not possible here: {self.obstacle}")

    def collate(self, examples: Sequence[Encoded]) -> Batch:
        """The layout of the route taken."""
        return (separate if self.route == "rows" else pack)(examples)

    def forward(self, batch: Batch) -> Tensor:
        """``(B, K)`` summed log-probabilities in nats, in float32 or the model's precision if that is higher."""
        logits = self._logits(batch)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logps = logits.gather(-1, batch.targets[:, None])[:, 0] - logits.logsumexp(-1)
        return logps.new_zeros(batch.tokens.numel()).index_add(0, batch.owner, logps).view(batch.tokens.shape)

    def _logits(self, batch: Batch) -> Tensor:
        """``(N, V)`` logits of the scored positions."""
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": False}
        if self.route == "rows":
            return self.model(attention_mask=batch.present, **inputs).logits.flatten(0, 1)[batch.scored]
        if self.route == "segments":
            # A mask of four dimensions is passed on as it is: the library builds none, and our attention reads none.
            inputs |= {
                "attention_mask": torch.zeros(1, 1, 1, 1, device=batch.input_ids.device),
                "segments": batch.segments,
            }
        else:
            # Additive, because eager attention would add a boolean mask as zeros and ones.
            dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point())
            zero = torch.zeros((), dtype=dtype, device=batch.input_ids.device)
            inputs["attention_mask"] = zero.where(batch.mask(), torch.finfo(dtype).min)[None, None]
        return self.model(logits_to_keep=batch.scored, **inputs).logits[0]

    def _obstacle(self, longest: int) -> str | None:
        """Why the route cannot be taken, or None."""
        if self.route == "rows":
            return None
        # A mask or segments replace a sliding window of the model's own.
        config: Any = self.model.config
        for name in ("sliding_window", "attention_chunk_size"):
            window = getattr(config, name, None)
            if window is not None and longest > window:
                return f"{longest} tokens are more than the model's {name} of {window}"
        before = config._attn_implementation
        if self.route == "segments":
            self._attend_with(attention.SEGMENTS)
        obstacle = self._trial()
        if obstacle is not None and self.route == "segments":
            self._attend_with(before)
        return obstacle

    def _attend_with(self, implementation: str) -> None:
        base: Any = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        base.set_attn_implementation(implementation)

    def _trial(self) -> str | None:
        """Score random tokens shared and alone; they must differ far less than two prompts do."""
        config: Any = self.model.config
        random = torch.Generator().manual_seed(0)
        draw = lambda n: torch.randint(config.vocab_size, (n,), generator=random).tolist()
        responses = [draw(5), draw(6)]
        examples, others = ([Encoded(draw(8), responses, where="trial")] for _ in range(2))
        device = next(self.model.parameters()).device
        route = self.route
        with evaluation(self.model):
            try:
                shared = self(pack(examples).to(device))
            except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
                return f"{config.model_type} does not take {route} and positions ({type(error).__name__})"
            self.route = "rows"
            alone, other = (self(separate(e).to(device)) for e in (examples, others))
            self.route = route
        if (shared - alone).abs().sum() > 0.25 * (other - alone).abs().sum():
            return f"{config.model_type} does not keep responses that share a prompt apart"
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
