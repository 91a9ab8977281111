"""Preference optimisation of language models: tested losses, a trainer, honest diagnostics, exact toy worlds."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pref_toolkit.training.config import TrainConfig
    from pref_toolkit.training.loop import train

    __version__: str

__all__ = ["TrainConfig", "__version__", "train"]

# Loaded on first use, so that `pref-toolkit --help` does not wait for torch.
_HOME = {"train": "pref_toolkit.training.loop", "TrainConfig": "pref_toolkit.training.config"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pref-toolkit")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'pref_toolkit' has no attribute {name!r}")
