"""The reference's log-probabilities of the examples, computed once and kept on disk.

The second epoch, method or hyperparameter then needs no forward of the reference. In one epoch of one run it saves nothing:
each example is scored once either way. The store keeps a few numbers for each response. A method that reads the reference's
whole distributions keeps its reference live, and so do answers after other prompts, which pair up anew in every update.

``DIR/IDENTITY/SHA256.safetensors`` holds ``keys`` (a hash of the token ids of each example), ``counts`` (its responses) and the
readings of all responses in a row. A file's name is the hash of its content, so half a file or a damaged one is never taken
for a whole. ``IDENTITY`` is a hash of everything besides the token ids that changes the numbers, which the file states too.
Tokenizer, template and the cutting of long rows change the numbers by changing the ids, and only so.

Files being written start with a dot and have a unique name. A killed process leaves such a file behind; it is never read.
Delete it when no run is active: nothing else distinguishes it from one in progress.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import Complaint
from pref_toolkit.training import processes
from pref_toolkit.training.checkpoints import Facts
from pref_toolkit.training.files import sha256, whole
from pref_toolkit.training.modes import base_of
from pref_toolkit.training.policy import Policy, View

logger = logging.getLogger(__name__)

Readings = dict[bytes, dict[str, Tensor]]
"""By :func:`key` of the example, by name of the reading: ``(K,)``, on the CPU. Each tensor owns its storage: a slice would be
sent to other processes with the whole tensor behind it."""
KEPT = {"sums", "first_sums", "entropies"}
"""The readings of :data:`~pref_toolkit.training.scoring.READINGS` that are one number for each response."""
AT_ONCE = 256
"""Examples between two writes to the store."""


class StoreError(Complaint):
    """A store that cannot be written, in one sentence."""


def key(example: Encoded) -> bytes:
    """A hash of the token ids that are scored."""
    return hashlib.sha256(json.dumps([example.prompt, example.responses]).encode()).digest()


def identity(policy: Policy, view: View) -> Facts:
    """Everything that changes the readings of a view for given token ids."""
    base: Any = base_of(policy.model)
    package = Path(__file__).parents[1]
    code = hashlib.sha256()
    for path in sorted([*package.glob("training/*.py"), *package.glob("data/*.py")]):
        code.update(path.read_bytes())
    backends: Any = torch.backends
    return {
        "weights": policy.fingerprint(view),
        "architecture": type(base).__name__,
        "config": {name: str(v) for name, v in base.config.to_dict().items() if name != "_name_or_path"},
        "precision": sorted({str(p.dtype) for name, p in base.named_parameters() if "lora_" not in name}),
        "mixed precision": policy.devices.mixed_precision,
        # Not `get_float32_matmul_precision`, which fails where one of these was set by itself.
        "matmul precision": [place.matmul.fp32_precision for place in (backends.cuda, backends.mkldnn)],
        "route": policy.scorer().route,
        "attention": [base.config._attn_implementation, policy.scorer().kernel],
        "device": torch.cuda.get_device_name(policy.device) if policy.device.type == "cuda" else "cpu",
        "code": code.hexdigest(),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }


class Store:
    """Readings of one reference on disk.

    Args:
        directory: of all references.
        facts: the :func:`identity` of this one.
    """

    def __init__(self, directory: str | Path, facts: Facts) -> None:
        self.facts = json.dumps(facts, sort_keys=True)
        self.directory = Path(directory) / hashlib.sha256(self.facts.encode()).hexdigest()[:32]

    def read(self, wanted: set[bytes], names: Sequence[str]) -> Readings:
        """The readings ``names`` of the examples that are stored with all of them.

        A file that is not what its name or place says is deleted; one that cannot be read is left alone. Both are said.
        """
        found: Readings = {}
        for path in sorted(self.directory.glob("[!.]*.safetensors")):  # files being written start with a dot
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
                logger.warning(
                    "stored reference %s cannot be read and is computed again: %s", path, error.strerror or error
                )
                continue
            except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
                logger.warning("stored reference %s is computed again: %s", path, error)
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
        content = save(tensors, metadata={"identity": self.facts})
        path = self.directory / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with whole(path) as partial:
                partial.write_bytes(content)
        except OSError as error:
            raise StoreError(f"the reference could not be stored in {self.directory}: {error}") from error


class Reference:
    """A view of the policy as the reference of an objective, and what is kept of its readings.

    Args:
        policy: whose view.
        view: the reference.
        names: the readings that the objective wants of each batch.
        store: where readings are kept from run to run, if anywhere.
    """

    def __init__(self, policy: Policy, view: View, names: Sequence[str], store: Store | None = None) -> None:
        self.policy, self.view, self.names, self.store = policy, view, names, store
        self.stored: Readings = {}

    def keep(self, examples: Sequence[Encoded], names: Sequence[str], between: Callable[[], None]) -> None:
        """Know these readings of the examples from now on: from the store where it has them, else from the model.

        Each process scores its share; the main one reads and writes the store.

        Args:
            examples: to score.
            names: the readings, of :data:`KEPT`.
            between: called after every :data:`AT_ONCE` examples, which are stored by then; it may raise.
        """
        by_key = {key(example): example for example in examples}
        devices, found = self.policy.devices, [Readings()]
        if self.store is not None:
            if devices.is_main_process:
                found = [self.store.read(set(by_key), names)]
            found = processes.all_gather(devices, found)
            logger.info(
                "reference (%s): stored, %d of %d found in %s",
                *(", ".join(names), len(found[0]), len(by_key), self.store.directory.parent),
            )
        self.stored |= found[0]
        missing = [k for k in by_key if k not in self.stored]
        with tqdm(total=len(missing), desc="reference", disable=not (missing and devices.is_main_process)) as bar:
            for start in range(0, len(missing), AT_ONCE):
                new = self._scored([by_key[k] for k in missing[start : start + AT_ONCE]], names, bar)
                if self.store is not None and devices.is_main_process:
                    self.store.write(new)
                self.stored |= new
                between()

    def _scored(self, examples: Sequence[Encoded], names: Sequence[str], bar: tqdm) -> Readings:
        """The readings of examples, scored by all processes."""
        devices, scorer = self.policy.devices, self.policy.scorer()
        mine, idle = processes.own_micro_batches(devices, scorer, examples, self.policy.config.tokens_per_forward)
        own: Readings = {}
        for n, part in enumerate([*mine, *idle]):
            batch = scorer.collate(part).to(self.policy.device)
            with self.policy.view(self.view):
                values = {name: value.cpu() for name, value in scorer(batch, names).items()}
            for place, example in enumerate(part if n < len(mine) else []):
                own[key(example)] = {name: value[place].clone() for name, value in values.items()}
            bar.update(len(part) if n < len(mine) else 0)
        everyone = processes.all_gather(devices, [own])
        bar.update(len(examples) - sum(map(len, mine)))
        return {k: r for theirs in everyone for k, r in theirs.items()}

    def kept(self, examples: Sequence[Encoded]) -> dict[str, Tensor]:
        """What the objective wants of these examples, of all of which :meth:`keep` knows it."""
        rows = [self.stored[key(e)] for e in examples]
        return {n: torch.stack([row[n] for row in rows]).to(self.policy.device) for n in self.names}
