"""``make bench-gpu``: Mistral 7B's shape with random weights in bf16 on one GPU, this toolkit beside TRL if it is installed.

Losses and gradients of the two are compared, then batches go through both in turn. Tokens and pairs a second, peak memory, and
the share of the GPU's own matmul rate that the counted arithmetic comes to: medians over batches.
The file is written after each comparison, and whoever fails is named in it while the rest go on. Nothing is installed or looked
up: git, the toolkit's own installation, ``datasets`` and ``jsonargparse`` may be missing.
``--shape tiny --device cpu`` runs the same script to its end in seconds, to see that it does.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine
import torch
import workload
from contestants import CONTESTANTS

from pref_toolkit.data.tokens import Encoded

VOCABULARY = {"mistral-7b": 32_768, "tiny": 512}
TOLERANCE = {torch.float32: (2e-5, 2e-5), torch.bfloat16: (0.05, 0.1)}
"""How far two contestants' losses (nats) and gradients (all adapters as one vector, relative) may be apart.

bf16 keeps eight bits. With 8 layers of it, on a CPU, losses were 5e-4 and gradients 0.01 apart, each as far from float64; there
is room for 32 layers. A mistake worth the name, such as a prompt not seen, is further off.
"""
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
    parser.add_argument(
        "--cudnn", choices=["on", "off"], default="on", help="its attention, for TRL; ours does without"
    )
    arguments = parser.parse_args(given)
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("no CUDA device here; to see the script run to its end: --shape tiny --device cpu --output FILE")
    torch.backends.cuda.enable_cudnn_sdp(arguments.cudnn == "on")
    for result in measure(arguments):
        partial = arguments.output.with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        partial.replace(arguments.output)
    print(table(result))
    print(f"written to {arguments.output}")


def measure(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The JSON that is written, after each comparison."""
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
        "cudnn_attention_of_trl": arguments.cudnn,
        "source": data.source,
    }
    result["matmul_rate"] = machine.matmul_rate(device, dtype, 8192 if on_gpu else 256, repeats=20)
    base = workload.base_model(arguments.shape, vocabulary, device=device, dtype=dtype)
    result["parameters"] = sum(value.numel() for value in base.parameters())
    result["trl_installed"] = importlib.util.find_spec("trl") is not None
    result["contestants"], result["comparisons"] = {}, {}
    for title, names in NAMES.items():
        present = [name for name in names if result["trl_installed"] or not name.startswith("trl")]
        contestants, result["comparisons"][title] = compare(present, base, batches, arguments, result["matmul_rate"])
        result["contestants"] |= contestants
        gc.collect()  # trainers refer to themselves
        torch.cuda.empty_cache()
        yield result


def compare(
    names: list[str], base: Any, batches: list[list[Encoded]], arguments: argparse.Namespace, rate: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Contestants of one comparison, timed in turn batch by batch; and how they differ, if there are two.

    All batches are gone through once without the clock, since kernels specialise by shape. Rates are medians over batches,
    as is the ratio of times. Whoever runs out of memory or raises an error leaves, and the rest go on.
    """
    on_gpu = arguments.device.startswith("cuda")
    built: dict[str, Any] = {}
    first: dict[str, tuple[float, dict[str, torch.Tensor]]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    loaded, peak = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    found: dict[str, Any] = {}

    def begin(name: str) -> None:
        contestant = built[name] = CONTESTANTS[name].build(base, arguments.max_length)
        for batch in batches if contestant.stored is not None else []:
            contestant.store(batch)
        loss = contestant.step(batches[0])
        first[name] = loss, {weight: gradient.cpu() for weight, gradient in contestant.gradients().items()}
        contestant.model.zero_grad()

    def update(name: str, batch: list[Encoded], timed: bool) -> None:
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            loaded[name] = torch.cuda.memory_allocated()
        taken = machine.seconds(arguments.device, built[name].step, batch)
        if timed:
            seconds[name].append(taken)
        if on_gpu:
            peak[name] = max(peak[name], torch.cuda.max_memory_allocated())
        built[name].model.zero_grad()

    def or_leave(name: str, work: Callable[..., None], *given: Any) -> None:
        try:
            work(name, *given)
            return
        except torch.cuda.OutOfMemoryError:
            found[name] = {"out_of_memory": True}
        except Exception as error:  # whatever a library says that does not know the device or another library's version
            found[name] = {"failed": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
        built.pop(name, None)
        say(f"{name}: {why(found[name])}")
        gc.collect()
        torch.cuda.empty_cache()

    for name in names:
        say(f"{name}: building, first update")
        or_leave(name, begin)
    differences = differ(first, base.dtype)
    for timed in (False, True):
        for n, batch in enumerate(batches):
            for name in names if n % 2 == 0 else names[::-1]:
                if name in built:
                    or_leave(name, update, batch, timed)
            times = ", ".join(f"{name} {seconds[name][-1]:.2f} s" for name in built) if timed else "warming up"
            say(f"  round {n + 1} of {len(batches)}: {times}")
    for name in built:
        operations = [CONTESTANTS[name].operations(base.config, batch) for batch in batches]
        # Tokens of the data, every prompt and response once: the same for both sides.
        tokens = [sum(len(e.prompt) + sum(map(len, e.responses)) for e in batch) for batch in batches]
        found[name] = {
            "first_loss": first[name][0],
            "seconds": seconds[name],
            "pairs_per_second": median_rate([len(batch) for batch in batches], seconds[name]),
            "tokens_per_second": median_rate(tokens, seconds[name]),
            "operations": operations,
            "share_of_matmul_rate": median_rate(operations, seconds[name]) / rate,
            "loaded_bytes": loaded[name] if on_gpu else None,
            "peak_bytes": peak[name] if on_gpu else None,
        }
    if len(built) == 2:
        ours, other = (seconds[name] for name in names)
        differences["ratio"] = statistics.median(b / a for a, b in zip(ours, other))
    return found, differences


def median_rate(amounts: list[int], seconds: list[float]) -> float:
    return statistics.median(amount / taken for amount, taken in zip(amounts, seconds))


def differ(first: dict[str, tuple[float, dict[str, torch.Tensor]]], dtype: torch.dtype) -> dict[str, Any]:
    """How far losses and gradients of two contestants are apart, and what is wrong if that is more than :data:`TOLERANCE`.

    Nothing of a single one.
    """
    if len(first) < 2:
        return {}
    (ours, (loss, gradients)), (other, (other_loss, other_gradients)) = first.items()
    if gradients.keys() != other_gradients.keys():
        return {"wrong": f"{other!r} trains other adapters than {ours!r}"}
    norm = lambda tensors: math.sqrt(sum(float(tensor.norm()) ** 2 for tensor in tensors))
    apart = norm(gradients[k] - other_gradients[k] for k in gradients) / norm(gradients.values())
    off = abs(loss - other_loss)
    loss_tolerance, gradient_tolerance = TOLERANCE[dtype]
    differences = {"loss_difference": off, "gradient_difference": apart}
    if not (off <= loss_tolerance and apart <= gradient_tolerance):
        wrong = f"{other!r} computes something else than {ours!r}: loss {off:.1e} apart, gradient {apart:.1e}"
        return differences | {"wrong": wrong}
    return differences


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def why(failed: dict[str, Any]) -> str:
    """Why a contestant left."""
    return "out of memory" if failed.get("out_of_memory") else str(failed["failed"])


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"{result['device']}, {result['matmul_rate'] / 1e12:.1f} TFLOP/s in products; {result['setting']['source']}"
    ]
    lines += [f"{'':24}pairs/s  tokens/s  of matmul rate  peak GiB  first loss"]
    for name, one in result["contestants"].items():
        if "seconds" not in one:
            lines.append(f"{name:24}{why(one)}")
            continue
        peak = "" if one["peak_bytes"] is None else f"{one['peak_bytes'] / 2**30:.1f}"
        lines.append(
            f"{name:24}{one['pairs_per_second']:7.2f}  {one['tokens_per_second']:8.0f}  {one['share_of_matmul_rate']:14.0%}"
            f"  {peak:>8}  {one['first_loss']:10.5f}"
        )
    for title, one in result["comparisons"].items():
        if "wrong" in one:
            lines.append(f"{title}: {one['wrong']}")
        if "ratio" in one:
            lines.append(f"{title}: TRL takes {one['ratio']:.2f} times as long")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
