"""A method, its hyperparameters, and the views it compares: everything that turns scored examples into losses.

``INPUTS`` says how each argument of a loss is made: of a reading of policy or reference, of a field of the row, or of the
whole update or data set (``training/whole_update.py``). No method is named here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from pref_toolkit import metrics
from pref_toolkit.data import DataError, Report
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.logps import Logps
from pref_toolkit.losses import LOOP_LOSSES, Method, find
from pref_toolkit.losses.inputs import RowError
from pref_toolkit.training.policy import View

Readings = dict[str, Tensor]
"""By name of :data:`pref_toolkit.training.scoring.READINGS`, ``(B, K)``."""


@dataclass(frozen=True)
class Scored:
    """Examples of an update, with everything their losses are computed from.

    Args:
        examples: as they were scored; a supervised target, if there is one, is the last response.
        tokens: ``(B, K)`` lengths of the responses.
        policy, reference: readings of both.
        batch_stats: by name, the inputs that are computed from the whole update or data set.
        opponent: readings of another view in training, if the method reads one.
    """

    examples: Sequence[Encoded]
    tokens: Tensor
    policy: Readings
    reference: Readings
    batch_stats: dict[str, Tensor]
    opponent: Readings = field(default_factory=dict)

    @property
    def k(self) -> int:
        """Responses to each prompt, without the target."""
        return self.tokens.shape[1] - (self.examples[0].target is not None)

    def detach(self) -> Scored:
        """The same numbers without their gradient."""
        return replace(self, policy={name: value.detach() for name, value in self.policy.items()})

    def to(self, device: torch.device | str) -> Scored:
        moved = lambda values: {name: value.to(device) for name, value in values.items()}
        return replace(
            self,
            tokens=self.tokens.to(device),
            policy=moved(self.policy),
            reference=moved(self.reference),
            batch_stats=moved(self.batch_stats),
            opponent=moved(self.opponent),
        )

    def logps(self, readings: Readings) -> Logps:
        """The record of the K responses."""
        return Logps(readings["sums"][:, : self.k], self.tokens[:, : self.k])

    def first(self, readings: Readings) -> Logps:
        """The record of the first tokens of each response, as many as the shortest one has."""
        shortest = self.tokens.amin(dim=1, keepdim=True).expand_as(self.tokens)
        return Logps(readings["first_sums"], shortest)

    def target(self) -> Logps | None:
        """The record of the supervised targets, if there are any."""
        given = self.tokens.shape[1] > self.k
        return Logps(self.policy["sums"][:, -1:], self.tokens[:, -1:]) if given else None

    def drawn(self) -> Tensor | None:
        """``(B, K, T)`` log-probabilities with which the tokens were drawn, if they are known."""
        if self.examples[0].drawn_logps is None:
            return None
        rows = [torch.tensor(own) for e in self.examples for own in e.drawn_logps or ()]
        return pad_sequence(rows, batch_first=True).view(*self.tokens.shape, -1).to(self.tokens.device)

    def column(self, name: str) -> Tensor | None:
        """A field of the rows, if they have it; numbers in float64, the precision they were read in."""
        values = [getattr(e, name) for e in self.examples]
        if values[0] is None:
            return None
        exact = None if isinstance(values[0], bool) else torch.float64
        return torch.tensor(values, dtype=exact, device=self.tokens.device)


def joined(parts: Sequence[Scored]) -> Scored:
    """Several parts of an update as one, in order. Inputs of the whole update are those of the first part."""
    together = lambda dicts: {name: _end_to_end([d[name] for d in dicts]) for name in dicts[0]}
    return replace(
        parts[0],
        examples=list(chain.from_iterable(part.examples for part in parts)),
        tokens=torch.cat([part.tokens for part in parts]),
        policy=together([part.policy for part in parts]),
        reference=together([part.reference for part in parts]),
        opponent=together([part.opponent for part in parts]),
    )


def _end_to_end(parts: Sequence[Tensor]) -> Tensor:
    """Rows of all parts; of readings of each token, ``(B, K, T)``, the shorter ones get zeros behind."""
    if parts[0].ndim < 3:
        return torch.cat([*parts])
    longest = max(part.shape[2] for part in parts)
    return torch.cat([pad(part, (0, longest - part.shape[2])) for part in parts])


@dataclass(frozen=True)
class Input:
    """How an argument of a loss is made, the readings it needs, and the field of a row it needs."""

    make: Callable[[Scored], Any]
    policy: str | None = None
    reference: str | None = None
    field: str | None = None
    opponent: str | None = None


INPUTS = {
    "policy": Input(lambda s: s.logps(s.policy), policy="sums"),
    "reference": Input(lambda s: s.logps(s.reference), reference="sums"),
    "policy_first": Input(lambda s: s.first(s.policy), policy="first_sums"),
    "reference_first": Input(lambda s: s.first(s.reference), reference="first_sums"),
    "target": Input(lambda s: s.target(), policy="sums"),
    "rewards": Input(lambda s: s.policy["rewards"], policy="rewards"),
    "sequence_kl": Input(lambda s: s.policy["sequence_kls"][:, : s.k], policy="sequence_kls", reference="hidden"),
    "log_weights": Input(lambda s: s.policy["log_weights"][:, : s.k], policy="log_weights"),
    "scores": Input(lambda s: s.column("scores"), field="scores"),
    "win_probabilities": Input(lambda s: s.column("win_probabilities"), field="win_probabilities"),
    "desirable": Input(lambda s: s.column("desirable"), field="label"),
    "dispersion": Input(lambda s: s.batch_stats["dispersion"]),
    "kl": Input(lambda s: s.batch_stats["kl"]),
    "shift": Input(lambda s: s.batch_stats["shift"]),
    "policy_tokens": Input(lambda s: s.policy["token_logps"], policy="token_logps"),
    "reference_tokens": Input(lambda s: s.reference["token_logps"], reference="token_logps"),
    "drawn_tokens": Input(lambda s: s.drawn()),
    "opponent": Input(lambda s: s.logps(s.opponent), opponent="sums"),
}


@dataclass(frozen=True)
class Objective:
    """A method with its hyperparameters, and the views that its records are read from.

    Args:
        method: the method.
        settings: its hyperparameters, complete.
        views: by ``policy``, ``reference`` and, where the method reads one, ``opponent``: the view of the policy, see
            :class:`pref_toolkit.training.policy.Policy`.
    """

    method: Method
    settings: Mapping[str, float | str]
    views: Mapping[str, View] = field(default_factory=lambda: {"policy": "policy", "reference": "start"})

    @classmethod
    def of(
        cls,
        name: str,
        settings: Mapping[str, float | str] | None = None,
        *,
        weights: Sequence[float] | None = None,
        **views: View,
    ) -> Objective:
        """The objective of a method by name, or of a mixture; views not given are the policy's own and ``start``.

        Raises:
            Complaint: for an unknown method, weights that fit no mixture, see :func:`pref_toolkit.losses.find`, or a
                hyperparameter that is unknown or out of its range.

        >>> Objective.of("dpo", {"beta": 0.2}).settings
        {'beta': 0.2}
        """
        method = LOOP_LOSSES[name] if name in LOOP_LOSSES else find(name, weights)
        return cls(method, method.check(**(settings or {})), {"policy": "policy", "reference": "start"} | views)

    @property
    def trains_rewards(self) -> bool:
        """Whether a reward model is trained: the method reads no policy."""
        return "policy" not in self.method.needs

    @property
    def of_policy(self) -> list[str]:
        """The readings that the policy's forward must give."""
        return sorted({reading for name in self.method.needs if (reading := INPUTS[name].policy)})

    @property
    def of_reference(self) -> list[str]:
        """The readings that the reference's forward must give; none if there is no reference."""
        return sorted({reading for name in self.method.needs if (reading := INPUTS[name].reference)})

    @property
    def of_opponent(self) -> list[str]:
        """The readings that the opponent's forward must give; none if there is no opponent."""
        return sorted({reading for name in self.method.needs if (reading := INPUTS[name].opponent)})

    def accept(self, examples: list[Encoded], report: Report, on_bad_row: str) -> list[Encoded]:
        """The rows that the method can learn from. If it reads targets and any row has one, each row gets one: its own, or
        else its chosen response.

        Raises:
            DataError: naming the first row that lacks a field, or that the loss refuses, and why; with ``"skip"`` such rows
                are left out and counted in ``report``, and the error is that none is left.
        """
        kept: list[Encoded] = []
        all_fit = self._unfit(examples) is None
        for example in examples:
            why = None if all_fit else self._unfit([*kept[:1], example])
            if why is None:
                kept.append(example)
            elif on_bad_row == "stop":
                raise DataError(f"{example.where}: {why}")
            else:
                report.add("unfit for the method", example.where, why)
        if not kept:
            raise DataError(f"no examples left that {self.method.name} can learn from: {report}")
        if "target" in self.method.optional and any(e.target is not None for e in kept):
            if "first_sums" in self.of_policy:
                raise DataError(
                    f"{self.method.name} reads both targets and responses cut to the shortest, which a target would change; "
                    "take field 'target' out of the rows"
                )
            return [replace(e, target=e.target or e.responses[0]) for e in kept]
        return [replace(e, target=None) for e in kept]

    def _unfit(self, examples: list[Encoded]) -> str | None:
        """Why the method cannot learn from the last of these rows, or from some of them: the loss's complaint on zeros."""
        fields = {name: wanted for name in self.method.needs if (wanted := INPUTS[name].field)}
        for name, wanted in fields.items():
            if any(getattr(e, name) is None for e in examples):
                return f"field {wanted!r} is missing, which {self.method.name} reads"
        for name in self.method.optional:
            if (wanted := INPUTS[name].field) and len({getattr(e, name) is None for e in examples}) > 1:
                return f"field {wanted!r} is in some rows only; {self.method.name} wants it in all or in none"
        *before, last = [len(e.responses) for e in examples]
        responses = "completion" if last == 1 else "responses"
        if any(k != last for k in before):
            return (
                f"field {responses!r} holds {last}, but {examples[0].where} holds {before[0]}; "
                "want one number of responses in all rows"
            )
        try:
            self.loss(_zeros(examples))
        except ValueError as error:
            named = ", ".join(repr(f) for f in (responses, *fields.values()))
            return f"{self.method.name} refuses {named}: {error.reason if isinstance(error, RowError) else error}"
        return None

    def loss(self, scored: Scored) -> Tensor:
        """``(B,)`` losses of scored examples."""
        inputs = {name: INPUTS[name].make(scored) for name in (*self.method.needs, *self.method.optional)}
        return self.method.loss(**inputs, **self.settings)

    def metrics(self, scored: Scored) -> dict[str, float | None]:
        """The metrics of an update, see :mod:`pref_toolkit.metrics`."""
        if self.trains_rewards:
            return metrics.rewards(scored.policy["rewards"])
        reference = scored.logps(scored.reference) if scored.reference else None
        return metrics.preference(scored.logps(scored.policy), reference)


def with_target_last(example: Encoded) -> Encoded:
    """The example as it is scored: a supervised target, if there is one, travels behind the K responses."""
    return example if example.target is None else replace(example, responses=[*example.responses, example.target])


def _zeros(examples: list[Encoded]) -> Scored:
    """The examples as if every number that a model gives were 0."""
    tokens = torch.tensor([[len(r) for r in e.responses] for e in examples])
    names = {reading for i in INPUTS.values() for reading in (i.policy, i.reference, i.opponent) if reading}
    zeros = {reading: torch.zeros(tokens.shape) for reading in names}
    stats = {"kl": torch.zeros(1), "shift": torch.zeros(()), "dispersion": torch.ones(len(examples))}
    return Scored([replace(e, target=None) for e in examples], tokens, zeros, zeros, stats, zeros)
