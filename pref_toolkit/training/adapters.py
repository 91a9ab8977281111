"""LoRA adapters in PEFT's format: new ones, saved ones whoever saved them, and which can be trained against a reference.

Everything that is trained must go when its adapter is switched off. Otherwise the reference, which shares the base, would
move with the policy; :func:`check` refuses such adapters by name.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy as copied
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from pref_toolkit.errors import ModelError, NotFiniteError
from pref_toolkit.training.files import whole
from pref_toolkit.training.protocols import Adapted, CausalLM, Module

CONFIG, WEIGHTS, REWARD_HEAD, BASE = (
    *("adapter_config.json", "adapter_model.safetensors", "reward_head.safetensors"),
    "base.json",
)
BUILT_IN = {"tiny", "lab", "smollm2"}
"""Names of models that are known here."""
CHANGES_THE_BASE = {"pissa", "corda", "olora", "loftq"}
"""Initialisations of LoRA that change the base's weights, by the first part of their name."""


def find(name: str) -> Path | None:
    """The directory of an adapter: ``name`` itself, ``name/adapter`` of a run, or the local copy of a hub id; else None."""
    if name in BUILT_IN:
        return None
    local = next((p for p in (Path(name), Path(name) / "adapter") if (p / CONFIG).is_file()), None)
    if local is not None or Path(name).exists():
        return local
    try:
        if find_adapter_config_file(name) is None:
            return None
    except OSError:  # no name of a hub either, as the loader of models will say
        return None
    try:
        weights = cached_file(name, WEIGHTS)
    except OSError as error:
        raise ModelError(f"adapter {name!r} has no readable {WEIGHTS}: {str(error).splitlines()[0]}") from None
    return Path(cast(str, weights)).parent


def base_name(directory: Path) -> tuple[str, str | None]:
    """The name of the base that an adapter belongs to, and the base's fingerprint if this package saved the adapter.

    Raises:
        ModelError: if the adapter names no base, is no LoRA adapter, or cannot be trained against a reference.
    """
    try:
        config = PeftConfig.from_pretrained(str(directory))
        ours = json.loads((directory / BASE).read_text()) if (directory / BASE).is_file() else {}
        name, made_for = ours.get("name") or config.base_model_name_or_path, ours.get("fingerprint")
    except (OSError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{directory}: the adapter's configuration cannot be read: {_first_line(error)}") from None
    check(config, str(directory))
    if not name:
        raise ModelError(
            f"{directory}: {CONFIG} names no base model; set base_model_name_or_path in it, or pass a PeftModel"
        )
    return name, made_for


def check(config: PeftConfig, where: str) -> None:
    """Refuse what does not go when the adapter is switched off, or cannot be loaded again.

    Raises:
        ModelError: naming the kind of adapter or the setting.
    """
    if not isinstance(config, LoraConfig):
        raise ModelError(f"{where}: a {config.peft_type} adapter, and only LoRA adapters are trained here")
    initialised = str(config.init_lora_weights).lower().partition("_")[0]
    refused = {
        "task_type": config.task_type not in (None, "CAUSAL_LM"),
        "bias": config.bias != "none",
        "init_lora_weights": initialised in CHANGES_THE_BASE,
        "layer_replication": config.layer_replication is not None,
        "trainable_token_indices": config.trainable_token_indices is not None,
        "alora_invocation_tokens": getattr(config, "alora_invocation_tokens", None) is not None,
    }
    for name in (name for name, found in refused.items() if found):
        raise ModelError(
            f"{where}: an adapter with {name}={getattr(config, name)!r} would change the reference, which is the base "
            "without it; train one without that setting"
        )


def attach(base: CausalLM, directory: Path) -> Adapted:
    """The base with a saved adapter, frozen.

    Raises:
        ModelError: if the adapter's weights are not those that its configuration asks for on this base.
    """
    with _fitting(directory):
        model = cast(Adapted, PeftModel.from_pretrained(cast(nn.Module, base), str(directory)))
    _check_names(model, model.active_adapter, directory)
    return model


def attach_another(model: Adapted, directory: Path, name: str, base: str) -> None:
    """One more saved adapter, frozen and not active, in a model that has adapters.

    Args:
        model: the model.
        directory: of the adapter.
        name: of the adapter in the model.
        base: the fingerprint of the model's base.

    Raises:
        ModelError: if the adapter is another base's.
    """
    base_called, made_for = base_name(directory)
    if made_for is not None and made_for != base:
        raise ModelError(f"{directory}: this adapter was trained on other weights, called {base_called!r}")
    with _fitting(directory):
        model.load_adapter(str(directory), name)
    _check_names(model, name, directory)


@contextmanager
def _fitting(directory: Path) -> Iterator[None]:
    try:
        with _quiet_peft():
            yield
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"{directory}: this adapter does not fit its base: {_first_line(error)}") from None


def _check_names(model: Adapted, adapter: str, directory: Path) -> None:
    """Refuse a file whose weights are not those of the adapter: peft itself leaves missing weights as they are."""
    with _fitting(directory):
        given = set(load_file(directory / WEIGHTS))
    wanted = set(_state_of(model, adapter))
    for name in sorted(given ^ wanted):
        has = "lacks" if name in wanted else "has more than its configuration asks for:"
        raise ModelError(f"{directory}: this adapter does not fit its base: {WEIGHTS} {has} {name!r}")


def with_adapters(model: CausalLM | Adapted, *, rank: int, alpha: int | None, dropout: float) -> Adapted:
    """The model with new LoRA adapters on all linear layers but the output layer; of a PeftModel, its active adapter.

    Only the adapter requires a gradient afterwards.

    Raises:
        ModelError: if the PeftModel's adapter cannot be trained against a reference, see :func:`check`.
        NotFiniteError: naming a weight that is not finite.
    """
    for name, value in model.named_parameters():
        if not torch.isfinite(value).all():
            raise NotFiniteError(f"weight {name!r} of the model is not finite before the first step")
    model.requires_grad_(False)
    if isinstance(model, PeftModel):
        check(model.active_peft_config, "the PeftModel")
        adapted = cast(Adapted, model)
        _check_tied(adapted)
        adapted.set_adapter(adapted.active_adapter)
        return adapted
    lora = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with _quiet_peft():
        return cast(Adapted, get_peft_model(cast(nn.Module, model), lora))


def _check_tied(model: Adapted) -> None:
    """Refuse a trained copy of an embedding that the output layer shares: the library may or may not share the copy too."""
    saved = getattr(model.peft_config[model.active_adapter], "modules_to_save", None) or ()
    tied = getattr(model.config, "tie_word_embeddings", False) and {"lm_head", "embed_tokens", "wte"} & {*saved}
    if tied:
        raise ModelError(
            f"modules_to_save holds {', '.join(sorted(tied))}, which this model ties: its trained copy could not be loaded "
            "again; train an adapter without it"
        )


def weights_of(model: Module, adapter: str) -> dict[str, nn.Parameter]:
    """The weights of one adapter by the names they have in the model."""
    return {name: value for name, value in model.named_parameters() if _adapter_in(name) == adapter}


def trainable(model: Module) -> dict[str, nn.Parameter]:
    """The weights that require a gradient, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


_OWN = re.compile(r"(?:^|\.)(?:lora_\w+|modules_to_save)\.([^.]+)")


def _adapter_in(name: str) -> str | None:
    """The adapter that a weight belongs to, by the weight's name; None for a weight of the base."""
    found = _OWN.search(name)
    return found[1] if found else None


def _without_adapter(name: str) -> str:
    """``...lora_A.default.weight`` -> ``...lora_A.weight``."""
    return _OWN.sub(lambda found: found[0].rpartition(".")[0], name)


def copy(model: Adapted, source: str, to: str) -> None:
    """Give the adapter ``to`` the weights of ``source``; it is made, frozen, if there is none of that name.

    torch's random state, the active adapter and which weights require a gradient are left as they were.
    """
    if to not in model.peft_config:
        with _adding(model, to):
            model.add_adapter(to, model.peft_config[source])
    given = {_without_adapter(name): value for name, value in weights_of(model, source).items()}
    with torch.no_grad():
        for name, value in weights_of(model, to).items():
            value.copy_(given[_without_adapter(name)])


def combine(model: Adapted, weights: Mapping[str, float], to: str) -> str:
    """Make the adapter ``to``, frozen, the weighted sum of the products ``B A`` of adapters, and return its name.

    Factors side by side have the sum of the products as their product: the rank is the sum of the ranks. torch's random state
    and the active adapter are left as they were.

    Raises:
        ModelError: naming a setting by which an adapter is more than the product of two factors.
    """
    for name in weights:
        config = model.peft_config[name]
        for setting in ("use_dora", "use_rslora", "modules_to_save"):
            if getattr(config, setting):
                raise ModelError(
                    f"adapter {name!r} has {setting}, and only updates that are products of factors add up"
                )
    if to in model.peft_config:
        model.delete_adapter(to)
    with _adding(model, to):
        model.base_model.add_weighted_adapter([*weights], [*weights.values()], to, combination_type="cat")
    return to


@contextmanager
def _adding(model: Adapted, name: str) -> Iterator[None]:
    """Inside, an adapter is added, which is then frozen. What is active and what requires a gradient is put back."""
    kept, active = [(value, value.requires_grad) for value in model.parameters()], model.active_adapter
    with torch.random.fork_rng(), _quiet_peft():
        yield
        model.set_adapter(active)
    for value, wanted in kept:
        value.requires_grad = wanted
    for value in weights_of(model, name).values():
        value.requires_grad = False


def scale(model: Adapted, adapter: str) -> str:
    """The settings by which the product of an adapter's factors is scaled: with the weights, all that it computes."""
    config = model.peft_config[adapter]
    names = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
    return json.dumps({name: getattr(config, name) for name in names}, sort_keys=True)


def does_nothing(model: Adapted, adapter: str) -> bool:
    """Whether an adapter leaves its base as it is: the product of its factors is 0, and it has nothing else."""
    config = model.peft_config[adapter]
    if config.use_dora or config.modules_to_save:
        return False
    return not any(
        value.any() for name, value in weights_of(model, adapter).items() if re.search("lora_(embedding_)?B", name)
    )


def save(
    model: Adapted, adapter: str, directory: Path, weights: Mapping[str, Tensor], head: Tensor | None, made_for: str
) -> None:
    """Write an adapter in PEFT's format, and beside it the base it belongs to and the reward head, if there is one.

    Args:
        model: the policy.
        adapter: which of its adapters.
        directory: where to.
        weights: the adapter's weights by name, whole where the model holds only this process's part.
        head: the weights of the reward head.
        made_for: the fingerprint of the base.
    """
    base, config = model.get_base_model().config._name_or_path, copied(model.peft_config[adapter])
    config.base_model_name_or_path, config.inference_mode = base, True
    kept = _state_of(model, adapter, {**model.state_dict(), **weights})
    with whole(directory) as partial:
        partial.mkdir(parents=True)
        save_file({name: value.detach().cpu().contiguous() for name, value in kept.items()}, partial / WEIGHTS)
        config.save_pretrained(str(partial))
        if head is not None:
            save_file({"weight": head.detach().cpu().contiguous()}, partial / REWARD_HEAD)
        (partial / BASE).write_text(json.dumps({"name": base, "fingerprint": made_for}, indent=1))


def _state_of(model: Adapted, adapter: str, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """An adapter's weights by the names they have in a file. The library would look the base up on the hub to see whether its
    embeddings were resized; here they are the base's own, and never saved.
    """
    kept: dict[str, Tensor] = get_peft_model_state_dict(
        model, state_dict=state, adapter_name=adapter, save_embedding_layers=False
    )
    return kept


def new_reward_head(model: CausalLM) -> nn.Linear:
    """A linear map from a hidden state to one reward, at first 0: no response is preferred. Only differences count: no bias."""
    layer = model.get_output_embeddings()
    assert layer is not None, "a causal language model has an output layer"
    head = nn.Linear(layer.weight.shape[1], 1, bias=False, device=next(model.parameters()).device)
    nn.init.zeros_(head.weight)
    return head


def reward_head(name: str | None, model: CausalLM) -> nn.Linear:
    """The head to train a reward model with: the one beside its adapter, if it is a reward model's, or a new one."""
    directory = find(name) if name is not None else None
    loaded = load_reward_head(directory, model) if directory is not None else None
    return loaded or new_reward_head(model)


def load_reward_head(directory: Path, model: CausalLM) -> nn.Linear | None:
    """The reward head beside an adapter, or None if the adapter is a policy's."""
    if not (directory / REWARD_HEAD).is_file():
        return None
    head = new_reward_head(model)
    head.load_state_dict(load_file(directory / REWARD_HEAD))
    return head


def fingerprint(model: Module) -> str:
    """A hash of the name, shape and float32 bits of every weight of the base; the same on every device.

    Adapters are left out, and the names that they give to the base's weights are undone.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if _adapter_in(name) is None:
            digest.update(f"{_plain(name)} {tuple(value.shape)} {_sum_of_bits(value)}\n".encode())
    return digest.hexdigest()


def _plain(name: str) -> str:
    return re.sub(r"(\.base_layer|\.original_module)+(?=\.)", "", name.removeprefix("base_model.model."))


def _sum_of_bits(value: Tensor) -> int:
    # Sums of integers do not depend on their order; weighting by position sees two values change places.
    total = 0
    for part in value.detach().flatten().split(1 << 24):
        place = torch.arange(part.numel(), device=part.device) % 65_521 + 1
        total = (31 * total + int((part.float().view(torch.int32).long() * place).sum())) % (1 << 64)
    return total


@contextmanager
def _quiet_peft() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 reads a name that transformers 5.23 has renamed
        # It then sets this to what GPT-2's layers need.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)  # `attach` says which, and refuses
        warnings.filterwarnings(
            "ignore", r".*LoRA tensor\(s\) have invalid shape: .*lora_B\.bias"
        )  # a bias is no matrix
        yield


def _first_line(error: Exception) -> str:
    """What an error says, without the details: the first line, and the second where the first only introduces it."""
    first, *rest = str(error).strip().splitlines() or [type(error).__name__]
    return f"{first} {rest[0].strip()}" if first.endswith(":") and rest else first
