"""What a run decides from its settings, and what it leaves in its directory.

``run.json`` holds everything needed to repeat the run, ``metrics.jsonl`` one object a step, ``samples.json`` answers before and
after, ``checkpoints/`` its states, ``adapter/`` the trained adapter in PEFT's format.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from pref_toolkit.data import Report
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.training import checkpoints, models, processes
from pref_toolkit.training.checkpoints import Checkpoint, CheckpointError
from pref_toolkit.training.config import TrainConfig

# A run may be continued with other values of these: they change what is written or how far, not what is computed.
FREE = {
    *("output", "resume", "epochs", "max_steps", "tokens_per_forward", "samples", "sample_tokens"),
    *("route", "gradient_checkpointing", "reference_store", "save_every", "keep", "on_bad_row", "log_with"),
}


def split(examples: list[Encoded], config: TrainConfig) -> tuple[list[Encoded], list[Encoded]]:
    """Training and held-out examples, drawn with the run's seed; at most half are held out."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(config.seed)).tolist()
    held = min(config.held_out, len(examples) // 2)
    return [examples[i] for i in sorted(order[held:])], [examples[i] for i in sorted(order[:held])]


def longest(examples: list[Encoded]) -> int:
    """Most tokens in a prompt + response; a target is one."""
    return max(len(e.prompt) + max(map(len, [*e.responses, e.target or []])) for e in examples)


def check_positions(examples: list[Encoded], model_config: Any) -> None:
    """Refuse examples that are longer than the model has positions.

    Raises:
        ModelError: naming the first such example.
    """
    limit = getattr(model_config, "max_position_embeddings", None)
    for example in examples:
        if limit is not None and longest([example]) > limit:
            raise models.ModelError(
                f"{example.where}: {longest([example])} tokens of prompt + response, and the model has "
                f"{limit} positions: set max_length to {limit} or less"
            )


def fitting(examples: list[Encoded], model_config: Any, config: TrainConfig) -> list[Encoded]:
    """The examples whose prompt leaves the model room for a sample."""
    limit = getattr(model_config, "max_position_embeddings", None)
    return [e for e in examples if limit is None or len(e.prompt) + config.sample_tokens <= limit]


def steps_in(config: TrainConfig, examples: int) -> int:
    """Updates in ``config.epochs`` passes, at least 1."""
    return max(1, round(config.epochs * examples / config.batch_size))


def indices(step: int, config: TrainConfig, examples: int) -> list[int]:
    """The training examples of an update: the next ``batch_size`` of an endless row of shuffled passes.

    A pure function of step and seed, so that a continued run needs no state of an iterator, and no example is dropped at
    the end of a pass.
    """
    passes: dict[int, list[int]] = {}
    out = []
    for place in range(step * config.batch_size, (step + 1) * config.batch_size):
        number, offset = divmod(place, examples)
        if number not in passes:
            shuffle = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
            passes[number] = torch.randperm(examples, generator=shuffle).tolist()
        out.append(passes[number][offset])
    return out


def state(
    accelerator: Accelerator, weights: dict[str, torch.Tensor], optimizer: Any, inputs: dict[str, torch.Tensor]
) -> dict[str, dict[str, torch.Tensor]]:
    """What a checkpoint holds, the same in all processes; all must ask."""
    here = accelerator.process_index
    random = {f"{here}/{name}": value for name, value in checkpoints.rng_state().items()}
    tensors = {
        "adapter": {name: processes.whole(w) for name, w in weights.items()},
        "optimizer": {
            f"{name}|{part}": processes.whole(value)
            for name, w in weights.items()
            for part, value in optimizer.state[w].items()
        },
        "rng": {name: v for state in processes.everyones(accelerator, [random]) for name, v in state.items()},
    }
    return tensors | {"inputs": inputs} if inputs else tensors


def restore(accelerator: Accelerator, checkpoint: Checkpoint, weights: dict[str, torch.Tensor], optimizer: Any) -> None:
    """Put adapters, optimizer and random state back to where a checkpoint was taken.

    A process that there was not takes the random state of the first one.
    """
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(processes.spread_like(checkpoint.tensors["adapter"][name], weight))
    for key, value in checkpoint.tensors["optimizer"].items():
        name, _, part = key.rpartition("|")
        moment = value if part == "step" else processes.spread_like(value, weights[name])
        optimizer.state[weights[name]][part] = moment
    random = checkpoint.tensors["rng"]
    place = accelerator.process_index if f"{accelerator.process_index}/cpu" in random else 0
    checkpoints.set_rng_state({n.partition("/")[2]: v for n, v in random.items() if n.startswith(f"{place}/")})


class Record:
    """The directory of a run; writes nothing if there is none, or in any process but the main one."""

    def __init__(
        self,
        accelerator: Accelerator,
        output: Path | None,
        config: TrainConfig,
        method: str,
        settings: dict[str, Any],
        model: Any,
        fingerprint: str,
        tokenizer: Any,
        examples: list[Encoded],
        report: Report,
        route: str,
    ) -> None:
        self.accelerator, self.output = accelerator, output
        self.config, self.report, self.route = config, report, route
        self.writes = output is not None and accelerator.is_main_process
        self.identity = {
            "method": method,
            **{f"hyperparameter {name}": value for name, value in settings.items()},
            **{name: value for name, value in asdict(config).items() if name not in FREE},
            "data": _digest([asdict(e) | {"where": None} for e in examples]),
            "tokenizer": _digest(tokenizer.backend_tokenizer.to_str())
            if tokenizer.is_fast
            else _digest(tokenizer.get_vocab()),
            "base model": model.get_base_model().config._name_or_path,
            "base weights": fingerprint,
        }
        self.content: dict[str, Any] = {}

    def facts(self) -> dict[str, Any]:
        """Everything needed to repeat the run."""
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        return {
            "identity": self.identity,
            "config": asdict(self.config),
            "data": {"counts": dict(self.report.counts), "findings": str(self.report)},
            "route": self.route,
            "versions": {
                p: version(p) for p in ("pref-toolkit", "torch", "transformers", "peft", "accelerate", "datasets")
            },
            "machine": {"python": platform.python_version(), "processor": platform.machine(), "gpu": gpu},
        }

    def begin(self) -> None:
        """Start a directory.

        Raises:
            CheckpointError: if it already holds a run.
        """
        if self.output is None:
            self.write(**self.facts())
            return
        if (self.output / "run.json").exists() and not self.config.resume:
            raise CheckpointError(
                f"{self.output} already holds a run: continue it with --resume, or name another directory"
            )
        self.accelerator.wait_for_everyone()
        if self.writes:
            self.output.mkdir(parents=True, exist_ok=True)
            (self.output / "metrics.jsonl").write_text("")
        self.write(**self.facts())

    def write(self, **content: Any) -> None:
        """Add to ``run.json``."""
        self.content |= content
        if self.writes and self.output:
            _write_whole(self.output / "run.json", json.dumps(self.content, indent=1))

    def newest(self) -> Checkpoint | None:
        """The checkpoint to continue from.

        Raises:
            CheckpointError: if it belongs to another run, naming what differs; or if none is whole.
        """
        assert self.output is not None  # TrainConfig refuses resume without output
        checkpoint = checkpoints.newest(self.output / "checkpoints")
        if checkpoint is None:
            return None
        for line in checkpoint.skipped:
            self.accelerator.print(f"skipped a checkpoint that is not whole: {line}")
        if changed := checkpoints.differences(checkpoint.identity, self.identity):
            raise CheckpointError(f"{self.output} cannot be continued, these differ: " + "; ".join(changed))
        self.content = json.loads((self.output / "run.json").read_text())
        self.write(**self.facts())
        return checkpoint

    def steps_until(self, step: int) -> list[dict[str, Any]]:
        """The metrics of the steps before ``step``; later ones, which will be done again, are dropped from the file."""
        assert self.output is not None
        path = self.output / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        rows = [row for row in rows if row["step"] < step]
        if self.writes:
            _write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
        return rows

    def append(self, row: dict[str, Any]) -> None:
        """One more line of ``metrics.jsonl``."""
        if self.writes and self.output:
            with (self.output / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")

    def save(self, step: int, tensors: dict[str, dict[str, torch.Tensor]]) -> None:
        """A checkpoint after ``step`` updates."""
        if self.writes and self.output:
            checkpoints.save(self.output / "checkpoints", step, tensors, self.identity, self.config.keep)

    def finish(
        self, after: dict[str, Any], samples: list[dict[str, str]], policy: Any, weights: dict[str, torch.Tensor]
    ) -> None:
        """The adapter, the reward head if there is one, the samples and the held-out metrics after training."""
        self.write(after=after)
        if not self.writes or self.output is None:
            return
        _write_whole(self.output / "samples.json", json.dumps(samples, indent=1, ensure_ascii=False))
        partial = self.output / f".adapter-{os.getpid()}"
        models.save_adapter(policy, partial, weights, self.identity["base weights"])
        shutil.rmtree(self.output / "adapter", ignore_errors=True)
        partial.rename(self.output / "adapter")


def add(output: str | Path, **content: Any) -> None:
    """Add to the ``run.json`` of a run that is over."""
    path = Path(output) / "run.json"
    _write_whole(path, json.dumps(json.loads(path.read_text()) | content, indent=1))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _write_whole(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never half of either."""
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
