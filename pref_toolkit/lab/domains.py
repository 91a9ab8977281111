"""Two domains in sequence: who learns the second, and who forgets the first. The rows of ``domains.json`` beside this file.

    python -m pref_toolkit.lab.domains

Sums whose first number is below 45 are judged by an annotator who likes thanks, the others by one who likes short answers. All
methods see the same pairs, as many of each domain, and are compared with the supervised model on unseen prompts of both.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm import tqdm

from pref_toolkit.data import encode_prompt
from pref_toolkit.lab import shipped
from pref_toolkit.lab.annotators import Annotator
from pref_toolkit.lab.language import gold as right
from pref_toolkit.lab.language import politeness, prompts
from pref_toolkit.lab.sampling import pairs
from pref_toolkit.lab.sweep import provenance
from pref_toolkit.loops.presets import settings_of
from pref_toolkit.loops.train import train as train_with_loop
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.loop import train
from pref_toolkit.training.policy import Policy

FILE = Path(__file__).with_name("domains.json")
SEEDS = (1, 2, 3)
UPDATES, BATCH = 60, 64
"""Updates in a domain, and pairs in an update."""
RATE, BETA = 1e-3, 1.0
"""Learning rate of all methods, and strength of their pull to the supervised model. Neither was tuned for any of them."""
MEMORY = 64
"""Pairs of the first domain that replay and the weighted sum may keep."""
PROMPTS = 400
"""Unseen prompts of each domain on which a policy is measured."""
EDGE = 45
Rows = list[dict[str, str]]


def first(prompt: str) -> bool:
    """Whether a prompt is of the first domain."""
    return int(prompt.partition("+")[0]) < EDGE


def second(prompt: str) -> bool:
    """Whether a prompt is of the second domain."""
    return not first(prompt)


DOMAINS: tuple[tuple[Callable[[str], bool], Annotator], ...] = (
    (first, Annotator(politeness_bias=3.0)),
    (second, Annotator(length_bias=-1.0)),
)


def streams(n: int, *, seed: int = 0) -> list[Rows]:
    """``n`` pairs of each domain, in order.

    >>> one, two = streams(3)
    >>> [first(row["prompt"]) for row in one + two]
    [True, True, True, False, False, False]
    """
    return [pairs(n, seed=seed, annotator=who, where=where) for where, who in DOMAINS]


def measured(policy: Policy, seed: int) -> dict[str, Any]:
    """Of each domain: how often its annotator prefers the policy's answer to the supervised model's, how often the answer is
    right, says thanks, and its length in words.
    """
    out: dict[str, Any] = {}
    for name, (where, who) in zip(("first", "second"), DOMAINS):
        asked = [p for p in prompts(4 * PROMPTS, seed, "test") if where(p)][:PROMPTS]
        ids = [encode_prompt(policy.tokenizer, prompt) for prompt in asked]
        own, base = (
            policy.texts(policy.sample(ids, view=view, max_new_tokens=shipped.LONGEST, seed=seed + n))
            for n, view in enumerate(("policy", None))
        )
        mean = lambda values: sum(values) / PROMPTS
        out[f"{name}_wins"] = mean([who.probability(*row) for row in zip(asked, own, base)])
        out[f"{name}_right"] = mean([right(*row) for row in zip(asked, own)])
        out[f"{name}_thanks"] = mean([politeness(answer) for answer in own])
        out[f"{name}_words"] = mean([len(answer.split()) for answer in own])
    return out


def one_seed(seed: int) -> list[dict[str, Any]]:
    """All methods on the pairs of one seed."""
    one, two = streams(UPDATES * BATCH, seed=seed)
    budget: dict[str, Any] = {"batch_size": BATCH, "learning_rate": RATE, "max_length": 64, "sample_tokens": 12}
    budget |= {"samples": 0, "held_out": 0, "seed": seed, "reference": "base"}

    def dpo(rows: Rows, updates: int, start: Any = None) -> Policy:
        model, tokenizer = shipped.load()
        model = start or model
        return train(model, tokenizer, rows, "dpo", TrainConfig(**budget, max_steps=updates), beta=BETA).policy

    def loop(name: str, rows: Any, updates: int) -> tuple[Policy, dict[str, Any]]:
        with TemporaryDirectory() as directory:
            config = TrainConfig(**budget, max_steps=updates, output=directory, save_every=updates)
            settings = settings_of(name, memory=MEMORY)
            history = train_with_loop(*shipped.load(), rows, name, None, config, settings, beta=BETA)
            weights = json.loads((Path(directory) / "run.json").read_text()).get("domain_weights")
        return history.policy, {"exchanges": sum(row["exchanged"] or 0 for row in history.steps), "weights": weights}

    def row(method: str, policy: Policy, before: dict[str, Any] | None, **also: Any) -> dict[str, Any]:
        now = measured(policy, seed)
        forgotten = before["first_wins"] - now["first_wins"] if before else None
        return {"method": method, "seed": seed, **now, "forgetting": forgotten, **also}

    trained = dpo(one, UPDATES)
    again = deepcopy(trained.model)
    after_first = measured(trained, seed)
    kept = {name: weight.detach().clone() for name, weight in trained.weights().items()}
    rows = [row("sequential DPO", dpo(two, UPDATES, trained.model), after_first)]
    remembered = (one[:MEMORY] * len(two))[: len(two) // 4]
    rows.append(row("replay", dpo(two[len(remembered) :] + remembered, UPDATES, again), after_first))
    rows.append(row("joint training", dpo(one + two, 2 * UPDATES), None))

    other = dpo(two, UPDATES)
    other.copy("policy", "second")
    weights, apart = other.weights(), other.weights("second")
    with torch.no_grad():
        for name, own in weights.items():
            weights[name].copy_((own + kept[name]) / 2)
    rows.append(row("average of factors", other, after_first))
    with torch.no_grad():
        for own, before in zip(weights.values(), kept.values()):
            own.copy_(before)
    assert not torch.equal(next(iter(apart.values())), next(iter(weights.values())))
    other.combine({"policy": 0.5, "second": 0.5}, "policy")
    rows.append(row("average of updates", other, after_first))

    alone, _ = loop("ofs_dpo", one, UPDATES)
    after_first = measured(alone, seed)
    policy, facts = loop("ofs_dpo", one + two, 2 * UPDATES)
    rows.append(row("OFS-DPO", policy, after_first, after_first=after_first["first_wins"], **facts))
    policy, facts = loop("cofs_dpo", [one, two], 2 * UPDATES)
    rows.append(row("COFS-DPO", policy, after_first, after_first=after_first["first_wins"], **facts))
    return rows


def header() -> dict[str, Any]:
    """How the file is made."""
    return {
        "made_by": "python -m pref_toolkit.lab.domains",
        **provenance(),
        "updates": UPDATES,
        "batch_size": BATCH,
        "learning_rate": RATE,
        "beta": BETA,
        "loop": {name: getattr(settings_of("cofs_dpo"), name) for name in ("slow_rate", "exchange_every")},
        "memory": MEMORY,
        "prompts": PROMPTS,
        "annotators": [
            {"error": who.error, "length_bias": who.length_bias, "politeness_bias": who.politeness_bias}
            for _, who in DOMAINS
        ],
        "threads": 1,
    }


def load() -> dict[str, Any]:
    """The content of ``domains.json``."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def main() -> int:
    """Make all rows."""
    torch.set_num_threads(1)
    began, rows = time.process_time(), []
    for seed in tqdm(SEEDS, desc="domains"):
        rows += one_seed(seed)
    made = header() | {"cpu_seconds": round(time.process_time() - began), "rows": rows}
    FILE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
