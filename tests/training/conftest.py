"""Small data sets and quick settings for the training tests."""

import multiprocessing

import pytest
import torch
from rounding import everything_in_float64

from pref_toolkit import TrainConfig
from pref_toolkit.losses import METHODS


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


def responses_and(field, values):
    """A pair as a list, with one number for each response."""
    return lambda row, i: {
        "prompt": row["prompt"],
        "responses": [row["chosen"], row["rejected"]],
        field: [value + i / 100 for value in values],
    }


# What a method reads beside prompts and responses -> a row of the form that has it, from a pair and its number.
FORMS = {
    "scores": responses_and("scores", (2.0, 0.5)),
    "win_probabilities": responses_and("win_probabilities", (0.7, 0.2)),
    "desirable": lambda row, i: {
        "prompt": row["prompt"],
        "completion": row["chosen" if i % 3 else "rejected"],
        "label": bool(i % 3),
    },
}


@pytest.fixture(scope="session")
def rows_for(rows):
    """The twelve rows in the form that a method reads."""

    def make(method):
        form = next((FORMS[name] for name in METHODS[method].needs if name in FORMS), lambda row, i: row)
        return [form(row, i) for i, row in enumerate(rows)]

    return make


@pytest.fixture(scope="session")
def quick():
    """A configuration of a few updates on those rows, with a short sample; fields can be overridden."""
    usual = {"batch_size": 4, "max_steps": 2, "held_out": 2, "lora_rank": 2, "samples": 1, "sample_tokens": 4}

    def make(**fields):
        return TrainConfig(**usual | fields)

    return make


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors are faster on one thread, and sums then have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def float64():
    """Models are made and run in float64."""
    with everything_in_float64():
        yield


@pytest.fixture(scope="session")
def forkserver():
    """Starts processes that need not import torch and transformers again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pref_toolkit.training.loop"])
    return context
