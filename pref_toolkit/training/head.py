"""Hidden states -> what the output layer says of them, a part of the logits at a time: ``(N, V)`` of them never exist at once.

The gradient of a token's log-probability with respect to its hidden state, ``W[y] - E_p[W]``, does not depend on the loss.
Where the output layer is frozen it is therefore made in the forward, while the logits are there, and only scaled in the
backward: two products with ``W`` instead of the three of making the logits again. The logits are then made by parts of the
vocabulary, for all hidden states, so that ``W`` is read once, and each part stays in the cache between its two products.

Where the output layer is trained, or whole distributions are read, logits are made by hidden states, a few at a time, and
made again in the backward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = {"cpu": 2**23, "cuda": 2**25}
"""Logits of whole distributions in a chunk, by device: 32 MiB in float32 on a CPU, where more rows make the products little
faster. A GPU has to read all of ``W`` for a chunk, which wants a few hundred rows to pay: 128 MiB are 261 rows of 128,256, and
seven such tensors exist at once, beside a model that may fill the card. Not measured there."""
TOKENS_AT_ONCE = {"cpu": 2**10, "cuda": 2**13}
"""Tokens of the vocabulary in a part, by device. On a CPU a part of ``W`` and its logits should fit into the cache; a GPU
wants large products. Not measured there."""
FLOAT32_PRODUCTS = {"cuda"}
"""Types of devices that give float32 products of half precision. Rounded to bfloat16, logits that deviate by 3 move the sum of
300 log-probabilities by 0.16 nats, and sums in float64 cannot repair it."""


@dataclass(frozen=True)
class Head:
    """How a model makes logits of its last hidden states.

    Args:
        layer: its output layer.
        cap: logits are ``cap tanh(logits / cap)`` where the architecture caps them, as Gemma 2 does.
    """

    layer: Any
    cap: float | None = None

    @property
    def vocabulary(self) -> int:
        return int(self.layer.weight.shape[0])

    def logits(self, hidden: Tensor) -> Tensor:
        """``(N, V)``, in float32 or the model's precision if that is higher."""
        if type(self.layer) is nn.Linear and _wider(hidden):
            logits: Tensor = _Products.apply(hidden, self.layer.weight)
            logits = logits if self.layer.bias is None else logits + self.layer.bias
        else:
            logits = self.layer(hidden)
        return self.capped(logits.to(torch.promote_types(logits.dtype, torch.float32)))

    def capped(self, logits: Tensor) -> Tensor:
        """What the architecture makes of the output layer's logits."""
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap

    def logps(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Log-probabilities ``(N,)`` of tokens ``targets`` after the hidden states ``(N, H)``."""
        frozen = type(self.layer) is nn.Linear and not any(p.requires_grad for p in self.layer.parameters())
        if frozen and self.cap is None:
            values: Tensor = _FrozenLogps.apply(hidden, targets, self.layer.weight, self.layer.bias)
            return values
        return self.distributions(hidden, targets, set())["logps"]

    def distributions(
        self, hidden: Tensor, targets: Tensor, wanted: set[str], reference_hidden: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``(N,)`` log-probabilities and what else is wanted of whole distributions, in nats.

        Args:
            hidden: ``(N, H)``.
            targets: ``(N,)``.
            wanted: ``entropies``, ``log_weights``; without gradient for the latter.
            reference_hidden: ``(N, H)`` of the reference, if KL(reference || policy), ``sequence_kls``, is wanted.
        """

        def read(states: Tensor, tokens: Tensor, reference_states: Tensor | None) -> dict[str, Tensor]:
            log_p = self.logits(states).log_softmax(-1)
            values = {"logps": log_p.gather(-1, tokens[:, None])[:, 0]}
            if "entropies" in wanted:
                values["entropies"] = -(log_p.exp() * log_p).sum(-1)
            if "log_weights" in wanted:
                values["log_weights"] = values["logps"].detach() - (2 * log_p.detach()).logsumexp(-1)
            if reference_states is not None:
                with torch.no_grad():
                    log_r = self.logits(reference_states).log_softmax(-1)
                values["sequence_kls"] = (log_r.exp() * (log_r - log_p)).sum(-1)
            return values

        run: Callable[..., dict[str, Tensor]] = read
        if torch.is_grad_enabled():
            run = lambda *arguments: checkpoint(read, *arguments, use_reentrant=False)
        size = rows_at_once(self.vocabulary, hidden.device)
        others = reference_hidden.split(size) if reference_hidden is not None else [None] * len(hidden)
        parts = [run(*chunks) for chunks in zip(hidden.split(size), targets.split(size), others)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def rows_at_once(vocabulary: int, device: torch.device) -> int:
    """Rows of logits in a chunk."""
    return max(1, LOGITS_AT_ONCE.get(device.type, LOGITS_AT_ONCE["cpu"]) // vocabulary)


def _wider(hidden: Tensor) -> dict[str, Any]:
    """How to ask for products that are not rounded to half precision; nothing where they would not be, or cannot be had."""
    half = hidden.dtype in (torch.float16, torch.bfloat16)
    return {"out_dtype": torch.float32} if half and hidden.device.type in FLOAT32_PRODUCTS else {}


class _Products(torch.autograd.Function):
    """``hidden @ weight.T`` of half precision in float32, which torch makes but does not differentiate."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return torch.mm(hidden, weight.T, **_wider(hidden))

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        of_logits = outer[0].to(weight.dtype)
        wanted = ctx.needs_input_grad
        return of_logits @ weight if wanted[0] else None, of_logits.T @ hidden if wanted[1] else None


class _FrozenLogps(torch.autograd.Function):
    """Log-probabilities under a frozen linear output layer, and their gradient with respect to the hidden states.

    The sum ``z`` of ``exp(logit - top)`` and the sum of the same times ``W`` grow part by part. When a part holds a greater
    logit than all before, ``top`` rises and both shrink by what it rose.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        size = TOKENS_AT_ONCE.get(hidden.device.type, TOKENS_AT_ONCE["cpu"])
        wider = _wider(hidden)
        room = hidden.new_empty(len(hidden) * min(size, len(weight)), dtype=wider.get("out_dtype"))
        top = hidden.new_full((len(hidden), 1), -torch.inf, dtype=exact)
        z, of_token = torch.zeros_like(top), torch.zeros_like(top)
        expected = torch.zeros_like(hidden, dtype=exact) if ctx.needs_input_grad[0] else None
        for start in range(0, len(weight), size):
            part = weight[start : start + size]
            logits = torch.mm(hidden, part.T, out=room[: len(hidden) * len(part)].view(len(hidden), -1), **wider)
            if bias is not None:
                logits += bias[start : start + size]
            logits = logits.to(exact)
            place = targets[:, None] - start
            inside = (place >= 0) & (place < len(part))
            of_token = torch.where(inside, logits.gather(-1, place.clamp(0, len(part) - 1)), of_token)
            risen = torch.maximum(top, logits.amax(-1, keepdim=True))
            shrink, top = (top - risen).exp(), risen
            p = logits.sub_(top).exp_()
            z = z.mul_(shrink).add_(p.sum(-1, keepdim=True))
            if expected is not None:
                expected.mul_(shrink)
                if weight.dtype == exact:
                    expected.addmm_(p, part)
                else:
                    expected += torch.mm(p.to(weight.dtype), part, **wider)
        if expected is not None:
            ctx.save_for_backward((weight[targets] - expected.div_(z)).to(hidden.dtype))
        return (of_token - top - z.log())[:, 0]

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * outer[0][:, None]).to(gradient.dtype), None, None, None
