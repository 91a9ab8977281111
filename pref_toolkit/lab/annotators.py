"""Annotators with a known error rate and known biases, who choose between responses and score them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from pref_toolkit.lab.language import gold, politeness, words


@dataclass(frozen=True)
class Annotator:
    """A Bradley-Terry annotator: prefers y to y' with probability ``sigmoid(r(y) - r(y'))``, where

        r = log((1 - error) / error) * gold + length_bias * words + politeness_bias * politeness

    Without biases, a right response loses to a wrong one with probability ``error``, and each of two right or two wrong
    responses wins with probability 1/2. The preferences express a known reward. With biases, this reward is not the gold
    reward.

    Args:
        error: probability of an error, between 0 and 1. An annotator with 0 never errs, even with biases.
        length_bias: nats for each word.
        politeness_bias: nats for saying thanks.
    """

    error: float = 0.1
    length_bias: float = 0.0
    politeness_bias: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.error <= 1:
            raise ValueError(f"error must lie between 0 and 1, got {self.error!r}")
        for name in ("length_bias", "politeness_bias"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be a finite number, got {getattr(self, name)!r}")

    def reward(self, prompt: str, response: str) -> float:
        """The reward ``r`` of a response, in nats.

        Raises:
            ValueError: if ``error`` is 0 or 1, because the reward of a right response would be infinite.
        """
        if self.error in (0, 1):
            raise ValueError(
                f"an annotator has finite rewards if its error lies strictly between 0 and 1, got {self.error}"
            )
        right = math.log((1 - self.error) / self.error) * gold(prompt, response)
        return right + self.length_bias * words(response) + self.politeness_bias * politeness(response)

    def score(self, prompt: str, response: str, rng: random.Random) -> float:
        """The reward plus standard Gumbel noise. Rankings by such scores follow the Plackett-Luce model."""
        return self.reward(prompt, response) - math.log(rng.expovariate(1.0))

    def scores(self, prompt: str, chosen: str, rejected: str, rng: random.Random) -> tuple[float, float]:
        """The scores behind a choice: each reward plus standard Gumbel noise, given that the chosen response scores higher.

        Without that condition the first score is the larger with probability ``sigmoid(r - r')``: a Bradley-Terry choice.
        """
        while True:
            s_w, s_l = (self.score(prompt, response, rng) for response in (chosen, rejected))
            if s_w > s_l:
                return s_w, s_l

    def probability(self, prompt: str, first: str, second: str) -> float:
        """The probability that the first of two responses is preferred."""
        better = gold(prompt, first) - gold(prompt, second)
        if better != 0 and self.error in (0, 1):  # an infinite gap in reward
            return float((better > 0) == (self.error == 0))
        margin = self.length_bias * (words(first) - words(second))
        margin += self.politeness_bias * (politeness(first) - politeness(second))
        if better != 0:
            margin += better * math.log((1 - self.error) / self.error)
        return 1 / (1 + math.exp(-margin)) if margin >= 0 else 1 - 1 / (1 + math.exp(margin))

    def choose(self, prompt: str, first: str, second: str, rng: random.Random) -> tuple[str, str]:
        """Choose between two responses; the result is (chosen, rejected)."""
        preferred = rng.random() < self.probability(prompt, first, second)
        return (first, second) if preferred else (second, first)
