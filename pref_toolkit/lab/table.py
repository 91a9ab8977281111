"""Every method in the lab at the same budget: ``python -m pref_toolkit.lab.table`` writes ``table.json`` beside this file.

Each method runs at the few settings of its grid on one seed. The setting with the most right answers then runs on further
seeds, and the table reports only those. All methods train on the same responses of the supervised model to the same prompts,
judged by the same annotator, in the form that the method reads. Every update has the same number of responses.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pref_toolkit.data import prepare
from pref_toolkit.lab import defaults, sampling, shipped
from pref_toolkit.lab.sweep import provenance, train_and_judge
from pref_toolkit.losses import METHODS
from pref_toolkit.training.models import NotFiniteError
from pref_toolkit.training.scoring import Scorer, score

FILE = Path(__file__).with_name("table.json")
TRIAL_SEED, SEEDS = 0, (1, 2, 3)
UPDATES, RESPONSES = 100, 128
"""Number of updates of a run, and of responses in an update."""
HELD_OUT = 400
"""Number of pairs that no run trains on; the table reports how their log-probabilities change."""
JOBS = 2


def around(name: str, low: float, middle: float, high: float, **fixed: Any) -> list[dict[str, Any]]:
    """Settings with three values of a hyperparameter, and one with the middle value and a larger learning rate."""
    at = [(low, 5e-4), (middle, 5e-4), (high, 5e-4), (middle, 1.5e-3)]
    return [{name: value, "learning_rate": rate} | fixed for value, rate in at]


def rates(*tried: float) -> list[dict[str, Any]]:
    """Settings with different learning rates, for methods without a reference."""
    return [{"learning_rate": rate} for rate in tried or (5e-5, 1.5e-4, 5e-4, 1.5e-3)]


GRID: dict[str, list[dict[str, Any]]] = {
    "bradley_terry": rates(1.5e-4, 5e-4, 1.5e-3, 5e-3),
    "plackett_luce": rates(1.5e-4, 5e-4, 1.5e-3, 5e-3),
    "dpo": around("beta", 0.3, 1, 3),
    "cdpo": around("beta", 0.3, 1, 3),
    "robust_dpo": around("beta", 0.3, 1, 3),
    "r_dpo": around("beta", 0.3, 1, 3),
    "gpo": around("beta", 0.3, 1, 3, link="exponential"),
    "f_dpo": around("beta", 0.3, 1, 3, divergence="jensen_shannon"),
    "discopop": around("beta", 0.3, 1, 3),
    "nca": around("beta", 0.3, 1, 3),
    "apo_zero": around("beta", 0.3, 1, 3),
    "apo_down": around("beta", 0.3, 1, 3),
    "aot": around("beta", 0.3, 1, 3),
    "ipo": around("tau", 0.1, 0.3, 1),
    "hinge_dpo": around("gamma", 0.3, 1, 3),
    "slic_hf": rates(),
    "click": rates(),
    "rrhf": rates(),
    "simpo": rates(),
    "orpo": rates(),
    "cpo": rates(),
    "dpo_nll": around("beta", 0.3, 1, 3),
    "dpop": around("beta", 0.3, 1, 3),
    "spin": around("lam", 0.3, 1, 3, link="correlation"),
    "sppo": around("beta", 0.1, 0.3, 1),
    "odpo": around("beta", 0.3, 1, 3),
    "s_dpo": around("beta", 0.3, 1, 3),
    "exo": around("beta", 0.3, 1, 3),
    "kto": around("beta", 0.3, 1, 3),
    "bco": around("beta", 0.3, 1, 3),
    "tdpo1": around("beta", 0.3, 1, 3),
    "tdpo2": around("beta", 0.3, 1, 3),
    "mallows_dpo": around("beta", 0.3, 1, 3),
    "ld_dpo": around("beta", 0.3, 1, 3),
    "wpo": around("beta", 0.3, 1, 3),
}
"""The settings tried for each method. A link or divergence is chosen so that the loss is not that of another row."""


@cache
def rows(method_reads: tuple[str, ...], k: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training rows in the form that a method reads, and held-out pairs."""
    n = UPDATES * RESPONSES // 2
    return sampling.rows(n, method_reads, k=k, seed=seed), sampling.pairs(n + HELD_OUT, seed=seed)[-HELD_OUT:]


def one_run(method: str, setting: dict[str, Any], seed: int) -> dict[str, Any]:
    """Run one method at one setting. The result is a row of the table, or says why the run was ``stopped``."""
    torch.set_num_threads(1)
    needs = METHODS[method].needs
    k = 1 if "desirable" in needs else defaults.RANKED.get(method, 2)
    training, held_out = rows(needs, k, seed)
    budget = {"max_steps": UPDATES, "batch_size": RESPONSES // k, "held_out": 0}
    try:
        history, measured = train_and_judge(method, budget | setting, seed, training)
    except NotFiniteError as error:
        return {"method": method, "setting": setting, "seed": seed, "stopped": str(error)}
    displaced: dict[str, float | None] = {"chosen_change": None, "rejected_change": None}
    if history.reward_head is None:
        _, tokenizer = shipped.load()
        examples, _ = prepare(held_out, tokenizer, max_length=defaults.TRAINING["max_length"])
        scorer = Scorer(history.model, defaults.TRAINING["max_length"])
        policy, reference = score(scorer, examples, next(history.model.parameters()).device, 8192)
        change = (policy.sums - reference.sums).mean(0).tolist()
        displaced = {"chosen_change": change[0], "rejected_change": change[1]}
    return measured | displaced | {"setting": setting, "loss": history.steps[-1]["loss"]}


def best(trials: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """The setting with the most right answers on the trial seed; among equals, the one with the smallest KL."""
    whole = [t for t in trials if t["method"] == method and "stopped" not in t]
    return max(whole, key=lambda t: (t["accuracy"], -t["kl"]))["setting"]


def make() -> dict[str, Any]:
    """Run all trials and rows. The result holds them and the facts needed to reproduce them."""
    began = time.perf_counter()
    with ProcessPoolExecutor(JOBS, mp_context=get_context("spawn")) as pool:

        def run(todo: list[tuple[str, dict[str, Any], int]], what: str) -> list[dict[str, Any]]:
            # Runs are ordered by seed, so that a process draws the pairs of a seed once.
            return list(tqdm(pool.map(one_run, *zip(*todo)), total=len(todo), desc=what))

        trials = run([(m, setting, TRIAL_SEED) for m, grid in GRID.items() for setting in grid], "trials")
        chosen = {m: best(trials, m) for m in GRID}
        reported = run([(m, chosen[m], seed) for seed in SEEDS for m in GRID], "table")
    return {
        "made_by": "python -m pref_toolkit.lab.table",
        **provenance(),
        "updates": UPDATES,
        "responses": RESPONSES,
        "annotator_error": sampling.Annotator().error,
        "jobs": JOBS,
        "seconds": round(time.perf_counter() - began),
        "trials": trials,
        "rows": reported,
    }


def load() -> dict[str, Any]:
    """The content of ``table.json``."""
    return json.loads(FILE.read_text(encoding="utf-8"))


MEASURES = ("accuracy", "win_rate", "kl", "distance", "length_change", "chosen_change", "rejected_change")


def summary() -> dict[str, dict[str, Any]]:
    """For each method its ``setting``, and mean and standard deviation over the seeds of each of ``MEASURES``.

    A measure that is not defined is None: a reward model, for example, changes no log-probability.
    """
    out: dict[str, dict[str, Any]] = {}
    made = load()["rows"]
    for method in dict.fromkeys(row["method"] for row in made):
        own = [row | {"length_change": row["length"] - row["length_before"]} for row in made if row["method"] == method]
        out[method] = {"setting": own[0]["setting"]}
        for name in MEASURES:
            values = [row[name] for row in own]
            out[method][name] = None if None in values else (statistics.mean(values), statistics.stdev(values))
    return out


if __name__ == "__main__":
    if len(sys.argv) != 1:
        sys.exit("usage: python -m pref_toolkit.lab.table")
    made = make()
    FILE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
