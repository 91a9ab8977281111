"""Batches -> log-probabilities of responses, and the frozen reference inside a LoRA policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor, nn
from tqdm import tqdm

from pref_toolkit.data.batches import Batch, micro_batches, pack, separate
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import Complaint, ModelError
from pref_toolkit.logps import Logps
from pref_toolkit.training import attention, layers
from pref_toolkit.training.head import Head

ATTENDING = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers whose tokens meet in attention only. Others mix neighbours, which in a packed sequence may be strangers."""

READINGS = {
    "sums": "log-probability of the response",
    "heads": "the same of its first tokens, as many as the shortest response to the prompt has",
    "entropies": "sum over its positions of the entropy of the next-token distribution",
    "log_weights": "mean over its tokens of ``log pi_t - log sum_v pi_t(v)^2``; no gradient",
    "sequence_kls": "sum over its positions of KL(reference || policy) over the vocabulary",
    "rewards": "what the reward head gives to its last token",
    "hidden": "not a reading but what the head makes logits of, ``(N, H)``: the reference's are for ``sequence_kls``",
}
"""What one forward can say of each response, in nats; ``(B, K)``."""
DISTRIBUTIONS = {"entropies", "log_weights", "sequence_kls"}

Route = Literal["auto", "segments", "mask", "rows"]
"""How responses travel: packed behind their prompt, with attention by segments or through a mask; or a row to each."""


class Scorer(nn.Module):
    """A causal language model that answers with summed response log-probabilities.

    ``rows`` is the plain way, what the others are tested against: every response behind its own copy of the prompt, padded,
    the model's own logits, ``log_softmax``. ``mask`` shares the prompts through a mask over the whole sequence and makes logits
    of scored positions only, in chunks. ``segments`` is ``mask`` without the waste in attention. All three give the same
    numbers; ``auto`` takes the fastest that the architecture allows, which is tried out once on random tokens. Where that is
    ``rows``, logits are made of scored positions in chunks all the same, unless ``rows`` was asked for.

    Args:
        model: any causal language model of transformers, or a PeftModel around one.
        longest: most tokens in a prompt + response that will be scored.
        route: which way to take.
        reward_head: a linear map from hidden states to one reward, for a reward model.
        gradient_checkpointing: run each layer again in the backward rather than keep what it computed.
        device: where the model will run, if its weights are elsewhere as yet.

    Attributes:
        route: the way taken.
        way: of the route ``segments``, the name of what attends, a function of ``training/attention.py``; else None.
        obstacle: why not a faster one, or None.
        head: how logits are made in chunks, or None where the model's own must be asked for.
        trimmed: whether the last layer is run for scored positions only.
    """

    def __init__(
        self,
        model: nn.Module,
        longest: int,
        route: Route = "auto",
        reward_head: nn.Linear | None = None,
        gradient_checkpointing: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.reward_head = reward_head
        self.longest = longest
        self.head: Any = self._head()
        self.plain = route == "rows"
        self.trimmed = False
        self.obstacle: str | None = None
        self._prepared: tuple[Any, Any, Any] = None, None, None
        layers.keep(self._base())
        expected: Any = self._alone() if route != "rows" else None
        for candidate in ("segments", "mask", "rows") if route == "auto" else (route,):
            self.route = candidate
            found = self._obstacle(longest, expected)
            if found is None:
                break
            self.obstacle = found
            if route != "auto":
                raise Complaint(f"route {route!r} is not possible here: {found}")
        self.trimmed = self.route != "rows" and self._can_trim()
        if self.route != "rows":
            layers.adapters_in_place(self.model)
            layers.gates_again(self._base())
            if self._trial(*expected) is not None:
                layers.gates_kept(self._base())
        if self.route == "segments" and (device or self._device()).type == "cuda":
            self._use_a_kernel(device or self._device(), expected)
        self.way = self._way.__name__ if self.route == "segments" else None
        if gradient_checkpointing:
            layers.recompute(self._base())

    def collate(self, examples: Sequence[Encoded]) -> Batch:
        """The layout of the route taken. A reward is read after the last token, so a token more must follow it."""
        if self.reward_head is not None:
            examples = [replace(e, responses=[[*r, r[-1]] for r in e.responses]) for e in examples]
        return (separate if self.route == "rows" else pack)(examples)

    def parts(self, examples: Sequence[Encoded], tokens: int) -> list[list[Encoded]]:
        """Examples in order, in forwards of at most ``tokens`` positions on the route taken; a longer example goes alone."""
        return micro_batches(examples, tokens, padded=self.route == "rows")

    def forward(
        self, batch: Batch, readings: Sequence[str] = ("sums",), reference_hidden: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Names of :data:`READINGS` -> tensors.

        What is read of each token is in float32, or the model's precision if that is higher, and sums over tokens in float64:
        a loss reads differences of them, and a sum of two thousand nats is rounded to 1e-4 in float32.

        Args:
            batch: from :meth:`collate`.
            readings: what is wanted.
            reference_hidden: ``(N, H)``, the reading ``hidden`` of the reference, if ``sequence_kls`` are wanted.
        """
        wanted = set(readings)
        values: dict[str, Tensor] = {}
        if wanted <= {"sums", "heads"} and (self.plain or self.head is None):
            logits = self._logits(batch)
            log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
            values["logps"] = log_p.gather(-1, batch.targets[:, None])[:, 0]
        else:
            hidden = self._hidden(batch)
            if "hidden" in wanted:
                values["hidden"] = hidden
            if "rewards" in wanted:
                assert self.reward_head is not None
                last = hidden[batch.tokens.flatten().cumsum(0) - 1]
                values["rewards"] = self.reward_head(last.to(self.reward_head.weight.dtype)).view(batch.tokens.shape)
            if wanted & DISTRIBUTIONS:
                self.check_head()
                values |= self.head.distributions(hidden, batch.targets, wanted & DISTRIBUTIONS, reference_hidden)
            elif wanted & {"sums", "heads"}:
                values["logps"] = self.head.logps(hidden, batch.targets)
        return {name: _of_responses(name, values, batch) for name in readings}

    def check_head(self) -> None:
        """Whether distributions can be read in chunks: the model's logits must be its output layer's.

        Raises:
            ModelError: for an architecture that changes its logits after the output layer.
        """
        if self.head is None:
            raise ModelError(
                f"{self.model.config.model_type} changes its logits after the output layer, so its whole distributions "
                "cannot be read in chunks; choose a method that reads log-probabilities only"
            )

    def _base(self) -> Any:
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    def _head(self) -> Head | None:
        """How logits are made of the last hidden states, or None if the model does more than :class:`Head` knows.

        One forward of a few tokens tells: what enters the output layer and what the model returns must be the same bits.
        """
        model, base = self._base(), self._base().base_model
        layer = model.get_output_embeddings()
        if layer is None:
            return None
        head = Head(layer, getattr(model.config.get_text_config(), "final_logit_softcapping", None))
        seen: dict[str, Tensor] = {}
        hooks = [
            base.register_forward_hook(lambda _, __, output: seen.update(hidden=output[0])),
            layer.register_forward_hook(lambda _, inputs, __: seen.update(read=inputs[0])),
        ]
        try:
            with evaluation(model):
                ids = torch.arange(1, 6, device=self._device())[None]
                logits = model(input_ids=ids, use_cache=False).logits
                same = (
                    len(seen) == 2
                    and torch.equal(seen["hidden"], seen["read"])
                    and torch.equal(head.logits(seen["hidden"]).to(logits.dtype), logits)
                )
        finally:
            for hook in hooks:
                hook.remove()
        return head if same else None

    def _hidden(self, batch: Batch) -> Tensor:
        """``(N, H)`` hidden states of the scored positions."""
        hidden = self._base().base_model(**self._inputs(batch)).last_hidden_state.flatten(0, 1)
        return hidden if self.trimmed else hidden[batch.scored]

    def _logits(self, batch: Batch) -> Tensor:
        """``(N, V)`` logits of the scored positions."""
        if self.route == "rows":
            return self.model(**self._inputs(batch)).logits.flatten(0, 1)[batch.scored]
        scored = 0 if self.trimmed else batch.scored
        return self.model(logits_to_keep=scored, **self._inputs(batch)).logits[0]

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        """What the model is called with on the route taken."""
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
        if self.route == "rows":
            return inputs | {"attention_mask": batch.present}
        inputs["position_ids"] = batch.position_ids
        if self.trimmed:
            inputs["kept"] = batch.scored
        if self.route == "segments":
            # A mask of four dimensions is passed on as it is: the library builds none, and our attention reads none.
            assert batch.segments is not None
            device = batch.input_ids.device
            # Policy and reference score the same batch, one after the other.
            if self._prepared[0] is not batch.segments or self._prepared[1] is not self._way:
                self._prepared = batch.segments, self._way, self._way(batch.segments, device)
            return inputs | {
                "attention_mask": torch.zeros(1, 1, 1, 1, device=device),
                "attend": self._prepared[2],
            }
        # Additive, because eager attention would add a boolean mask as zeros and ones.
        dtype = self._dtype()
        zero = torch.zeros((), dtype=dtype, device=batch.input_ids.device)
        return inputs | {"attention_mask": zero.where(batch.mask(), torch.finfo(dtype).min)[None, None]}

    def _obstacle(self, longest: int, expected: Any) -> str | None:
        """Why the route cannot be taken, or None."""
        if self.route == "rows":
            return None
        config: Any = self.model.config.get_text_config()
        if others := {*(getattr(config, "layer_types", None) or ())} - ATTENDING:
            return f"{config.model_type} has layers of the kinds {', '.join(sorted(others))}, which know no segments"
        # A mask or segments replace a sliding window of the model's own.
        for name in ("sliding_window", "attention_chunk_size"):
            window = getattr(config, name, None)
            if window is not None and longest > window:
                return f"{longest} tokens are more than the model's {name} of {window}"
        if self.route == "mask":
            return self._trial(*expected)
        before = self.model.config._attn_implementation
        self._attend_with(attention.SEGMENTS)
        self._way = attention.by_segment
        obstacle = self._trial(*expected)
        if obstacle is not None:
            self._attend_with(before)
        return obstacle

    def _use_a_kernel(self, device: torch.device, expected: Any) -> None:
        """Attend by the first kernel of a GPU that gives what ``by_segment`` gives."""
        for way in (attention.by_varlen, attention.by_flex):
            found = attention.obstacle(way, self.model.config.get_text_config(), device, self._dtype())
            self._way = way
            if found is None and self._device() == device:
                found = self._trial(*expected)
            if found is None:
                return
            self.obstacle = f"{way.__name__}: {found}"
        self._way = attention.by_segment

    def _attend_with(self, implementation: str) -> None:
        self._base().set_attn_implementation(implementation)

    def _dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _random(self) -> tuple[list[Encoded], list[Encoded]]:
        """Random tokens to try the model out with: two prompts with three responses, and two others with the same."""
        random = torch.Generator().manual_seed(0)
        size = self.model.config.get_text_config().vocab_size
        draw = lambda n: torch.randint(size, (n,), generator=random).tolist()
        responses = [draw(9), draw(1), draw(6)]
        one, other = ([Encoded(draw(n), responses, where="trial") for n in (5, 4)] for _ in range(2))
        return one, other

    def _alone(self) -> tuple[Tensor, float]:
        """Sums of random responses, each in a forward of its own, and how much other prompts change them."""
        self.route = "rows"
        each = lambda examples: (separate([Encoded(e.prompt, [r], e.where)]) for e in examples for r in e.responses)
        with evaluation(self.model):
            alone, other = (
                torch.cat([self(row.to(self._device()))["sums"] for row in each(examples)])
                for examples in self._random()
            )
        return alone.flatten(), float((alone - other).abs().max())

    def _trial(self, alone: Tensor, difference: float) -> str | None:
        """Why the route does not score random responses as one by one, or None.

        By rounding they may differ: measured over forty architectures, by less than the bounds here. Where states of one
        response reach another they differed by more, but for layers that mix too weakly to tell: ``ATTENDING`` leaves them out.
        """
        name = self.model.config.model_type
        try:
            with evaluation(self.model):
                shared = self(pack(self._random()[0]).to(self._device()))["sums"].flatten()
        except (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            return f"{name} does not take {self.route} and positions ({type(error).__name__})"
        of_tokens = torch.promote_types(self._dtype(), torch.float32)
        rounding = 4 * torch.finfo(of_tokens).eps * float(alone.abs().max())
        if not float((shared - alone).abs().max()) <= max(rounding, torch.finfo(self._dtype()).eps ** 0.5 * difference):
            return f"{name} does not keep responses that share a prompt apart"
        return None

    def _can_trim(self) -> bool:
        """Whether the last layer gives the same where it is asked for scored positions only; it is then changed so."""
        layer = layers.last_layer(self._base())
        if layer is None:
            return False
        layers.scored_only(layer)
        batch = pack(self._random()[0]).to(self._device())
        with evaluation(self.model):
            whole = self._hidden(batch)
            try:
                self.trimmed = True
                trimmed = self._hidden(batch)
            except (TypeError, ValueError, RuntimeError):
                return False
            finally:
                self.trimmed = False
        same = trimmed.shape == whole.shape
        return same and float((trimmed - whole).norm()) < torch.finfo(whole.dtype).eps ** 0.5 * float(whole.norm())


def _of_responses(name: str, values: dict[str, Tensor], batch: Batch) -> Tensor:
    """The reading ``name``, ``(B, K)``, from values of the scored positions."""
    if name in ("hidden", "rewards"):
        return values[name]
    lengths = batch.tokens.flatten()
    value = values["logps" if name in ("sums", "heads") else name]
    if name == "heads":
        place = torch.arange(len(value), device=value.device) - (lengths.cumsum(0) - lengths)[batch.owner]
        shortest = batch.tokens.amin(dim=1, keepdim=True).expand_as(batch.tokens).flatten()
        value = value * (place < shortest[batch.owner])
    sums = value.new_zeros(len(lengths), dtype=torch.float64).index_add(0, batch.owner, value.double())
    return (sums / lengths if name == "log_weights" else sums).view(batch.tokens.shape)


def logps(scorer: nn.Module, batch: Batch) -> Logps:
    """The record a loss reads, from a scorer (or accelerate's wrapper around one)."""
    return Logps(scorer(batch)["sums"], batch.tokens)


def dropout_in_adapters_only(model: nn.Module) -> None:
    """Training mode for the adapters' dropout, evaluation mode for all else.

    Policy and reference then differ by the adapters alone, and DPO's first loss is log 2 exactly.
    """
    model.eval()
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            module.train()


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Inside, all dropout is off and nothing is differentiated; each module's mode is put back afterwards."""
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in was_training:
            module.training = True


@contextmanager
def reference(model: Any) -> Iterator[None]:
    """Inside, a LoRA policy is its own frozen reference: adapters off, dropout off, nothing differentiated."""
    with evaluation(model), model.disable_adapter():
        yield


def score(
    scorer: Scorer, examples: Sequence[Encoded], device: Any, forward_tokens: int, what: str = "scoring"
) -> tuple[Logps, Logps]:
    """Log-probabilities of all responses under policy and reference, without dropout or gradient."""
    policies, references = [], []
    parts = scorer.parts(examples, forward_tokens)
    for part in tqdm(parts, desc=what, leave=False, disable=len(parts) < 2):
        batch = scorer.collate(part).to(device)
        with evaluation(scorer.model):
            policies.append(logps(scorer, batch))
        with reference(scorer.model):
            references.append(logps(scorer, batch))
    return _joined(policies), _joined(references)


def rewards(scorer: Scorer, examples: Sequence[Encoded], device: Any, forward_tokens: int, what: str) -> Tensor:
    """``(B, K)`` rewards of all responses under a reward model, without dropout or gradient."""
    parts = scorer.parts(examples, forward_tokens)
    with evaluation(scorer.model):
        return torch.cat(
            [
                scorer(scorer.collate(part).to(device), ["rewards"])["rewards"]
                for part in tqdm(parts, desc=what, leave=False, disable=len(parts) < 2)
            ]
        )


def _joined(records: list[Logps]) -> Logps:
    """Several records as one, in order."""
    return Logps(torch.cat([r.sums for r in records]), torch.cat([r.tokens for r in records]))
