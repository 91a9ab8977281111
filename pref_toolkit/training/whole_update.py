"""Inputs of a loss that no example has alone: they are computed from a whole update, or from all training examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from pref_toolkit.data import DataError
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import NotFiniteError
from pref_toolkit.training import processes
from pref_toolkit.training.objective import Objective, Scored, with_target_last
from pref_toolkit.training.policy import Policy
from pref_toolkit.training.references import Reference, key


class WholeUpdate(Protocol):
    """One such input. The trainer calls the methods in this order."""

    def before_training(self, reference: Reference, training: Sequence[Encoded]) -> None: ...
    def before_update(self, examples: Sequence[Encoded], forward_tokens: int) -> None: ...
    def value(self, examples: Sequence[Encoded]) -> Tensor:
        """What the loss is given for a part of the update."""
        ...

    def after_update(self, scored: Scored) -> None: ...
    def state(self) -> dict[str, Tensor]: ...
    def restore(self, state: dict[str, Tensor]) -> None: ...


class _Stateless:
    """An input that needs nothing before or after, and keeps nothing from update to update."""

    def before_training(self, reference: Reference, training: Sequence[Encoded]) -> None:
        pass

    def before_update(self, examples: Sequence[Encoded], forward_tokens: int) -> None:
        pass

    def after_update(self, scored: Scored) -> None:
        pass

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        pass


class MismatchedLogRatios(_Stateless):
    """``log pi - log ref`` of answers after other prompts of the same update, without gradient or dropout (KTO)."""

    def __init__(self, objective: Objective, policy: Policy) -> None:
        self.objective, self.policy = objective, policy
        self.ratios = torch.zeros(0)

    def before_update(self, examples: Sequence[Encoded], forward_tokens: int) -> None:
        pairs = mismatched(examples, self.policy.scorer().longest)
        if not pairs:
            raise DataError(
                f"{self.objective.method.name} scores answers after other prompts of the same update, but the "
                f"{len(examples)} of this one, {examples[0].where} among them, hold no other; raise batch_size"
            )
        own = processes.agreed(self.policy.devices, lambda: self._log_ratios(pairs, forward_tokens))
        self.ratios = torch.tensor(processes.all_gather(self.policy.devices, own), device=self.policy.device)

    def _log_ratios(self, pairs: Sequence[Encoded], forward_tokens: int) -> list[float]:
        """Of this process's share."""
        ratios: list[float] = []
        scorer = self.policy.scorer()
        mine, idle = processes.own_micro_batches(self.policy.devices, scorer, pairs, forward_tokens)
        for n, part in enumerate([*mine, *idle]):
            batch = scorer.collate(part).to(self.policy.device)
            sums = {}
            for name in ("policy", "reference"):
                with self.policy.view(self.objective.views[name]):
                    sums[name] = scorer(batch)["sums"]
            ratios += (sums["policy"] - sums["reference"]).flatten().tolist() if n < len(mine) else []
        return ratios

    def value(self, examples: Sequence[Encoded]) -> Tensor:
        return self.ratios


class RunningMeans(_Stateless):
    """Half the sum of two means of ``beta rho``, of the desirable and of the undesirable answers (BCO).

    Each is over the answers of all updates so far, in float64. A kind that was not seen yet counts 0, which is the value
    at policy = reference.
    """

    def __init__(self, objective: Objective, policy: Policy) -> None:
        self.objective, self.policy = objective, policy
        self.seen = torch.zeros(2, 2, dtype=torch.float64)  # sum and number, of undesirable and of desirable answers

    def value(self, examples: Sequence[Encoded]) -> Tensor:
        means = [total / count if count else 0.0 for total, count in self.seen.tolist()]
        return torch.tensor(sum(means) / 2, device=self.policy.device)

    def after_update(self, scored: Scored) -> None:
        beta = float(self.objective.method.settings_beside("shift", self.objective.settings)["beta"])
        # Without the target, which is no answer of the policy. A pair is a desirable answer and an undesirable one.
        rewards = beta * (scored.policy["sums"] - scored.reference["sums"])[:, : scored.k]
        labels = [[bool(e.desirable)] if scored.k == 1 else [True, False] for e in scored.examples]
        desirable = torch.tensor(labels, device=rewards.device)
        kinds = [rewards[~desirable], rewards[desirable]]
        new = torch.stack([torch.stack([own.sum(), own.new_tensor(own.numel())]) for own in kinds])
        self.seen = self.seen + new.cpu()

    def state(self) -> dict[str, Tensor]:
        return {"seen": self.seen}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.seen = state["seen"]


class Dispersion(_Stateless):
    """How sure the reference is of each prompt's responses, over its mean on the training examples (MallowsPO).

    The entropy is averaged over the tokens of each response, and then over the responses.
    """

    def __init__(self, objective: Objective, policy: Policy) -> None:
        self.objective, self.policy = objective, policy
        self.by_key: dict[bytes, float] = {}

    def before_training(self, reference: Reference, training: Sequence[Encoded]) -> None:
        """Read entropies of the reference.

        Raises:
            NotFiniteError: naming the example whose dispersion is not a finite number.
        """
        log_v, raw = math.log(self.policy.scorer().check_head().vocabulary), []
        keys = [key(with_target_last(example)) for example in training]
        for example, own in zip(training, keys):
            totals = reference.stored[own]["entropies"][: len(example.responses)].tolist()
            mean = sum(total / len(y) for total, y in zip(totals, example.responses)) / len(example.responses)
            if not 0 < mean < math.inf:
                raise NotFiniteError(f"the reference's mean entropy on {example.where} is {mean}, want it above 0")
            raw.append(-math.log(mean / log_v))
        if not sum(raw) > 0:
            raise NotFiniteError(
                "the reference's distributions are all uniform: no prompt is less dispersed than another"
            )
        phi0 = len(raw) / sum(raw)
        self.by_key = {own: phi0 * value for own, value in zip(keys, raw)}

    def value(self, examples: Sequence[Encoded]) -> Tensor:
        return torch.tensor([self.by_key[key(example)] for example in examples], device=self.policy.device)


WHOLE_UPDATE: dict[str, Callable[[Objective, Policy], WholeUpdate]] = {
    "kl": MismatchedLogRatios,
    "shift": RunningMeans,
    "dispersion": Dispersion,
}
"""By the name of the loss's argument."""


def mismatched(update: Sequence[Encoded], longest: int | None) -> list[Encoded]:
    """Each prompt with the answers of the next example, in a circle, that has another prompt and other answers.

    A prompt without such a partner is left out. Answers are cut where prompt and answer would pass ``longest`` tokens.
    """
    pairs = []
    for i, example in enumerate(update):
        others = (update[(i + j) % len(update)] for j in range(1, len(update)))
        differ = lambda other, own=example: other.prompt != own.prompt and other.responses != own.responses
        if (partner := next(filter(differ, others), None)) is not None:
            room = None if longest is None else longest - len(example.prompt)
            where = f"{example.where} answered by {partner.where}"
            pairs.append(Encoded(example.prompt, [response[:room] for response in partner.responses], where=where))
    return pairs
