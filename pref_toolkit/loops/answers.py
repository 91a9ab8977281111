"""A policy's answers to prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pref_toolkit.data.tokens import Encoded
from pref_toolkit.loops.asked import Asked
from pref_toolkit.loops.config import LoopConfig
from pref_toolkit.loops.draws import Draws
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.policy import Policy, View


def answered(
    policy: Policy,
    asked: Sequence[Asked],
    settings: LoopConfig,
    config: TrainConfig,
    number: int,
    *,
    view: View,
    reference: View,
) -> Draws:
    """Answers to these prompts, not judged yet: a pure function of weights, prompts and seed.

    Args:
        policy: whose view answers.
        asked: the prompts.
        settings: how to draw.
        config: of the run; ``sample_tokens`` and ``seed`` are read.
        number: of the draw in the run; the seed depends on it.
        view: who answers.
        reference: who answers with it in a mixture.
    """
    k, most = settings.answers, config.sample_tokens
    flat = policy.sample(
        [a.ids for a in asked for _ in range(k)],
        view=view,
        max_new_tokens=most,
        temperature=settings.temperature,
        mixture=settings.mixture,
        reference=reference,
        seed=config.seed * 1_000_003 + number,
    )
    answers = [flat[i * k : (i + 1) * k] for i in range(len(asked))]
    if settings.greedy:
        likeliest = policy.sample([a.ids for a in asked], view=view, max_new_tokens=most, temperature=0)
        answers = [[*own, last] for own, last in zip(answers, likeliest)]
    draws = Draws(asked, answers, [policy.texts(own) for own in answers])
    if settings.updates == 1:  # the policy that learns is the one that drew
        return draws
    drawn = [Encoded(a.ids, own, a.where) for a, own in zip(asked, answers)]
    return replace(draws, logps=policy.token_logps(drawn, view=view))
