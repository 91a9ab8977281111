"""Rows of preferences: an annotator chooses between, scores or ranks responses to prompts of the lab."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any, Literal

from pref_toolkit.lab import shipped
from pref_toolkit.lab.annotators import Annotator
from pref_toolkit.lab.language import LARGEST, SMALLEST, answer, prompts, said_in_every_style
from pref_toolkit.training.generation import generate


def pairs(
    n: int,
    *,
    seed: int = 0,
    annotator: Annotator | None = None,
    policy: Literal["on", "off"] = "on",
    where: Callable[[str], bool] = lambda prompt: True,
) -> list[dict[str, str]]:
    """``n`` rows ``{"prompt", "chosen", "rejected"}`` on prompts of the train split; no response is empty.

    Args:
        n: number of pairs. No prompt is repeated before every prompt of the split was drawn once.
        seed: seed of the prompts, the responses and the annotator.
        annotator: the annotator who chooses; ``Annotator()`` if not given.
        policy: source of the two different responses. ``"on"``: samples of the supervised model at temperature 1.
            ``"off"``: the grammar, with all styles equally likely; the number is right with probability 1/2 and otherwise
            any wrong sum.
        where: which prompts of the split there are pairs for, at least one of twenty.
    """
    if policy not in ("on", "off"):
        raise ValueError(f"policy is 'on' or 'off', got {policy!r}")
    annotator = annotator or Annotator()
    rng = random.Random(seed)
    order = rng.getrandbits(32)
    asked = [p for p in prompts(n, order) if where(p)]
    if len(asked) < n:
        asked = [p for p in prompts(20 * n, order) if where(p)][:n]
    drawn = _from_model(asked, rng) if policy == "on" else [_from_grammar(prompt, rng) for prompt in asked]
    rows = []
    for prompt, (first, second) in zip(asked, drawn):
        chosen, rejected = annotator.choose(prompt, first, second, rng)
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def rows(
    n: int, needs: Collection[str], *, k: int = 2, seed: int = 0, annotator: Annotator | None = None
) -> list[dict[str, Any]]:
    """Rows in the form that a loss reads: ``n`` on-policy pairs of :func:`pairs`, or ``2 n / k`` rankings.

    Args:
        n: number of pairs; for rankings, ``2 n / k`` are drawn, so that the number of responses is the same.
        needs: the method's ``needs``. With ``desirable``, each pair becomes two labelled rows, of which the chosen response
            is desirable. With ``scores``, a row has the annotator's scores. With ``win_probabilities``, a row has for each
            response the probability that the annotator prefers it to a response drawn at random from the pair, itself
            included.
        k: number of responses to a prompt; above 2, the rows are those of :func:`rankings`.
        seed: as in :func:`pairs`.
        annotator: as in :func:`pairs`.
    """
    if k > 2:
        return rankings(2 * n // k, k, seed=seed, annotator=annotator)
    annotator = annotator or Annotator()
    given = pairs(n, seed=seed, annotator=annotator)
    rng = random.Random(seed)
    if "desirable" in needs:
        return [
            {"prompt": pair["prompt"], "completion": pair[which], "label": which == "chosen"}
            for pair in given
            for which in ("chosen", "rejected")
        ]
    if not {"scores", "win_probabilities"} & set(needs):
        return list(given)
    out: list[dict[str, Any]] = []
    for pair in given:
        both = pair["chosen"], pair["rejected"]
        row: dict[str, Any] = {"prompt": pair["prompt"], "responses": list(both)}
        if "scores" in needs:
            row["scores"] = list(annotator.scores(pair["prompt"], *both, rng))
        if "win_probabilities" in needs:
            p = annotator.probability(pair["prompt"], *both)
            row["win_probabilities"] = [(0.5 + p) / 2, (1.5 - p) / 2]
        out.append(row)
    return out


def rankings(n: int, k: int, *, seed: int = 0, annotator: Annotator | None = None) -> list[dict[str, Any]]:
    """``n`` rows ``{"prompt", "responses", "scores"}``: ``k`` different responses of the supervised model, best first.

    The annotator ranks by reward plus standard Gumbel noise, so the rankings follow the Plackett-Luce model.

    Args:
        n: number of prompts, from the train split.
        k: number of responses to a prompt, at least 2: samples at temperature 1, without repeated and empty ones.
        seed, annotator: as in :func:`pairs`.
    """
    if k < 2:
        raise ValueError(f"a ranking has at least 2 responses, got k={k!r}")
    annotator = annotator or Annotator()
    rng = random.Random(seed)
    out = []
    asked = prompts(n, rng.getrandbits(32))
    for prompt, drawn in zip(asked, _different_from_model(asked, k, rng)):
        scored = [(annotator.score(prompt, response, rng), response) for response in drawn]
        scored.sort(reverse=True)
        out.append({"prompt": prompt, "responses": [r for _, r in scored], "scores": [s for s, _ in scored]})
    return out


def _different_from_model(asked: list[str], k: int, rng: random.Random) -> list[list[str]]:
    """``k`` different responses to each prompt, in the order in which they were drawn."""
    model, tokenizer = shipped.load()
    drawn: list[list[str]] = [[] for _ in asked]
    while again := [i for i, responses in enumerate(drawn) if len(responses) < k]:
        several = [asked[i] for i in again for _ in range(k)]
        seed = rng.getrandbits(32)
        said = generate(model, tokenizer, several, max_new_tokens=shipped.LONGEST, seed=seed, batch_size=512)
        for n, i in enumerate(again):
            new = filter(None, said[n * k : (n + 1) * k])
            drawn[i] = list(dict.fromkeys([*drawn[i], *new]))[:k]
    return drawn


def _from_model(asked: list[str], rng: random.Random) -> list[tuple[str, str]]:
    """Two samples for each prompt. If they are equal or one is empty, both are drawn again."""
    model, tokenizer = shipped.load()
    drawn = [("", "")] * len(asked)
    while again := [i for i, pair in enumerate(drawn) if pair[0] == pair[1] or "" in pair]:
        twice = [asked[i] for i in again for _ in range(2)]
        seed = rng.getrandbits(32)
        said = generate(model, tokenizer, twice, max_new_tokens=shipped.LONGEST, seed=seed, batch_size=512)
        for i, first, second in zip(again, said[::2], said[1::2]):
            drawn[i] = (first, second)
    return drawn


def _from_grammar(prompt: str, rng: random.Random) -> tuple[str, str]:
    first = second = _response(prompt, rng)
    while second == first:
        second = _response(prompt, rng)
    return first, second


def _response(prompt: str, rng: random.Random) -> str:
    number = answer(prompt)
    if rng.random() < 0.5:
        number = rng.choice([wrong for wrong in range(2 * SMALLEST, 2 * LARGEST + 1) if wrong != number])
    return rng.choice(said_in_every_style(number))
