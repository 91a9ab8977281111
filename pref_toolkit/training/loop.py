"""The training loop: score responses under policy and reference, take the method's loss, step the adapters.

Everything a run decides is visible in :func:`train`; what a loss reads is made in ``inputs.py``, what a run
writes is in ``run.py``, how it survives in ``checkpoints.py``.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
from pref_toolkit.errors import Complaint, NotFiniteError
from pref_toolkit.losses import find_method
from pref_toolkit.training import checkpoints, generation, models, processes, references, run
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.inputs import Inputs, Scored, joined
from pref_toolkit.training.scoring import Scorer, dropout_in_adapters_only, reference, rewards, score


class Terminated(SystemExit):
    """SIGTERM arrived; a checkpoint was saved if the run has a directory. Exit code 143."""

    def __init__(self, step: int) -> None:
        super().__init__(143)
        self.step = step


@dataclass
class History:
    """What a run measured.

    ``steps`` holds one dict per update, ``before`` and ``after`` the held-out examples' metrics, ``samples`` a few answers
    before and after, ``data`` what was left out or changed of the data, ``model`` the trained policy, ``output`` its directory,
    ``reward_head`` the map from hidden states to rewards of a reward model.
    """

    model: Any
    steps: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, str]] = field(default_factory=list)
    data: Report | None = None
    output: Path | None = None
    reward_head: torch.nn.Linear | None = None


def train(
    model: Any,
    tokenizer: Any,
    examples: Any,
    method: str = "dpo",
    config: TrainConfig | None = None,
    **hyperparameters: float | str,
) -> History:
    """Train a policy's LoRA adapters on preference examples; of a reward model, the reward head too.

    An update is the mean of the method's loss over ``batch_size`` examples, however they are split into forwards or devices.
    Several devices are used if the process was started by ``accelerate launch`` or ``torchrun``.

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
    chosen_method = find_method(method)
    settings = chosen_method.check(**hyperparameters)
    torch.manual_seed(config.seed)
    # Without `cpu`, accelerate takes several processes without a GPU for so many single ones, and Apple's GPU, which has no
    # float64, for one to train on.
    no_gpu = not torch.cuda.is_available()
    accelerator = Accelerator(cpu=no_gpu, log_with=config.log_with, project_dir=config.output)
    if isinstance(model, str):
        model, tokenizer = models.load(model, precision=config.precision)
    encoded, report = prepare(examples, tokenizer, max_length=config.max_length, on_bad_row=config.on_bad_row)
    inputs = Inputs(chosen_method, settings, accelerator)
    encoded = inputs.fitting(encoded, report, config.on_bad_row)
    run.check_positions(encoded, model.config)
    training, held_out = run.split(encoded, config)
    if config.batch_size < accelerator.num_processes:
        raise Complaint(f"batch_size must be at least the {accelerator.num_processes} processes that share an update")
    policy = models.with_adapters(model, rank=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout)
    if not processes.sharded(accelerator):  # else each process is given its part of the weights only, below
        policy = policy.to(accelerator.device)
    # A reward model answers nothing.
    shown = [] if inputs.trains_rewards else run.fitting(held_out or training, policy.config, config)[: config.samples]
    longest = max(run.longest(encoded), max((len(e.prompt) + config.sample_tokens for e in shown), default=0))
    reward_head = models.new_reward_head(policy) if inputs.trains_rewards else None
    scorer = Scorer(policy, longest, config.route, reward_head, config.gradient_checkpointing, accelerator.device)
    fingerprint = models.fingerprint(policy)
    if config.reference_store:
        facts = references.identity(scorer, fingerprint, accelerator)
        inputs.store = references.Store(config.reference_store, facts)
    trained = [p for p in scorer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    scorer, optimizer = processes.prepared(accelerator, scorer, optimizer)
    weights = models.trainable(policy)
    if reward_head is not None:
        weights["reward_head.weight"] = reward_head.weight
    total = config.max_steps or run.steps_in(config, len(training))
    output = Path(config.output) if config.output else None
    history = History(policy, data=report, output=output, reward_head=reward_head)
    record = run.Record(
        accelerator, output, config, method, settings, policy, fingerprint, tokenizer, encoded, report, scorer.route
    )
    accelerator.print(f"{report}\n{method} on {len(training)} examples, {len(held_out)} held out")
    if scorer.obstacle:
        accelerator.print(f"scoring by the slower {scorer.way or 'route ' + repr(scorer.route)}: {scorer.obstacle}")

    start = 0
    if config.resume and (checkpoint := record.newest()):
        start = checkpoint.step
        run.restore(accelerator, checkpoint, weights, optimizer)
        inputs.restore(checkpoint.tensors.get("inputs", {}))
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
    with terminating() as stop:
        try:
            inputs.prepare(scorer, training, config.tokens_per_forward, stop)
        except references.Interrupted:
            raise Terminated(start) from None
    if config.log_with:
        accelerator.init_trackers("pref_toolkit", config=record.facts())

    def save(step: int) -> None:
        tensors = run.state(accelerator, weights, optimizer, inputs.state())
        for name, value in tensors["adapter"].items():
            if not torch.isfinite(value).all():
                raise NotFiniteError(f"step {step - 1}: weight {name!r} is not finite")
        record.save(step, tensors)

    dropout_in_adapters_only(policy)
    forward_tokens = config.tokens_per_forward
    with (
        terminating() as stop,
        tqdm(total=total, initial=start, desc=method, disable=not accelerator.is_main_process) as bar,
    ):
        for step in range(start, total):
            began = time.perf_counter()
            batch = [training[i] for i in run.indices(step, config, len(training))]
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
            while True:
                random = checkpoints.rng_state()
                optimizer.zero_grad()
                try:
                    around = inputs.around(scorer, batch, forward_tokens, step)
                    losses, scored = accumulate(accelerator, scorer, batch, inputs, around, forward_tokens, step)
                    break
                except torch.cuda.OutOfMemoryError:
                    if not processes.divisible(accelerator, scorer, batch, forward_tokens):
                        raise
                # Here and not above, where the error would still hold what the forward had kept.
                forward_tokens = min(forward_tokens, sum(map(packed_length, batch))) // 2
                checkpoints.set_rng_state(random)
                torch.cuda.empty_cache()
                accelerator.print(f"step {step}: out of memory; going on with {forward_tokens} tokens in a forward")
            processes.add_gradients(accelerator, weights.values())
            norm = float(processes.whole(accelerator.clip_grad_norm_(weights.values(), config.max_grad_norm)))
            if norm != norm or norm == float("inf"):
                raise NotFiniteError(f"step {step}: the gradient is not finite")
            optimizer.step()
            inputs.after(scored)
            row = {
                "step": step,
                "loss": losses.mean().item(),
                **inputs.measured(scored),
                "kl": None,  # drawn below, where a checkpoint is due
                "gradient_norm": norm,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "tokens": sum(map(packed_length, batch)),
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
            told_to_stop = any(processes.everyones(accelerator, [bool(stop)]))
            if due or told_to_stop:
                save(done)
            if told_to_stop and done < total:
                raise Terminated(done)
    history.after = evaluate(scorer, held_out, accelerator.device, config.tokens_per_forward)
    answers, history.after["kl"] = draw(scorer, tokenizer, shown, config, accelerator.device)
    history.samples = [sample | {"after": answer} for sample, answer in zip(history.samples, answers)]
    record.finish(history.after, history.samples, policy, {name: processes.whole(w) for name, w in weights.items()})
    # Not `end_training`: it would end the group of processes too, and with it the next run.
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()
    return history


def accumulate(
    accelerator: Accelerator,
    scorer: Scorer,
    batch: list[Encoded],
    inputs: Inputs,
    around: dict[str, Any],
    forward_tokens: int,
    step: int,
) -> tuple[Tensor, Scored]:
    """Gradients of the mean loss of an update, from this process's share of it; losses and scores of the whole update.

    Where the examples' losses depend on one another and do not go in one forward, all are scored twice: first without gradient,
    then in turn with it, each part among the values of the others. The sum of the parts' gradients is the whole one, whatever
    the loss.
    """
    parts, idle = processes.shares(accelerator, scorer, [inputs.arranged(e) for e in batch], forward_tokens)
    # Where processes hold parts of the weights, the last forward of each exchanges gradients, and the mean of them is taken.
    scale = accelerator.num_processes if processes.sharded(accelerator) else 1
    random = checkpoints.rng_state()

    def scored(part: list[Encoded]) -> Scored:
        collated = scorer.collate(part).to(accelerator.device)
        under_reference = inputs.under_reference(scorer, collated, part)
        under_policy = scorer(collated, inputs.of_policy, under_reference.pop("hidden", None))
        return Scored(part, inputs.k, collated.tokens, under_policy, under_reference, around)

    def without_gradient() -> list[Scored]:
        with torch.no_grad():
            return [scored(part) for part in [*parts, *idle]][: len(parts)]

    def with_gradient(mine: list[Scored], others: list[Scored]) -> tuple[list[Tensor], list[Scored]]:
        losses = []
        for n, part in enumerate([*parts, *idle]):
            last = n == len(parts) + len(idle) - 1
            with accelerator.no_sync(scorer) if processes.sharded(accelerator) and not last else nullcontext():
                live = scored(part)
                if n >= len(parts):
                    accelerator.backward(0 * torch.stack([value.sum() for value in live.policy.values()]).sum())
                    continue
                mine[n : n + 1] = [live]
                together = joined([*mine, *others]) if inputs.method.batchwise else live
                loss = inputs.loss(together)
                if not (finite := torch.isfinite(loss)).all():
                    example = together.examples[finite.tolist().index(False)]
                    raise NotFiniteError(f"step {step}: the loss of {example.where} is not finite")
                accelerator.backward(loss.sum() * scale / len(batch))
            mine[n] = live.detach()
            losses.append(loss.detach())
        return losses, mine

    mine: list[Scored] = []
    others: list[Scored] = []
    if inputs.method.batchwise and (len(parts) > 1 or accelerator.num_processes > 1):
        mine = processes.agreed(accelerator, without_gradient)
        checkpoints.set_rng_state(random)  # the same dropout when they are scored again
        others = inputs.others(joined(mine))
    losses, mine = processes.agreed(accelerator, lambda: with_gradient(mine, others))
    if inputs.method.batchwise:
        return losses[-1], joined([*mine, *others])
    everyones = [loss.cpu() for loss in processes.everyones(accelerator, [torch.cat(losses).cpu()])]
    return torch.cat(everyones), joined([*mine, *inputs.others(joined(mine))])


def evaluate(scorer: Scorer, examples: list[Encoded], device: Any, forward_tokens: int = 8192) -> dict[str, Any]:
    """Metrics of examples under policy and reference, ``{}`` if there are none. See :func:`pref_toolkit.metrics.preference`."""
    if not examples:
        return {}
    if scorer.reward_head is not None:
        return {
            "examples": len(examples),
            **metrics.rewards(rewards(scorer, examples, device, forward_tokens, "held out")),
        }
    policy, under_reference = score(scorer, examples, device, forward_tokens, "held out")
    return {
        "examples": len(examples),
        **metrics.preference(policy, under_reference),
        "length_spearman": metrics.length_spearman(policy),
    }


def draw(
    scorer: Scorer, tokenizer: Any, examples: list[Encoded], config: TrainConfig, device: Any
) -> tuple[list[str], float | None]:
    """One sampled answer to each example's prompt, and the sampled KL from policy to reference in nats per answer."""
    if not examples:
        return [], None
    prompts = [e.prompt for e in examples]
    with processes.gathered(scorer):
        answers = generation.sample(
            scorer.model, tokenizer, prompts, max_new_tokens=config.sample_tokens, seed=config.seed
        )
    sampled = [Encoded(p, [a], where="sample") for p, a in zip(prompts, answers)]
    policy, under_reference = score(scorer, sampled, device, config.tokens_per_forward, "kl")
    kl, _ = metrics.sampled_kl(policy.sums[:, 0], under_reference.sums[:, 0])
    return [tokenizer.decode(a, skip_special_tokens=True) for a in answers], kl


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
