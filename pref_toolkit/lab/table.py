"""Every method in the lab, at the same budget: the rows of ``table.json`` beside this file.

    python -m pref_toolkit.lab.table            all methods, 49 minutes on two cores
    python -m pref_toolkit.lab.table dpo ipo    these only; the rows of the others stay as they are

Each method runs at the few settings of its grid on one seed. The setting with the most right answers then runs on further
seeds, and the table reports only those. All methods train on the same responses of the supervised model to the same prompts,
judged by the same annotator, in the form that the method reads. Every update has the same number of responses.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pref_toolkit.data import prepare
from pref_toolkit.errors import Complaint, NotFiniteError
from pref_toolkit.lab import defaults, sampling, shipped
from pref_toolkit.lab.sweep import provenance, train_and_judge
from pref_toolkit.losses import METHODS, Method, find_method

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


def grid(method: Method) -> list[dict[str, Any]]:
    """What is tried unless ``EXCEPTIONS`` says otherwise: the loss's first hyperparameter, which is the strength of the pull to
    the reference, or learning rates where there is none.
    """
    if "rewards" in method.needs:
        return rates(1.5e-4, 5e-4, 1.5e-3, 5e-3)
    if "reference" not in method.needs:
        return rates()
    return around(next(iter(method.hyperparameters)), 0.3, 1, 3)


EXCEPTIONS: dict[str, list[dict[str, Any]]] = {
    # Squares end at a margin of 1 / (2 tau) or (P - 1/2) / beta nats: at 3, that is a sixth of a nat.
    "ipo": around("tau", 0.1, 0.3, 1),
    "sppo": around("beta", 0.1, 0.3, 1),
    # A mean over five tokens: five times DPO's.
    "dpo_norm": around("beta", 1.5, 5, 15),
    # A link or divergence that is not another row of the table.
    "spin": around("lam", 0.3, 1, 3, link="correlation"),
    "gpo": around("beta", 0.3, 1, 3, link="exponential"),
    "f_dpo": around("beta", 0.3, 1, 3, divergence="jensen_shannon"),
}
GRID = {name: EXCEPTIONS.get(name) or grid(method) for name, method in METHODS.items()}
"""The settings tried for each method."""


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
        policy, reference = (history.policy.logps(examples, view=view) for view in ("policy", "start"))
        change = (policy.sums - reference.sums).mean(0).tolist()
        displaced = {"chosen_change": change[0], "rejected_change": change[1]}
    return measured | displaced | {"setting": setting, "loss": history.steps[-1]["loss"]}


def best(trials: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """The setting with the most right answers on the trial seed; among equals, the one with the smallest KL."""
    whole = [t for t in trials if t["method"] == method and "stopped" not in t]
    return max(whole, key=lambda t: (t["accuracy"], -t["kl"]))["setting"]


def header() -> dict[str, Any]:
    """What must be the same of all rows, and how the table is made."""
    return {
        "made_by": "python -m pref_toolkit.lab.table",
        **provenance(),
        "updates": UPDATES,
        "responses": RESPONSES,
        "annotator_error": sampling.Annotator().error,
        "jobs": JOBS,
    }


def make(names: Collection[str]) -> dict[str, Any]:
    """All runs of these methods, with what is needed to make them again."""
    began = time.perf_counter()
    with ProcessPoolExecutor(JOBS, mp_context=get_context("spawn")) as pool:

        def run(todo: list[tuple[str, dict[str, Any], int]], what: str) -> list[dict[str, Any]]:
            # In order of the seeds, so that a process draws its pairs once.
            return list(tqdm(pool.map(one_run, *zip(*todo)), total=len(todo), desc=what))

        trials = run([(m, setting, TRIAL_SEED) for m in names for setting in GRID[m]], "trials")
        chosen = {m: best(trials, m) for m in names}
        reported = run([(m, chosen[m], seed) for seed in SEEDS for m in names], "table")
    return header() | {"seconds": round(time.perf_counter() - began), "trials": trials, "rows": reported}


def check_same_header(table: dict[str, Any], today: dict[str, Any]) -> None:
    """Refuse to put rows into a table that was made otherwise than it would be today.

    Raises:
        Complaint: naming what differs.
    """
    build = re.compile(r"\+\w+")  # 2.13.0+cpu is 2.13.0
    before, now = ({name: build.sub("", str(made[name])) for name in today} for made in (table, today))
    differ = [f"{name}: {before[name]} -> {now[name]}" for name in now if before[name] != now[name]]
    if differ:
        raise Complaint(f"the table was made otherwise, so all its rows must be made again: {'; '.join(differ)}")


def merged(table: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The table with the runs of ``new`` in place of its own of those methods, all in the order of ``METHODS``."""
    remade = {run["method"] for run in new["trials"]}
    place = {name: n for n, name in enumerate(METHODS)}
    kept = {
        part: [run for run in table[part] if run["method"] in place and run["method"] not in remade]
        for part in ("trials", "rows")
    }
    # The time of a row made again is in the table already.
    added = new["seconds"] if remade - {run["method"] for run in table["trials"]} else 0
    return table | {
        "seconds": table["seconds"] + added,
        "trials": sorted(kept["trials"] + new["trials"], key=lambda run: place[run["method"]]),
        "rows": sorted(kept["rows"] + new["rows"], key=lambda run: (run["seed"], place[run["method"]])),
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


def main(names: list[str]) -> int:
    """Make the rows of these methods, or of all, and return the exit code."""
    try:
        chosen = [find_method(name).name for name in dict.fromkeys(names)]
        if chosen:
            check_same_header(load(), header())
    except Complaint as complaint:
        print(f"lab.table: {complaint}", file=sys.stderr)
        return 2
    table = merged(load(), make(chosen)) if chosen else make(METHODS)
    FILE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
