"""``make bench``: this toolkit beside TRL on the same token ids, in one run on this CPU.

Losses and adapter gradients are compared with the plain route in float64 first, in all settings. Then, all warmed up, time in
interleaved rounds, a new batch each, all contestants one after another in an order that turns; memory in separate processes;
each ratio beside that of the arithmetic that the two must do. An update is collation, reference, forward and backward; no
optimiser, on either side.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import memory
import torch
import workload
from contestants import COMPARISONS, CONTESTANTS, IDEAS
from ours import Ours

from pref_toolkit import TrainConfig
from pref_toolkit.data.batches import packed_length
from pref_toolkit.data.tokens import Encoded

PAIRS = 4
SEED = 0
TOLERANCE = {"ours": 1e-5, "trl": 5e-5}
"""Largest difference from float64: of a loss, relative to its size or 1, and of an adapter's gradient, relative to its norm.

On long answers a log-probability is some thousand nats. TRL sums them in float32, which rounds that by up to 1e-4; beta = 0.1
of it is in the loss.
"""
EVERYONE = list(CONTESTANTS)
IN_MEMORY = [
    "ours",
    "trl, gpu path",
    "ours, simpo",
    "trl, simpo",
    "ours, checkpointing",
    "trl, checkpointing",
]
SELDOM = {"trl, cpu", "trl, checkpointing", "ours, checkpointing", "ours, no prompt shared", "ours, plain route"}
SELDOM_ROUNDS = 3
"""What takes long or is seen in passing is timed in the first rounds only; a ratio is that of rounds which both were in."""
SETTINGS: list[dict[str, Any]] = [
    {"vocabulary": 32_000, "profile": "hh", "rounds": 7, "contestants": EVERYONE, "memory": IN_MEMORY},
    {
        "vocabulary": 128_256,
        "profile": "hh",
        "rounds": 4,
        "contestants": [
            *("ours", "trl, gpu path", "trl, gpu path, lean", "trl, cpu"),
            *("ours, simpo", "trl, simpo", "ours, checkpointing", "trl, checkpointing"),
        ],
        "memory": ["ours", "trl, gpu path", "ours, checkpointing", "trl, checkpointing"],
    },
    {
        "vocabulary": 32_000,
        "profile": "long answers",
        "rounds": 2,
        "contestants": ["ours", "trl, gpu path", "ours, simpo", "trl, simpo"],
        "memory": [],
    },
]
QUICK: list[dict[str, Any]] = [
    {"vocabulary": 512, "profile": "hh", "rounds": 2, "contestants": EVERYONE, "memory": ["ours", "trl, gpu path"]},
    {"vocabulary": 600, "profile": "long answers", "rounds": 1, "contestants": ["ours", "trl, gpu path"], "memory": []},
]
RESPONSES = [2, 4, 8]
GROWTH = [64, 128, 256, 512]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="data/bench_cpu.json if not given; none with --quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--quick", action="store_true", help="a tiny model and one round, to see that it runs; no result"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = measure(quick=arguments.quick)
    print(table(result))
    output = arguments.output or (None if arguments.quick else machine.ROOT / "data" / "bench_cpu.json")
    if output is not None:
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written to {output}")


def measure(*, quick: bool) -> dict[str, Any]:
    """Everything, as the JSON that is written."""
    began = time.perf_counter()
    shape, max_length, size = ("tiny", 64, 256) if quick else ("small", 512, 2048)
    result: dict[str, Any] = {"made_by": "make bench", "quick": quick, **machine.description()}
    result["setting"] = {
        "shape": {k: v for k, v in workload.SHAPES[shape].items() if k != "type"},
        "lora_rank": workload.RANK,
        "precision": "float32",
        "pairs": PAIRS,
        "max_length": max_length,
        "tolerance": TOLERANCE,
    }
    # Whoever computes something else is found before anything is timed.
    checked = [prepare(shape, setting, max_length) for setting in (QUICK if quick else SETTINGS)]
    rates = []
    result["settings"] = []
    for one in checked:
        rates.append(machine.matmul_rate("cpu", torch.float32, size, repeats=10))
        result["settings"].append(compare(shape, one, max_length, result["machine"]["threads"]))
    base, vocabulary = checked[0].base, checked[0].setting["vocabulary"]
    say("K responses to a prompt")
    result["responses"] = by_responses(base, vocabulary, max_length, rounds=1 if quick else 5)
    say("growing updates")
    result["growth"] = by_size(base, vocabulary, max_length, [n // 16 for n in GROWTH] if quick else GROWTH)
    rates.append(machine.matmul_rate("cpu", torch.float32, size, repeats=10))
    rate = statistics.median(rates)
    result["matmul_rate"] = rate
    for setting in result["settings"]:
        for one in setting["contestants"].values():
            one["share_of_matmul_rate"] = sum(one["operations"]) / sum(one["seconds"]) / rate
    result["seconds"] = time.perf_counter() - began
    return result


@dataclass
class Checked:
    """A setting whose contestants compute the same.

    Args:
        setting: one of ``SETTINGS``.
        data: its pairs, and where they are from.
        batches: the pairs, round by round.
        base: the model that all contestants share.
        built: contestants by name.
        errors: of each, from :func:`check`.
    """

    setting: dict[str, Any]
    data: workload.Data
    batches: list[list[Encoded]]
    base: Any
    built: dict[str, Any]
    errors: dict[str, dict[str, float]]


def prepare(shape: str, setting: dict[str, Any], max_length: int) -> Checked:
    """Build all contestants of a setting and check them against each other."""
    vocabulary = setting["vocabulary"]
    say(f"checking {setting['profile']}, vocabulary {vocabulary}")
    count = setting["rounds"] * PAIRS
    data = workload.pairs(setting["profile"], count, vocabulary=vocabulary, max_length=max_length, seed=SEED)
    batches = [data.pairs[i : i + PAIRS] for i in range(0, count, PAIRS)]
    base = workload.base_model(shape, vocabulary)
    built = {name: CONTESTANTS[name].build(base, max_length) for name in setting["contestants"]}
    for contestant in built.values():
        for batch in batches if contestant.stored is not None else []:
            contestant.store(batch)
    return Checked(setting, data, batches, base, built, check(base, built, batches[0], max_length))


def compare(shape: str, checked: Checked, max_length: int, threads: int) -> dict[str, Any]:
    """All contestants of a setting: timed in rounds, and their memory measured."""
    setting, data, batches, base, built = checked.setting, checked.data, checked.batches, checked.base, checked.built
    vocabulary, profile, rounds = setting["vocabulary"], setting["profile"], setting["rounds"]
    say(f"{profile}, vocabulary {vocabulary}")
    names = setting["contestants"]
    for contestant in built.values():
        contestant.step(batches[0])  # warm again
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for n, batch in enumerate(batches):
        timed = [name for name in turned(names, n) if n < SELDOM_ROUNDS or name not in SELDOM]
        for name in timed:
            seconds[name].append(machine.seconds("cpu", built[name].step, batch))
        say(f"  round {n + 1} of {rounds}: " + ", ".join(f"{name} {seconds[name][-1]:.2f} s" for name in timed))
    contestants = {
        name: {
            "seconds": seconds[name],
            "pairs_per_second": PAIRS / statistics.median(seconds[name]),
            "operations": [
                CONTESTANTS[name].operations(base.config, batch) for batch, _ in zip(batches, seconds[name])
            ],
            **checked.errors[name],
        }
        for name in names
    }
    parameters = sum(value.numel() for value in base.parameters())
    prompts, responses = [len(e.prompt) for e in data.pairs], [len(r) for e in data.pairs for r in e.responses]
    return {
        "vocabulary": vocabulary,
        "profile": profile,
        "source": data.source,
        "parameters": parameters,
        "mean_prompt_tokens": statistics.mean(prompts),
        "mean_response_tokens": statistics.mean(responses),
        "rounds": rounds,
        "contestants": contestants,
        "comparisons": comparisons(contestants),
        "ideas": ideas(contestants, shape, vocabulary, batches[:SELDOM_ROUNDS]),
        "memory": peaks(shape, setting, batches, max_length, threads),
    }


def turned(names: list[Any], n: int) -> list[Any]:
    """The same, another one first in each round."""
    return names[n % len(names) :] + names[: n % len(names)]


def check(base: Any, built: dict[str, Any], examples: list[Encoded], max_length: int) -> dict[str, dict[str, float]]:
    """How far each contestant's loss and gradients are from the plain route in float64.

    Raises:
        SystemExit: naming the contestant that does not compute the same.
    """
    exact = {}
    for method in ("dpo", "simpo"):
        double = Ours(copy.deepcopy(base).double(), method, max_length=max_length, route="rows")
        exact[method] = double.step(examples), double.gradients()
    errors = {}
    for name, contestant in built.items():
        loss, gradients = exact[CONTESTANTS[name].method]
        loss_error = abs(contestant.step(examples) - loss)
        found = contestant.gradients()
        if found.keys() != gradients.keys():
            raise SystemExit(f"{name} trains other adapters than ours")
        worst = max(float((found[k] - true).norm() / true.norm()) for k, true in gradients.items())
        most = TOLERANCE[CONTESTANTS[name].who]
        if not (loss_error <= most * max(1, abs(loss)) and worst <= most):
            raise SystemExit(f"{name} computes something else: loss off by {loss_error:.1e}, gradient by {worst:.1e}")
        say(f"  {name}: loss off by {loss_error:.1e}, gradient by {worst:.1e}")
        errors[name] = {"loss_error": loss_error, "gradient_error": worst}
    return errors


def comparisons(contestants: dict[str, Any]) -> dict[str, Any]:
    """Medians over the rounds of both ratios, of time and of arithmetic, each of two contestants on the same batch."""
    found = {}
    for title, (slower, faster) in COMPARISONS.items():
        if slower not in contestants or faster not in contestants:
            continue
        ratio, limit = (
            statistics.median(a / b for a, b in zip(contestants[slower][what], contestants[faster][what]))
            for what in ("seconds", "operations")
        )
        found[title] = {"slower": slower, "faster": faster, "ratio": ratio, "arithmetic": limit, "share": ratio / limit}
    return found


def ideas(
    contestants: dict[str, Any], shape: str, vocabulary: int, batches: list[list[Encoded]]
) -> list[dict[str, Any]]:
    """Arithmetic as one idea after another is added, and the time where that state was timed, of rounds that all were in."""
    config = workload.config(shape, vocabulary)
    return [
        {
            "idea": idea,
            "operations": sum(state.operations(config, batch) for batch in batches),
            "seconds": sum(contestants[timed]["seconds"][: len(batches)]) if timed in contestants else None,
        }
        for idea, (state, timed) in IDEAS.items()
    ]


def peaks(
    shape: str, setting: dict[str, Any], batches: list[list[Encoded]], max_length: int, threads: int
) -> dict[str, int]:
    """Bytes above the loaded model, the most of all updates, which are the same for all."""
    found = {}
    for name in setting["memory"]:
        found[name] = memory.peak_above_model(name, shape, setting["vocabulary"], batches, max_length, threads)
        say(f"  {name}: {found[name] / 2**20:.0f} MiB")
    return found


def by_responses(base: Any, vocabulary: int, max_length: int, rounds: int) -> list[dict[str, float]]:
    """Cost of a response, S-DPO with live reference, as a prompt has more of them."""
    pairs = workload.pairs("hh", rounds * PAIRS, vocabulary=vocabulary, max_length=max_length, seed=SEED).pairs
    longer = {k: workload.with_more_responses(pairs, k) for k in RESPONSES}
    s_dpo = Ours(base, "s_dpo", max_length=max_length)
    s_dpo.step(longer[RESPONSES[0]][:PAIRS])
    seconds: dict[int, list[float]] = {k: [] for k in RESPONSES}
    for n in range(rounds):
        for k in turned(RESPONSES, n):
            examples = longer[k][n * PAIRS : (n + 1) * PAIRS]
            seconds[k].append(machine.seconds("cpu", s_dpo.step, examples))
    return [{"k": k, "seconds_per_response": statistics.median(s) / (PAIRS * k)} for k, s in seconds.items()]


def by_size(base: Any, vocabulary: int, max_length: int, sizes: list[int]) -> list[dict[str, float]]:
    """Cost of a token (SimPO) in updates of so many pairs, as the training loop makes them.

    Every size has the same pairs, as many as the largest, and sizes take turns: each update comes when its last pair has come.
    """
    pairs = workload.pairs("hh", sizes[-1], vocabulary=vocabulary, max_length=max_length, seed=SEED).pairs
    simpo = Ours(base, "simpo", max_length=max_length, tokens_per_forward=TrainConfig().tokens_per_forward)
    tokens = sum(map(packed_length, pairs))
    simpo.step(pairs[: sizes[0]])
    seconds = dict.fromkeys(sizes, 0.0)
    for end in range(sizes[0], sizes[-1] + 1, sizes[0]):
        for size in sizes:
            if end % size == 0:
                seconds[size] += machine.seconds("cpu", simpo.step, pairs[end - size : end])
        say(f"  {end} of {sizes[-1]} pairs")
    return [
        {"pairs": size, "tokens": tokens, "microseconds_per_token": 1e6 * s / tokens} for size, s in seconds.items()
    ]


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"{result['machine']['processor']}, {result['machine']['threads']} threads, "
        f"{result['matmul_rate'] / 1e9:.0f} GFLOP/s in float32 products, {result['seconds']:.0f} s in all"
    ]
    for setting in result["settings"]:
        lines += ["", f"{setting['profile']}, vocabulary {setting['vocabulary']}: {setting['source']}"]
        lines += [f"  {'':24}pairs/s  of matmul rate  peak MiB  loss error  gradient error"]
        for name, one in setting["contestants"].items():
            peak = setting["memory"].get(name)
            lines += [
                f"  {name:24}{one['pairs_per_second']:7.2f}  {one['share_of_matmul_rate']:14.0%}  "
                f"{'' if peak is None else f'{peak / 2**20:.0f}':>8}  {one['loss_error']:10.1e}  {one['gradient_error']:14.1e}"
            ]
        lines += [f"  {'':24}  ratio  arithmetic  share of the limit  memory"]
        for title, one in setting["comparisons"].items():
            peaks = [setting["memory"].get(one[side]) for side in ("slower", "faster")]
            ratio = f"{peaks[0] / peaks[1]:6.1f}" if all(peaks) else ""
            lines += [f"  {title:24}{one['ratio']:7.2f}  {one['arithmetic']:10.2f}  {one['share']:18.0%}  {ratio}"]
    lines += ["", "idea after idea (first setting): share of the first row's arithmetic, and of its time"]
    rows = result["settings"][0]["ideas"]
    for row in rows:
        timed = "" if row["seconds"] is None else f"{row['seconds'] / rows[0]['seconds']:6.2f}"
        lines += [f"  {row['idea']:36}{row['operations'] / rows[0]['operations']:6.2f}  {timed}"]
    lines += ["", "S-DPO, seconds for each response"]
    lines += [f"  K = {row['k']}: {row['seconds_per_response']:.3f}" for row in result["responses"]]
    lines += ["", "SimPO, microseconds for each token"]
    lines += [f"  {row['pairs']} pairs: {row['microseconds_per_token']:.0f}" for row in result["growth"]]
    return "\n".join(lines)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
