"""What the processes of a run do together: one on each device, all with the same code and seed.

Each process takes its share of the examples. Where every process holds all weights, gradients are added up once an update;
where each holds a part of them (FSDP), all must go forward equally often, since every forward gathers the parts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import Complaint, NotFiniteError


def sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds only a part of the weights."""
    return accelerator.distributed_type == DistributedType.FSDP


def prepared(accelerator: Accelerator, scorer: Any, optimizer: Any) -> tuple[Any, Any]:
    """The scorer and optimizer on this process's device, the weights spread over the processes if accelerate was told so."""
    if sharded(accelerator):
        if not accelerator.is_fsdp2:
            raise Complaint("FSDP wants version 2: set fsdp_version: 2 in accelerate's configuration")
        # What accelerate asks a model for: the layers that are spread one by one.
        scorer._no_split_modules = scorer.model.get_base_model()._no_split_modules
        warnings.filterwarnings(
            "ignore", message="FSDP2-wrapped module .* returned a view"
        )  # and nobody writes into it
        scorer, optimizer = accelerator.prepare(scorer, optimizer)
        first = scorer.collate([Encoded([0], [[0]], where="first")]).to(accelerator.device)
        with torch.no_grad():
            scorer(first)  # the first forward says which module is the outermost
        scorer.reshard()  # and leaves its weights whole; those to train are the parts
        return scorer, optimizer
    # Gradients are added up in `add_gradients`, so no wrapper that does it.
    return accelerator.prepare_model(scorer, evaluation_mode=True), accelerator.prepare(optimizer)


def everyones(accelerator: Accelerator, mine: list[Any]) -> list[Any]:
    """The lists of all processes, one behind the other."""
    return gather_object(mine) if accelerator.num_processes > 1 else mine


def agreed(accelerator: Accelerator, work: Callable[[], Any]) -> Any:
    """The result of work that waits for no other process; where it fails in one, for memory or a value, it fails in all."""
    if accelerator.num_processes == 1 or sharded(accelerator):
        return work()
    failure = result = None
    try:
        result = work()
    except (torch.cuda.OutOfMemoryError, NotFiniteError) as error:
        failure = type(error), str(error)
    if failures := [f for f in everyones(accelerator, [failure]) if f is not None]:
        kind, message = failures[0]
        raise kind(message)
    return result


def shares(
    accelerator: Accelerator, scorer: Any, examples: Sequence[Encoded], forward_tokens: int
) -> tuple[list[list[Encoded]], list[list[Encoded]]]:
    """This process's share of the examples in forwards, and the forwards it makes for the others' sake only."""
    number = accelerator.num_processes
    parts = [scorer.parts(examples[place::number], forward_tokens) for place in range(number)]
    mine = parts[accelerator.process_index]
    missing = max(map(len, parts)) - len(mine) if sharded(accelerator) else 0
    return mine, [list(examples[:1])] * missing


def divisible(accelerator: Accelerator, scorer: Any, examples: Sequence[Encoded], forward_tokens: int) -> bool:
    """Whether smaller forwards could do with less memory.

    Processes that hold parts of the weights wait for each other inside a forward: there, none can go back and try again.
    """
    number = accelerator.num_processes
    parts = [part for place in range(number) for part in scorer.parts(examples[place::number], forward_tokens)]
    return not sharded(accelerator) and any(len(part) > 1 for part in parts)


def add_gradients(accelerator: Accelerator, weights: Iterable[Tensor]) -> None:
    """Each gradient becomes the sum over all processes."""
    if accelerator.num_processes == 1 or sharded(accelerator):
        return
    gradients = [w.grad for w in weights if w.grad is not None]
    flat: Any = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "sum")
    for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(total.view_as(gradient))


def whole(value: Tensor) -> Tensor:
    """A weight as every process sees it; all of them must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def spread_like(value: Tensor, weight: Tensor) -> Tensor:
    """This process's part of a whole tensor, laid out as the weight is."""
    if isinstance(weight, DTensor):
        return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
    return value.to(weight.device)


@contextmanager
def gathered(scorer: nn.Module) -> Iterator[None]:
    """Inside, the scorer's model can be called without the scorer: weights outside the layers are whole in each process."""
    unshard = getattr(scorer, "unshard", None)
    if unshard is None:
        yield
        return
    unshard()
    try:
        yield
    finally:
        scorer.reshard()  # type: ignore[operator]  # beside unshard
