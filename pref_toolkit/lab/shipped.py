"""The supervised model that comes with the toolkit. ``make.py`` made it."""

from __future__ import annotations

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from pref_toolkit.training import models

MODEL_PATH = models.LAB
LONGEST = 12  # tokens in a response: the grammar's longest, EOS included, is 9


def load() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A fresh copy of the supervised model, in float32, and its tokenizer."""
    return models.load("lab", precision="float32")
