"""Every loop in the lab, at the same budget: the rows of ``loops.json`` beside this file.

    python -m pref_toolkit.lab.loops               all rows, about half an hour on one core
    python -m pref_toolkit.lab.loops rloo grpo     these only; the others stay as they are

Every update learns from the same number of responses, as in ``lab.table``, and a loss that is in that table has the setting
which was chosen there. A run is measured at its last five checkpoints, which are after every ``EVERY`` updates and at the
ends of rounds, so that methods can be compared within a KL. Rows ``base`` begin with a model that was tuned for a third of the
supervised model's steps, and are compared with that one.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from copy import deepcopy
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm import tqdm

from pref_toolkit.errors import Complaint
from pref_toolkit.lab import defaults, evaluation, judging, make, sampling, shipped, table
from pref_toolkit.lab.sweep import provenance
from pref_toolkit.loops.config import LoopConfig
from pref_toolkit.loops.presets import LOOPS, settings_of
from pref_toolkit.loops.train import train as train_with_loop
from pref_toolkit.training import checkpoints
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.loop import train
from pref_toolkit.training.run import History

FILE = Path(__file__).with_name("loops.json")
SEEDS = (1, 2, 3)
UPDATES, RESPONSES, EVERY = 100, 128, 20
"""Updates of a run, responses that an update learns from, and updates between two measurements."""
AT = 0.15
"""Nats of KL to the model that a run began with, within which :func:`summary` compares the runs."""
BASE = ", base"
BASE_STEPS = make.STEPS // 3
LEARNT = {"rerank": 4, "reinforce": 4, "remax": 1, "rloo": 4, "grpo": 4}
"""Responses to a prompt that an update learns from; 2 for the others."""
OFFLINE = ("dpo", "sft")
"""Methods on rows that are drawn once, from the supervised model; ``sft`` learns the data's own right answers."""
BESIDE = ("self_play", "generations", f"self_play{BASE}", f"sft{BASE}")
NAMES = [*OFFLINE, *(name for name, loop in LOOPS.items() if loop.asks), *BESIDE]


@cache
def base() -> Any:
    """A model that was tuned for too few steps, and its tokenizer."""
    model, tokenizer, _ = make.tune(BASE_STEPS)
    return model, tokenizer


def setting(name: str) -> dict[str, Any]:
    """Learning rate and hyperparameters: what ``lab.table`` chose for the loss, and the lab's defaults for policy gradients."""
    loss = LOOPS[name].loss if name in LOOPS else name
    chosen = table.summary().get(loss)
    if chosen is None:
        return {**defaults.METHODS[loss], "learning_rate": 1.5e-3}
    # The link that the table tried for SPIN is another than the authors'.
    return {key: value for key, value in chosen["setting"].items() if key != "link"}


def one_run(name: str, seed: int) -> dict[str, Any]:
    """Train once, measure along the way, and count what it cost."""
    torch.set_num_threads(1)
    method, _, weak = name.partition(", ")
    model, tokenizer = deepcopy(base()) if weak else shipped.load()
    start = base()[0] if weak else None
    chosen = setting(method)
    with TemporaryDirectory() as directory:
        output = str(Path(directory) / "run")
        size = RESPONSES // (1 if method == "sft" else LEARNT.get(method, 2))
        budget = {"max_steps": UPDATES, "batch_size": size, "learning_rate": chosen.pop("learning_rate"), "seed": seed}
        about = {"save_every": EVERY, "keep": UPDATES // EVERY, "output": output, "samples": 0, "held_out": 0}
        config = TrainConfig(**{**defaults.TRAINING, **budget, **about})
        began, cpu = time.perf_counter(), time.process_time()
        history = _trained(method, model, tokenizer, config, chosen)
        seconds = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
        path = [_measured(history, tokenizer, seed, None, start)]
        for saved in sorted((Path(output) / "checkpoints").glob("step-*"))[:-1]:
            path.append(_measured(history, tokenizer, seed, saved, start))
        made = [file for file in (Path(output) / "made").rglob("*.jsonl") if file.stem != "unjudged"]
        answers = sum(len(json.loads(line)["tokens"]) for file in made for line in file.read_text().splitlines())
    asks = method in LOOPS and LOOPS[method].asks
    counts = {"generations": answers, "judge_calls": len(made) if asks else 0, "judged": answers if asks else 0}
    rounds = settings_of(method).rounds if method in LOOPS and "round" in history.steps[-1] else 1
    facts = {"method": name, "seed": seed, "setting": setting(method), "rounds": rounds, **counts, **seconds}
    return facts | {"path": sorted(path, key=lambda point: point["step"])}


def _trained(method: str, model: Any, tokenizer: Any, config: TrainConfig, chosen: dict[str, Any]) -> History:
    if method not in LOOPS:
        rows: list[dict[str, Any]]
        if method == "sft":
            asked = judging.asked(UPDATES * RESPONSES, config.seed, answered=True)
            rows = [{"prompt": row["prompt"], "completion": row["answer"], "label": True} for row in asked]
        else:
            rows = sampling.rows(UPDATES * config.batch_size, ("policy", "reference"), seed=config.seed)
        return train(model, tokenizer, rows, method, config, **chosen)
    loop = LOOPS[method]
    asked = judging.asked(UPDATES * config.batch_size, config.seed, answered=loop.answered)
    judge = judging.judge(seed=config.seed) if loop.asks else None
    settings: LoopConfig = settings_of(method)
    return train_with_loop(model, tokenizer, asked, method, judge, config, settings, **chosen)


def _measured(history: History, tokenizer: Any, seed: int, saved: Path | None, start: Any) -> dict[str, Any]:
    """The policy at a checkpoint, or as it is, beside the model that it began with."""
    step = UPDATES
    if saved is not None:
        checkpoint = checkpoints.read(saved)
        history.policy.restore(checkpoint.tensors["policy"])
        step = checkpoint.step
    found = evaluation.evaluate(history.model, tokenizer, seed=seed, start=start)
    names = ("accuracy", "length", "politeness")
    return {"step": step, **{n: found["after"][n] for n in names}, "win_rate": found["win_rate"], "kl": found["kl"]}


def header() -> dict[str, Any]:
    """What must be the same of all rows, and how the table is made."""
    budget = {"updates": UPDATES, "responses": RESPONSES, "base_steps": BASE_STEPS}
    return {"made_by": "python -m pref_toolkit.lab.loops", **provenance(), **budget}


def load() -> dict[str, Any]:
    """The content of ``loops.json``."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def within(path: list[dict[str, Any]], kl: float, start: float) -> float:
    """The highest accuracy of a run at no more than this KL, on straight lines between the measured policies.

    The lines go from the start, at KL 0, from checkpoint to checkpoint. Where one crosses the KL, its accuracy there counts: a
    guess, since nobody measured a policy there. The best of a run is chosen on the prompts that measure it, so the number is
    a little too high, for all methods alike.

    Args:
        path: ``kl`` (nats) and ``accuracy`` of the checkpoints, in order.
        kl: the KL, nats.
        start: accuracy of the model that the run began with.

    >>> within([{"kl": 0.05, "accuracy": 0.6}, {"kl": 0.25, "accuracy": 0.7}], 0.1, 0.5)
    0.625
    """
    places = [(0.0, start), *((point["kl"], point["accuracy"]) for point in path)]
    near = [accuracy for far, accuracy in places if far <= kl]
    for (k, a), (m, b) in pairwise(places):
        if min(k, m) <= kl < max(k, m):
            near.append(a + (kl - k) / (m - k) * (b - a))
    return max(near)


MEASURES = ("accuracy", "within", "win_rate", "kl", "length", "generations", "judge_calls", "judged", "cpu_seconds")


def summary() -> dict[str, dict[str, Any]]:
    """For each row its ``setting``, and mean and standard deviation over the seeds of each of ``MEASURES``.

    All but ``within``, see :func:`within` at ``AT`` nats, are of the end of the run. ``cpu_seconds`` are those of a round.
    ``win_rate`` and ``kl`` compare with the model that the run began with.
    """
    out: dict[str, dict[str, Any]] = {}
    made = load()
    for name in dict.fromkeys(row["method"] for row in made["rows"]):
        own = [_ended(row, made["starts"]) for row in made["rows"] if row["method"] == name]
        out[name] = {"setting": own[0]["setting"], "rounds": own[0]["rounds"]}
        for measure in MEASURES:
            values = [row[measure] for row in own]
            out[name][measure] = (statistics.mean(values), statistics.stdev(values))
    return out


def _ended(row: dict[str, Any], begun: dict[str, dict[str, float]]) -> dict[str, Any]:
    """A row with what was measured at its end."""
    start = begun[str(row["seed"])]["base" if row["method"].endswith(BASE) else "supervised"]
    cpu = row["cpu_seconds"] / row["rounds"]
    return row | row["path"][-1] | {"cpu_seconds": cpu, "within": within(row["path"], AT, start)}


def starts() -> dict[str, dict[str, float]]:
    """By seed: the accuracy of the supervised model, and of the base."""
    out: dict[str, dict[str, float]] = {str(seed): {} for seed in SEEDS}
    for name, (model, tokenizer) in {"supervised": shipped.load(), "base": base()}.items():
        for seed in SEEDS:
            out[str(seed)][name] = evaluation.evaluate(model, tokenizer, seed=seed)["after"]["accuracy"]
    return out


def main(names: list[str]) -> int:
    """Make these rows, or all, and write them as they come; the exit code."""
    try:
        if unknown := [name for name in names if name not in NAMES]:
            raise Complaint(f"no row {unknown[0]!r}: there are {'; '.join(NAMES)}")
    except Complaint as complaint:
        print(f"lab.loops: {complaint}", file=sys.stderr)
        return 2
    if names:
        table.check_same_header(load(), header())
        content = load()
    else:
        content = header() | {"starts": starts(), "rows": []}
    for seed, name in tqdm([(seed, name) for seed in SEEDS for name in names or NAMES], desc="loops"):
        kept = [row for row in content["rows"] if (row["method"], row["seed"]) != (name, seed)]
        rows = [*kept, one_run(name, seed)]
        content["rows"] = sorted(rows, key=lambda row: (row["seed"], NAMES.index(row["method"])))
        FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
