"""Preferences: responses of the supervised model to a prompt, and an annotator's choice or ranking."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any, Literal

from pref_toolkit.lab import shipped
from pref_toolkit.lab.annotators import Annotator
from pref_toolkit.lab.language import LARGEST, SMALLEST, answer, prompts, said_in_every_style
from pref_toolkit.training.generation import generate


def pairs(
    n: int, *, seed: int = 0, annotator: Annotator | None = None, policy: Literal["on", "off"] = "on"
) -> list[dict[str, str]]:
    """``n`` rows ``{"prompt", "chosen", "rejected"}`` on prompts of the train split; no response is empty.

    Args:
        n: number of pairs. No prompt comes twice before every prompt of the split has come once.
        seed: of the prompts, the responses and the annotator.
        annotator: who chooses; ``Annotator()`` if not given.
        policy: where the two different responses come from. ``"on"``: samples of the supervised model, temperature 1.
            ``"off"``: the grammar, every style as likely as another, right half of the time, else any wrong sum.
    """
    if policy not in ("on", "off"):
        raise ValueError(f"policy is 'on' or 'off', got {policy!r}")
    annotator = annotator or Annotator()
    rng = random.Random(seed)
    asked = prompts(n, rng.getrandbits(32))
    drawn = _from_model(asked, rng) if policy == "on" else [_from_grammar(prompt, rng) for prompt in asked]
    rows = []
    for prompt, (first, second) in zip(asked, drawn):
        chosen, rejected = annotator.choose(prompt, first, second, rng)
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def rows(
    n: int, needs: Collection[str], *, k: int = 2, seed: int = 0, annotator: Annotator | None = None
) -> list[dict[str, Any]]:
    """On-policy responses of the supervised model, ``n`` pairs of :func:`pairs` or ``2 n / k`` rankings, as a loss reads them.

    Args:
        n: number of pairs, or of responses by two.
        needs: what the loss reads, a method's ``needs``. With ``desirable``, each pair becomes two labelled rows, the chosen
            response desirable; with ``scores``, the annotator's scores stand beside the pair; with ``win_probabilities``, the
            chance that the annotator prefers a response to one of the pair, itself included, drawn at random.
        k: responses to a prompt; above 2, the rows are those of :func:`rankings`.
        seed: as for :func:`pairs`.
        annotator: as for :func:`pairs`.
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
            out.append(row | {"scores": list(annotator.scores(pair["prompt"], *both, rng))})
        else:
            p = annotator.probability(pair["prompt"], *both)
            out.append(row | {"win_probabilities": [(0.5 + p) / 2, (1.5 - p) / 2]})
    return out


def rankings(n: int, k: int, *, seed: int = 0, annotator: Annotator | None = None) -> list[dict[str, Any]]:
    """``n`` rows ``{"prompt", "responses", "scores"}``: ``k`` different responses of the supervised model, best first.

    The annotator ranks by score, each the reward with standard Gumbel noise; so the rankings are Plackett and Luce's.

    Args:
        n: number of prompts, of the train split.
        k: responses to each, at least 2; samples at temperature 1, without those that came before or say nothing.
        seed, annotator: as for :func:`pairs`.
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
    """Two samples to each prompt, drawn again together until they differ and both say something."""
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
