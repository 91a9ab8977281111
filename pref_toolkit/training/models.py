"""Where models come from: a hub id, a directory, a saved run, or one of the three known by name."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pref_toolkit.errors import ModelError
from pref_toolkit.training import adapters, smollm2
from pref_toolkit.training.protocols import Adapted, CausalLM, Tokenizer

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
    backend = Backend(BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[]))
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


def load(name: str, *, precision: str = "auto") -> tuple[CausalLM | Adapted, Tokenizer]:
    """A model and its tokenizer. No code that comes with a model is run.

    Args:
        name: ``"tiny"``, ``"lab"``, ``"smollm2"``, a hub id, a directory with a model, the directory of a run, or any LoRA
            adapter of peft by directory or hub id, which is loaded on the base it names.
        precision: of the weights: ``float32``, ``bfloat16``, or ``auto`` for bfloat16 on a GPU that has it.

    Raises:
        ModelError: if there is no such model, or an adapter does not belong to its base.
    """
    directory = adapters.find(name)
    if directory is None:
        return _load_base(name, precision)
    base, made_for = adapters.base_name(directory)
    model, tokenizer = _load_base(base, precision)
    if made_for is not None and adapters.fingerprint(model) != made_for:
        raise ModelError(f"{directory}: this adapter was trained on other weights than those of {base!r}")
    return adapters.attach(model, directory), tokenizer


def _load_base(name: str, precision: str) -> tuple[CausalLM, Tokenizer]:
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": torch.bfloat16 if bf16 else torch.float32}[
        precision
    ]
    model: CausalLM
    tokenizer: Tokenizer
    if name == "tiny":
        model, tokenizer = tiny()
        model.to(dtype)  # type: ignore[arg-type]  # the library's own annotation of `to` is off
    else:
        source = str(LAB) if name == "lab" else str(smollm2.directory()) if name == smollm2.NAME else name
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"model {name!r} cannot be loaded: {reason}") from None
    model.config._name_or_path = name
    return model, tokenizer
