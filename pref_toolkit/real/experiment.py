"""What preference optimisation does to a real small model: the runs behind ``results.json`` and ``draws.json``.

    python -m pref_toolkit.real.experiment DIRECTORY

SmolLM2-135M-Instruct answers 300 instructions four times; a program judges the answers; several methods train on the judged
answers; each policy is measured on instructions that no method was trained on. What is done already in DIRECTORY is not done
again, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pref_toolkit import metrics
from pref_toolkit.data import encode_prompt, prepare
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import Complaint
from pref_toolkit.loops.judges import Judge
from pref_toolkit.loops.presets import LOOPS, settings_of
from pref_toolkit.loops.train import train as train_with_loop
from pref_toolkit.real import instructions
from pref_toolkit.real.instructions import Instruction
from pref_toolkit.training import models
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.loop import train
from pref_toolkit.training.policy import Policy
from pref_toolkit.training.protocols import Tokenizer

FILE, DRAWS = (Path(__file__).with_name(name) for name in ("results.json", "draws.json"))
AT_ONCE = 32
"""Prompts that are answered side by side; more are slower on a CPU, whose memory their keys and values fill."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The sizes of the experiment.

    Args:
        model: what is trained.
        seed: of samples and training.
        draws: answers of the model to each instruction, to make preferences of.
        tokens: longest answer; one that is not finished by then is wrong.
        temperature: of all answers but those that the KL is measured on, which are drawn at 1.
        kl_prompts: prompts that the KL is measured on.
        precision: of the frozen weights. In bfloat16 a CPU that knows it is nearly twice as fast.
        every: take one instruction of so many, to try the experiment.
        training: of all methods.
    """

    model: str = "smollm2"
    seed: int = 0
    draws: int = 4
    tokens: int = 48
    temperature: float = 0.7
    kl_prompts: int = 32
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    every: int = 1
    training: dict[str, Any] = field(
        default_factory=lambda: {"max_steps": 24, "batch_size": 8, "learning_rate": 3e-4, "warmup_steps": 3}
    )


@dataclass(frozen=True)
class Answer:
    """An answer to an instruction."""

    instruction: Instruction
    text: str
    finished: bool
    tokens: int

    @property
    def kept(self) -> bool:
        """Whether the constraint is kept, finished or not."""
        return self.instruction.kept_by(self.text)

    @property
    def right(self) -> bool:
        return self.finished and self.kept


def answers(policy: Policy, asked: Sequence[Instruction], plan: Plan, seed: int, draws: int = 1) -> list[list[Answer]]:
    """Answers of a policy to each instruction."""
    repeated = [instruction for instruction in asked for _ in range(draws)]
    ids = policy.sample(
        prompts(policy, repeated),
        max_new_tokens=plan.tokens,
        temperature=plan.temperature,
        seed=seed,
        batch_size=AT_ONCE,
    )
    end = policy.tokenizer.eos_token_id
    flat = [  # data must not hold NUL, which a model that knows nothing may draw
        Answer(instruction, text.replace("\0", ""), own[-1] == end, len(own))
        for instruction, text, own in zip(repeated, policy.texts(ids), ids)
    ]
    return [flat[i : i + draws] for i in range(0, len(flat), draws)]


def rows_of(judged: Sequence[Sequence[Answer]]) -> list[Row]:
    """What JSON can hold of answers: each instruction with its own."""
    names = ("text", "finished", "tokens")
    return [
        {"instruction": asdict(own[0].instruction), "answers": [{n: getattr(a, n) for n in names} for a in own]}
        for own in judged
    ]


def of_rows(rows: Sequence[Row]) -> list[list[Answer]]:
    """What :func:`rows_of` was given."""
    return [[Answer(Instruction(**row["instruction"]), **answer) for answer in row["answers"]] for row in rows]


def prompts(policy: Policy, asked: Sequence[Instruction]) -> list[list[int]]:
    """The ids of the instructions, as the model reads them."""
    return [encode_prompt(policy.tokenizer, instruction.messages) for instruction in asked]


def pairs(judged: Sequence[Sequence[Answer]]) -> list[Row]:
    """Right answers against wrong ones to the same instruction, each answer in at most one pair."""
    made = []
    for own in judged:
        right = [a for a in own if a.right]
        wrong = [a for a in own if not a.right]
        made += [_row(r.instruction, chosen=r, rejected=w) for r, w in zip(right, wrong)]
    return made


def labelled(judged: Sequence[Sequence[Answer]]) -> list[Row]:
    """The answers of :func:`pairs` without their partners: each with whether it is right."""
    rows = []
    for pair in pairs(judged):
        rows += [
            {"prompt": pair["prompt"], "completion": pair[name], "label": name == "chosen"}
            for name in ("chosen", "rejected")
        ]
    return rows


def best(judged: Sequence[Sequence[Answer]]) -> list[Row]:
    """All right answers, to imitate."""
    return [_row(a.instruction, completion=a) | {"label": True} for own in judged for a in own if a.right]


def _row(instruction: Instruction, **said: Answer) -> Row:
    turns = {name: [{"role": "assistant", "content": answer.text}] for name, answer in said.items()}
    return {"prompt": instruction.messages, **turns}


def finished_pairs(judged: Sequence[Sequence[Answer]]) -> list[Row]:
    """The pairs of :func:`pairs` when the answers that were cut off are left out."""
    return pairs([[answer for answer in own if answer.finished] for own in judged])


ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {}),
    "dpo": ("dpo", {}),
    "dpo + nll": ("dpo+sft", {"weights": [1.0, 0.2]}),
    "simpo": ("simpo", {}),
    "kto": ("kto", {}),
    "online dpo": ("online_dpo", {}),
    "dpo, beta 0.03": ("dpo", {"beta": 0.03}),
    "dpo, beta 0.3": ("dpo", {"beta": 0.3}),
    "dpo, rate 1e-4": ("dpo", {"learning_rate": 1e-4}),
    "dpo, rate 1e-3": ("dpo", {"learning_rate": 1e-3}),
    "dpo, finished pairs": ("dpo", {"rows": finished_pairs}),
}
"""By name: the method, and its settings and rows where they are not the plan's or the method's own."""


def judge(tokenizer: Tokenizer, plan: Plan) -> Judge:
    """The program that judges, as a loop asks it: 1 for a right answer, else 0.

    A loop hands over texts, so whether an answer was finished is read from its length, tokenised again.
    """

    def right(asked: list[str], given: list[list[str]]) -> list[list[float]]:
        known = instructions.trained()
        found = [next(i for i in known if i.prompt in text) for text in asked]
        ids = lambda text: tokenizer(text)["input_ids"]
        return [
            [float(i.kept_by(text) and len(ids(text)) < plan.tokens) for text in own] for i, own in zip(found, given)
        ]

    return right


def trained(name: str, judged: Sequence[Sequence[Answer]], plan: Plan, directory: Path) -> Policy:
    """The policy of an arm; a run that was stopped goes on."""
    method, own = ARMS[name]
    own = dict(own)
    weights, rows = own.pop("weights", None), own.pop("rows", {"sft": best, "kto": labelled}.get(method, pairs))
    about: Row = {"precision": plan.precision}
    about |= {"held_out": 0, "samples": 0, "save_every": 5, "keep": 1, "seed": plan.seed, "sample_tokens": plan.tokens}
    known = TrainConfig.__dataclass_fields__
    chosen = {**plan.training, **about, **{key: value for key, value in own.items() if key in known}}
    output = directory / _file_name(name)
    config = TrainConfig(**chosen, output=str(output), resume=(output / "run.json").is_file())
    settings = {key: value for key, value in own.items() if key not in known}
    if method in LOOPS:
        asked = [{"prompt": own[0].instruction.messages} for own in judged]
        loop = settings_of(method, answers=4, temperature=plan.temperature)
        asks = judge(models.load(plan.model)[1], plan)
        return train_with_loop(plan.model, None, asked, method, asks, config, loop, **settings).policy
    return train(plan.model, None, rows(judged), method, config, weights, **settings).policy


def _file_name(arm: str) -> str:
    return arm.replace(" ", "-").replace(",", "")


def measure(policy: Policy, held_out: Sequence[Encoded], plan: Plan) -> Row:
    """A policy on instructions that it was not trained on, and how far it is from the model it was made of."""
    out: Row = {}
    for name, asked in (("unseen", instructions.unseen()), ("new_kinds", instructions.new_kinds())):
        given = [own[0] for own in answers(policy, asked[:: plan.every], plan, plan.seed + 1)]
        out[name] = {
            **{what: _share(given, what) for what in ("right", "kept", "finished")},
            "length": sum(a.tokens for a in given) / len(given),
            "by_kind": {
                kind: _share([a for a in given if a.instruction.kind == kind], "right")
                for kind in dict.fromkeys(a.instruction.kind for a in given)
            },
            "each": [int(a.right) for a in given],
            "samples": [{"prompt": a.instruction.prompt, "answer": a.text, "right": a.right} for a in given[:8]],
        }
    ids = prompts(policy, instructions.unseen()[:: plan.every][: plan.kl_prompts])
    drawn = policy.sample(ids, max_new_tokens=plan.tokens, seed=plan.seed + 2, batch_size=AT_ONCE)
    examples = [Encoded(prompt, [own], "sample") for prompt, own in zip(ids, drawn)]
    under = {view: policy.logps(examples, view=view).sums[:, 0] for view in ("policy", "start")}
    out["kl"], out["kl_error"] = metrics.sampled_kl(under["policy"], under["start"])
    text = plain(policy)
    read = policy.logps(text)
    out["perplexity"] = math.exp(-float(read.sums.sum()) / int(read.tokens.sum()))
    compared = metrics.preference(policy.logps(held_out), policy.logps(held_out, view="start"))
    return out | {name: compared[name] for name in ("reward_accuracy", "chosen_change", "rejected_change")}


def _share(given: Sequence[Answer], what: str) -> Row:
    number = sum(getattr(a, what) for a in given)
    return {"n": len(given), "share": number / len(given), "interval": metrics.wilson(number, len(given))}


def plain(policy: Policy) -> list[Encoded]:
    """The paragraphs of ``plain.txt``, each behind its first token."""
    paragraphs = Path(__file__).with_name("plain.txt").read_text(encoding="utf-8").strip().split("\n\n")
    encoded = [policy.tokenizer(paragraph)["input_ids"] for paragraph in paragraphs]
    return [Encoded(ids[:1], [ids[1:]], "plain.txt") for ids in encoded]


def run(directory: Path, plan: Plan | None = None, arms: Sequence[str] = tuple(ARMS)) -> Row:
    """The whole experiment, or what of it is not yet in the directory.

    Raises:
        Complaint: if the directory holds another experiment, or no right answer was drawn.
    """
    plan = plan or Plan()
    directory.mkdir(parents=True, exist_ok=True)
    if _once(directory / "plan.json", lambda: asdict(plan)) != json.loads(json.dumps(asdict(plan))):
        raise Complaint(f"{directory} holds an experiment of other sizes: name another directory")
    base = Policy.load(plan.model, TrainConfig(precision=plan.precision))

    def draw(asked: list[Instruction], seed: int) -> Callable[[], Any]:
        return lambda: rows_of(answers(base, asked, plan, seed, plan.draws))

    drawn: dict[str, list[list[Answer]]] = {}
    for seed, (name, asked) in enumerate((("trained", instructions.trained()), ("unseen", instructions.unseen()))):
        made = _once(directory / f"draws-{name}.json", draw(asked[:: plan.every], plan.seed + 10 + seed))
        drawn[name] = of_rows(made)
    if not pairs(drawn["trained"]) or not pairs(drawn["unseen"]):
        raise Complaint("the model gave no instruction both a right and a wrong answer: there is nothing to learn from")
    held_out, _ = prepare(pairs(drawn["unseen"]), base.tokenizer)
    measured = {"base": _once(directory / "base.json", lambda: measure(base, held_out, plan))}

    for name in arms:

        def arm(name: str = name) -> Row:
            began = time.perf_counter()
            policy = trained(name, drawn["trained"], plan, directory)
            seconds = time.perf_counter() - began
            return measure(policy, held_out, plan) | {"training_seconds": seconds}

        measured[name] = _once(directory / f"{_file_name(name)}.json", arm)
    counts = {
        name: {
            "instructions": len(judged),
            "answers": sum(map(len, judged)),
            "right": sum(a.right for own in judged for a in own),
            "pairs": len(pairs(judged)),
        }
        for name, judged in drawn.items()
    }
    versions = {name: version(name) for name in ("torch", "transformers", "peft")}
    return {"plan": asdict(plan), "versions": versions, "drawn": counts, "arms": measured}


def _once(file: Path, make: Callable[[], Any]) -> Any:
    """What the file holds, or what is made now and kept in it."""
    if not file.is_file():
        began = time.perf_counter()
        made = make()
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
        partial.rename(file)
        print(f"{file.stem}: {time.perf_counter() - began:.0f} s", flush=True)
    return json.loads(file.read_text(encoding="utf-8"))


def load() -> Row:
    """The content of ``results.json``."""
    found: Row = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def draws() -> list[list[Answer]]:
    """The model's answers to the instructions that were trained on, from ``draws.json``."""
    return of_rows(json.loads(DRAWS.read_text(encoding="utf-8")))


def main(arguments: list[str]) -> int:
    """Run the experiment in a directory, and write ``results.json``; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m pref_toolkit.real.experiment DIRECTORY", file=sys.stderr)
        return 2
    try:
        result = run(Path(arguments[0]))
    except Complaint as complaint:
        print(f"real.experiment: {complaint}", file=sys.stderr)
        return 2
    FILE.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    DRAWS.write_bytes((Path(arguments[0]) / "draws-trained.json").read_bytes())
    print(f"written: {FILE.name}, {DRAWS.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
