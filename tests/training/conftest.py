"""A small data set and quick settings for the training tests."""

import pytest
import torch

from pref_toolkit import TrainConfig


@pytest.fixture(scope="session")
def rows():
    """Twelve pairs of ragged lengths."""
    return [
        {
            "prompt": f"question {i} " * (1 + i % 3),
            "chosen": "yes " * (1 + i % 4) + str(i),
            "rejected": "no " * (1 + i % 5),
        }
        for i in range(12)
    ]


@pytest.fixture
def quick():
    """A configuration of a few updates on those rows; fields can be overridden."""

    def make(**fields):
        return TrainConfig(**{"batch_size": 4, "max_steps": 2, "held_out": 2, "lora_rank": 2, "samples": 1, **fields})

    return make


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors are faster on one thread, and sums then have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
