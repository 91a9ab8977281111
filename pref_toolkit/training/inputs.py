"""What a loss is given: every name in a method's ``needs``, and how it is made.

An input is made of one forward of the policy, of one of the reference, of a field of the row, or of the whole update or data
set. ``INPUTS`` says which; no method is named here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from pref_toolkit import metrics
from pref_toolkit.data import DataError, Report
from pref_toolkit.data.batches import Batch
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import NotFiniteError
from pref_toolkit.logps import Logps
from pref_toolkit.losses import Method
from pref_toolkit.training import processes, references
from pref_toolkit.training.references import Readings, Store, readings_of
from pref_toolkit.training.scoring import DISTRIBUTIONS, Scorer, evaluation, reference


@dataclass(frozen=True)
class Scored:
    """Examples of an update, with everything their losses are made of.

    ``policy`` and ``reference`` hold readings ``(B, K)`` by name, see :data:`pref_toolkit.training.scoring.READINGS`. Where
    there are targets, they are one more response behind the K of each example. ``around`` is what the whole update or
    data set says: ``kl``, ``shift``, ``dispersion``.
    """

    examples: Sequence[Encoded]
    k: int
    tokens: Tensor
    policy: dict[str, Tensor]
    reference: dict[str, Tensor]
    around: dict[str, Any]

    def detach(self) -> Scored:
        """The same numbers without their gradient."""
        return replace(self, policy={name: value.detach() for name, value in self.policy.items()})

    def to(self, device: Any) -> Scored:
        moved = lambda readings: {name: value.to(device) for name, value in readings.items()}
        return replace(self, tokens=self.tokens.to(device), policy=moved(self.policy), reference=moved(self.reference))

    def record(self, readings: dict[str, Tensor]) -> Logps:
        return Logps(readings["sums"][:, : self.k], self.tokens[:, : self.k])

    def head(self, readings: dict[str, Tensor]) -> Logps:
        return Logps(readings["heads"], self.tokens.amin(dim=1, keepdim=True).expand_as(self.tokens))

    def target(self) -> Logps | None:
        given = self.policy["sums"].shape[1] > self.k
        return Logps(self.policy["sums"][:, -1:], self.tokens[:, -1:]) if given else None

    def column(self, name: str) -> Tensor:
        """A field of the rows; numbers in float64, in which they were read."""
        values = [getattr(e, name) for e in self.examples]
        exact = None if isinstance(values[0], bool) else torch.float64
        return torch.tensor(values, dtype=exact, device=self.tokens.device)

    def dispersion(self) -> Tensor:
        return torch.tensor([self.around["dispersion"][e.where] for e in self.examples], device=self.tokens.device)


@dataclass(frozen=True)
class Input:
    """How an input is made, of which readings of policy and reference, and which field of a row it needs."""

    make: Callable[[Scored], Any]
    policy: str | None = None
    reference: str | None = None
    field: str | None = None


INPUTS = {
    "policy": Input(lambda s: s.record(s.policy), policy="sums"),
    "reference": Input(lambda s: s.record(s.reference), reference="sums"),
    "policy_head": Input(lambda s: s.head(s.policy), policy="heads"),
    "reference_head": Input(lambda s: s.head(s.reference), reference="heads"),
    "target": Input(lambda s: s.target(), policy="sums"),
    "rewards": Input(lambda s: s.policy["rewards"], policy="rewards"),
    "sequence_kl": Input(lambda s: s.policy["sequence_kls"], policy="sequence_kls", reference="hidden"),
    "log_weights": Input(lambda s: s.policy["log_weights"], policy="log_weights"),
    "scores": Input(lambda s: s.column("scores"), field="scores"),
    "win_probabilities": Input(lambda s: s.column("win_probabilities"), field="win_probabilities"),
    "desirable": Input(lambda s: s.column("desirable"), field="label"),
    "dispersion": Input(lambda s: s.dispersion()),
    "kl": Input(lambda s: s.around["kl"]),
    "shift": Input(lambda s: s.around["shift"]),
}


@dataclass
class Inputs:
    """Everything one method reads during a run.

    Args:
        method, settings: the method and its hyperparameters.
        accelerator: the devices of the run.
        k: responses to each prompt, known once the rows are.
        targets: whether a row brings a supervised response of its own.
        store: where the reference's readings are kept from run to run, if anywhere.
        stored: the reference's readings of all training examples, if its store is read.
        dispersion: by the place of an example, known before the first step.
        seen: sum and number of ``beta rho`` over the answers of all updates so far, in float64.
    """

    method: Method
    settings: dict[str, Any]
    accelerator: Accelerator
    k: int = 0
    targets: bool = False
    store: Store | None = None
    stored: Readings = field(default_factory=dict)
    dispersion: dict[str, float] = field(default_factory=dict)
    seen: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))

    @property
    def trains_rewards(self) -> bool:
        """Whether the method reads the rewards of the model in training, and no policy."""
        return "policy" not in self.method.needs

    @property
    def names(self) -> list[str]:
        """The method's ``needs`` as names of ``INPUTS``."""
        return list(self.method.needs)

    @property
    def of_policy(self) -> list[str]:
        """The readings that the policy's forward must give."""
        return sorted({reading for name in self.names if (reading := INPUTS[name].policy)})

    @property
    def of_reference(self) -> list[str]:
        """The readings that the reference's forward must give; none if there is no reference."""
        return sorted({reading for name in self.names if (reading := INPUTS[name].reference)})

    # Before training

    def fitting(self, examples: list[Encoded], report: Report, on_bad_row: str) -> list[Encoded]:
        """The rows that the method can learn from, without targets that it does not read.

        Raises:
            DataError: naming the first row that lacks a field, or that the loss refuses, and why; with ``"skip"`` such rows
                are left out and counted in ``report``, and the error is that none is left.
        """
        kept: list[Encoded] = []
        quick = self._unfit(examples) is None
        for example in examples:
            why = None if quick else self._unfit([*kept[:1], example])
            if why is None:
                kept.append(example)
            elif on_bad_row == "stop":
                raise DataError(f"{example.where}: {why}")
            else:
                report.add("unfit for the method", example.where, why)
        if not kept:
            raise DataError(f"no examples left that {self.method.name} can learn from: {report}")
        self.k = len(kept[0].responses)
        self.targets = "target" in self.method.optional and any(e.target is not None for e in kept)
        return kept if self.targets else [replace(e, target=None) for e in kept]

    def _unfit(self, examples: list[Encoded]) -> str | None:
        """Why the method cannot learn from the last of these rows, or from some of them: what its loss says of zeros."""
        fields = {name: f for name in self.names if (f := INPUTS[name].field)}
        for name, wanted in fields.items():
            if any(getattr(e, name) is None for e in examples):
                return f"field {wanted!r} is missing, which {self.method.name} reads"
        *before, last = [len(e.responses) for e in examples]
        responses = "completion" if last == 1 else "responses"
        if any(k != last for k in before):
            return (
                f"field {responses!r} holds {last}, but {examples[0].where} holds {before[0]}; "
                "want one number of responses in all rows"
            )
        tokens = torch.tensor([[len(r) for r in e.responses] for e in examples])
        zeros = {
            reading: torch.zeros(tokens.shape)
            for i in INPUTS.values()
            for reading in (i.policy, i.reference)
            if reading
        }
        around = {"kl": torch.zeros(1), "shift": torch.zeros(()), "dispersion": {e.where: 1.0 for e in examples}}
        try:
            self.loss(Scored(examples, last, tokens, zeros, zeros, around))
        except ValueError as error:
            named = ", ".join(repr(f) for f in (responses, *fields.values()))
            return f"{self.method.name} refuses {named}: {str(error).rpartition(' in row ')[0] or error}"
        return None

    def prepare(self, scorer: Scorer, training: list[Encoded], forward_tokens: int, stop: Sequence[int] = ()) -> None:
        """What must be known of the whole data set: the reference's readings if they are stored, and dispersions.

        Where dispersions are read, the pass over the data set that they need gives the reference's other readings too.

        Raises:
            ModelError: if the method reads whole distributions, which the model does not show.
            NotFiniteError: naming the example whose dispersion is not a finite number.
            Interrupted: if ``stop`` is filled meanwhile.
        """
        if DISTRIBUTIONS & {*self.of_policy} or "dispersion" in self.names:
            with processes.gathered(scorer):
                scorer.check_head()
        dispersed = "dispersion" in self.names
        once = self.of_reference if dispersed or self.store is not None else []
        if not {*once} <= references.KEPT:
            self.accelerator.print(f"reference: live, {self.method.name} reads its whole distributions")
            once = []
        wanted = [*once, "entropies"] if dispersed else once
        if not wanted:
            return
        arranged = [self.arranged(e) for e in training]
        readings = readings_of(scorer, arranged, wanted, self.accelerator, forward_tokens, self.store, stop)
        self.stored = readings if once else {}
        if not dispersed:
            return
        log_v, raw = math.log(scorer.head.vocabulary), {}
        for example, key in zip(training, map(references.key, arranged)):
            total = readings[key]["entropies"][: self.k].sum().item()
            mean = total / sum(map(len, example.responses))
            if not 0 < mean < math.inf:
                raise NotFiniteError(f"the reference's mean entropy on {example.where} is {mean}, want it above 0")
            raw[example.where] = -math.log(mean / log_v)
        if not sum(raw.values()) > 0:
            raise NotFiniteError(
                "the reference's distributions are all uniform: no prompt is less dispersed than another"
            )
        phi0 = len(raw) / sum(raw.values())
        self.dispersion = {where: phi0 * value for where, value in raw.items()}

    # In an update

    def arranged(self, example: Encoded) -> Encoded:
        """The example as it is scored: where there are targets, its own or else the chosen response behind the K."""
        if not self.targets:
            return example
        return replace(example, responses=[*example.responses, example.target or example.responses[0]])

    def around(self, scorer: Scorer, update: list[Encoded], forward_tokens: int, step: int) -> dict[str, Any]:
        """What the examples of an update, on all devices, say together; without gradient or dropout."""
        out: dict[str, Any] = {"dispersion": self.dispersion}
        if "shift" in self.names:
            total, count = self.seen.tolist()
            out["shift"] = torch.tensor(total / count if count else 0.0, device=self.accelerator.device)
        if "kl" in self.names:
            pairs = mismatched(update, scorer.longest)
            if not pairs:
                raise DataError(
                    f"step {step}: {self.method.name} scores answers after other prompts of the same update, but the "
                    f"{len(update)} of this one, {update[0].where} among them, hold no other; raise batch_size"
                )
            ratios = processes.agreed(self.accelerator, lambda: self._log_ratios(scorer, pairs, forward_tokens))
            everyones = processes.everyones(self.accelerator, ratios)
            out["kl"] = torch.tensor(everyones, device=self.accelerator.device)
        return out

    def _log_ratios(self, scorer: Scorer, examples: list[Encoded], forward_tokens: int) -> list[float]:
        """``log pi - log pi_ref`` of this process's share of the examples' responses."""
        ratios: list[float] = []
        mine, idle = processes.shares(self.accelerator, scorer, examples, forward_tokens)
        for n, part in enumerate([*mine, *idle]):
            batch = scorer.collate(part).to(self.accelerator.device)
            with evaluation(scorer.model):
                under_policy = scorer(batch)["sums"]
            with reference(scorer.model):
                under_reference = scorer(batch)["sums"]
            ratios += (under_policy - under_reference).flatten().tolist() if n < len(mine) else []
        return ratios

    def under_reference(self, scorer: Scorer, batch: Batch, examples: Sequence[Encoded]) -> dict[str, Tensor]:
        """The readings of the reference that the method wants of a batch: stored, or from a forward."""
        if self.stored:
            rows = [self.stored[references.key(e)] for e in examples]
            return {n: torch.stack([r[n] for r in rows]).to(batch.tokens.device) for n in self.of_reference}
        if not self.of_reference:
            return {}
        with reference(scorer.model):
            return scorer(batch, self.of_reference)

    def loss(self, scored: Scored) -> Tensor:
        """``(B,)`` losses of scored examples."""
        optional = {name: INPUTS[name].make(scored) for name in self.method.optional}
        return self.method.loss(*(INPUTS[name].make(scored) for name in self.names), **optional, **self.settings)

    def others(self, mine: Scored) -> list[Scored]:
        """What the other processes scored in this update."""
        here = self.accelerator.process_index
        parts = processes.everyones(self.accelerator, [(here, replace(mine, around={}).to("cpu"))])
        device = self.accelerator.device
        return [replace(theirs, around=mine.around).to(device) for place, theirs in parts if place != here]

    def measured(self, scored: Scored) -> dict[str, float | None]:
        """The metrics of an update."""
        if self.trains_rewards:
            return metrics.rewards(scored.policy["rewards"])
        return metrics.preference(
            scored.record(scored.policy), scored.record(scored.reference) if scored.reference else None
        )

    # After an update

    def after(self, scored: Scored) -> None:
        """Take the answers of an update that is done, on all devices, into the running mean."""
        if "shift" in self.names:
            rewards = self.settings["beta"] * (scored.policy["sums"] - scored.reference["sums"])
            new = torch.stack([rewards.sum(), rewards.new_tensor(rewards.numel())])
            self.seen += new.cpu()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""
        return {"seen": self.seen} if "shift" in self.names else {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Back to where a checkpoint was taken."""
        self.seen = state.get("seen", self.seen)


def mismatched(update: Sequence[Encoded], longest: int) -> list[Encoded]:
    """Each prompt with the answer of the next example, in a circle, that has another prompt and another answer.

    A prompt without such a partner is left out. Answers are cut where prompt and answer would pass ``longest`` tokens.
    """
    pairs = []
    for i, example in enumerate(update):
        others = (update[(i + j) % len(update)] for j in range(1, len(update)))
        differ = lambda other, own=example: other.prompt != own.prompt and other.responses[0] != own.responses[0]
        if (partner := next(filter(differ, others), None)) is not None:
            answer = partner.responses[0][: longest - len(example.prompt)]
            pairs.append(Encoded(example.prompt, [answer], where=f"{example.where} answered by {partner.where}"))
    return pairs


def joined(parts: Sequence[Scored]) -> Scored:
    """Several parts of an update as one, in order."""
    together = lambda dicts: {name: torch.cat([d[name] for d in dicts]) for name in dicts[0]}
    return replace(
        parts[0],
        examples=list(chain.from_iterable(part.examples for part in parts)),
        tokens=torch.cat([part.tokens for part in parts]),
        policy=together([part.policy for part in parts]),
        reference=together([part.reference for part in parts]),
    )
