"""What a loop has in its hands: prompts, a policy, a trainer, a judge and the run that keeps what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from time import perf_counter

from tqdm import tqdm

from pref_toolkit.data.tokens import Encoded
from pref_toolkit.loops.answers import answered
from pref_toolkit.loops.asked import Asked
from pref_toolkit.loops.config import LoopConfig
from pref_toolkit.loops.draws import Draws
from pref_toolkit.loops.judges import Judge, judged
from pref_toolkit.losses import LOOP_LOSSES
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.dataset import indices
from pref_toolkit.training.policy import Policy, View
from pref_toolkit.training.run import Run
from pref_toolkit.training.trainer import Trainer


@dataclass(frozen=True)
class Session:
    """A loop's run.

    Args:
        run: the run, begun.
        policy: what is trained.
        trainer: what makes an update.
        config: how to train.
        settings: how to draw and judge.
        asked: the prompts.
        judge: None for a loop that asks nobody.
        total: updates in the run.
        streams: preferences in the order they came, of each domain; for loops that draw nothing.
    """

    run: Run
    policy: Policy
    trainer: Trainer
    config: TrainConfig
    settings: LoopConfig
    asked: Sequence[Asked]
    judge: Judge | None
    total: int
    streams: Sequence[Sequence[Encoded]] = ()

    def prompts(self, step: int) -> list[Asked]:
        """The prompts of an update: the next ``batch_size`` of an endless row of shuffled passes."""
        return [self.asked[i] for i in indices(step, self.config, len(self.asked))]

    def some(self, examples: Sequence[Encoded], place: int) -> list[Encoded]:
        """The examples of a round's update, taken as :meth:`prompts` takes prompts."""
        return [examples[i] for i in indices(place, self.config, len(examples))]

    def another(self, loss: str, **views: View) -> Trainer:
        """A second trainer, of another loss of loops on other views, with the settings of the first."""
        objective = self.trainer.objective
        changed = replace(objective, method=LOOP_LOSSES[loss], views={**objective.views, **views})
        return Trainer(self.policy, changed, self.config)

    def streamed(self, domain: int, place: int) -> list[Encoded]:
        """The next ``batch_size`` examples of a stream, in order; after its end it begins again."""
        stream, size = self.streams[domain], self.config.batch_size
        return [stream[i % len(stream)] for i in range(place * size, (place + 1) * size)]

    @property
    def round_length(self) -> int:
        """Updates in a round; the last one may be shorter."""
        return ceil(self.total / self.settings.rounds)

    def round_drawn(self, number: int, view: View) -> Draws:
        """Answers to the prompts of a round's updates, in a file for each update."""
        first = number * self.round_length
        places, drawn = range(first, min(first + self.round_length, self.total)), []
        for n in (bar := tqdm(places, desc=f"draws of round {number + 1}", leave=False)):
            drawn.append(self.drawn(f"round-{number + 1}/{n:06d}", self.prompts(n), n, view=view))
            bar.set_postfix(self.run.shown)
        return Draws.joined(drawn)

    def drawn(self, name: str, asked: Sequence[Asked], number: int, *, view: View = "policy") -> Draws:
        """Answers to these prompts, judged if there is a judge. After a kill they are read, not drawn and judged again.

        Only a kill after the judge was asked and before its scores are on the disk has this one call made again, about the same
        answers: nothing but the judge can know then that it was asked.

        Args:
            name: of the file that keeps them, under the run's ``made/``.
            asked: the prompts.
            number: of the draw in the run; the seed depends on it.
            view: who answers.
        """

        def make() -> list[dict[str, object]]:
            began = perf_counter()
            reference = self.trainer.objective.views["reference"]
            draws = answered(self.policy, asked, self.settings, self.config, number, view=view, reference=reference)
            self.run.shown["tok/s"] = f"{draws.tokens / (perf_counter() - began):.0f}"
            if self.judge is None:
                return draws.rows()
            self.run.keep("unjudged", draws.rows())  # a judge that fails costs no draw
            shown = [a.prompt if getattr(self.judge, "reads_chats", False) else a.text for a in asked]
            return replace(draws, scores=judged(self.judge, shown, draws.texts, self.settings.judge_limit)).rows()

        return Draws.of_rows(asked, self.run.made(name, make))
