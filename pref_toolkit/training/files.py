"""Files and directories that exist only when they are whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

PARTIAL = ".partial-"
"""How the names of unfinished files and directories begin. A killed process leaves them behind; they are never read."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place to write a file or a directory, which becomes ``path`` at the end, when all of it is on the disk.

    Readers of ``path`` see what was there before or all of the new content, never half. After an error it is as before.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.json"
    >>> with whole(path) as partial:
    ...     _ = partial.write_text("{}")
    ...     path.exists()
    False
    >>> path.read_text()
    '{}'
    """
    # Not the number of a process, which machines or containers that share a disk may have in common.
    partial = path.with_name(f"{PARTIAL}{uuid4().hex}-{path.name}")
    try:
        yield partial
        for written in [*partial.rglob("*"), partial]:
            sync(written)
        if path.is_dir():
            before = path.with_name(f"{PARTIAL}{uuid4().hex}-{path.name}")
            path.rename(before)
            partial.rename(path)
            shutil.rmtree(before)
        else:
            partial.replace(path)
        sync(path.parent)
    finally:
        remove(partial)


def remove(path: Path) -> None:
    """Delete a file or a directory, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
