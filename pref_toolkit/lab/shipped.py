"""The supervised model that comes with the toolkit. ``make.py`` made it."""

from __future__ import annotations

from pref_toolkit.training import models
from pref_toolkit.training.protocols import CausalLM, Tokenizer

MODEL_PATH = models.LAB
LONGEST = 12  # tokens in a response: the grammar's longest, EOS included, is 9


def load() -> tuple[CausalLM, Tokenizer]:
    """A fresh copy of the supervised model, in float32, and its tokenizer."""
    return models.load("lab", precision="float32")
