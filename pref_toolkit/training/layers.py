"""Cheaper forward passes for decoder layers: LoRA added in place, MLP gates recomputed in the backward, the last layer run at
scored positions only, and, on request, whole layers recomputed.

Each function returns patches, module -> forward, and changes nothing. :func:`patched` applies them for a while.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from pref_toolkit.errors import ModelError
from pref_toolkit.training.protocols import Call, CausalLM, Module

Patches = Mapping[nn.Module, Call]
"""By module, the forward it has while the patches are applied."""

PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
"""The children of a layer that :func:`scored_only` can run: Llama, Mistral, Qwen, Gemma and similar models."""
GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}
"""The children of a gated MLP."""


@contextmanager
def patched(patches: Patches) -> Iterator[None]:
    """Inside, each module runs its patch. Afterwards each runs what it ran before."""
    before = {module: module.__dict__.get("forward") for module in patches}
    for module, forward in patches.items():
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module, own in before.items():
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = own


def last_layer(base: CausalLM) -> nn.Module | None:
    """The last decoder layer if it has the children of a Llama layer, or None."""
    layers: Any = getattr(base.base_model, "layers", None)
    known = isinstance(layers, nn.ModuleList) and {name for name, _ in layers[-1].named_children()} == PARTS
    return layers[-1] if known else None


def scored_only(layer: nn.Module) -> Patches:
    """A forward that, called with ``kept=positions``, returns hidden states for those positions only, in that order.

    All positions give keys and values; the rest of the layer runs for ``kept`` alone. An architecture may have the same
    children and combine them in another way: compare before use.
    """

    def forward(self: Any, hidden_states: Tensor, *args: object, kept: Tensor | None = None, **kwargs: object) -> Any:
        if kept is None:
            return type(self).forward(self, hidden_states, *args, **kwargs)
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states[:, kept] + attended[:, kept]
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))

    return {layer: MethodType(forward, layer)}


def adapters_in_place(model: Module) -> Patches:
    """LoRA layers that add the adapter's product to the layer's output in one pass, in the precision of the layer.

    peft computes the product, scales it and adds it: three more tensors as large as the layer's output, in float32 where the
    adapters are. A layer with anything but one plain adapter is left to peft.
    """
    return {layer: MethodType(_in_place, layer) for layer in model.modules() if type(layer) is LoraLinear}


def _in_place(self: Any, x: Tensor, *args: object, **kwargs: object) -> Tensor:
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


def gates_recomputed(model: Module) -> Patches:
    """Gated MLPs that keep the gate's inputs for the backward and recompute its output there.

    One fewer of four tensors as wide as the MLP is kept, for one more pass over two of them. A module may have the children
    of a Llama MLP and combine them in another way: compare before use.
    """
    gated = (module for module in model.modules() if {name for name, _ in module.named_children()} == GATED)
    return {mlp: MethodType(_gated, mlp) for mlp in gated}


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


def recomputed(model: Module, inside: Patches) -> Patches:
    """Layers that keep their inputs only and run again in the backward, with the dropout they had.

    The library's own switch works in training mode only, and in that mode some architectures drop out inside the layer.

    Args:
        model: whose layers.
        inside: patches that some of these layers have already; they are recomputed with them.

    Raises:
        ModelError: if the model has no decoder layers of the library's kind.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(f"gradient_checkpointing: no decoder layers found in a {type(model).__name__}; leave it off")
    return {layer: partial(_recomputed, inside.get(layer, layer.forward)) for layer in layers}


def _recomputed(forward: Call, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
