"""The sweep behind the lab's defaults: ``python -m pref_toolkit.lab.sweep FILE.json``.

For each seed, every method runs on the same pairs at every setting of its small grid. ``data/lab_sweep.json`` is the result.
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
from pref_toolkit.training.run import History

SEEDS = (0, 1)
GRID: dict[str, list[dict[str, float]]] = {
    "dpo": [{"beta": b, "learning_rate": 5e-4} for b in (0.1, 0.3, 1.0, 3.0)]
    + [{"beta": 1.0, "learning_rate": r} for r in (1.5e-4, 1.5e-3)],
    "simpo": [{"beta": b, "gamma": g, "learning_rate": 2e-4} for b, g in product((2.0, 10.0), (0.0, 1.0))]
    + [{"beta": 2.0, "gamma": 0.0, "learning_rate": r} for r in (5e-5, 5e-4)],
}
MEASURED = ("win_rate", "win_rate_interval", "kl", "kl_error", "frontier", "distance")


def one_run(method: str, setting: dict[str, float], seed: int, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Train a policy at one setting and measure it."""
    history, measured = train_and_judge(method, setting, seed, rows)
    return {
        **measured,
        **{f"held_out_{name}": history.after[name] for name in ("reward_accuracy", "chosen_change", "rejected_change")},
        "loss": history.steps[-1]["loss"],
    }


def train_and_judge(
    method: str, setting: dict[str, Any], seed: int, rows: list[dict[str, Any]]
) -> tuple[History, dict[str, Any]]:
    """Train with the lab's settings, some of which ``setting`` overrides, and measure the result by the gold reward."""
    model, tokenizer = shipped.load()
    chosen = defaults.defaults(method) | setting
    known = TrainConfig.__dataclass_fields__
    config = TrainConfig(**{k: v for k, v in chosen.items() if k in known} | {"seed": seed, "samples": 0})
    history = train(model, tokenizer, rows, method, config, **{k: v for k, v in chosen.items() if k not in known})
    if history.reward_head is None:
        judged = evaluation.evaluate(history.model, tokenizer, seed=seed)
    else:
        judged = evaluation.evaluate_best_of(history.model, history.reward_head, tokenizer, seed=seed)
    measured = {
        "method": method,
        "setting": setting,
        "seed": seed,
        "accuracy": judged["after"]["accuracy"],
        "accuracy_before": judged["before"]["accuracy"],
        "length": judged["after"]["length"],
        "length_before": judged["before"]["length"],
        "politeness": judged["after"]["politeness"],
        **{name: judged.get(name) for name in MEASURED},
    }
    return history, measured


def provenance() -> dict[str, Any]:
    """The model and the versions of the libraries, which are needed to reproduce the numbers."""
    return {
        "licence": "Apache-2.0",
        "model_sha256": json.loads((shipped.MODEL_PATH / "provenance.json").read_text())["sha256"],
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }


def sweep() -> dict[str, Any]:
    """Run the whole grid. The result holds all rows and the facts needed to reproduce them."""
    began = time.perf_counter()
    runs = [(seed, method, setting) for seed in SEEDS for method, grid in GRID.items() for setting in grid]
    pairs = {seed: sampling.pairs(defaults.PAIRS, seed=seed) for seed in SEEDS}
    rows = [one_run(method, setting, seed, pairs[seed]) for seed, method, setting in tqdm(runs, desc="sweep")]
    return {
        "made_by": "python -m pref_toolkit.lab.sweep data/lab_sweep.json",
        **provenance(),
        "pairs": defaults.PAIRS,
        "training": defaults.TRAINING,
        "threads": torch.get_num_threads(),
        "seconds": round(time.perf_counter() - began),
        "rows": rows,
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m pref_toolkit.lab.sweep FILE.json")
    result = sweep()
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")
