"""How layers are run: adapters in place, gates made again, the last layer where it is read, all again where memory is short."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from pref_toolkit.errors import ModelError

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


def adapters_in_place(model: nn.Module) -> None:
    """From now on, the product of an adapter is added to that of its layer in one pass, and in the layer's own precision.

    peft makes it, scales it and adds it: three tensors more, as large as the layer's output, and in float32 where its adapters
    are. What is not one plain adapter on a layer it goes about as before.
    """
    for layer in model.modules():
        if type(layer) is LoraLinear:
            layer.forward = MethodType(_in_place, layer)  # type: ignore[method-assign]


def _in_place(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    names = [name for name in self.active_adapters if name in self.lora_A]
    plain = len(names) == 1 and self.lora_B[names[0]].bias is None and not self.lora_variant
    if self.disable_adapters or self.merged or not plain or args or kwargs:
        result: Tensor = type(self).forward(self, x, *args, **kwargs)
        return result
    (name,) = names
    rows = x.flatten(0, -2)
    out = self.base_layer(rows)
    A, B = (factors[name].weight.to(out.dtype) for factors in (self.lora_A, self.lora_B))
    # Rows, because autograd would copy the gradient for an addition in place to a view.
    out.addmm_(self.lora_dropout[name](rows) @ A.T, B.T, alpha=self.scaling[name])
    return out.view(*x.shape[:-1], -1)


GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}


def gates_again(model: nn.Module) -> None:
    """From now on, a gated MLP keeps what enters its gate, and makes again on the way back what comes of it.

    That is one less of four tensors as wide as the MLP, for a pass over two of them. A module may have the parts of Llama's MLP
    and combine them in another way: compare.
    """
    for mlp in model.modules():
        if {name for name, _ in mlp.named_children()} == GATED:
            mlp.forward = MethodType(_gated, mlp)  # type: ignore[method-assign]


def gates_kept(model: nn.Module) -> None:
    """:func:`gates_again` undone."""
    for mlp in model.modules():
        if {name for name, _ in mlp.named_children()} == GATED:
            mlp.__dict__.pop("forward", None)


def _gated(self: Any, x: Tensor) -> Tensor:
    def gate(a: Tensor, b: Tensor) -> Tensor:
        result: Tensor = self.act_fn(a) * b
        return result

    entering = self.gate_proj(x), self.up_proj(x)
    if torch.is_grad_enabled():
        entered: Any = checkpoint(gate, *entering, use_reentrant=False, preserve_rng_state=False)
    else:
        entered = gate(*entering)
    result: Tensor = self.down_proj(entered)
    return result


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
        layer.forward = partial(_recomputed, layer.forward)  # type: ignore[method-assign]


def keep(model: nn.Module) -> None:
    """Layers keep what they compute again: :func:`recompute` undone, if an earlier scorer of the model asked for it."""
    for module in model.modules():
        if isinstance(module.forward, partial) and module.forward.func is _recomputed:
            module.forward = module.forward.args[0]  # type: ignore[method-assign]


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
