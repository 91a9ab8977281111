"""How many files a row of data passes from JSONL to the optimiser's step: a reader has to open that many."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

import pref_toolkit
from pref_toolkit import TrainConfig
from pref_toolkit.data import Encoded, Example
from pref_toolkit.data.batches import Batch
from pref_toolkit.logps import Logps
from pref_toolkit.training.dataset import Data
from pref_toolkit.training.models import tiny
from pref_toolkit.training.objective import Objective, Scored
from pref_toolkit.training.policy import Policy
from pref_toolkit.training.trainer import Trainer, Update

PACKAGE = Path(pref_toolkit.__file__).parent


def is_a_row(value):
    """A row, or what was made of one; several count as one."""
    if isinstance(value, list | tuple) and value:
        return is_a_row(value[0])
    if isinstance(value, dict):
        return "chosen" in value or any(map(is_a_row, value.values()))
    if isinstance(value, Tensor):
        return not isinstance(value, nn.Parameter)
    return isinstance(value, Example | Encoded | Batch | Scored | Logps | Update)


@contextmanager
def traced(files):
    """Add the files of the package whose functions are handed a row inside."""

    def note(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(PACKAGE)):
            given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(is_a_row(frame.f_locals.get(name)) for name in given):
                files.add(str(Path(code.co_filename).relative_to(PACKAGE)))

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


def test_a_row_passes_fifteen_files_at_most(tmp_path):
    path = tmp_path / "pairs.jsonl"
    row = {"prompt": "a question", "chosen": "yes", "rejected": "no, and no"}
    path.write_text("".join(json.dumps(row | {"prompt": f"question {i}"}) + "\n" for i in range(4)))
    files = {"training/loop.py"}  # where `train` is given the path
    config, objective, (model, tokenizer) = TrainConfig(batch_size=2, held_out=0), Objective.of("dpo"), tiny()
    with traced(files):
        data = Data.of(str(path), tokenizer, objective, config, None)
    trainer = Trainer(Policy.to_train(model, tokenizer, config, data.longest), objective, config)
    before = {name: weight.detach().clone() for name, weight in trainer.weights.items()}
    with traced(files):
        update = trainer.gradients(data.batch(0))
    trainer.step(update, 1e-3)
    assert any(not torch.equal(before[name], weight) for name, weight in trainer.weights.items())
    print(*sorted(files), sep="\n")
    assert {"data/rows.py", "training/trainer.py", "losses/pairs.py"} < files
    assert len(files) <= 15, sorted(files)
