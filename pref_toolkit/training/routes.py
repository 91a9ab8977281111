"""Routes: how a batch goes through a model. The fastest route that scores right is found by trying, not by the model's name.

``rows`` is the plain route, and the others are tested against it: every response behind its own copy of the prompt, padded,
through the model as it is. ``mask`` packs responses behind one copy of their prompt, kept apart by a mask over the whole
sequence. ``segments`` packs them the same way and attends segment by segment, without the work that the mask discards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pref_toolkit.data.batches import Batch, micro_batches, pack, separate
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import Complaint
from pref_toolkit.training import attention, layers
from pref_toolkit.training.head import Head
from pref_toolkit.training.modes import base_of, evaluation
from pref_toolkit.training.protocols import Adapted, CausalLM

ATTENDING = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers whose tokens meet in attention only. Others mix neighbours, which in a packed sequence may be strangers."""

Name = Literal["segments", "mask", "rows"]
Asked = Literal["auto", "segments", "mask", "rows"]


@dataclass(frozen=True, eq=False)
class Route:
    """The way of a batch through one model.

    The model is not changed until the route is :meth:`applied`, and then for as long as that lasts.

    Args:
        model: a causal language model of transformers; adapters may be in its layers.
        name: ``segments``, ``mask`` or ``rows``.
        kernel: of ``segments``, the function of ``training/attention.py`` that attends; else None.
        obstacle: why a faster route or kernel could not be taken, or None.
        head: how logits are computed in chunks, or None where only the model itself can.
        plain: whether the model's own full logits are used although ``head`` could do with less.
        trimmed: whether the last layer runs at scored positions only.
        patches: the forwards that modules have while the route is applied.
    """

    model: CausalLM
    name: Name
    kernel: attention.Kernel | None = None
    obstacle: str | None = None
    head: Head | None = None
    plain: bool = False
    trimmed: bool = False
    patches: layers.Patches = field(default_factory=dict)
    _attends: WeakKeyDictionary[Batch, attention.Attend] = field(default_factory=WeakKeyDictionary, init=False)
    _undo: ExitStack = field(default_factory=ExitStack, init=False)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model runs this route, whichever route is applied outside; afterwards the outer one again.

        Keep it applied from the forward to the end of the backward: recomputed layers run in the backward.
        """
        outer = _APPLIED.get(self.model)
        if outer is self:
            yield
            return
        if outer is not None:
            outer._undo.close()
        self._apply()
        try:
            yield
        finally:
            self._undo.close()
            if outer is not None:
                outer._apply()

    def _apply(self) -> None:
        self._undo.enter_context(attention.without_cudnn())
        self._undo.enter_context(layers.patched(self.patches))
        if self.kernel is not None:
            self._undo.enter_context(attention.packed(self.model))
        _APPLIED[self.model] = self
        self._undo.callback(_APPLIED.pop, self.model)

    def collate(self, examples: Sequence[Encoded]) -> Batch:
        """The examples in the layout of this route."""
        return (separate if self.name == "rows" else pack)(examples)

    def parts(self, examples: Sequence[Encoded], tokens: int) -> list[list[Encoded]]:
        """Examples in order, in forwards of at most ``tokens`` positions; a longer example goes alone."""
        return micro_batches(examples, tokens, padded=self.name == "rows")

    def logps(self, batch: Batch) -> Tensor:
        """``(N,)`` log-probabilities of the response tokens, in float32 or the model's precision if that is higher."""
        if self.head is not None and not self.plain:
            return self.head.logps(self.hidden(batch), batch.targets)
        logits = self._logits(batch)
        log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        return log_p.gather(-1, batch.targets[:, None])[:, 0]

    def hidden(self, batch: Batch) -> Tensor:
        """``(N, H)`` hidden states at the scored positions."""
        with self.applied():
            hidden: Tensor = self.model.base_model(**self._inputs(batch)).last_hidden_state.flatten(0, 1)
        return hidden if self.trimmed else hidden[batch.scored]

    def _logits(self, batch: Batch) -> Tensor:
        """``(N, V)`` logits at the scored positions."""
        with self.applied():
            if self.name == "rows":
                padded: Tensor = self.model(**self._inputs(batch)).logits
                return padded.flatten(0, 1)[batch.scored]
            scored = 0 if self.trimmed else batch.scored
            logits: Tensor = self.model(logits_to_keep=scored, **self._inputs(batch)).logits
            return logits[0]

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        """The arguments of the model's forward."""
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
        if self.name == "rows":
            return inputs | {"attention_mask": batch.present}
        inputs["position_ids"] = batch.position_ids
        if self.trimmed:
            inputs["kept"] = batch.scored
        device = batch.input_ids.device
        if self.kernel is not None:
            # Policy and reference score the same batch, one after the other.
            if batch not in self._attends:
                assert batch.segments is not None
                self._attends[batch] = self.kernel(batch.segments, device)
            # A mask of four dimensions is passed on as it is: the library builds none, and our attention reads none.
            return inputs | {"attention_mask": torch.zeros(1, 1, 1, 1, device=device), "attend": self._attends[batch]}
        # Additive, because eager attention would add a boolean mask as zeros and ones.
        dtype = dtype_of(self.model)
        zero = torch.zeros((), dtype=dtype, device=device)
        return inputs | {"attention_mask": zero.where(batch.mask(), torch.finfo(dtype).min)[None, None]}


_APPLIED: WeakKeyDictionary[Any, Route] = WeakKeyDictionary()
"""By model, the route that it runs now."""


def fastest(
    model: CausalLM | Adapted,
    longest: int | None = None,
    asked: Asked = "auto",
    *,
    gradient_checkpointing: bool = False,
    device: torch.device | None = None,
) -> Route:
    """The fastest route that gives the numbers of ``rows``, tried once on random tokens.

    Args:
        model: any causal language model of transformers, or a PeftModel around one.
        longest: most tokens in a prompt + response that will be scored; None: any.
        asked: a route by name, or ``auto``. If ``auto`` falls back to ``rows``, logits are still computed in chunks and at
            scored positions only; asked for by name, ``rows`` uses the model's own full logits.
        gradient_checkpointing: recompute each layer in the backward rather than keep its activations.
        device: where the model will run, if its weights are elsewhere as yet.

    Raises:
        Complaint: if the route asked for is not possible.
        ModelError: if layers cannot be recomputed.
    """
    base = base_of(model)
    route = Route(base, "rows", head=_head(base), plain=asked == "rows")
    if asked != "rows":
        route = _packed(route, longest, asked, device or device_of(base))
    if gradient_checkpointing:
        route = replace(route, patches={**route.patches, **layers.recomputed(base, route.patches)})
    return route


def _packed(rows: Route, longest: int | None, asked: Asked, device: torch.device) -> Route:
    """The fastest packed route, or ``rows`` with the obstacle."""
    trial = Trial.of(rows)
    candidates = [replace(rows, name="segments", kernel=attention.by_segment), replace(rows, name="mask")]
    obstacle: str | None = None
    for route in candidates:
        if asked not in ("auto", route.name):
            continue
        found = _window(rows.model, longest) or trial.obstacle(route)
        if found is None:
            route = _with_cheaper_layers(replace(route, obstacle=obstacle), trial)
            return _with_a_kernel(route, trial, device) if route.kernel and device.type == "cuda" else route
        obstacle = found
        if asked != "auto":
            raise Complaint(f"route {asked!r} is not possible here: {found}")
    return replace(rows, obstacle=obstacle)


def _window(model: CausalLM, longest: int | None) -> str | None:
    """Why responses cannot be packed in this model, from its configuration, or None."""
    config = model.config.get_text_config()
    if others := {*(getattr(config, "layer_types", None) or ())} - ATTENDING:
        return f"{config.model_type} has layers of the kinds {', '.join(sorted(others))}, which know no segments"
    # A mask or segments replace a sliding window of the model's own.
    for name in ("sliding_window", "attention_chunk_size"):
        window = getattr(config, name, None)
        if window is not None and (longest is None or longest > window):
            return f"{longest or 'any number of'} tokens are more than the model's {name} of {window}"
    return None


def _with_cheaper_layers(route: Route, trial: Trial) -> Route:
    """The route with each of the patches of ``training/layers.py`` that changes no number."""
    last = layers.last_layer(route.model)
    if last is not None:
        trimmed = replace(route, trimmed=True, patches=layers.scored_only(last))
        route = trimmed if trial.same_hidden(trimmed, route) else route
    for cheaper in (layers.adapters_in_place(route.model), layers.gates_recomputed(route.model)):
        candidate = replace(route, patches={**route.patches, **cheaper})
        route = candidate if trial.obstacle(candidate) is None else route
    return route


def _with_a_kernel(route: Route, trial: Trial, device: torch.device) -> Route:
    """The route with the first kernel of a GPU that gives the numbers of ``by_segment``."""
    for kernel in (attention.by_varlen, attention.by_flex):
        found = attention.obstacle(kernel, route.model.config.get_text_config(), device, dtype_of(route.model))
        candidate = replace(route, kernel=kernel)
        # Types, because accelerate calls the only GPU "cuda" and its weights are on "cuda:0".
        if found is None and device_of(route.model).type == device.type:
            found = trial.obstacle(candidate)
        if found is None:
            return candidate
        route = replace(route, obstacle=f"{kernel.__name__}: {found}")
    return route


@dataclass(frozen=True)
class Trial:
    """Random responses, and what they score one by one: the measure of every route.

    Args:
        examples: two prompts with three responses.
        alone: ``(6,)`` summed log-probabilities of these responses, each from a forward of its own.
        difference: the largest change of such a sum when the prompt is another.
    """

    examples: list[Encoded]
    alone: Tensor
    difference: float

    @classmethod
    def of(cls, rows: Route) -> Trial:
        random = torch.Generator().manual_seed(0)
        size = rows.model.config.get_text_config().vocab_size
        draw = lambda n: torch.randint(size, (n,), generator=random).tolist()
        responses = [draw(9), draw(1), draw(6)]
        examples, others = ([Encoded(draw(n), responses, where="trial") for n in (5, 4)] for _ in range(2))
        one_by_one = lambda given: [Encoded(e.prompt, [r], e.where) for e in given for r in e.responses]
        alone, other = (
            torch.cat([_sums(rows, separate([example])) for example in one_by_one(given)])
            for given in (examples, others)
        )
        return cls(examples, alone, float((alone - other).abs().max()))

    def obstacle(self, route: Route) -> str | None:
        """Why the route does not score the responses as one by one, or None.

        Rounding alone differs by less than this bound (measured on forty architectures). Leakage between responses differs by
        more, except in layers that mix neighbours weakly; ``ATTENDING`` excludes those beforehand.
        """
        name, dtype = route.model.config.model_type, dtype_of(route.model)
        try:
            shared = _sums(route, pack(self.examples))
        except (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            return f"{name} does not take {route.name} and positions ({type(error).__name__})"
        of_tokens = torch.promote_types(dtype, torch.float32)
        rounding = 4 * torch.finfo(of_tokens).eps * float(self.alone.abs().max())
        bound = max(rounding, torch.finfo(dtype).eps ** 0.5 * self.difference)
        if not float((shared - self.alone).abs().max()) <= bound:
            return f"{name} does not keep responses that share a prompt apart"
        return None

    def same_hidden(self, route: Route, whole: Route) -> bool:
        """Whether a route gives the hidden states of another, to rounding."""
        batch = pack(self.examples).to(device_of(route.model))
        with evaluation(route.model):
            expected = whole.hidden(batch)
            try:
                hidden = route.hidden(batch)
            except (TypeError, ValueError, RuntimeError):
                return False
        near = torch.finfo(expected.dtype).eps ** 0.5 * float(expected.norm())
        return hidden.shape == expected.shape and float((hidden - expected).norm()) < near


def _sums(route: Route, batch: Batch) -> Tensor:
    """``(B * K,)`` summed log-probabilities, in float64."""
    batch = batch.to(device_of(route.model))
    with evaluation(route.model):
        return summed(route.logps(batch), batch).flatten()


def summed(values: Tensor, batch: Batch) -> Tensor:
    """``(B, K)`` sums over the tokens of each response, in float64.

    A loss reads differences of these sums, and float32 rounds a sum of two thousand nats by 1e-4.
    """
    sums = values.new_zeros(batch.tokens.numel(), dtype=torch.float64)
    return sums.index_add(0, batch.owner, values.double()).view(batch.tokens.shape)


def _head(model: CausalLM) -> Head | None:
    """How the model makes logits of its last hidden states, or None if it does more than :class:`Head` knows.

    One forward of a few tokens tells: the output layer must read the last hidden states, and what it makes of them must become
    the model's logits by what :class:`Head` knows, bit for bit.
    """
    layer = model.get_output_embeddings()
    if layer is None:
        return None
    head = Head(layer, getattr(model.config.get_text_config(), "final_logit_softcapping", None))
    seen: dict[str, Tensor] = {}
    hooks = [
        model.base_model.register_forward_hook(lambda _, __, output: seen.update(hidden=output[0])),
        layer.register_forward_hook(lambda _, inputs, output: seen.update(read=inputs[0], made=output)),
    ]
    try:
        with evaluation(model), attention.without_cudnn():
            ids = torch.arange(1, 6, device=device_of(model))[None]
            logits = model(input_ids=ids, use_cache=False).logits
            same = (
                len(seen) == 3
                and torch.equal(seen["hidden"], seen["read"])
                and torch.equal(head.capped(seen["made"]).to(logits.dtype), logits)
            )
    finally:
        for hook in hooks:
            hook.remove()
    return head if same else None


def dtype_of(model: CausalLM | Adapted) -> torch.dtype:
    """The precision of the model's weights."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def device_of(model: CausalLM | Adapted) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device
