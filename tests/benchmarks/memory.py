"""Peak memory of updates above the loaded model, in a process of its own.

Linux keeps the highest resident size of a process (``VmHWM``) and starts again at the present one when ``5`` is written to
``/proc/self/clear_refs``. So: build the contestant, run a small update that loads what libraries load on first use, give freed
memory back (``malloc_trim``), reset, run the update, read. The parent sets ``MALLOC_MMAP_THRESHOLD_``, so that the allocator
returns every freed block of a MiB or more at once, and the peak is that of live tensors, not of what it keeps for later.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

from pref_toolkit.data.tokens import Encoded

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}


def peak_above_model(
    name: str, shape: str, vocabulary: int, updates: list[list[Encoded]], max_length: int, threads: int
) -> int:
    """Bytes that the contestant ``name`` needs above its loaded model for the hungriest of the updates, in a new process."""
    rows = [[(e.prompt, e.responses, e.where) for e in update] for update in updates]
    command = [sys.executable, __file__, json.dumps([name, shape, vocabulary, rows, max_length, threads])]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {name!r} failed:\n{done.stderr[-2000:]}")
    return int(done.stdout.splitlines()[-1])


def kibibytes(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def main() -> None:
    import torch
    import workload
    from contestants import CONTESTANTS

    parser = argparse.ArgumentParser(description="Prints the peak of updates above the loaded model, in bytes.")
    wanted = "[contestant, shape, vocabulary, [[[prompt, responses, where], ...], ...], max_length, threads] as JSON"
    parser.add_argument("measurement", type=json.loads, help=wanted)
    name, shape, vocabulary, rows, max_length, threads = parser.parse_args().measurement
    torch.set_num_threads(threads)
    updates = [[Encoded(*row) for row in update] for update in rows]
    small = workload.PROFILES["hh"].draw(1, vocabulary, 16, seed=0)
    contestant = CONTESTANTS[name].build(workload.base_model(shape, vocabulary), max_length)
    if contestant.stored is not None:
        for update in [small, *updates]:
            contestant.store(update)
    contestant.step(small)
    contestant.model.zero_grad()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    loaded = kibibytes("VmRSS")
    for update in updates:
        contestant.step(update)
    print(1024 * (kibibytes("VmHWM") - loaded))


if __name__ == "__main__":
    main()
