"""What a loop has in its hands: prompts, a policy, a trainer, a judge and the run that keeps what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pref_toolkit.errors import Complaint
from pref_toolkit.loops.draws import Asked, Draws
from pref_toolkit.loops.judges import Judge, judged
from pref_toolkit.ranges import AtLeast, Range, fault_of
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.dataset import indices
from pref_toolkit.training.policy import Policy, View
from pref_toolkit.training.run import Run
from pref_toolkit.training.trainer import Trainer


@dataclass(frozen=True)
class LoopConfig:
    """How a loop draws and judges.

    Args:
        answers: answers drawn to each prompt.
        temperature: of the draws.
        mixture: share of the reference in the geometric mixture that answers are drawn from, token by token; 0: the policy.
        rounds: for loops in rounds, how many: each draws anew from the policy that the last one trained.
        last_lam: of ``spin``: the strength ``lam`` in the last round, if another; the authors ran .1 and then 5.
        kept: of ``rso``: answers kept of those drawn.
        acceptance: of ``rso``: the optimum's ``beta`` in the sampler, in the judge's units; near 0, best-of-n.
        judge: ``module:function``, see :data:`pref_toolkit.loops.judges.Judge`; the lab has its own.
        judge_limit: seconds that the judge may take for one batch; 0: no limit.
    """

    answers: Annotated[int, AtLeast(1)] = 2
    temperature: Annotated[float, Range(0, closed=False)] = 1.0
    mixture: Annotated[float, Range(0, closed=True, high=1)] = 0.0
    rounds: Annotated[int, AtLeast(1)] = 3
    last_lam: Annotated[float, Range(0, closed=False)] | None = None
    kept: Annotated[int, AtLeast(2)] = 2
    acceptance: Annotated[float, Range(0, closed=False)] = 0.5
    judge: str | None = None
    judge_limit: Annotated[float, Range(0, closed=True)] = 600.0

    def __post_init__(self) -> None:
        if (fault := fault_of(self)) is not None:
            raise Complaint(fault)


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
    """

    run: Run
    policy: Policy
    trainer: Trainer
    config: TrainConfig
    settings: LoopConfig
    asked: Sequence[Asked]
    judge: Judge | None
    total: int

    def prompts(self, step: int) -> list[Asked]:
        """The prompts of an update: the next ``batch_size`` of an endless row of shuffled passes."""
        return [self.asked[i] for i in indices(step, self.config, len(self.asked))]

    def drawn(
        self, name: str, asked: Sequence[Asked], number: int, *, view: View = "policy", answers: int | None = None
    ) -> Draws:
        """Answers to these prompts, judged if there is a judge. After a kill they are read, not drawn and judged again.

        Args:
            name: of the file that keeps them, under the run's ``made/``.
            asked: the prompts.
            number: of the draw in the run; the seed depends on it.
            view: who answers.
            answers: to each prompt; ``settings.answers`` if not given.
        """
        k = answers or self.settings.answers

        def make() -> list[dict[str, object]]:
            draws = self._draw(asked, number, view, k)
            if self.judge is None:
                return draws.rows()
            self.run.keep("unjudged", draws.rows())  # a judge that fails costs no draw
            scores = judged(self.judge, [a.text for a in asked], draws.texts, self.settings.judge_limit)
            return Draws(asked, draws.answers, draws.texts, scores).rows()

        return Draws.of_rows(asked, self.run.made(name, make))

    def _draw(self, asked: Sequence[Asked], number: int, view: View, k: int) -> Draws:
        ids = self.policy.sample(
            [a.ids for a in asked for _ in range(k)],
            view=view,
            max_new_tokens=self.config.sample_tokens,
            temperature=self.settings.temperature,
            mixture=self.settings.mixture,
            reference=self.trainer.objective.views["reference"],
            seed=self.config.seed * 1_000_003 + number,
        )
        texts = self.policy.texts(ids)
        each = range(len(asked))
        return Draws(asked, [ids[i * k : (i + 1) * k] for i in each], [texts[i * k : (i + 1) * k] for i in each])
