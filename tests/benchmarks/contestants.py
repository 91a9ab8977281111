"""Who is compared with whom: each contestant's construction and the arithmetic it must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import arithmetic
import workload
from arithmetic import Positions

from pref_toolkit.data.tokens import Encoded


@dataclass(frozen=True)
class Contestant:
    """One way to do an update.

    Args:
        who: ``ours`` or ``trl``.
        positions: what it puts through the model, from the examples.
        head: how its head goes forward and backward, a name in ``arithmetic.HEAD``.
        method: the loss.
        options: arguments of :class:`ours.Ours` or :class:`peers.TRL`.
    """

    who: str
    positions: Callable[[list[Encoded]], Positions]
    head: str
    method: str = "dpo"
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, base: Any, max_length: int) -> Any:
        if self.who == "ours":
            from ours import Ours

            return Ours(base, self.method, max_length=max_length, **self.options)
        from peers import TRL  # only where it is wanted: the toolkit and its GPU benchmark do without TRL

        return TRL(base, self.method, max_length=max_length, **self.options)

    def operations(self, config: Any, examples: list[Encoded]) -> int:
        """Floating-point operations of an update, see :mod:`arithmetic`."""
        checkpointing = bool(self.options.get("checkpointing"))
        return arithmetic.operations(
            config,
            workload.RANK,
            self.positions(examples),
            head=self.head,
            reference=self.method != "simpo" and not self.options.get("stored"),
            recompute=checkpointing,
            input_gradient=checkpointing and self.who == "trl",  # which asks for it then
        )


labels = partial(arithmetic.padded, scored="responses")
everything = partial(arithmetic.padded, scored="next")
alone = partial(arithmetic.packed, shared=False)
untrimmed = partial(arithmetic.packed, trimmed=False)


def plain(examples: list[Encoded]) -> Positions:
    """Padded rows without the last token of each response, which nobody reads."""
    read = [Encoded(e.prompt, [r[:-1] for r in e.responses], e.where) for e in examples]
    return arithmetic.padded(read, scored="all")


CONTESTANTS = {
    "ours": Contestant("ours", arithmetic.packed, "one pass"),
    "ours, no prompt shared": Contestant("ours", alone, "one pass", options={"alone": True}),
    "ours, plain route": Contestant("ours", plain, "kept", options={"route": "rows"}),
    "ours, stored": Contestant("ours", arithmetic.packed, "one pass", options={"stored": True}),
    "ours, checkpointing": Contestant("ours", arithmetic.packed, "one pass", options={"checkpointing": True}),
    "ours, simpo": Contestant("ours", arithmetic.packed, "one pass", "simpo"),
    "trl, gpu path": Contestant("trl", labels, "remade", options={"gpu_path": True}),
    "trl, gpu path, lean": Contestant("trl", labels, "remade", options={"gpu_path": True, "lean": True}),
    "trl, cpu": Contestant("trl", everything, "remade"),
    "trl, stored": Contestant("trl", labels, "remade", options={"gpu_path": True, "stored": True}),
    "trl, checkpointing": Contestant("trl", labels, "remade", options={"gpu_path": True, "checkpointing": True}),
    "trl, simpo": Contestant("trl", partial(arithmetic.padded, scored="all"), "kept", "simpo"),
}

COMPARISONS = {
    "gpu path": ("trl, gpu path", "ours"),
    "gpu path, lean": ("trl, gpu path, lean", "ours"),
    "cpu": ("trl, cpu", "ours"),
    "simpo": ("trl, simpo", "ours, simpo"),
    "stored": ("trl, stored", "ours, stored"),
    "checkpointing": ("trl, checkpointing", "ours, checkpointing"),
    "sharing": ("ours, no prompt shared", "ours"),
    "plain route": ("ours, plain route", "ours"),
}
"""Slower and faster, both doing the same: method, reference and checkpointing."""

IDEAS: dict[str, tuple[Contestant, str | None]] = {
    "every position of padded rows": (CONTESTANTS["trl, cpu"], "trl, cpu"),
    "score responses only": (CONTESTANTS["trl, gpu path"], "trl, gpu path"),
    "no padding": (Contestant("ours", partial(untrimmed, shared=False), "remade"), None),
    "share prompts": (Contestant("ours", untrimmed, "remade"), None),
    "gradient of the head in one pass": (
        Contestant("ours", partial(arithmetic.packed, trimmed=False), "one pass"),
        None,
    ),
    "trim the last layer": (CONTESTANTS["ours"], "ours"),
    "store the reference": (CONTESTANTS["ours, stored"], "ours, stored"),
}
"""One more idea a row, all those before it kept, as arithmetic; and the contestant that was timed in this state, if one was."""
