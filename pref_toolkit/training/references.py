"""What the frozen reference says of the examples, computed once and kept on disk.

The second epoch, method or hyperparameter then needs no forward of the reference. In one epoch of one run it saves nothing:
each example is scored once either way. What is kept are a few numbers for each response. A method that reads the reference's
whole distributions keeps its reference live, and so do answers after other prompts, which pair up anew in every update.

``DIR/IDENTITY/SHA256.safetensors`` holds ``keys`` (a hash of the token ids of each example), ``counts`` (its responses) and the
readings of all responses in a row. A file's name is the hash of its content, so half a file or a damaged one is never taken
for a whole. ``IDENTITY`` is a hash of everything besides the token ids that changes the numbers, which the file states too.
Tokenizer, template and the cutting of long rows change the numbers by changing the ids, and only so.

A file that is being written has a name that begins with a dot and that no other process takes, on whatever machine. What a
killed process leaves of that kind is never read; nothing tells it from a file at work, so delete it while no run is writing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import Complaint
from pref_toolkit.training import processes
from pref_toolkit.training.checkpoints import sha256, sync
from pref_toolkit.training.scoring import Scorer, reference

Readings = dict[bytes, dict[str, Tensor]]
"""By example, by name of the reading: ``(K,)``, on the CPU, each with storage of its own: a view would be sent to other
processes with all that it is a view of."""
KEPT = {"sums", "heads", "entropies"}
"""The readings of :data:`~pref_toolkit.training.scoring.READINGS` that are one number for each response."""
AT_ONCE = 256
"""Examples between two writes: what a run that is stopped does not lose."""


class StoreError(Complaint):
    """A store that cannot be written, in one sentence."""


def key(example: Encoded) -> bytes:
    """A hash of the token ids that are scored."""
    return hashlib.sha256(json.dumps([example.prompt, example.responses]).encode()).digest()


def identity(scorer: Scorer, fingerprint: str, accelerator: Accelerator) -> dict[str, Any]:
    """Everything that changes what the reference says of given token ids; ``fingerprint`` is that of its weights."""
    base = scorer.model.get_base_model()
    package = Path(__file__).parents[1]
    code = hashlib.sha256()
    for path in sorted([*package.glob("training/*.py"), *package.glob("data/*.py")]):
        code.update(path.read_bytes())
    backends: Any = torch.backends
    return {
        "weights": fingerprint,
        "architecture": type(base).__name__,
        "config": {name: str(v) for name, v in base.config.to_dict().items() if name != "_name_or_path"},
        "precision": sorted({str(p.dtype) for name, p in base.named_parameters() if "lora_" not in name}),
        "mixed precision": accelerator.mixed_precision,
        # Not `get_float32_matmul_precision`, which fails where one of these was set by itself.
        "matmul precision": [place.matmul.fp32_precision for place in (backends.cuda, backends.mkldnn)],
        "route": scorer.route,
        "attention": [base.config._attn_implementation, scorer.way],
        "device": torch.cuda.get_device_name(accelerator.device) if accelerator.device.type == "cuda" else "cpu",
        "code": code.hexdigest(),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }


class Store:
    """Readings of one reference on disk.

    Args:
        directory: of all references.
        facts: the :func:`identity` of this one.
    """

    def __init__(self, directory: str | Path, facts: dict[str, Any]) -> None:
        self.facts = json.dumps(facts, sort_keys=True)
        self.directory = Path(directory) / hashlib.sha256(self.facts.encode()).hexdigest()[:32]

    def read(self, wanted: set[bytes], names: Sequence[str]) -> Readings:
        """The readings ``names`` of the examples that are stored with all of them.

        A file that is not what its name or place says is deleted; one that cannot be read is left alone. Both are said.
        """
        found: Readings = {}
        for path in sorted(self.directory.glob("*.safetensors")):
            try:
                if sha256(path) != path.stem:
                    raise ValueError("its content is not what was written")
                with safe_open(path, framework="pt") as file:
                    if (file.metadata() or {}).get("identity") != self.facts:
                        raise ValueError("it is another reference's")
                    counts = file.get_tensor("counts").tolist()
                    values = {n: file.get_tensor(n).split(counts) for n in {*names} & {*file.keys()}}
                    keys = file.get_tensor("keys").numpy()
            except OSError as error:
                print(f"stored reference {path} cannot be read and is computed again: {error.strerror or error}")
                continue
            except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
                print(f"stored reference {path} is computed again: {error}")
                with suppress(OSError):
                    path.unlink()
                continue
            for n, row in enumerate(keys):
                if (k := row.tobytes()) in wanted:
                    found.setdefault(k, {}).update({name: parts[n].clone() for name, parts in values.items()})
        return {k: readings for k, readings in found.items() if readings.keys() >= {*names}}

    def write(self, readings: Readings) -> None:
        """One more file.

        Raises:
            StoreError: if it could not be written.
        """
        names = next(iter(readings.values()))
        tensors = {name: torch.cat([r[name] for r in readings.values()]) for name in names}
        tensors["counts"] = torch.tensor([len(next(iter(r.values()))) for r in readings.values()])
        tensors["keys"] = torch.tensor([list(k) for k in readings], dtype=torch.uint8)
        # Not the number of a process, which machines or containers may share.
        partial = self.directory / f".partial-{uuid4().hex}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            save_file(tensors, partial, metadata={"identity": self.facts})
            sync(partial)
            partial.rename(self.directory / f"{sha256(partial)}.safetensors")
            sync(self.directory)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                partial.unlink()
            raise StoreError(f"the reference could not be stored in {self.directory}: {error}") from error


def readings_of(
    scorer: Scorer,
    examples: Sequence[Encoded],
    names: Sequence[str],
    accelerator: Accelerator,
    forward_tokens: int,
    store: Store | None = None,
    stop: Sequence[int] = (),
) -> Readings:
    """What the reference says of the examples: from the store where it knows them, else from the model, and then stored.

    Each process scores its share; the main one reads and writes.

    Raises:
        Interrupted: if ``stop`` is not empty; what was scored by then is stored.
    """
    by_key = {key(example): example for example in examples}
    known: Readings = {}
    if store is not None:
        known = processes.everyones(
            accelerator, [store.read(set(by_key), names) if accelerator.is_main_process else {}]
        )[0]
        accelerator.print(
            f"reference ({', '.join(names)}): stored, {len(known)} of {len(by_key)} found in {store.directory.parent}"
        )
    missing = [k for k in by_key if k not in known]
    with tqdm(total=len(missing), desc="reference", disable=not (missing and accelerator.is_main_process)) as bar:
        for start in range(0, len(missing), AT_ONCE):
            new = [by_key[k] for k in missing[start : start + AT_ONCE]]
            mine, idle = processes.shares(accelerator, scorer, new, forward_tokens)
            here: Readings = {}
            for n, part in enumerate([*mine, *idle]):
                batch = scorer.collate(part).to(accelerator.device)
                with reference(scorer.model):
                    values = {name: value.cpu() for name, value in scorer(batch, names).items()}
                for place, example in enumerate(part if n < len(mine) else []):
                    here[key(example)] = {name: value[place].clone() for name, value in values.items()}
                bar.update(accelerator.num_processes * len(part) if n < len(mine) else 0)
            scored = {k: r for theirs in processes.everyones(accelerator, [here]) for k, r in theirs.items()}
            if store is not None and accelerator.is_main_process:
                store.write(scored)
            known |= scored
            if any(processes.everyones(accelerator, [*map(bool, stop)])):
                raise Interrupted
    return known


class Interrupted(Exception):
    """The run was told to stop; what was scored by then is stored."""
