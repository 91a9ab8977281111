"""Measures of a model that was trained in the lab, on prompts that neither it nor the supervised model was trained on."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor, nn

from pref_toolkit import metrics
from pref_toolkit.data import encode_prompt
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import Complaint
from pref_toolkit.lab import shipped
from pref_toolkit.lab.language import answer, gold, politeness, prompts, said_in_every_style
from pref_toolkit.lab.reward_kl import frontier
from pref_toolkit.training.generation import sample
from pref_toolkit.training.layers import adapters_in_place, patched
from pref_toolkit.training.modes import evaluation
from pref_toolkit.training.routes import device_of
from pref_toolkit.training.scoring import Scorer, logps

PROMPTS_AT_ONCE = 128
TOKENS_AT_ONCE = 8192


def evaluate(model: Any, tokenizer: Any, *, n: int = 1000, seed: int = 0, start: Any = None) -> dict[str, Any]:
    """Measure a policy on ``n`` unseen prompts. Policy and supervised model answer each with one sample at temperature 1.

    Args:
        model: a policy trained from the lab's supervised model, or that model itself.
        tokenizer: the lab's.
        n: number of prompts, at most the size of the test split.
        seed: seed of the prompts and samples.
        start: the model that the policy is compared with, in place of the supervised one.

    Returns:
        A dict that JSON can hold.

        - ``n``: number of prompts.
        - ``before``, ``after``: measures of the supervised model and of the policy. ``accuracy`` is the mean gold reward,
          ``accuracy_interval`` its 95 % interval (Wilson), ``length`` the mean length in tokens, EOS included, and
          ``politeness`` the share of responses that say thanks.
        - ``win_rate``: share of prompts on which the policy's gold reward beats the supervised model's; a tie counts half.
          ``win_rate_interval`` is its 95 % interval (normal, from the spread of wins, ties and losses).
        - ``kl``: KL(policy || supervised) in nats per response, the mean log-ratio of the policy's samples; ``kl_error`` is
          its standard error.
        - ``chance``: the supervised model's mean probability of a right response, summed exactly over the right responses of
          the grammar.
        - ``frontier``: the highest accuracy of any policy at this KL, see :func:`pref_toolkit.lab.frontier`; ``distance`` is
          the frontier less the policy's accuracy.

    Raises:
        ValueError: if the tokenizer is not the lab's, or the test split has fewer prompts than ``n``.
    """
    asked, prompt_ids, supervised, before, drawn_by = _asked(model, tokenizer, n, seed, start)
    after = sample(model, tokenizer, prompt_ids, max_new_tokens=shipped.LONGEST, seed=drawn_by, batch_size=512)
    drawn = [Encoded(p, [a], where=text) for p, a, text in zip(prompt_ids, after, asked)]
    kl, kl_error = metrics.sampled_kl(_sums(model, drawn)[:, 0], _sums(supervised, drawn)[:, 0])
    return _judged(supervised, tokenizer, asked, before, after, kl) | {"kl_error": kl_error}


def evaluate_best_of(
    model: Any, reward_head: nn.Linear, tokenizer: Any, *, of: int = 4, n: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Measure a reward model by its policy: the sample with the highest reward among ``of`` of the supervised model.

    The result has the keys of :func:`evaluate`. ``kl`` is the bound ``log(of) - (of - 1) / of``, which best-of-n does not
    exceed, and ``kl_error`` is None; ``frontier`` and ``distance`` are taken at the bound.
    """
    asked, prompt_ids, supervised, before, drawn_by = _asked(model, tokenizer, n, seed)
    several = [p for p in prompt_ids for _ in range(of)]
    said = sample(supervised, tokenizer, several, max_new_tokens=shipped.LONGEST, seed=drawn_by, batch_size=512)
    candidates = [Encoded(p, said[i * of : (i + 1) * of], where=asked[i]) for i, p in enumerate(prompt_ids)]
    longest = max(len(e.prompt) + len(r) for e in candidates for r in e.responses) + 1
    scorer = Scorer(model, longest, reward_head=reward_head)
    parts = [scorer.collate(part).to(device_of(model)) for part in scorer.parts(candidates, TOKENS_AT_ONCE)]
    with evaluation(model):
        best = torch.cat([scorer(part, ["rewards"])["rewards"] for part in parts]).argmax(1).tolist()
    after = [e.responses[i] for e, i in zip(candidates, best)]
    return _judged(supervised, tokenizer, asked, before, after, math.log(of) - (of - 1) / of) | {"kl_error": None}


def _asked(
    model: Any, tokenizer: Any, n: int, seed: int, start: Any = None
) -> tuple[list[str], list[list[int]], Any, list[list[int]], int]:
    """Unseen prompts as text and as ids, the model to compare with, its samples, and the seed of the samples to be compared."""
    supervised, own = shipped.load()
    supervised = supervised if start is None else start
    if tokenizer.get_vocab() != own.get_vocab():
        raise Complaint("lab.evaluate wants a model trained from the lab's own, with the lab's tokenizer")
    supervised.to(next(model.parameters()).device)
    rng = random.Random(seed)
    asked = prompts(n, rng.getrandbits(32), "test")
    if len(set(asked)) < n:
        raise Complaint(f"the lab has {len(set(asked))} unseen prompts, fewer than n={n}")
    ids = [encode_prompt(tokenizer, prompt) for prompt in asked]
    before = sample(
        supervised, tokenizer, ids, max_new_tokens=shipped.LONGEST, seed=rng.getrandbits(32), batch_size=512
    )
    return asked, ids, supervised, before, rng.getrandbits(32)


def _judged(
    supervised: Any, tokenizer: Any, asked: list[str], before: list[list[int]], after: list[list[int]], kl: float
) -> dict[str, Any]:
    """The results of :func:`evaluate` except ``kl_error``."""
    answers = {"before": before, "after": after}
    texts = {name: [tokenizer.decode(a, skip_special_tokens=True) for a in said] for name, said in answers.items()}
    golds = {name: [gold(p, text) for p, text in zip(asked, said)] for name, said in texts.items()}
    wins = [(a > b) + 0.5 * (a == b) for b, a in zip(golds["before"], golds["after"])]
    chances = chances_of_being_right(supervised, tokenizer, asked)
    best, n = frontier(chances, max(0.0, kl)), len(asked)
    return {
        "n": n,
        **{name: _described(texts[name], golds[name], answers[name]) for name in ("before", "after")},
        "win_rate": sum(wins) / n,
        "win_rate_interval": list(metrics.mean_interval(wins)),
        "kl": kl,
        "chance": sum(chances) / n,
        "frontier": best,
        "distance": best - sum(golds["after"]) / n,
    }


def chances_of_being_right(model: Any, tokenizer: Any, asked: list[str]) -> list[float]:
    """The model's probability of a right response to each prompt, summed over the nine right responses of the grammar.

    The sum leaves out right responses outside the grammar, such as ``"is 39"``. It is a lower bound, and a tight one for
    the supervised model.
    """
    examples = []
    for prompt in asked:
        right = tokenizer(said_in_every_style(answer(prompt)), add_special_tokens=False).input_ids
        ended = [[*ids, tokenizer.eos_token_id] for ids in right]
        examples.append(Encoded(encode_prompt(tokenizer, prompt), ended, where=prompt))
    return _sums(model, examples).double().exp().sum(-1).tolist()


def _sums(model: Any, examples: list[Encoded]) -> Tensor:
    """``(B, K)`` log-probabilities of responses in nats, from padded rows, the fastest route for texts this short."""
    scorer = Scorer(model, route="rows")
    parts = [examples[i : i + PROMPTS_AT_ONCE] for i in range(0, len(examples), PROMPTS_AT_ONCE)]
    with evaluation(model), patched(adapters_in_place(model)):
        return torch.cat([logps(scorer, scorer.collate(part).to(device_of(model))).sums for part in parts])


def _described(texts: list[str], rewards: list[float], ids: list[list[int]]) -> dict[str, Any]:
    n = len(texts)
    return {
        "accuracy": sum(rewards) / n,
        "accuracy_interval": list(metrics.wilson(sum(rewards), n)),
        "length": sum(map(len, ids)) / n,
        "politeness": sum(map(politeness, texts)) / n,
    }


def describe(judged: dict[str, Any]) -> str:
    """The results of :func:`evaluate` as a few lines of text."""
    before, after = judged["before"], judged["after"]
    kl, error = f"{judged['kl']:.3f} nats", judged["kl_error"]
    kl = f"at most {kl}" if error is None else f"{kl}, standard error {error:.3f}"
    share = lambda value, interval: f"{value:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]"
    return "\n".join(
        [
            f"on {judged['n']} unseen prompts, 95 % intervals in brackets",
            f"  gold accuracy      {share(before['accuracy'], before['accuracy_interval'])} supervised, "
            f"{share(after['accuracy'], after['accuracy_interval'])} trained",
            f"  gold win rate      {share(judged['win_rate'], judged['win_rate_interval'])} against the supervised model",
            f"  response length    {before['length']:.2f} -> {after['length']:.2f} tokens",
            f"  says thanks        {before['politeness']:.1%} -> {after['politeness']:.1%}",
            f"  KL to supervised   {kl}",
            f"  best at this KL    {judged['frontier']:.1%}, {100 * judged['distance']:.1f} points above the trained model",
        ]
    )
