"""What sharing prompts is worth: the three routes of scoring, side by side in one run.

A Llama of 8 layers and width 512 with random weights scores and differentiates batches of 4 pairs of ragged lengths, like the
real ones (prompts of 40 to 250 tokens, responses of 10 to 120). Prints pairs per second and the ratio to the plain route.
"""

from __future__ import annotations

import random
import statistics
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pref_toolkit.data.tokens import Encoded
from pref_toolkit.training.models import with_adapters
from pref_toolkit.training.scoring import Scorer, logps

ROUTES = ("rows", "mask", "segments")
ROUNDS, PAIRS = 5, 4


def examples(rng: random.Random) -> list[Encoded]:
    draw = lambda low, high: [rng.randrange(32_000) for _ in range(rng.randint(low, high))]
    return [Encoded(draw(40, 250), [draw(10, 120), draw(10, 120)], where="benchmark") for _ in range(PAIRS)]


def main() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8
    )
    model = LlamaForCausalLM(config)
    scorers = {}
    state = model.state_dict()
    for route in ROUTES:
        own = LlamaForCausalLM(config)
        own.load_state_dict(state)
        scorers[route] = Scorer(with_adapters(own, rank=16, alpha=None, dropout=0.0), 512, route)
    seconds: dict[str, list[float]] = {route: [] for route in ROUTES}
    sums: dict[str, torch.Tensor] = {}
    rng = random.Random(0)
    for round_ in range(ROUNDS + 1):  # the first warms up
        batch = examples(rng)
        for route, scorer in scorers.items():
            began = time.perf_counter()
            sums[route] = logps(scorer, scorer.collate(batch)).sums
            sums[route].sum().backward()
            if round_:
                seconds[route].append(time.perf_counter() - began)
        for route in ROUTES[1:]:
            torch.testing.assert_close(sums[route], sums["rows"], rtol=1e-5, atol=1e-3)
    plain = statistics.median(seconds["rows"])
    print(f"{torch.get_num_threads()} threads, median of {ROUNDS} rounds, forward and backward of {PAIRS} pairs")
    for route in ROUTES:
        median = statistics.median(seconds[route])
        print(f"{route:10} {PAIRS / median:7.2f} pairs/s   {plain / median:5.2f} x rows")


if __name__ == "__main__":
    main()
