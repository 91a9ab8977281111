"""The training loop: score pairs under policy and reference, take the method's loss, step the adapters.

Everything a run decides is visible in :func:`train`; what it writes is in ``run.py``, how it survives in ``checkpoints.py``.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from pref_toolkit import metrics
from pref_toolkit.data import Report, prepare
from pref_toolkit.data.batches import packed_length
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.logps import Logps
from pref_toolkit.losses import Method
from pref_toolkit.training import checkpoints, generation, models, run
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.models import NotFiniteError
from pref_toolkit.training.scoring import Scorer, dropout_in_adapters_only, evaluation, logps, reference


class Terminated(SystemExit):
    """SIGTERM arrived; a checkpoint was saved if the run has a directory. Exit code 143."""

    def __init__(self, step: int) -> None:
        super().__init__(143)
        self.step = step


@dataclass
class History:
    """What a run measured.

    ``steps`` holds one dict per update, ``before`` and ``after`` the held-out examples' metrics, ``samples`` a few answers
    before and after, ``data`` what was left out or changed of the data, ``model`` the trained policy, ``output`` its directory.
    """

    model: Any
    steps: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, str]] = field(default_factory=list)
    data: Report | None = None
    output: Path | None = None


def train(
    model: Any,
    tokenizer: Any,
    examples: Any,
    method: str = "dpo",
    config: TrainConfig | None = None,
    **hyperparameters: float,
) -> History:
    """Train a policy's LoRA adapters on preference examples.

    An update is the mean of the method's loss over ``batch_size`` examples, however they are split into forwards or devices.

    Args:
        model: a causal LM, a PeftModel, a hub id, a directory, ``"tiny"`` or ``"lab"``.
        tokenizer: the model's tokenizer; None if the model is a name.
        examples: rows (dicts, a path, or a ``datasets.Dataset``) in any accepted form, see :mod:`pref_toolkit.data`.
        method: a name in :data:`pref_toolkit.losses.METHODS`.
        config: how to train.
        hyperparameters: the method's own, in its paper's symbols.

    Raises:
        ValueError: for an unknown method or hyperparameter, bad data, or a checkpoint of another run; in one sentence.
        NotFiniteError: naming the step and row or tensor, if a weight, loss or gradient is not finite.
        Terminated: after SIGTERM, with a checkpoint saved.
    """
    config = config or TrainConfig()
    chosen_method = run.find_method(method)
    settings = chosen_method.check(**hyperparameters)
    torch.manual_seed(config.seed)
    accelerator = Accelerator(log_with=config.log_with, project_dir=config.output)
    if isinstance(model, str):
        model, tokenizer = models.load(model, precision=config.precision)
    encoded, report = prepare(examples, tokenizer, max_length=config.max_length, on_bad_row=config.on_bad_row)
    training, held_out = run.split(encoded, config)
    policy = models.with_adapters(
        model, rank=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout
    ).to(accelerator.device)
    scorer = Scorer(policy, config.max_length, config.route)
    weights = models.trainable(policy)
    optimizer = torch.optim.AdamW(weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
    wrapped, optimizer = accelerator.prepare(scorer, optimizer)
    total = config.max_steps or run.steps_in(config, len(training))
    history = History(policy, data=report, output=Path(config.output) if config.output else None)
    record = run.Record(history.output, config, method, settings, policy, tokenizer, encoded, report, scorer.route)
    accelerator.print(f"{report}\n{method} on {len(training)} examples, {len(held_out)} held out")
    if scorer.obstacle:
        accelerator.print(f"scoring by the slower route {scorer.route!r}: {scorer.obstacle}")

    shown = (held_out or training)[: config.samples]
    start = 0
    if config.resume and (checkpoint := record.newest()):
        start = checkpoint.step
        run.restore(checkpoint, weights, optimizer)
        history.steps = record.steps_until(start)
        history.before, history.samples = record.content["before"], record.content["samples"]
    else:
        record.begin()
        history.before = evaluate(scorer, held_out, accelerator.device, config.tokens_per_forward)
        with reference(policy):
            answers, _ = draw(scorer, tokenizer, shown, config, accelerator.device)
        history.samples = [
            {"prompt": tokenizer.decode(e.prompt, skip_special_tokens=True), "before": a}
            for e, a in zip(shown, answers)
        ]
        record.write(before=history.before, samples=history.samples)
    if config.log_with:
        accelerator.init_trackers("pref_toolkit", config=record.facts())

    def save(step: int) -> None:
        for name, value in weights.items():
            if not torch.isfinite(value).all():
                raise NotFiniteError(f"step {step - 1}: weight {name!r} is not finite")
        if accelerator.is_main_process:
            record.save(step, weights, optimizer)

    dropout_in_adapters_only(policy)
    forward_tokens = config.tokens_per_forward
    with (
        terminating() as stop,
        tqdm(total=total, initial=start, desc=method, disable=not accelerator.is_main_process) as bar,
    ):
        for step in range(start, total):
            began = time.perf_counter()
            batch = [training[i] for i in run.indices(step, config, len(training))]
            mine = batch[accelerator.process_index :: accelerator.num_processes]
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
            while True:
                random = checkpoints.rng_state()
                optimizer.zero_grad()
                try:
                    losses, policy_logps, reference_logps = accumulate(
                        accelerator, wrapped, mine, len(batch), chosen_method, settings, forward_tokens, step
                    )
                    break
                except torch.cuda.OutOfMemoryError:
                    if all(len(part) == 1 for part in micro_batches(mine, forward_tokens)):
                        raise
                    forward_tokens //= 2
                    checkpoints.set_rng_state(random)
                    torch.cuda.empty_cache()
                    accelerator.print(f"step {step}: out of memory; going on with {forward_tokens} tokens in a forward")
            norm = float(accelerator.clip_grad_norm_(weights.values(), config.max_grad_norm))
            if norm != norm or norm == float("inf"):
                raise NotFiniteError(f"step {step}: the gradient is not finite")
            optimizer.step()
            row = {
                "step": step,
                "loss": losses.mean().item(),
                **metrics.preference(policy_logps, reference_logps),
                "kl": None,  # drawn below, where a checkpoint is due
                "gradient_norm": norm,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "tokens": sum(packed_length(e) for e in batch),
                "seconds": time.perf_counter() - began,
            }
            done = step + 1
            due = done % config.save_every == 0 or done == total
            if due and shown:
                try:
                    _, row["kl"] = draw(scorer, tokenizer, shown, config, accelerator.device)
                except NotFiniteError as error:
                    raise NotFiniteError(f"step {step}: {error}") from None
            history.steps.append(row)
            record.append(row)
            accelerator.log({k: v for k, v in row.items() if v is not None}, step=step)
            bar.update()
            bar.set_postfix(loss=f"{row['loss']:.4f}")
            if due or stop:
                save(done)
            if stop and done < total:
                raise Terminated(done)
    history.after = evaluate(scorer, held_out, accelerator.device, config.tokens_per_forward)
    answers, history.after["kl"] = draw(scorer, tokenizer, shown, config, accelerator.device)
    history.samples = [sample | {"after": answer} for sample, answer in zip(history.samples, answers)]
    record.finish(history.after, history.samples, policy)
    accelerator.end_training()
    return history


def accumulate(
    accelerator: Accelerator,
    scorer: torch.nn.Module,
    examples: list[Encoded],
    total: int,
    method: Method,
    settings: dict[str, Any],
    forward_tokens: int,
    step: int,
) -> tuple[Tensor, Logps, Logps | None]:
    """Gradients of the mean loss over all ``total`` examples of an update, from this process's share of them."""
    losses, policies, references = [], [], []
    policy_model = accelerator.unwrap_model(scorer)
    parts = micro_batches(examples, forward_tokens)
    for n, part in enumerate(parts):
        batch = policy_model.collate(part).to(accelerator.device)
        inputs: dict[str, Any] = {}
        if "reference" in method.needs:
            with reference(policy_model.model):
                inputs["reference"] = logps(policy_model, batch)
            references.append(inputs["reference"])
        # Devices exchange gradients once an update, with its last forward.
        with accelerator.no_sync(scorer) if n < len(parts) - 1 else _nothing():
            inputs["policy"] = logps(scorer, batch)
            loss = method.loss(*(inputs[name] for name in method.needs), **settings)
            for example, value in zip(part, loss):
                if not torch.isfinite(value):
                    raise NotFiniteError(f"step {step}: the loss of {example.where} is not finite")
            # Devices average their gradients; the sum over all of them is what the mean over the update needs.
            accelerator.backward(loss.sum() * accelerator.num_processes / total)
        losses.append(loss.detach())
        policies.append(inputs["policy"].detach())
    return torch.cat(losses), joined(policies), joined(references) if references else None


def evaluate(scorer: Scorer, examples: list[Encoded], device: Any, forward_tokens: int = 8192) -> dict[str, Any]:
    """Metrics of examples under policy and reference, ``{}`` if there are none. See :func:`pref_toolkit.metrics.preference`."""
    if not examples:
        return {}
    policy, under_reference = score(scorer, examples, device, forward_tokens, "held out")
    return {
        "examples": len(examples),
        **metrics.preference(policy, under_reference),
        "length_spearman": metrics.length_spearman(policy),
    }


def score(scorer: Scorer, examples: list[Encoded], device: Any, forward_tokens: int, what: str) -> tuple[Logps, Logps]:
    """Log-probabilities of all responses under policy and reference, without dropout or gradient."""
    policies, references = [], []
    parts = micro_batches(examples, forward_tokens)
    for part in tqdm(parts, desc=what, leave=False, disable=len(parts) < 2):
        batch = scorer.collate(part).to(device)
        with evaluation(scorer.model):
            policies.append(logps(scorer, batch))
        with reference(scorer.model):
            references.append(logps(scorer, batch))
    return joined(policies), joined(references)


def draw(
    scorer: Scorer, tokenizer: Any, examples: list[Encoded], config: TrainConfig, device: Any
) -> tuple[list[str], float | None]:
    """One sampled answer to each example's prompt, and the sampled KL from policy to reference in nats per answer."""
    if not examples:
        return [], None
    prompts = [e.prompt for e in examples]
    answers = generation.sample(scorer.model, tokenizer, prompts, max_new_tokens=config.sample_tokens, seed=config.seed)
    sampled = [Encoded(p, [a], where="sample") for p, a in zip(prompts, answers)]
    policy, under_reference = score(scorer, sampled, device, config.tokens_per_forward, "kl")
    kl, _ = metrics.sampled_kl(policy.sums[:, 0], under_reference.sums[:, 0])
    return [tokenizer.decode(a, skip_special_tokens=True) for a in answers], kl


def joined(records: list[Logps]) -> Logps:
    """Several records as one, in order."""
    return Logps(torch.cat([r.sums for r in records]), torch.cat([r.tokens for r in records]))


def micro_batches(examples: list[Encoded], tokens: int) -> list[list[Encoded]]:
    """Examples in order, in groups of at most ``tokens`` tokens; a longer example goes alone."""
    groups: list[list[Encoded]] = []
    used = tokens + 1
    for example in examples:
        used += packed_length(example)
        if used > tokens:
            groups.append([])
            used = packed_length(example)
        groups[-1].append(example)
    return groups


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def terminating() -> Iterator[list[int]]:
    """A list that fills when SIGTERM arrives, so that the step under way can end."""
    received: list[int] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    except ValueError:  # not in the main thread, where signals cannot be taken
        yield received
        return
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
