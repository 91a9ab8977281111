"""Trains several times in float64, one after another; ``accelerate launch`` starts it twice in ``test_distributed.py``.

Arguments: a directory for the runs, and a JSON list of them: name, method, rows, settings, and after which step the second
process alone is to be terminated, if it is.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from parts import begun
from rounding import everything_in_float64
from torch.distributed.tensor import DTensor

from pref_toolkit import TrainConfig, train
from pref_toolkit.training.models import tiny
from pref_toolkit.training.run import Run

initialise = AcceleratorState.__init__


def short():
    """The tiny model with two of its four layers."""
    model, tokenizer = tiny()
    del model.model.layers[2:]
    model.config.num_hidden_layers = 2
    return model, tokenizer


def told_to_shard(self, *args, fsdp_plugin=None, **kwargs):
    """accelerate takes FSDP on GPUs only; torch's own, which it calls, works on CPUs too."""
    initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def here(weight):
    """Numbers of a weight that this process holds."""
    return weight.to_local().numel() if isinstance(weight, DTensor) else weight.numel()


def stopped(config, method, rows, after):
    """The run in which the second process is told to stop after a step."""
    with Run.open(config) as run:
        policy, trainer, data = begun(run, rows, method, short())
        for step in run.steps(config.max_steps, policy=policy, trainer=trainer):
            run.log(step, trainer.update(data.batch(step), config.rate(step)))
            if step == after and PartialState().process_index == 1:
                os.kill(os.getpid(), signal.SIGTERM)
        return run.finish()


def one(directory, method, rows, settings, stop_after):
    """What the main process saw of a run."""
    config = TrainConfig(**settings, output=directory)
    try:
        history = (
            train(*short(), rows, method, config) if stop_after is None else stopped(config, method, rows, stop_after)
        )
    except SystemExit as stop:
        return {"end": str(stop.code)}
    except ValueError as error:
        return {"end": str(error)}
    state = AcceleratorState()
    weights = list(history.model.parameters())
    return {
        "processes": state.num_processes,
        "kind": state.distributed_type,
        "share": sum(map(here, weights)) / sum(w.numel() for w in weights),
        "steps": history.steps,
        "after": history.after,
        "samples": history.samples,
    }


if __name__ == "__main__":
    AcceleratorState.__init__ = told_to_shard
    torch.set_num_threads(1)
    output = Path(sys.argv[1])
    with everything_in_float64():
        facts = {name: one(str(output / directory), *rest) for name, directory, *rest in json.loads(sys.argv[2])}
    if PartialState().is_main_process:
        (output / "facts.json").write_text(json.dumps(facts))
    PartialState().destroy_process_group()
