"""How this toolkit is driven: the steps of the training loop, without optimiser and bookkeeping."""

from __future__ import annotations

from typing import Any

import torch
import workload

from pref_toolkit.data.tokens import Encoded
from pref_toolkit.logps import Logps
from pref_toolkit.losses import METHODS
from pref_toolkit.training.models import trainable, with_adapters
from pref_toolkit.training.scoring import Route, Scorer, dropout_in_adapters_only, logps, reference


class Ours:
    """Scores, losses and gradients by :class:`~pref_toolkit.training.scoring.Scorer`.

    Args:
        base: a causal language model, frozen; its parameters are shared.
        method: a name in ``METHODS``.
        max_length: most tokens in prompt + response.
        route: how responses are scored.
        stored: whether the reference's log-probabilities are read rather than computed: :meth:`store` computes them.
        checkpointing: whether layers are run again on the way back rather than kept.
        alone: give every response a packed row of its own, so that no prompt is shared.
    """

    def __init__(
        self,
        base: Any,
        method: str,
        *,
        max_length: int,
        route: Route = "auto",
        stored: bool = False,
        checkpointing: bool = False,
        alone: bool = False,
    ) -> None:
        self.method = METHODS[method]
        self.model = with_adapters(workload.sharing_weights(base), rank=workload.RANK, alpha=None, dropout=0.0)
        workload.spread_adapters(self.model)
        self.device = next(self.model.parameters()).device
        self.scorer = Scorer(self.model, max_length, route, gradient_checkpointing=checkpointing)
        dropout_in_adapters_only(self.model)
        self.alone = alone
        self.stored: dict[tuple[str, ...], Logps] | None = {} if stored else None

    def step(self, examples: list[Encoded]) -> float:
        """The mean loss of the examples; gradients are left in the adapters."""
        self.model.zero_grad()
        given = {}
        batch = self.scorer.collate(self._rows(examples)).to(self.device)
        if "reference" in self.method.needs:
            if self.stored is None:
                with reference(self.model):
                    given["reference"] = self._of_examples(logps(self.scorer, batch), examples)
            else:
                given["reference"] = self.stored[tuple(e.where for e in examples)]
        given["policy"] = self._of_examples(logps(self.scorer, batch), examples)
        loss = self.method.loss(**given).mean()
        loss.backward()
        return loss.item()

    def store(self, examples: list[Encoded]) -> None:
        """Compute the reference's log-probabilities of a batch, once."""
        assert self.stored is not None
        batch = self.scorer.collate(self._rows(examples)).to(self.device)
        with reference(self.model):
            self.stored[tuple(e.where for e in examples)] = self._of_examples(logps(self.scorer, batch), examples)

    def gradients(self) -> dict[str, torch.Tensor]:
        """By name of the adapter's weight."""
        return {name: value.grad for name, value in trainable(self.model).items() if value.grad is not None}

    def _rows(self, examples: list[Encoded]) -> list[Encoded]:
        if not self.alone:
            return examples
        return [Encoded(e.prompt, [r], e.where) for e in examples for r in e.responses]

    def _of_examples(self, record: Logps, examples: list[Encoded]) -> Logps:
        shape = len(examples), -1
        return Logps(record.sums.view(shape), record.tokens.view(shape))
