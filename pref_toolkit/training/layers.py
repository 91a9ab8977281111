"""How decoder layers are run: the last one only where a token is scored, each of them twice where memory is short."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from pref_toolkit.training.models import ModelError

PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
"""What a layer is made of that :func:`scored_only` knows how to run: Llama, Mistral, Qwen, Gemma and their like."""


def last_layer(base: Any) -> Any | None:
    """The last decoder layer if it has the parts of Llama's, or None."""
    layers: Any = getattr(base.base_model, "layers", None)
    known = isinstance(layers, nn.ModuleList) and {name for name, _ in layers[-1].named_children()} == PARTS
    return layers[-1] if known else None


def scored_only(layer: Any) -> None:
    """From now on, the keyword ``kept`` of the model's forward names the positions that the layer answers for, in its order.

    Other positions are but keys and values to it. Attention sees all of them; what follows is done for ``kept`` alone. An
    architecture may have the parts and combine them in another way: compare.
    """

    def forward(self: Any, hidden_states: Tensor, *args: Any, kept: Tensor | None = None, **kwargs: Any) -> Any:
        if kept is None:
            return type(self).forward(self, hidden_states, *args, **kwargs)
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states[:, kept] + attended[:, kept]
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))

    layer.forward = MethodType(forward, layer)


def recompute(model: nn.Module) -> None:
    """From now on, layers keep their inputs only, and are run again in the backward with the dropout they had.

    The library's own switch works in training mode only, in which some architectures drop out inside the layer itself.

    Raises:
        ModelError: if the model has no layers known as such.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(f"gradient_checkpointing: no decoder layers found in a {type(model).__name__}; leave it off")
    for layer in layers:
        if not isinstance(layer.forward, partial):
            layer.forward = partial(_recomputed, layer.forward)  # type: ignore[method-assign]


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
