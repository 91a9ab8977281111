"""What the processes of a run do together: one on each device, all with the same code and seed.

Each process takes its share of the examples. Where every process holds all weights, gradients are added up once an update;
where each holds a part of them (FSDP), all must go forward equally often, since every forward gathers the parts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from pref_toolkit.data.batches import packed_length
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import Complaint, NotFiniteError
from pref_toolkit.training.modes import base_of
from pref_toolkit.training.scoring import Scorer

Item = TypeVar("Item")


def sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds only a part of the weights."""
    return accelerator.distributed_type == DistributedType.FSDP


def devices(**settings: Any) -> Accelerator:
    """The devices of this process: a CUDA GPU, or the CPU.

    Without ``cpu``, accelerate takes several processes without a GPU for as many single ones, and Apple's GPU, which has no
    float64, for one to train on.
    """
    return Accelerator(cpu=not torch.cuda.is_available(), **settings)


def prepared(accelerator: Accelerator, scorer: Scorer) -> Scorer:
    """The scorer on this process's device, the weights spread over the processes if accelerate was told so."""
    if sharded(accelerator):
        if not accelerator.is_fsdp2:
            raise Complaint("FSDP wants version 2: set fsdp_version: 2 in accelerate's configuration")
        # accelerate asks the model for the layers that are spread one by one, and wants an optimizer of its parameters.
        layers = getattr(base_of(scorer.model), "_no_split_modules", None)
        scorer._no_split_modules = layers  # type: ignore[assignment]  # torch takes it for a module
        warnings.filterwarnings(
            "ignore", message="FSDP2-wrapped module .* returned a view"
        )  # and nobody writes into it
        scorer, _ = accelerator.prepare(scorer, torch.optim.SGD([p for p in scorer.parameters() if p.requires_grad]))
        first = scorer.collate([Encoded([0], [[0]], where="first")]).to(accelerator.device)
        with torch.no_grad():
            scorer(first)  # the first forward says which module is the outermost
        reshard(scorer)
        return scorer
    # Gradients are added up in `add_gradients`, so no wrapper that does it.
    return accelerator.prepare_model(scorer, evaluation_mode=True)


def all_gather(accelerator: Accelerator, mine: list[Item]) -> list[Item]:
    """The lists of all processes, one behind the other."""
    return gather_object(mine) if accelerator.num_processes > 1 else mine


def agreed(accelerator: Accelerator, work: Callable[[], Item]) -> Item:
    """Run ``work``, which must not communicate. If it runs out of memory or meets a value that is not finite in one process,
    raise the same error in all.
    """
    if accelerator.num_processes == 1 or sharded(accelerator):
        return work()
    failure = None
    try:
        result = work()
    except (torch.cuda.OutOfMemoryError, NotFiniteError) as error:
        failure = type(error), str(error)
    if failures := [f for f in all_gather(accelerator, [failure]) if f is not None]:
        kind, message = failures[0]
        raise kind(message)
    return result


def shares(examples: Sequence[Encoded], number: int) -> list[list[Encoded]]:
    """The examples of each process, with about as many positions each: an update lasts as long as its slowest process.

    The longest example comes first, and each goes to the process that has the fewest positions so far. Within a share they keep
    their order.
    """
    own: list[list[int]] = [[] for _ in range(number)]
    positions = [0] * number
    lengths = [packed_length(example) for example in examples]
    for n in sorted(range(len(examples)), key=lambda n: -lengths[n]):
        place = positions.index(min(positions))
        own[place].append(n)
        positions[place] += lengths[n]
    return [[examples[n] for n in sorted(places)] for places in own]


def own_micro_batches(
    accelerator: Accelerator, scorer: Scorer, examples: Sequence[Encoded], forward_tokens: int
) -> tuple[list[list[Encoded]], list[list[Encoded]]]:
    """The micro-batches this process scores, and the idle ones it runs so that, under FSDP, all run equally many forwards."""
    parts = [scorer.parts(share, forward_tokens) for share in shares(examples, accelerator.num_processes)]
    mine = parts[accelerator.process_index]
    missing = max(map(len, parts)) - len(mine) if sharded(accelerator) else 0
    return mine, [list(examples[:1])] * missing


def divisible(accelerator: Accelerator, scorer: Scorer, examples: Sequence[Encoded], forward_tokens: int) -> bool:
    """Whether smaller forwards could do with less memory.

    Processes that hold parts of the weights wait for each other inside a forward: there, none can go back and try again.
    """
    own = shares(examples, accelerator.num_processes)
    parts = [part for share in own for part in scorer.parts(share, forward_tokens)]
    return not sharded(accelerator) and any(len(part) > 1 for part in parts)


def add_gradients(accelerator: Accelerator, weights: Iterable[Tensor]) -> None:
    """Each gradient becomes the sum over all processes."""
    if accelerator.num_processes == 1 or sharded(accelerator):
        return
    gradients = [w.grad for w in weights if w.grad is not None]
    flat: Any = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "sum")
    for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(total.view_as(gradient))


def full(value: Tensor) -> Tensor:
    """The full tensor of a weight of which each process may hold a part; all processes must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def spread_like(value: Tensor, weight: Tensor) -> Tensor:
    """This process's part of a full tensor, laid out as the weight is."""
    if isinstance(weight, DTensor):
        return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
    return value.to(weight.device)


def reshard(scorer: nn.Module | None) -> None:
    """Each process has its part of the weights again, those to train: a forward leaves weights outside the layers whole."""
    if hasattr(scorer, "reshard"):
        scorer.reshard()  # type: ignore[union-attr,operator]


@contextmanager
def gathered(scorer: nn.Module | None) -> Iterator[None]:
    """Inside, the scorer's model can be called without the scorer: weights outside the layers are whole in each process."""
    unshard = getattr(scorer, "unshard", None)
    if unshard is None:
        yield
        return
    unshard()
    try:
        yield
    finally:
        reshard(scorer)
