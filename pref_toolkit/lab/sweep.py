"""The sweep behind the lab's defaults: ``python -m pref_toolkit.lab.sweep FILE.json``.

Every method at every setting of its small grid, on the same pairs, for each seed; the file that ``data/lab_sweep.json`` is.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pref_toolkit.lab import defaults, evaluation, sampling, shipped
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.loop import train

SEEDS = (0, 1, 2)
GRID: dict[str, dict[str, tuple[float, ...]]] = {
    "dpo": {"beta": (0.1, 0.3, 1.0, 3.0), "learning_rate": (3e-4, 1e-3)},
    "simpo": {"beta": (2.0, 10.0), "gamma": (0.0, 1.0), "learning_rate": (1e-4, 3e-4)},
}
MEASURED = ("win_rate", "win_rate_interval", "kl", "kl_error", "frontier", "distance")


def settings(grid: dict[str, tuple[float, ...]]) -> list[dict[str, float]]:
    """Every combination of a method's grid."""
    return [dict(zip(grid, values)) for values in product(*grid.values())]


def one_run(method: str, setting: dict[str, float], seed: int, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Train and judge once."""
    model, tokenizer = shipped.load()
    chosen = defaults.defaults(method) | setting
    known = TrainConfig.__dataclass_fields__
    config = TrainConfig(**{k: v for k, v in chosen.items() if k in known}, seed=seed, samples=0)
    history = train(model, tokenizer, rows, method, config, **{k: v for k, v in chosen.items() if k not in known})
    judged = evaluation.evaluate(history.model, tokenizer, seed=seed)
    return {
        "method": method,
        "setting": setting,
        "seed": seed,
        "accuracy": judged["after"]["accuracy"],
        "accuracy_before": judged["before"]["accuracy"],
        "length": judged["after"]["length"],
        "length_before": judged["before"]["length"],
        "politeness": judged["after"]["politeness"],
        **{name: judged[name] for name in MEASURED},
        **{f"held_out_{name}": history.after[name] for name in ("reward_accuracy", "chosen_change", "rejected_change")},
        "loss": history.steps[-1]["loss"],
    }


def sweep() -> dict[str, Any]:
    """All runs of the grid, with what is needed to make them again."""
    began = time.perf_counter()
    runs = [(seed, method, setting) for seed in SEEDS for method, grid in GRID.items() for setting in settings(grid)]
    pairs = {seed: sampling.pairs(defaults.PAIRS, seed=seed) for seed in SEEDS}
    rows = [one_run(method, setting, seed, pairs[seed]) for seed, method, setting in tqdm(runs, desc="sweep")]
    return {
        "made_by": "python -m pref_toolkit.lab.sweep data/lab_sweep.json",
        "licence": "Apache-2.0",
        "model_sha256": json.loads((shipped.MODEL_PATH / "provenance.json").read_text())["sha256"],
        "pairs": defaults.PAIRS,
        "training": defaults.TRAINING,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - began),
        "rows": rows,
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m pref_toolkit.lab.sweep FILE.json")
    result = sweep()
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")
