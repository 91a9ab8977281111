"""The supervised model that comes with the toolkit, made by ``make.py``."""

from __future__ import annotations

from pref_toolkit.training import models
from pref_toolkit.training.protocols import CausalLM, Tokenizer

MODEL_PATH = models.LAB
LONGEST = 12  # most tokens of a sampled response; the longest response of the grammar has 9, EOS included


def load() -> tuple[CausalLM, Tokenizer]:
    """A fresh copy of the supervised model, in float32, and its tokenizer."""
    return models.load("lab", precision="float32")
