"""MPO of TRL, its DPO trainer with three losses, against the mixture of the same parts."""

import pytest
import torch
from rounding import everything_in_float64

pytest.importorskip("trl")
import trl_trainers as peers

from pref_toolkit.losses import find

WEIGHTS = [0.8, 0.2, 1.0]
PARTS = "dpo+bco+sft"


def test_it_is_trls_mpo():
    """TRL's has no shift, and a supervised term that is a mean over all tokens of the batch: ours on one pair."""
    x = peers.draw(torch.float64)
    with everything_in_float64():
        for one in (x.only(i) for i in range(peers.EXAMPLES)):
            options = {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": WEIGHTS, "beta": 0.3}
            theirs = peers.dpo_trainer(one, **options)
            given = {"policy": one.policy, "reference": one.reference, "shift": torch.zeros(())}
            ours = find(PARTS, WEIGHTS).loss(**given, dpo_beta=0.3, bco_beta=0.3, sft_per="token").mean()
            gradients = [torch.autograd.grad(value, one.logp)[0] for value in (ours, theirs)]
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)
