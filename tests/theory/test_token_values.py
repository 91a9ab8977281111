"""DPO read as a Q function: beta log(pi / ref) of a token is its advantage, and over a response they telescope."""

from itertools import product

import numpy as np
import torch

from pref_toolkit.logps import Logps
from pref_toolkit.losses import margin
from pref_toolkit.theory.bandits import rlhf_optimum

BETA, VOCABULARY, LENGTH = 0.4, 3, 3


def totals(leaves: torch.Tensor, depth: int) -> torch.Tensor:
    """Log of the summed exponentials of all responses that begin with the same ``depth`` tokens."""
    return leaves.reshape(*[VOCABULARY] * depth, -1).logsumexp(-1)


def test_log_ratios_of_tokens_are_advantages_that_telescope():
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(VOCABULARY**LENGTH, dtype=torch.float64, generator=generator).log_softmax(0)
    reward = torch.randn(VOCABULARY**LENGTH, dtype=torch.float64, generator=generator)
    best, log_z = rlhf_optimum(reference.exp(), reward, BETA)
    policy = best.log()

    # V of a prefix: beta times the log of the reference's mean of exp(r / beta) over what may follow.
    value = [BETA * (totals(reference + reward / BETA, d) - totals(reference, d)) for d in range(LENGTH + 1)]
    np.testing.assert_allclose(value[0], BETA * log_z, rtol=1e-12)
    np.testing.assert_allclose(value[LENGTH].flatten(), reward, rtol=1e-12)

    ratios = []
    for d in range(LENGTH):
        log_pi, log_ref = (totals(leaves, d + 1) - totals(leaves, d)[..., None] for leaves in (policy, reference))
        # The reward comes with the last token, so Q of a token is V of the prefix it makes.
        advantage = value[d + 1] - value[d][..., None]
        np.testing.assert_allclose(BETA * (log_pi - log_ref), advantage, rtol=1e-10, atol=1e-12)
        ratios.append(BETA * (log_pi - log_ref))

    responses = list(product(range(VOCABULARY), repeat=LENGTH))
    sums = torch.stack([sum(ratios[d][y[: d + 1]] for d in range(LENGTH)) for y in responses])
    np.testing.assert_allclose(sums, reward - BETA * log_z, rtol=1e-10, atol=1e-12)

    # So the margin that DPO trains on is the difference of the two rewards.
    one = torch.ones(1, 2)
    records = (Logps(leaves[None, [5, 20]], one) for leaves in (policy, reference))
    np.testing.assert_allclose(BETA * margin(*records), reward[[5]] - reward[[20]], rtol=1e-10)
