"""Gold against proxy: loops and best-of-n against reward models that were trained here. ``overoptimise.json`` is the result.

    python -m pref_toolkit.lab.overoptimise          about three minutes of one quiet core

Two reward models learn from the same noisy pairs of the supervised model's answers, both with Bradley-Terry's loss: ``head`` is
a reward model with a head of its own, ``implicit`` the reward ``beta log(policy / reference)`` of a policy that DPO trained.
Each then judges: online DPO trains a policy against it, with hardly any pull to the start, and best-of-n picks the supervised
model's best answer by it. The proxy is the judge's mean reward, gold the share of right answers, both of the same answers to
unseen prompts.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, pstdev
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm import tqdm

from pref_toolkit.data import Report, encode, encode_prompt
from pref_toolkit.data.examples import Example
from pref_toolkit.lab import defaults, judging, sampling, shipped
from pref_toolkit.lab.language import gold, prompts
from pref_toolkit.lab.sweep import provenance
from pref_toolkit.loops.judges import Judge
from pref_toolkit.loops.reward_judge import RewardJudge
from pref_toolkit.loops.train import train as train_with_loop
from pref_toolkit.training import checkpoints
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.generation import generate
from pref_toolkit.training.loop import train
from pref_toolkit.training.policy import Policy

FILE = Path(__file__).with_name("overoptimise.json")
SEEDS = (1, 2, 3)
PAIRS, BATCH = 6400, 64
"""Pairs that a reward model learns from, once each, and pairs or prompts in an update."""
HEAD_RATE, RATE, BETA = 5e-3, 1.5e-3, 1.0
"""Learning rates of the reward model and of DPO: what ``lab.table`` chose; and DPO's strength, likewise."""
UPDATES, EVERY, LOOP_RATE, PULL = 40, 8, 1e-3, 0.05
"""Of the loop: updates, updates between two measurements, learning rate, and strength of the pull to the start."""
BEST_OF = (1, 2, 4, 8, 16)
PROMPTS = 400


def implicit(policy: Policy, beta: float) -> Judge:
    """The reward ``beta (log policy(y|x) - log start(y|x))`` of a policy, in nats, as a judge.

    Source: Rafailov et al. 2023, arXiv:2305.18290, section 5.1, without the term that depends on the prompt alone.
    """

    def scores(questions: list[str], answers: list[list[str]]) -> list[list[float]]:
        # Each answer alone, since several that are the same are one in a row.
        rows = [Example(prompt, (text,), prompt) for prompt, own in zip(questions, answers) for text in own]
        examples = encode(rows, policy.tokenizer, max_length=None, report=Report())
        trained, start = (policy.logps(examples, view=view).sums[:, 0] for view in ("policy", "start"))
        rewards = iter((beta * (trained - start)).tolist())
        return [[next(rewards) for _ in own] for own in answers]

    return scores


def best_of(scores: Sequence[Sequence[float]], asked: list[str], said: list[list[str]]) -> list[dict[str, Any]]:
    """Gold and proxy of the best of the first ``n`` answers by their scores.

    ``kl`` is the bound ``log n - (n - 1) / n`` in nats, which the KL of best-of-n does not exceed.
    """
    out = []
    for n in BEST_OF:
        picked = [max(range(n), key=row.__getitem__) for row in scores]
        right = [gold(prompt, own[i]) for prompt, own, i in zip(asked, said, picked)]
        proxy = [row[i] for row, i in zip(scores, picked)]
        out.append({"n": n, "kl": math.log(n) - (n - 1) / n, "proxy": mean(proxy), "accuracy": mean(right)})
    return out


def trained(judge: Judge, asked: list[str], seed: int) -> list[dict[str, Any]]:
    """Gold and proxy of the policies along a run of online DPO against the judge, and their KL to its start in nats."""
    model, tokenizer = shipped.load()
    with TemporaryDirectory() as directory:
        budget = {"max_steps": UPDATES, "batch_size": BATCH, "learning_rate": LOOP_RATE, "seed": seed}
        about = {"save_every": EVERY, "keep": UPDATES // EVERY, "output": directory, "samples": 0, "held_out": 0}
        config = TrainConfig(**{**defaults.TRAINING, **budget, **about})
        rows = judging.asked(UPDATES * BATCH, seed)
        history = train_with_loop(model, tokenizer, rows, "online_dpo", judge, config, beta=PULL)
        path = []
        for saved in sorted((Path(directory) / "checkpoints").glob("step-*")):
            checkpoint = checkpoints.read(saved)
            history.policy.restore(checkpoint.tensors["policy"])
            path.append({"step": checkpoint.step, **measured(history.policy, judge, asked, seed)})
    return path


def measured(policy: Policy, judge: Judge, asked: list[str], seed: int) -> dict[str, float]:
    """One answer to each prompt: the judge's mean reward, right answers, length in tokens, and KL to the start in nats."""
    ids = [encode_prompt(policy.tokenizer, prompt) for prompt in asked]
    said, kl = policy.sampled_kl(ids, "start", max_new_tokens=shipped.LONGEST, seed=seed)
    texts = policy.texts(said)
    return {
        "proxy": mean([row[0] for row in judge(asked, [[text] for text in texts])]),
        "accuracy": mean([gold(prompt, text) for prompt, text in zip(asked, texts)]),
        "length": mean([len(answer) for answer in said]),
        "kl": kl,
    }


def one_seed(seed: int) -> list[dict[str, Any]]:
    """Both reward models on the pairs of one seed.

    ``agrees`` is the share of held-out pairs of which a judge prefers the chosen answer, and ``spread`` the standard deviation
    of its rewards over the supervised model's answers.
    """
    made = sampling.pairs(PAIRS + PROMPTS, seed=seed)
    pairs, held_out = made[:PAIRS], made[PAIRS:]
    asked, most = prompts(PROMPTS, seed, "test"), max(BEST_OF)
    several = [prompt for prompt in asked for _ in range(most)]
    flat = generate(*shipped.load(), several, max_new_tokens=shipped.LONGEST, seed=seed, batch_size=512)
    said = [flat[i * most : (i + 1) * most] for i in range(PROMPTS)]
    budget = {"max_steps": PAIRS // BATCH, "batch_size": BATCH, "seed": seed, "samples": 0, "held_out": 0}

    def fitted(method: str, rate: float, output: str | None = None, **own: Any) -> Policy:
        config = TrainConfig(**{**defaults.TRAINING, **budget, "learning_rate": rate, "output": output})
        return train("lab", None, pairs, method, config, **own).policy

    with TemporaryDirectory() as directory:
        fitted("bradley_terry", HEAD_RATE, directory)
        head = RewardJudge(directory)
    out = []
    judges: dict[str, Judge] = {"head": head, "implicit": implicit(fitted("dpo", RATE, beta=BETA), BETA)}
    for name, judge in judges.items():
        both = judge([row["prompt"] for row in held_out], [[row["chosen"], row["rejected"]] for row in held_out])
        scores = judge(asked, said)
        facts = {"judge": name, "seed": seed, "agrees": mean(chosen > rejected for chosen, rejected in both)}
        facts["spread"] = pstdev(score for row in scores for score in row)
        out.append(facts | {"best_of": best_of(scores, asked, said), "path": trained(judge, asked, seed)})
    return out


def header() -> dict[str, Any]:
    """How the file is made."""
    return {
        "made_by": "python -m pref_toolkit.lab.overoptimise",
        **provenance(),
        "pairs": PAIRS,
        "batch_size": BATCH,
        "learning_rates": {"head": HEAD_RATE, "implicit": RATE, "loop": LOOP_RATE},
        "beta": {"implicit": BETA, "loop": PULL},
        "updates": UPDATES,
        "prompts": PROMPTS,
        "threads": 1,
    }


def load() -> dict[str, Any]:
    """The content of ``overoptimise.json``."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def main() -> int:
    """Make all rows."""
    torch.set_num_threads(1)
    began = time.process_time()
    rows = [row for seed in tqdm(SEEDS, desc="overoptimise") for row in one_seed(seed)]
    made = header() | {"cpu_seconds": round(time.process_time() - began), "rows": rows}
    FILE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
