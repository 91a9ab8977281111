"""Where models come from: a hub id, a directory, a saved run, or one of the two built-in small ones."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pref_toolkit.errors import ModelError, NotFiniteError

REWARD_HEAD = "reward_head.safetensors"
LAB = Path(__file__).parents[1] / "lab" / "model"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tiny() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A random-weight Llama of about 1 M parameters over bytes: takes any text, needs no network, knows nothing."""
    special = ["<pad>", "<s>", "</s>"]
    vocabulary = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=CHAT_TEMPLATE
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=8192,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config), tokenizer


def load(name: str, *, precision: str = "auto") -> tuple[Any, Any]:
    """A model and its tokenizer.

    Args:
        name: ``"tiny"``, ``"lab"``, a hub id, a directory with a model, or the directory of a run or adapter.
        precision: of the weights: ``float32``, ``bfloat16``, or ``auto`` for bfloat16 on a GPU that has it.

    Raises:
        ModelError: if there is no such model, or an adapter does not belong to its base.
    """
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": torch.bfloat16 if bf16 else torch.float32}[
        precision
    ]
    adapter = _adapter_directory(Path(name))
    if adapter is not None:
        base, made_for = _base_of(adapter)
        model, tokenizer = load(base, precision=precision)
        if fingerprint(model) != made_for:
            raise ModelError(f"{adapter}: this adapter was trained on other weights than those of {base!r}")
        with _quiet_peft():
            return PeftModel.from_pretrained(model, str(adapter)), tokenizer
    if name == "tiny":
        model, tokenizer = tiny()
        model = model.to(dtype)  # type: ignore[arg-type]  # the library's own annotation of `to` is off
    else:
        source = str(LAB) if name == "lab" else name
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, use_safetensors=True)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"model {name!r} cannot be loaded: {reason}") from None
    model.config._name_or_path = name
    return model, tokenizer


def _adapter_directory(path: Path) -> Path | None:
    return next((p for p in (path, path / "adapter") if (p / "adapter_config.json").is_file()), None)


def _base_of(adapter: Path) -> tuple[str, str]:
    try:
        run = json.loads((adapter / "base.json").read_text())
        return run["name"], run["fingerprint"]
    except (OSError, KeyError, json.JSONDecodeError):
        raise ModelError(f"{adapter}: no readable base.json that names the base model; it is saved by train") from None


def save_adapter(model: Any, directory: Path, weights: dict[str, torch.Tensor], made_for: str) -> None:
    """PEFT's own files, and beside them the base they belong to and the reward head, if there is one.

    Args:
        model: the policy.
        directory: where to.
        weights: what was trained, by name; whole, where the model holds only this process's part.
        made_for: the fingerprint of the base.
    """
    adapters = {name: value for name, value in weights.items() if name != "reward_head.weight"}
    model.save_pretrained(str(directory), state_dict={**model.state_dict(), **adapters})
    if "reward_head.weight" in weights:
        save_file({"weight": weights["reward_head.weight"].detach().cpu().contiguous()}, directory / REWARD_HEAD)
    base = {"name": model.get_base_model().config._name_or_path, "fingerprint": made_for}
    (directory / "base.json").write_text(json.dumps(base, indent=1))


def new_reward_head(model: Any) -> nn.Linear:
    """A linear map from a hidden state to one reward, at first 0: no response is preferred. Only differences count: no bias."""
    width = model.get_output_embeddings().weight.shape[1]
    head = nn.Linear(width, 1, bias=False, device=next(model.parameters()).device)
    nn.init.zeros_(head.weight)
    return head


def load_reward_head(name: str, model: Any) -> nn.Linear | None:
    """The reward head beside the adapter of a run, or None if it trained a policy."""
    adapter = _adapter_directory(Path(name))
    if adapter is None or not (adapter / REWARD_HEAD).is_file():
        return None
    head = new_reward_head(model)
    head.load_state_dict(load_file(adapter / REWARD_HEAD))
    return head


def with_adapters(model: Any, *, rank: int, alpha: int | None, dropout: float) -> Any:
    """The model with LoRA on all linear layers but the head, or a PeftModel as it is.

    The reference is the same model with adapters off, so nothing else may be trained.

    Raises:
        ModelError: if a PeftModel trains weights that stay when its adapters are switched off.
        NotFiniteError: naming a weight that is not finite.
    """
    for name, value in model.named_parameters():
        if not torch.isfinite(value).all():
            raise NotFiniteError(f"weight {name!r} of the model is not finite before the first step")
    if isinstance(model, PeftModel):
        config: Any = model.active_peft_config
        if getattr(config, "bias", "none") != "none" or getattr(config, "modules_to_save", None):
            raise ModelError("adapters with bias or modules_to_save change the reference: train without them")
        for name, value in model.named_parameters():
            value.requires_grad_("lora_" in name)
        return model
    model.requires_grad_(False)
    lora = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with _quiet_peft():
        return get_peft_model(model, lora)


@contextmanager
def _quiet_peft() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 reads a name that transformers 5.23 has renamed
        # It then sets this to what GPT-2's layers need.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
        yield


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    """The adapters' weights by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def fingerprint(model: nn.Module) -> str:
    """A hash of every frozen weight's name, shape and float32 bits; the same on every device, changed by any change."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if "lora_" in name:
            continue
        name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        # Sums of integers do not depend on their order; weighting by position sees two values change places.
        total = 0
        for part in value.detach().flatten().split(1 << 24):
            place = torch.arange(part.numel(), device=part.device) % 65_521 + 1
            total = (31 * total + int((part.float().view(torch.int32).long() * place).sum())) % (1 << 64)
        digest.update(f"{name} {tuple(value.shape)} {total}\n".encode())
    return digest.hexdigest()
