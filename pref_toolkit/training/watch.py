"""What is measured before a run, at its checkpoints and after it: held-out metrics, samples, and the KL to the reference."""

from __future__ import annotations

from typing import Any

from pref_toolkit.training.dataset import Data
from pref_toolkit.training.trainer import Row, Trainer

Samples = list[dict[str, str]]
"""By ``prompt``, ``before`` and ``after``, as text."""


class Watch:
    """The examples on which a run is watched.

    Args:
        trainer: whose policy and objective.
        data: its examples.
    """

    def __init__(self, trainer: Trainer, data: Data) -> None:
        self.trainer, self.policy, self.data = trainer, trainer.policy, data
        self.prompts = [example.prompt for example in data.shown]
        self.settings: dict[str, Any] = {"max_new_tokens": data.config.sample_tokens, "seed": data.config.seed}

    def before(self) -> tuple[Row, Samples]:
        """Held-out metrics, and the answers of the policy as it was handed over."""
        measured = self.trainer.evaluate(self.data.held_out)
        answers = self.policy.sample(self.prompts, view="start", **self.settings) if self.prompts else []
        texts = zip(self.policy.texts(self.prompts), self.policy.texts(answers))
        return measured, [{"prompt": prompt, "before": answer} for prompt, answer in texts]

    def at_checkpoint(self) -> Row:
        """``kl``: the sampled KL from policy to reference in nats a response; None if nothing is sampled."""
        return {"kl": self._drawn()[1]}

    def after(self, samples: Samples) -> tuple[Row, Samples]:
        """Held-out metrics and ``kl``; the samples with the policy's answers now."""
        measured = self.trainer.evaluate(self.data.held_out)
        answers, measured["kl"] = self._drawn()
        return measured, [sample | {"after": answer} for sample, answer in zip(samples, self.policy.texts(answers))]

    def _drawn(self) -> tuple[list[list[int]], float | None]:
        if not self.prompts:
            return [], None
        return self.policy.sampled_kl(self.prompts, self.trainer.objective.views["reference"], **self.settings)
