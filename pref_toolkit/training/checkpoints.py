"""A checkpoint exists only when it is whole: written aside, synced, listed in a manifest, renamed, verified.

``DIR/step-00000100/`` holds a safetensors file for each part of the run, ``policy`` and ``trainer`` say, one for torch's random
state, and, last, ``manifest.json`` with the step, the size and SHA-256 of each file, and the run's identity.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pref_toolkit.errors import Complaint
from pref_toolkit.training.files import PARTIAL, remove, sha256, whole

MANIFEST = "manifest.json"
Facts = dict[str, Any]
"""What JSON can hold."""
UNREADABLE = (OSError, ValueError, KeyError, TypeError)
"""What reading a damaged checkpoint may raise."""


class CheckpointError(Complaint):
    """A checkpoint that cannot be written or continued, in one sentence."""


@dataclass(frozen=True)
class Checkpoint:
    step: int
    tensors: dict[str, dict[str, Tensor]]
    """By file: one for each part of the run, and ``rng``."""
    identity: Facts
    skipped: list[str]
    """Newer directories that did not verify, with the reason."""


def save(directory: Path, step: int, tensors: dict[str, dict[str, Tensor]], identity: Facts, keep: int) -> Path:
    """Write a checkpoint, verify it, and only then drop all but the ``keep`` newest.

    Raises:
        CheckpointError: if it could not be written; older checkpoints are then untouched.
    """
    directory.mkdir(parents=True, exist_ok=True)
    final = directory / f"step-{step:08d}"
    if final.exists():
        try:
            read(final)
            return final
        except UNREADABLE:
            shutil.rmtree(final)
    for leftover in directory.glob(f"{PARTIAL}*"):
        remove(leftover)
    try:
        with whole(final) as partial:
            partial.mkdir()
            listed = {}
            for name, content in tensors.items():
                path = partial / f"{name}.safetensors"
                save_file({k: v.detach().cpu().contiguous() for k, v in content.items()}, path)
                listed[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
            manifest = {"step": step, "files": listed, "identity": identity}
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
            read(partial)
    except Exception as error:  # safetensors has an error type of its own for a full disk
        size = sum(v.numel() * v.element_size() for content in tensors.values() for v in content.values())
        free = shutil.disk_usage(directory).free
        raise CheckpointError(
            f"checkpoint {final} of {size:,} bytes could not be written ({free:,} bytes free): {error}"
        ) from error
    for old in _newest_first(directory)[keep:]:
        shutil.rmtree(old)
    return final


def newest(directory: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None if there is none."""
    skipped: list[str] = []
    for path in _newest_first(directory):
        try:
            return read(path, skipped)
        except UNREADABLE as error:
            skipped.append(f"{path.name}: {error}")
    if skipped:
        raise CheckpointError(f"no checkpoint in {directory} is whole: " + "; ".join(skipped))
    return None


def differences(old: Facts, new: Facts) -> list[str]:
    """What changed between two identities, one ``name: old -> new`` each."""
    names = sorted({*old, *new})
    return [f"{n}: {old.get(n)!r} -> {new.get(n)!r}" for n in names if old.get(n) != new.get(n)]


def read(path: Path, skipped: list[str] | None = None) -> Checkpoint:
    """A checkpoint, checked against its manifest.

    Raises:
        OSError, ValueError, KeyError, TypeError: :data:`UNREADABLE`, if it is not whole.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except ValueError as error:
        raise ValueError(f"{MANIFEST} is not JSON: {error}") from None
    tensors = {}
    for name, facts in manifest["files"].items():
        if Path(name).name != name:
            raise ValueError(f"{MANIFEST} names a file outside its directory: {name!r}")
        file = path / name
        if file.stat().st_size != facts["bytes"] or sha256(file) != facts["sha256"]:
            raise ValueError(f"{name} is not what the manifest says")
        tensors[name.removesuffix(".safetensors")] = load_file(file)
    return Checkpoint(int(manifest["step"]), tensors, manifest["identity"], skipped or [])


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"), reverse=True)


def rng_state() -> dict[str, Tensor]:
    """Torch's random state on the CPU and on this process's GPU."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else state


def set_rng_state(state: dict[str, Tensor]) -> None:
    """Restore the random states that :func:`rng_state` returned."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
