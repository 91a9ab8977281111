"""A run: the directory it leaves, and how it survives a kill.

``run.json`` holds everything needed to repeat the run, ``metrics.jsonl`` one object a step, ``samples.json`` answers before
and after, ``checkpoints/`` its states, ``adapter/`` the trained adapter in PEFT's format, ``start/`` the adapter that it began
with, if any. A run without a directory writes nothing.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from pref_toolkit.data import Report
from pref_toolkit.errors import NotFiniteError, Terminated
from pref_toolkit.losses import Mixture
from pref_toolkit.training import checkpoints, processes
from pref_toolkit.training.checkpoints import Checkpoint, CheckpointError, Facts
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.dataset import Data, digest_of
from pref_toolkit.training.files import PARTIAL, whole
from pref_toolkit.training.modes import base_of
from pref_toolkit.training.objective import Objective
from pref_toolkit.training.policy import Policy
from pref_toolkit.training.protocols import Tokenizer
from pref_toolkit.training.trainer import Row
from pref_toolkit.training.watch import Samples, Watch

logger = logging.getLogger(__name__)

# A run may be continued with other values of these: they change what is written or how far, not what is computed.
FREE = {
    *("output", "resume", "epochs", "max_steps", "tokens_per_forward", "samples", "sample_tokens"),
    *("route", "gradient_checkpointing", "reference_store", "save_every", "keep", "on_bad_row", "log_with"),
}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stateful(Protocol):
    """A part of a run that a checkpoint holds."""

    def state(self) -> dict[str, Tensor]: ...
    def restore(self, state: dict[str, Tensor]) -> None: ...


@dataclass
class History:
    """What a run measured, and the policy it trained.

    Args:
        policy: the trained policy.
        steps: one row for each update.
        before, after: metrics of the held-out examples.
        samples: a few answers before and after.
        data: what was left out or changed of the data.
        output: the run's directory.
    """

    policy: Policy
    steps: list[Row] = field(default_factory=list)
    before: Row = field(default_factory=dict)
    after: Row = field(default_factory=dict)
    samples: Samples = field(default_factory=list)
    data: Report | None = None
    output: Path | None = None

    @property
    def model(self) -> Any:
        """The trained model of the policy."""
        return self.policy.model

    @property
    def reward_head(self) -> nn.Linear | None:
        """The map from hidden states to rewards of a reward model."""
        return self.policy.head()


class Run:
    """A run in its directory, which no other process may write meanwhile. Use it in a ``with`` statement.

    Inside, SIGTERM, Ctrl-C and SIGHUP are noted, and the run saves a checkpoint and stops after the update under way. A second
    Ctrl-C stops at once.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.output = Path(config.output) if config.output else None
        self.accelerator: Accelerator = processes.devices(log_with=config.log_with, project_dir=config.output)
        self.writes = self.output is not None and self.accelerator.is_main_process
        self.content: Facts = {}
        self.identity: Facts = {}
        self.shown: dict[str, str] = {}
        """What the progress bar shows besides the loss."""
        self._received: list[int] = []
        self._made: dict[str, list[dict[str, Any]]] = {}
        self._save_at: Collection[int] = ()
        self._open = ExitStack()

    @classmethod
    def open(cls, config: TrainConfig) -> Run:
        """The run of ``config.output``, new or to be continued. It is locked, and nothing is written yet.

        Raises:
            CheckpointError: if the directory holds a run that is not to be continued, no run that could be, files that are no
                run's, or a run that another process is writing.
        """
        run = cls(config)
        refused: list[str | None] = [None]
        if run.output is not None and run.accelerator.is_main_process:
            refused = [run._refusal(run.output)]
        for why in processes.all_gather(run.accelerator, refused):
            if why is not None:
                run._open.close()
                raise CheckpointError(why)
        return run

    def _refusal(self, output: Path) -> str | None:
        """Why the directory cannot be taken, or None; then it is locked."""
        holds_run = (output / "run.json").exists() or (output / "checkpoints").is_dir()
        if self.config.resume and not holds_run:
            return f"{output} holds no run that could be continued; without --resume a new one begins there"
        if not self.config.resume:
            if output.exists() and not output.is_dir():
                return f"{output} is a file; name a directory"
            if holds_run:
                return f"{output} already holds a run: continue it with --resume, or name another directory"
            # A run that was killed before its first file was whole left that unfinished.
            if output.is_dir() and not all(path.name.startswith(PARTIAL) for path in output.iterdir()):
                return f"{output} holds files and no run; name a new or an empty directory"
        try:
            if not output.exists():
                output.mkdir(parents=True)
                self._open.callback(
                    _remove_if_empty, output
                )  # after a mistake that is found before anything is written
            directory = os.open(output, os.O_RDONLY)
            self._open.callback(os.close, directory)  # which gives the lock back, as does the end of the process
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._open.close()
            return f"{output} is being written by another run; wait for it, or name another directory"
        except OSError as error:
            return f"{output} cannot be written: {error.strerror or error}"
        return None

    def __enter__(self) -> Run:
        for number in SIGNALS:
            self._note(number)
        return self

    def _note(self, number: signal.Signals) -> None:
        """Take a signal from now on, unless the process ignores it, as it does SIGHUP under ``nohup``."""
        if signal.getsignal(number) is signal.SIG_IGN:
            return
        try:
            before = signal.signal(number, self._receive)
        except ValueError:  # not in the main thread, where signals cannot be taken
            return
        self._open.callback(signal.signal, number, before)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and number in self._received:
            raise KeyboardInterrupt
        self._received.append(number)

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def begin(self, policy: Policy, objective: Objective, data: Data, watch: Watch, **also: Any) -> None:
        """Start the directory or find the checkpoint to continue from, and measure what stands before the first update.

        Args:
            policy, objective, data, watch: the run's.
            also: what else makes the run what it is, for its identity.

        Raises:
            CheckpointError: if the checkpoint belongs to another run, naming the differences, or none is whole.
        """
        self.policy, self.data, self.watch = policy, data, watch
        self.identity = self._identity(policy, objective, data) | also
        self.history = History(policy, data=data.report, output=self.output)
        self.checkpoint = self._newest() if self.config.resume else None
        self._introduce(policy, objective, data)
        if self.checkpoint is None:
            self._write(**self._facts())
            if self.writes and self.output:
                (self.output / "metrics.jsonl").write_text("")
            self.history.before, self.history.samples = watch.before()
            self._write(before=self.history.before, samples=self.history.samples)
        else:
            self.history.steps = self._steps_until(self.checkpoint.step)
            self.history.before = self.content.get("before", {})
            self.history.samples = self.content.get("samples", [])
            self._write(**self._facts())
        if self.config.log_with:
            self.accelerator.init_trackers("pref_toolkit", config=self._facts())

    def _introduce(self, policy: Policy, objective: Objective, data: Data) -> None:
        """The run's first lines."""
        scorer = policy.scorer()
        if data.report.counts:
            self._say(logging.WARNING, str(data.report))
        self._say(logging.INFO, f"{self.identity['method']} on {data}")
        base = policy.views["start"] is None or objective.views["reference"] is None
        compared = "the base, without adapters" if base else "the adapter that training starts from"
        if objective.of_reference:
            self._say(logging.INFO, f"reference: {compared}")
        if (rank := policy.rank()) != self.config.lora_rank:
            told = f"the adapter keeps its rank of {rank}; lora_rank, lora_alpha and lora_dropout are for new adapters"
            self._say(logging.WARNING, told)
        if scorer.obstacle:
            taken = scorer.kernel or f"route {scorer.route!r}"
            self._say(logging.WARNING, f"scoring by the slower {taken}: {scorer.obstacle}")
        if scorer.head is None:
            kind = base_of(policy.model).config.model_type
            told = f"{kind} changes its logits after the output layer: all logits of a forward are in memory at once"
            self._say(logging.WARNING, told)

    def _identity(self, policy: Policy, objective: Objective, data: Data) -> Facts:
        """Everything that makes the run what it is."""
        mixed = objective.method
        weighted = zip(mixed.parts, mixed.weights) if isinstance(mixed, Mixture) else ()
        start = {} if policy.views["start"] is None else {"start adapter": policy.fingerprint("start")}
        return {
            "method": objective.method.name,
            **{f"weight of {part.name}": weight for part, weight in weighted},
            **{f"hyperparameter {name}": value for name, value in objective.settings.items()},
            **{name: value for name, value in asdict(self.config).items() if name not in FREE},
            "data": data.digest,
            "tokenizer": _tokenizer_digest(policy.tokenizer),
            "base model": base_of(policy.model).config._name_or_path,
            "base weights": policy.fingerprint(None),
            **start,
        }

    def _facts(self) -> Facts:
        """Everything needed to repeat the run."""
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        packages = ("pref-toolkit", "torch", "transformers", "peft", "accelerate", "datasets")
        return {
            "identity": self.identity,
            "config": asdict(self.config),
            "data": {"counts": dict(self.data.report.counts), "findings": str(self.data.report)},
            "route": self.policy.scorer().route,
            "versions": {p: _version(p) for p in packages},
            "machine": {"python": platform.python_version(), "processor": platform.machine(), "gpu": gpu},
        }

    def _newest(self) -> Checkpoint | None:
        """The checkpoint to continue from; None if the run was ended before its first one."""
        assert self.output is not None  # TrainConfig refuses resume without output
        try:
            self.content = json.loads((self.output / "run.json").read_text())
        except (OSError, ValueError):
            self._say(logging.WARNING, f"{self.output / 'run.json'} cannot be read and is written anew")
        checkpoint = checkpoints.newest(self.output / "checkpoints")
        known = checkpoint.identity if checkpoint else self.content.get("identity", self.identity)
        if changed := checkpoints.differences(known, self.identity):
            raise CheckpointError(f"{self.output} cannot be continued, these differ: " + "; ".join(changed))
        if checkpoint is None and "after" in self.content:
            raise CheckpointError(f"{self.output} holds a finished run without checkpoints; name another directory")
        for line in checkpoint.skipped if checkpoint else ():
            self._say(logging.WARNING, f"skipped a checkpoint that is not whole: {line}")
        if checkpoint is None:
            self._say(logging.WARNING, f"{self.output} has no checkpoint yet: the run begins again")
        return checkpoint

    def steps(self, total: int, *, save_at: Collection[int] = (), **parts: Stateful) -> Iterator[int]:
        """The numbers of the updates still to make.

        The parts are first put back to where the checkpoint was taken, if there is one. After each update a checkpoint is
        saved where it is due, and the run stops if a signal told it to.

        Args:
            total: updates in the whole run.
            save_at: numbers of updates after which a checkpoint is due besides.
            parts: what a checkpoint holds, by the name of its file.

        Raises:
            Terminated: after a signal, with a checkpoint saved.
        """
        self.total, self._save_at, start = total, save_at, self._restored(parts)
        self.stop_if_told(start)
        bar = self._open.enter_context(
            tqdm(total=total, initial=start, desc=self.identity["method"], disable=not self.accelerator.is_main_process)
        )
        for step in range(start, total):
            yield step
            done = step + 1
            bar.update()
            if self.history.steps:
                bar.set_postfix({"loss": f"{self.history.steps[-1]['loss']:.4f}", **self.shown})
            told = self._told()
            if self._due(done) or told:
                self._save(done, parts)
            if told and done < total:
                raise Terminated(done, told, self.config.output)
        bar.close()

    def _due(self, done: int) -> bool:
        return done % self.config.save_every == 0 or done == self.total or done in self._save_at

    def made(self, name: str, make: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Rows that the run makes itself, such as answers that it drew and had judged: made once, and read after a kill.

        They are kept as ``made/NAME.jsonl``, which is there when it is whole, or in memory if the run has no directory. A run
        that was continued from an earlier checkpoint makes the updates since then again, with the rows that it made the first
        time.

        Args:
            name: of the file, such as ``"draws/000012"``.
            make: makes the rows.
        """
        if self.output is None:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]
        path = self.output / "made" / f"{name}.jsonl"
        if path.is_file():
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = make()
        self.keep(name, rows)
        return rows

    def keep(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write ``made/NAME.jsonl``, over what was there."""
        if self.writes and self.output:
            path = self.output / "made" / f"{name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path) as partial:
                partial.write_text(
                    "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
                )

    def note(self, **facts: Any) -> None:
        """Add to ``run.json`` what else the run found."""
        self._write(**facts)

    def _told(self) -> int:
        """The number of the signal that any process received, or 0."""
        return max(processes.all_gather(self.accelerator, [max(self._received, default=0)]))

    def stop_if_told(self, done: int = 0) -> None:
        """Stop here if a signal arrived; nothing is saved beyond what was."""
        if told := self._told():
            raise Terminated(done, told, self.config.output)

    def _restored(self, parts: dict[str, Stateful]) -> int:
        """Put the parts and torch's random state back to the checkpoint, if there is one; the updates that it holds."""
        if self.checkpoint is None:
            return 0
        for name, part in parts.items():
            part.restore(self.checkpoint.tensors[name])
        random, here = self.checkpoint.tensors["rng"], self.accelerator.process_index
        # A process that did not exist when the checkpoint was taken uses process 0's random state.
        place = here if f"{here}/cpu" in random else 0
        checkpoints.set_rng_state({n.partition("/")[2]: v for n, v in random.items() if n.startswith(f"{place}/")})
        return self.checkpoint.step

    def _save(self, done: int, parts: dict[str, Stateful]) -> None:
        """A checkpoint after ``done`` updates; all processes must ask.

        Raises:
            NotFiniteError: naming the update and the weight, if one is not finite.
            CheckpointError: if it could not be written.
        """
        try:
            tensors = {name: part.state() for name, part in parts.items()}
        except NotFiniteError as error:
            raise NotFiniteError(f"step {done - 1}: {error}") from None
        own = {f"{self.accelerator.process_index}/{name}": v for name, v in checkpoints.rng_state().items()}
        tensors["rng"] = {n: v for state in processes.all_gather(self.accelerator, [own]) for n, v in state.items()}
        if self.writes and self.output:
            checkpoints.save(self.output / "checkpoints", done, tensors, self.identity, self.config.keep)

    def log(self, step: int, row: Row) -> None:
        """Keep the row of an update; where a checkpoint is due, with what the run's watch measures there."""
        row = {"step": step, **row, "kl": None}
        if self._due(step + 1):
            try:
                row |= self.watch.at_checkpoint()
            except NotFiniteError as error:
                raise NotFiniteError(f"step {step}: {error}") from None
        self.history.steps.append(row)
        if self.writes and self.output:
            with (self.output / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
        self.accelerator.log({k: v for k, v in row.items() if v is not None}, step=step)

    def finish(self) -> History:
        """Measure what stands after the last update, and write the adapters."""
        self.history.after, self.history.samples = self.watch.after(self.history.samples)
        self._write(after=self.history.after)
        if self.writes and self.output:
            with whole(self.output / "samples.json") as partial:
                partial.write_text(json.dumps(self.history.samples, indent=1, ensure_ascii=False), encoding="utf-8")
        if self.output:
            for name, view in (("adapter", "policy"), ("start", "start")):
                if self.policy.views[view] is not None:
                    self.policy.save(self.output / name, view)
        # Not `end_training`: it would end the group of processes too, and with it the next run.
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.wait_for_everyone()
        return self.history

    def _write(self, **content: object) -> None:
        """Add to ``run.json``."""
        self.content |= content
        if self.writes and self.output:
            with whole(self.output / "run.json") as partial:
                partial.write_text(json.dumps(self.content, indent=1), encoding="utf-8")

    def _steps_until(self, step: int) -> list[Row]:
        """The metrics of the steps before ``step``; later ones, which will be made again, are dropped from the file."""
        assert self.output is not None
        path = self.output / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        rows = [row for row in rows if row["step"] < step]
        if self.writes:
            with whole(path) as partial:
                partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return rows

    def _say(self, level: int, sentence: str) -> None:
        if self.accelerator.is_main_process:
            logger.log(level, sentence)


def add(output: str | Path, **content: object) -> None:
    """Add to the ``run.json`` of a run that is over."""
    path = Path(output) / "run.json"
    facts = json.loads(path.read_text()) | content
    with whole(path) as partial:
        partial.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _version(package: str) -> str | None:
    """Of a package; None if it is not installed, as the toolkit itself where it runs from its source."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _tokenizer_digest(tokenizer: Tokenizer) -> str:
    return digest_of(tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else tokenizer.get_vocab())
