"""``make bench-gpu``: Mistral 7B's shape with random weights in bf16 on one GPU, this toolkit beside TRL if it is installed.

Tokens and pairs a second, peak memory, and the share of the GPU's own matmul rate that the counted arithmetic comes to.
``--shape tiny --device cpu`` runs the same script to its end in seconds, to see that it does.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import machine
import torch
import workload
from contestants import CONTESTANTS

from pref_toolkit.data.tokens import Encoded

VOCABULARY = {"mistral-7b": 32_768, "tiny": 512}
NAMES = {
    "dpo": ("ours", "trl, gpu path"),
    "dpo, reference stored": ("ours, stored", "trl, stored"),
    "dpo, checkpointing": ("ours, checkpointing", "trl, checkpointing"),
    "simpo": ("ours, simpo", "trl, simpo"),
}


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=VOCABULARY, default="mistral-7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pairs", type=int, default=8, help="pairs in an update")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--profile", choices=workload.PROFILES, default="hh")
    parser.add_argument("--output", type=Path, default=machine.ROOT / "data" / "bench_gpu.json")
    arguments = parser.parse_args(given)
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("no CUDA device here; to see the script run to its end: --shape tiny --device cpu --output FILE")
    result = measure(arguments)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    print(f"written to {arguments.output}")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, as the JSON that is written."""
    device, vocabulary = arguments.device, VOCABULARY[arguments.shape]
    on_gpu = device.startswith("cuda")
    dtype = torch.bfloat16 if on_gpu else torch.float32
    data = workload.pairs(
        arguments.profile, arguments.pairs * arguments.rounds, vocabulary=vocabulary, max_length=arguments.max_length
    )
    batches = [data.pairs[i : i + arguments.pairs] for i in range(0, len(data.pairs), arguments.pairs)]
    result = {"made_by": "make bench-gpu", **machine.description()}
    result["device"] = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    result["versions"]["cuda"] = torch.version.cuda
    result["setting"] = {
        "shape": arguments.shape,
        "vocabulary": vocabulary,
        "lora_rank": workload.RANK,
        "precision": str(dtype).removeprefix("torch."),
        "pairs": arguments.pairs,
        "rounds": arguments.rounds,
        "max_length": arguments.max_length,
        "profile": arguments.profile,
        "source": data.source,
    }
    result["matmul_rate"] = machine.matmul_rate(device, dtype, 8192 if on_gpu else 256, repeats=20)
    base = workload.base_model(arguments.shape, vocabulary, device=device, dtype=dtype)
    result["parameters"] = sum(value.numel() for value in base.parameters())
    result["trl_installed"] = importlib.util.find_spec("trl") is not None
    result["contestants"] = {}
    for names in NAMES.values():
        for name in names:
            if name.startswith("trl") and not result["trl_installed"]:
                continue
            print(name, file=sys.stderr, flush=True)
            try:
                result["contestants"][name] = time_one(name, base, batches, arguments, result["matmul_rate"])
            except torch.cuda.OutOfMemoryError:
                result["contestants"][name] = {"out_of_memory": True}
            gc.collect()  # trainers refer to themselves
            if on_gpu:
                torch.cuda.empty_cache()
    return result


def time_one(
    name: str, base: Any, batches: list[list[Encoded]], arguments: argparse.Namespace, rate: float
) -> dict[str, Any]:
    """One contestant on every batch, after a first update that warms it up."""
    contestant = CONTESTANTS[name].build(base, arguments.max_length)
    on_gpu = arguments.device.startswith("cuda")
    if contestant.stored is not None:
        for batch in batches:
            contestant.store(batch)
    first_loss = contestant.step(batches[0])
    contestant.model.zero_grad()
    loaded = torch.cuda.memory_allocated() if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = [machine.seconds(arguments.device, contestant.step, batch) for batch in batches]
    median = statistics.median(seconds)
    operations = [CONTESTANTS[name].operations(base.config, batch) for batch in batches]
    # Tokens of the data, every prompt and response once: the same for both sides.
    tokens = sum(len(e.prompt) + sum(map(len, e.responses)) for batch in batches for e in batch)
    return {
        "first_loss": first_loss,
        "seconds": seconds,
        "pairs_per_second": arguments.pairs / median,
        "tokens_per_second": tokens / sum(seconds),
        "operations": operations,
        "share_of_matmul_rate": sum(operations) / sum(seconds) / rate,
        "loaded_bytes": loaded if on_gpu else None,
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
    }


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"{result['device']}, {result['matmul_rate'] / 1e12:.1f} TFLOP/s in products; {result['setting']['source']}"
    ]
    lines += [f"{'':24}pairs/s  tokens/s  of matmul rate  peak GiB  first loss"]
    for name, one in result["contestants"].items():
        if one.get("out_of_memory"):
            lines.append(f"{name:24}out of memory")
            continue
        peak = "" if one["peak_bytes"] is None else f"{one['peak_bytes'] / 2**30:.1f}"
        lines.append(
            f"{name:24}{one['pairs_per_second']:7.2f}  {one['tokens_per_second']:8.0f}  {one['share_of_matmul_rate']:14.0%}"
            f"  {peak:>8}  {one['first_loss']:10.5f}"
        )
    for title, (ours, trl) in NAMES.items():
        both = [result["contestants"].get(name, {}).get("pairs_per_second") for name in (ours, trl)]
        if all(both):
            lines.append(f"{title}: {both[0] / both[1]:.2f} times TRL's pairs per second")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
