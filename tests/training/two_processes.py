"""Trains several methods, one after another, and writes weights and metrics to a directory.

``accelerate launch`` starts it twice in ``test_distributed.py``, plain python once. Arguments: the directory, and a JSON list
of runs, each with its method, rows and settings.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from pref_toolkit import TrainConfig, train
from pref_toolkit.training.models import tiny

made = AcceleratorState.__init__


def told_to_shard(self, *args, fsdp_plugin=None, **kwargs):
    """accelerate takes FSDP on GPUs only; torch's own, which it calls, works on a CPU too."""
    made(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin


if __name__ == "__main__":
    AcceleratorState.__init__ = told_to_shard
    torch.set_num_threads(1)
    output = Path(sys.argv[1])
    for name, method, rows, settings in json.loads(Path(sys.argv[2]).read_text()):
        history = train(*tiny(), rows, method, TrainConfig(**settings, output=str(output / name)))
        facts = {"processes": AcceleratorState().num_processes, "kind": AcceleratorState().distributed_type}
        facts |= {"steps": history.steps, "after": history.after, "samples": history.samples}
        if AcceleratorState().is_main_process:
            (output / name / "facts.json").write_text(json.dumps(facts))
