"""The machine: what it is, and how fast it multiplies."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]


def matmul_rate(device: str, dtype: torch.dtype, size: int, repeats: int) -> float:
    """Median floating-point operations per second of square products: what no model can exceed here."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return 2 * size**3 / statistics.median(seconds(device, torch.mm, a, b) for _ in range(repeats))


def seconds(device: str, work: Callable[..., Any], *arguments: Any) -> float:
    """Wall time of a call, with everything it started on the device done."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    began = time.perf_counter()
    work(*arguments)
    wait()
    return time.perf_counter() - began


def description() -> dict[str, Any]:
    """Processor, versions, commit and date of a run."""
    named = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "machine": {
            "processor": named[0] if named else platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in ("torch", "transformers", "peft", "trl")},
        "commit": _git("rev-parse", "HEAD") or None,
        "changed_since_commit": bool(_git("status", "--porcelain", "--", "pref_toolkit", "tests/benchmarks")),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _git(*command: str) -> str:
    """What git says; nothing where there is no git, or no repository."""
    try:
        return subprocess.run(["git", *command], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except OSError:
        return ""


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
