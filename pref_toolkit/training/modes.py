"""Modes of a model: which adapter is on, which dropout, and whether anything is differentiated. Each is put back afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from pref_toolkit.training.protocols import Adapted, CausalLM, Module


def base_of(model: CausalLM | Adapted) -> CausalLM:
    """The model of transformers inside a PeftModel, or the model itself. Adapters stay in its layers."""
    return cast(Adapted, model).get_base_model() if isinstance(model, PeftModel) else model


def dropout_in_adapters_only(model: Module) -> None:
    """Training mode for the adapters' dropout, evaluation mode for everything else.

    Policy and reference then differ by the adapters alone, and DPO's first loss is log 2 exactly.
    """
    model.eval()
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            module.train()


@contextmanager
def training(model: Module) -> Iterator[None]:
    """Inside, the adapters drop out, nothing else does, and everything is differentiated."""
    drops_out = lambda name, module: "lora_dropout" in name and isinstance(module, nn.Dropout)
    with _training_only(model, drops_out), torch.enable_grad():
        yield


@contextmanager
def evaluation(model: Module) -> Iterator[None]:
    """Inside, no dropout and no gradient."""
    with _training_only(model, lambda name, module: False), torch.no_grad():
        yield


@contextmanager
def _training_only(model: Module, wanted: Callable[[str, nn.Module], bool]) -> Iterator[None]:
    """Inside, the wanted modules alone are in training mode; afterwards each module has its own mode again."""
    changed = [module for name, module in model.named_modules() if module.training != wanted(name, module)]
    for module in changed:
        module.training = not module.training
    try:
        yield
    finally:
        for module in changed:
            module.training = not module.training


@contextmanager
def adapter_on(model: CausalLM | Adapted, name: str | None) -> Iterator[None]:
    """Inside, this adapter alone is on; None: no adapter, the frozen base alone.

    peft's own switches also change which weights require a gradient. Here that is put back, inside and afterwards.
    """
    if not isinstance(model, PeftModel):
        if name is not None:
            raise ValueError(f"the model has no adapters, so none called {name!r}")
        yield
        return
    adapted = cast(Adapted, model)
    active, on = adapted.active_adapter, _adapter_that_is_on(adapted)
    if name == on:
        yield
        return
    if name in (None, active) and on in (None, active):
        with _adapters_off(adapted, name is None):
            yield
        return
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        _switch_on(adapted, name)
        _require_gradients(trained)
        yield
    finally:
        _switch_on(adapted, active)
        if on is None:
            _switch_on(adapted, None)
        _require_gradients(trained)


@contextmanager
def _adapters_off(model: Adapted, off: bool) -> Iterator[None]:
    """Inside, the active adapter is off, or on.

    peft's own switch walks over all modules and weights several times, which takes longer than the forward of a small batch.
    Its layers read this one attribute.
    """
    switches = _switches(model)
    for layer in switches:
        layer._disable_adapters = off
    try:
        yield
    finally:
        for layer in switches:
            layer._disable_adapters = not off


_SWITCHES: WeakKeyDictionary[Adapted, tuple[list[Any], list[Any]]] = WeakKeyDictionary()
"""By model, the configurations of its adapters and the layers that these are in."""


def _switches(model: Adapted) -> list[Any]:
    """The layers that an adapter can be switched off in, looked up again when the model has other adapters."""
    configs = list(model.peft_config.values())
    known, layers = _SWITCHES.get(model, ([], []))
    if len(known) != len(configs) or any(a is not b for a, b in zip(known, configs)):
        layers = [
            module for module in model.modules() if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))
        ]
        _SWITCHES[model] = configs, layers
    return layers


def _adapter_that_is_on(model: Adapted) -> str | None:
    """Not ``active_adapter``, which stays the same while adapters are switched off."""
    layer = next(layer for layer in _switches(model) if isinstance(layer, BaseTunerLayer))
    return None if layer.disable_adapters else model.active_adapter


def _switch_on(model: Adapted, name: str | None) -> None:
    if name is None:
        model.base_model.disable_adapter_layers()
    else:
        model.base_model.enable_adapter_layers()
        model.set_adapter(name)


def _require_gradients(given: list[tuple[nn.Parameter, bool]]) -> None:
    for parameter, wanted in given:
        parameter.requires_grad = wanted


@contextmanager
def reference(model: CausalLM | Adapted) -> Iterator[None]:
    """Inside, the model is its own frozen base: adapters off, no dropout, no gradient."""
    with evaluation(model), adapter_on(model, None):
        yield
