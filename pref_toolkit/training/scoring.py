"""Batches -> readings: log-probabilities of responses, and what else a loss reads of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from peft import PeftModel
from torch import Tensor, nn

from pref_toolkit.data.batches import Batch
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import ModelError
from pref_toolkit.logps import Logps
from pref_toolkit.training.head import Head
from pref_toolkit.training.protocols import Adapted, CausalLM
from pref_toolkit.training.routes import Asked, fastest, summed

READINGS = {
    "sums": "log-probability of the response",
    "first_sums": "log-probability of its first tokens, as many as the shortest response to the prompt has",
    "token_logps": "log-probability of each of its tokens, ``(B, K, T)``, with zeros behind the last",
    "entropies": "sum over its positions of the entropy of the next-token distribution",
    "log_weights": "mean over its tokens of ``log pi_t - log sum_v pi_t(v)^2``; no gradient",
    "sequence_kls": "sum over its positions of KL(reference || policy) over the vocabulary",
    "rewards": "the reward head's output at its last token",
    "hidden": "not a reading but the input of the output layer, ``(N, H)``: the reference's are for ``sequence_kls``",
}
"""The numbers that one forward can give for each response, in nats; ``(B, K)`` unless it says otherwise."""
LOGPS = {"sums", "first_sums", "token_logps"}
"""The readings that are made of the tokens' log-probabilities alone."""
DISTRIBUTIONS = {"entropies", "log_weights", "sequence_kls"}
"""The readings that need whole next-token distributions."""


class Scorer(nn.Module):
    """A causal language model that returns readings of responses instead of logits.

    Args:
        model: any causal language model of transformers, or a PeftModel around one. It is patched during a forward only.
        longest: most tokens in a prompt + response that will be scored; None: any. It decides where a sliding window matters.
        route: how batches go through the model, see :mod:`pref_toolkit.training.routes`.
        reward_head: a linear map from hidden states to one reward; it belongs to the adapter that is active now.
        gradient_checkpointing: recompute each layer in the backward rather than keep its activations.
        device: where the model will run, if its weights are elsewhere as yet.

    Attributes:
        taken: the route taken.
        reward_heads: by name of the adapter.
    """

    def __init__(
        self,
        model: CausalLM | Adapted,
        longest: int | None = None,
        route: Asked = "auto",
        reward_head: nn.Linear | None = None,
        gradient_checkpointing: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.longest = longest
        self.reward_heads = nn.ModuleDict()
        if reward_head is not None:
            self.reward_heads[self._adapter()] = reward_head
        self.taken = fastest(model, longest, route, gradient_checkpointing=gradient_checkpointing, device=device)

    @property
    def route(self) -> str:
        """The name of the route taken."""
        return self.taken.name

    @property
    def kernel(self) -> str | None:
        """The name of the function of ``training/attention.py`` that attends, on the route ``segments``."""
        return self.taken.kernel.__name__ if self.taken.kernel else None

    @property
    def obstacle(self) -> str | None:
        """Why a faster route was not taken."""
        return self.taken.obstacle

    @property
    def trimmed(self) -> bool:
        """Whether the last layer runs at scored positions only."""
        return self.taken.trimmed

    @property
    def head(self) -> Head | None:
        """How logits are computed in chunks, if they can be."""
        return self.taken.head

    @property
    def reward_head(self) -> nn.Module | None:
        """The reward head of the active adapter, if it has one."""
        name = self._adapter()
        return self.reward_heads[name] if name in self.reward_heads else None  # noqa: SIM401  # it has no `get`

    def _adapter(self) -> str:
        return self.model.active_adapter if isinstance(self.model, PeftModel) else "base"

    def collate(self, examples: Sequence[Encoded]) -> Batch:
        """The layout of the route taken. A reward is read after the last token, so a token more must follow it."""
        if self.reward_head is not None:
            examples = [replace(e, responses=[[*r, r[-1]] for r in e.responses]) for e in examples]
        return self.taken.collate(examples)

    def parts(self, examples: Sequence[Encoded], tokens: int) -> list[list[Encoded]]:
        """Examples in order, in forwards of at most ``tokens`` positions on the route taken; a longer example goes alone."""
        return self.taken.parts(examples, tokens)

    def forward(
        self, batch: Batch, readings: Sequence[str] = ("sums",), reference_hidden: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Names of :data:`READINGS` -> tensors.

        A number for one token is in float32, or the model's precision if that is higher; sums over tokens are in float64.

        Args:
            batch: from :meth:`collate`.
            readings: which of :data:`READINGS`.
            reference_hidden: ``(N, H)``, the reading ``hidden`` of the reference, if ``sequence_kls`` are wanted.
        """
        wanted = {*readings}
        values: dict[str, Tensor] = {}
        if wanted <= LOGPS:
            values["logps"] = self.taken.logps(batch)
        else:
            hidden = values["hidden"] = self.taken.hidden(batch)
            if "rewards" in wanted:
                values["rewards"] = self._rewards(hidden, batch)
            if wanted & DISTRIBUTIONS:
                head = self.check_head()
                values |= head.distributions(hidden, batch.targets, wanted & DISTRIBUTIONS, reference_hidden)
            elif wanted & LOGPS:
                values["logps"] = self.check_head().logps(hidden, batch.targets)
        return {name: _of_responses(name, values, batch) for name in readings}

    def _rewards(self, hidden: Tensor, batch: Batch) -> Tensor:
        head = self.reward_head
        assert isinstance(head, nn.Linear)
        last = hidden[batch.tokens.flatten().cumsum(0) - 1]
        rewards: Tensor = head(last.to(head.weight.dtype))
        return rewards.view(batch.tokens.shape)

    def check_head(self) -> Head:
        """The head, by which whole distributions are read in chunks: the model's logits must be its output layer's.

        Raises:
            ModelError: for an architecture that changes its logits after the output layer.
        """
        if self.head is None:
            raise ModelError(
                f"{self.model.config.model_type} changes its logits after the output layer, so its whole distributions "
                "cannot be read in chunks; choose a method that reads log-probabilities only"
            )
        return self.head


def _of_responses(name: str, values: dict[str, Tensor], batch: Batch) -> Tensor:
    """The reading ``name``, ``(B, K)``, from values at the scored positions."""
    if name in ("hidden", "rewards"):
        return values[name]
    if name == "sums":
        return summed(values["logps"], batch)
    if name == "first_sums":
        return summed(values["logps"] * _among_the_first(batch), batch)
    if name == "token_logps":
        return _of_tokens(values["logps"], batch)
    sums = summed(values[name], batch)
    return sums / batch.tokens if name == "log_weights" else sums


def _places(batch: Batch) -> Tensor:
    """``(N,)`` the place of each token in its response, from 0."""
    lengths = batch.tokens.flatten()
    return torch.arange(len(batch.owner), device=lengths.device) - (lengths.cumsum(0) - lengths)[batch.owner]


def _of_tokens(values: Tensor, batch: Batch) -> Tensor:
    """``(B, K, T)`` the values of each response's tokens, with zeros behind its last."""
    padded = values.new_zeros(batch.tokens.numel(), int(batch.tokens.max()))
    return padded.index_put((batch.owner, _places(batch)), values).view(*batch.tokens.shape, -1)


def _among_the_first(batch: Batch) -> Tensor:
    """``(N,)`` booleans: is the token among the first ``n`` of its response, ``n`` the length of the prompt's shortest one?"""
    shortest = batch.tokens.amin(dim=1, keepdim=True).expand_as(batch.tokens).flatten()
    return _places(batch) < shortest[batch.owner]


def logps(scorer: nn.Module, batch: Batch) -> Logps:
    """The record that a loss reads, from a scorer (or accelerate's wrapper around one)."""
    return Logps(scorer(batch)["sums"], batch.tokens)
