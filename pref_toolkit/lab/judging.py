"""The lab's prompts and judge for loops that generate."""

from __future__ import annotations

import random
from collections import Counter

from pref_toolkit.lab.annotators import Annotator
from pref_toolkit.lab.language import answer, prompts, said_in_every_style
from pref_toolkit.loops.judges import Judge


def asked(n: int, seed: int = 0, *, answered: bool = False) -> list[dict[str, str]]:
    """``n`` prompts of the train split as rows; ``answered`` with the right answer in a random style, as ``answer``."""
    rng = random.Random(seed)
    rows = [{"prompt": prompt} for prompt in prompts(n, rng.getrandbits(32))]
    if answered:
        for row in rows:
            row["answer"] = rng.choice(said_in_every_style(answer(row["prompt"])))
    return rows


def judge(annotator: Annotator | None = None, seed: int = 0) -> Judge:
    """A judge for :func:`pref_toolkit.loops.train.train`: the annotator's reward plus standard Gumbel noise.

    The better-scored of two answers is then preferred with the annotator's Bradley-Terry probability. The noise depends on
    seed, prompt, answer and how often the answer came up before among the prompt's: the same draws get the same scores.

    Args:
        annotator: ``Annotator()`` if not given.
        seed: of the noise.
    """
    who = annotator or Annotator()

    def scores(questions: list[str], answers: list[list[str]]) -> list[list[float]]:
        out = []
        for prompt, own in zip(questions, answers):
            before: Counter[str] = Counter()
            row = []
            for said in own:
                before[said] += 1
                row.append(who.score(prompt, said, random.Random(f"{seed} {prompt} {said} {before[said]}")))
            out.append(row)
        return out

    return scores
