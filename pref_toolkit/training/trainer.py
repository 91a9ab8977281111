"""One update of one adapter: score responses under policy and reference, take the method's loss, step the adapter."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pref_toolkit import metrics
from pref_toolkit.data import DataError
from pref_toolkit.data.batches import Batch, packed_length
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import Complaint, NotFiniteError
from pref_toolkit.training import checkpoints, processes, references
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.objective import Objective, Scored, joined, with_target_last
from pref_toolkit.training.policy import Policy
from pref_toolkit.training.scoring import DISTRIBUTIONS
from pref_toolkit.training.whole_update import WHOLE_UPDATE, WholeUpdate

logger = logging.getLogger(__name__)

Row = dict[str, float | int | None]
"""One line of ``metrics.jsonl``."""


@dataclass(frozen=True)
class Update:
    """The gradients of an update, which are in the adapter's weights, and what they were computed from.

    Args:
        losses: ``(B,)``.
        scored: the examples of the whole update, of all processes.
        tokens: positions that the examples take when packed.
        began: when the update began, in seconds.
    """

    losses: Tensor
    scored: Scored
    tokens: int
    began: float


class Trainer:
    """One adapter of a policy, one objective, one optimiser.

    An update is the mean of the method's loss over its examples, however they are split into forwards or devices.

    Args:
        policy: from :meth:`pref_toolkit.training.policy.Policy.to_train`.
        objective: whose view ``policy`` names the adapter that is trained.
        config: how to train.

    Raises:
        Complaint: if an update has fewer examples than processes.
        ModelError: if the method reads whole distributions, which the model does not show.
    """

    def __init__(self, policy: Policy, objective: Objective, config: TrainConfig) -> None:
        if config.batch_size < (number := policy.devices.num_processes):
            raise Complaint(f"batch_size must be at least the {number} processes that share an update")
        if DISTRIBUTIONS & {*objective.of_policy} or "dispersion" in objective.method.needs:
            policy.scorer().check_head()
        self.policy, self.objective, self.config = policy, objective, config
        self.weights = policy.weights(objective.views["policy"] or "policy")
        for weight in self.weights.values():
            weight.requires_grad_(True)
        view, store = objective.views["reference"], None
        if config.reference_store:
            store = references.Store(config.reference_store, references.identity(policy, view))
        self.reference = references.Reference(policy, view, objective.of_reference, store)
        self.whole_update: dict[str, WholeUpdate] = {
            name: WHOLE_UPDATE[name](objective, policy) for name in objective.method.needs if name in WHOLE_UPDATE
        }
        self.forward_tokens = config.tokens_per_forward
        self.stored = False  # whether the reference's readings are those that `prepare` kept
        self.updates = 0
        self.forget()

    def forget(self) -> None:
        """Start again with a fresh optimiser."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        optimizer = torch.optim.AdamW(self.weights.values(), lr=rate, weight_decay=decay)
        self.optimizer = self.policy.devices.prepare_optimizer(optimizer)

    def prepare(self, training: Sequence[Encoded], between: Callable[[], None] = lambda: None) -> None:
        """Compute what must be known of all training examples: stored readings of the reference, dispersions.

        Args:
            training: all examples that will be trained on.
            between: called from time to time in a long pass; it may raise to end it.

        Raises:
            NotFiniteError: naming the example whose dispersion is not a finite number.
        """
        dispersed = "dispersion" in self.whole_update
        once = self.objective.of_reference if dispersed or self.reference.store is not None else []
        if not {*once} <= references.KEPT:
            self._say(logging.INFO, f"reference: live, {self.objective.method.name} reads its whole distributions")
            once = []
        if wanted := [*once, "entropies"] if dispersed else once:
            with self.policy.scorer().taken.applied():
                self.reference.keep([with_target_last(e) for e in training], wanted, between)
        self.stored = bool(once)
        for own in self.whole_update.values():
            own.before_training(self.reference, training)

    # An update

    def update(self, examples: Sequence[Encoded], rate: float) -> Row:
        """Make one update: :meth:`gradients`, then :meth:`step`."""
        return self.step(self.gradients(examples), rate)

    def gradients(self, examples: Sequence[Encoded]) -> Update:
        """Put the gradients of the mean loss of these examples into the adapter's weights.

        Out of memory on a GPU, it begins again with smaller forwards, which it keeps to.

        Raises:
            NotFiniteError: naming the update and the row, if a loss is not finite.
        """
        began = time.perf_counter()
        while True:
            random = checkpoints.rng_state()
            self.optimizer.zero_grad()
            try:
                with self._update_named(), self.policy.scorer().taken.applied():
                    for own in self.whole_update.values():
                        own.before_update(examples, self.forward_tokens)
                    losses, scored = self._accumulated([with_target_last(e) for e in examples])
                return Update(losses, scored, sum(map(packed_length, examples)), began)
            except torch.cuda.OutOfMemoryError:
                scorer = self.policy.scorer()
                if not processes.divisible(self.policy.devices, scorer, examples, self.forward_tokens):
                    raise
            # Here and not above, where the error would still hold what the forward had kept.
            self.forward_tokens = min(self.forward_tokens, sum(map(packed_length, examples))) // 2
            checkpoints.set_rng_state(random)
            torch.cuda.empty_cache()
            told = f"step {self.updates}: out of memory; going on with {self.forward_tokens} tokens in a forward"
            self._say(logging.WARNING, told)

    def step(self, update: Update, rate: float) -> Row:
        """Step the adapter along its gradients, summed over processes and clipped, with a learning rate.

        The row holds the mean ``loss`` in nats, the metrics of :meth:`pref_toolkit.training.objective.Objective.metrics`,
        ``gradient_norm`` before clipping, ``learning_rate``, ``tokens``, and ``seconds`` since the gradients were asked for.

        Raises:
            NotFiniteError: naming the update, if the gradient is not finite.
        """
        processes.add_gradients(self.policy.devices, self.weights.values())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        clipped = self.policy.devices.clip_grad_norm_(self.weights.values(), self.config.max_grad_norm)
        norm = float(processes.full(clipped))
        if not math.isfinite(norm):
            raise NotFiniteError(f"step {self.updates}: the gradient is not finite")
        self.optimizer.step()
        for own in self.whole_update.values():
            own.after_update(update.scored)
        self.updates += 1
        return {
            "loss": update.losses.mean().item(),
            **self.objective.metrics(update.scored),
            "gradient_norm": norm,
            "learning_rate": rate,
            "tokens": update.tokens,
            "seconds": time.perf_counter() - update.began,
        }

    def _accumulated(self, examples: list[Encoded]) -> tuple[Tensor, Scored]:
        """Gradients from this process's share of the update; losses and scores of the whole update.

        Some losses read the whole update. If it does not fit in one forward, every micro-batch is first scored without
        gradient; then each is scored again with gradient while the values of the others are held fixed. These gradients add
        up to the exact one, whatever the loss.
        """
        devices, batchwise = self.policy.devices, self.objective.method.batchwise
        shares = processes.own_micro_batches(devices, self.policy.scorer(), examples, self.forward_tokens)
        random = checkpoints.rng_state()
        own: list[Scored] = []
        others: list[Scored] = []
        with self.policy.view(self.objective.views["policy"], live=True):
            if batchwise and (len(shares[0]) > 1 or devices.num_processes > 1):
                own = processes.agreed(devices, lambda: self._without_gradient(*shares))
                checkpoints.set_rng_state(random)  # the same dropout when they are scored again
                others = self._of_others(joined(own))
            losses, own = processes.agreed(devices, lambda: self._with_gradient(*shares, own, others, len(examples)))
        if batchwise:
            return losses[-1], joined([*own, *others])
        everyone = [loss.cpu() for loss in processes.all_gather(devices, [torch.cat(losses).cpu()])]
        return torch.cat(everyone), joined([*own, *self._of_others(joined(own))])

    def _without_gradient(self, parts: list[list[Encoded]], idle: list[list[Encoded]]) -> list[Scored]:
        with torch.no_grad():
            return [self._scored(part) for part in [*parts, *idle]][: len(parts)]

    def _with_gradient(
        self, parts: list[list[Encoded]], idle: list[list[Encoded]], own: list[Scored], others: list[Scored], total: int
    ) -> tuple[list[Tensor], list[Scored]]:
        """Losses and scores of this process's micro-batches, their gradients left in the weights.

        Args:
            parts: the micro-batches.
            idle: those it runs because others run more, see :func:`processes.own_micro_batches`.
            own: where a loss reads the whole update, what the micro-batches were scored before; else empty.
            others: the same of other processes.
            total: examples in the update.
        """
        sharded, losses, own = processes.sharded(self.policy.devices), [], [*own]
        # Where processes hold parts of the weights, the last backward exchanges gradients, and takes their mean.
        scale = self.policy.devices.num_processes if sharded else 1
        for n, part in enumerate([*parts, *idle]):
            last = n == len(parts) + len(idle) - 1
            with self.policy.devices.no_sync(self.policy.scorer()) if sharded and not last else nullcontext():
                live = self._scored(part)
                if n >= len(parts):
                    # The other processes wait for this backward, which adds nothing.
                    self.policy.devices.backward(0 * torch.stack([v.sum() for v in live.policy.values()]).sum())
                    continue
                together = joined([*own[:n], live, *own[n + 1 :], *others]) if self.objective.method.batchwise else live
                loss = self._loss(together)
                self.policy.devices.backward(loss.sum() * scale / total)
            own[n : n + 1] = [live.detach()]
            losses.append(loss.detach())
        return losses, own

    def _scored(self, part: list[Encoded]) -> Scored:
        """A micro-batch under reference and policy."""
        scorer = self.policy.scorer()
        batch = scorer.collate(part).to(self.policy.device)
        under_reference = self.reference.kept(part) if self.stored else self._under_reference(batch)
        under_policy = scorer(batch, self.objective.of_policy, under_reference.pop("hidden", None))
        return Scored(part, batch.tokens, under_policy, under_reference, {}, self._under_opponent(batch))

    def _under_opponent(self, batch: Batch) -> dict[str, Tensor]:
        if not self.objective.of_opponent:
            return {}
        readings: dict[str, Tensor]
        with self.policy.view(self.objective.views["opponent"]):
            readings = self.policy.scorer()(batch, self.objective.of_opponent)
        return readings

    def _under_reference(self, batch: Batch) -> dict[str, Tensor]:
        if not self.objective.of_reference:
            return {}
        readings: dict[str, Tensor]
        with self.policy.view(self.objective.views["reference"]):
            readings = self.policy.scorer()(batch, self.objective.of_reference)
        return readings

    def _loss(self, scored: Scored) -> Tensor:
        stats = {name: own.value(scored.examples) for name, own in self.whole_update.items()}
        loss = self.objective.loss(replace(scored, batch_stats=stats))
        if not (finite := torch.isfinite(loss)).all():
            example = scored.examples[finite.tolist().index(False)]
            raise NotFiniteError(f"the loss of {example.where} is not finite")
        return loss

    def _of_others(self, own: Scored) -> list[Scored]:
        """The scores of the other processes in this update."""
        here = self.policy.devices.process_index
        everyone = processes.all_gather(self.policy.devices, [(here, own.to("cpu"))])
        return [scored.to(self.policy.device) for place, scored in everyone if place != here]

    @contextmanager
    def _update_named(self) -> Iterator[None]:
        """Errors inside say in which update they came up."""
        try:
            yield
        except (NotFiniteError, DataError) as error:
            raise type(error)(f"step {self.updates}: {error}") from None

    def _say(self, level: int, sentence: str) -> None:
        if self.policy.devices.is_main_process:
            logger.log(level, sentence)

    def exchange(self, other: Trainer) -> None:
        """Change places with the trainer of an adapter of the same shape: weights and moments, not objectives."""
        with torch.no_grad():
            for own, others in zip(self.weights.values(), other.weights.values()):
                kept = own.clone()
                own.copy_(others)
                others.copy_(kept)
                mine, theirs = self.optimizer.state[own], other.optimizer.state[others]
                self.optimizer.state[own], other.optimizer.state[others] = theirs, mine

    # Around updates

    def evaluate(self, examples: Sequence[Encoded]) -> Row:
        """Metrics of examples under policy and reference, ``{}`` if there are none.

        Methods without a reference are measured against it too: that is how much they displaced. See
        :func:`pref_toolkit.metrics.preference`.
        """
        return evaluate(self.policy, examples, self.objective.views["reference"])

    def state(self) -> dict[str, Tensor]:
        """What a continued run needs besides the weights: the optimiser's, the inputs' of whole updates, the count."""
        moments = {
            f"optimizer|{name}|{part}": processes.full(value)
            for name, w in self.weights.items()
            for part, value in self.optimizer.state[w].items()
        }
        inputs = {f"input|{name}|{k}": v for name, own in self.whole_update.items() for k, v in own.state().items()}
        return {"updates": torch.tensor(self.updates), **moments, **inputs}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Back to where :meth:`state` was taken."""
        self.updates = int(state["updates"])
        inputs: dict[str, dict[str, Tensor]] = {name: {} for name in self.whole_update}
        for key, value in state.items():
            kind, _, rest = key.partition("|")
            name, _, part = rest.rpartition("|")
            if kind == "optimizer":
                weight = self.weights[name]
                moment = value if part == "step" else processes.spread_like(value, weight)
                self.optimizer.state[weight][part] = moment
            elif kind == "input":
                inputs[name][part] = value
        for name, own in self.whole_update.items():
            own.restore(inputs[name])


def evaluate(policy: Policy, examples: Sequence[Encoded], reference: str | None = "start") -> Row:
    """Metrics of a policy, or a reward model, on examples: :func:`pref_toolkit.metrics.preference` and, of a policy, the rank
    correlation of a response's log-probability with its length. ``{}`` if there are no examples.
    """
    if not examples:
        return {}
    if policy.head() is not None:
        return {"examples": len(examples), **metrics.rewards(policy.rewards(examples, what="held out"))}
    own = policy.logps(examples, what="held out")
    compared = metrics.preference(own, policy.logps(examples, view=reference, what="held out"))
    return {"examples": len(examples), **compared, "length_spearman": metrics.length_spearman(own)}
