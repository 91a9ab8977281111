"""One frozen base with named adapters. The policy, its reference, an earlier iterate, a reward model: each is a view of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor, nn
from tqdm import tqdm

from pref_toolkit import metrics
from pref_toolkit.data.tokens import Encoded, longest_of
from pref_toolkit.errors import Complaint, NotFiniteError
from pref_toolkit.logps import Logps
from pref_toolkit.training import adapters, generation, models, processes
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.modes import adapter_on, evaluation, training
from pref_toolkit.training.protocols import Adapted, CausalLM, Tokenizer
from pref_toolkit.training.scoring import Scorer, logps

View = str | None
"""The name of a view, or None: the frozen base alone."""


class Policy:
    """A model, its tokenizer, and the views of it.

    ``policy`` is the adapter that is active in the model handed over, or the model itself if it has none. ``start`` is what
    training started from: the base, or a frozen copy of an adapter that was trained before. Other views come by :meth:`copy`
    and :meth:`add`. All views share the weights of the base.

    Args:
        model: a causal language model of transformers, or a PeftModel around one.
        tokenizer: the model's.
        config: ``tokens_per_forward``, ``route`` and ``gradient_checkpointing`` of it are read.

    Attributes:
        views: by name, the adapter that is on; None: no adapter.
        accelerator: the devices; None unless the policy was made by :meth:`to_train`.
    """

    def __init__(self, model: CausalLM | Adapted, tokenizer: Tokenizer, config: TrainConfig | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.config = config or TrainConfig()
        self.accelerator: Accelerator | None = None
        self.views: dict[str, str | None] = {"policy": active_adapter(model), "start": None}
        self._scorer: Scorer | None = None
        self._base_fingerprint: str | None = None

    @classmethod
    def load(cls, name: str, config: TrainConfig | None = None) -> Policy:
        """A policy by the name of its model: see :func:`pref_toolkit.training.models.load`.

        A run's directory also gives the adapter that the run started from, if it started from one, and a reward head.
        """
        config = config or TrainConfig()
        policy = cls(*models.load(name, precision=config.precision), config)
        directory = adapters.find(name) if active_adapter(policy.model) else None
        if directory is not None:
            policy._add_head("policy", directory)
            if (directory.parent / "start" / adapters.CONFIG).is_file():
                policy.add("start", directory.parent / "start")
        return policy

    @classmethod
    def to_train(
        cls,
        model: CausalLM | Adapted,
        tokenizer: Tokenizer,
        config: TrainConfig,
        longest: int,
        reward_head: Callable[[CausalLM], nn.Linear] | None = None,
        accelerator: Accelerator | None = None,
    ) -> Policy:
        """A policy whose active adapter can be trained, on its device, with ``start`` as it is now.

        Args:
            model: a model gets new adapters on all linear layers; a PeftModel is trained in its active adapter.
            tokenizer: the model's.
            config: how to train.
            longest: most tokens in a prompt + response that will be scored.
            reward_head: makes the head of a reward model, once its adapter is there.
            accelerator: the devices.

        Raises:
            ModelError: if its adapter cannot be trained against a reference.
            NotFiniteError: naming a weight that is not finite.
        """
        policy = cls(
            adapters.with_adapters(model, rank=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout),
            tokenizer,
            config,
        )
        policy.model.eval()
        policy._freeze_start()
        policy.accelerator = accelerator or processes.devices()
        if not processes.sharded(policy.accelerator):  # else each process is given its part of the weights only
            policy.model.to(policy.accelerator.device)
        scorer = policy.new_scorer(longest, reward_head(policy.model) if reward_head else None)
        policy._base_fingerprint = adapters.fingerprint(policy.model)
        policy._scorer = processes.prepared(policy.accelerator, scorer)
        return policy

    # Views

    @property
    def _adapted(self) -> Adapted:
        return cast(Adapted, self.model)

    @contextmanager
    def view(self, name: View, *, live: bool = False) -> Iterator[None]:
        """Inside, the model is this view of it: without dropout or gradient, or with both if ``live``.

        Modes of modules and ``requires_grad`` of weights are put back afterwards.
        """
        with (training if live else evaluation)(self.model), adapter_on(self.model, self.adapter(name)):
            yield

    def adapter(self, view: View) -> str | None:
        """The adapter that is on in a view, or None.

        Raises:
            Complaint: if there is no such view.
        """
        if view is None:
            return None
        if view not in self.views:
            raise Complaint(f"the policy has no view {view!r}; it has {', '.join(self.views)}")
        return self.views[view]

    def copy(self, source: str, to: str) -> None:
        """Make the view ``to`` what ``source`` is now: a frozen adapter, or the one that there is, overwritten."""
        adapter = self.adapter(source)
        if adapter is None:
            self.views[to] = None
            return
        self.views[to] = self.views.get(to) or to
        adapters.copy(self._adapted, adapter, cast(str, self.views[to]))

    def combine(self, weights: Mapping[str, float], to: str) -> None:
        """Make the view ``to`` the weighted sum of the weight updates of other views, exactly; its rank is the sum of theirs.

        Raises:
            ModelError: if an adapter is more than the product of two factors.
        """
        named = {self.adapter(view): weight for view, weight in weights.items()}
        self.views[to] = adapters.combine(self._adapted, named, f"{to}-sum")  # type: ignore[arg-type]

    def add(self, name: str, directory: Path) -> None:
        """One more view: a saved adapter of the same base, and its reward head if there is one beside it.

        Raises:
            ModelError: if the adapter is another base's.
        """
        adapters.attach_another(self._adapted, directory, name, self.fingerprint(None))
        self.views[name] = name
        self._add_head(name, directory)

    def _freeze_start(self) -> None:
        """``start`` is the policy's adapter as it is, or the base where that is the same."""
        adapter = self._adapted.active_adapter
        if adapters.does_nothing(self._adapted, adapter):
            self.views["start"] = None
        else:
            self.copy("policy", "start")

    def _add_head(self, view: str, directory: Path) -> None:
        """The reward head beside an adapter, if there is one."""
        head, adapter = adapters.load_reward_head(directory, self.model), self.adapter(view)
        if head is not None and adapter is not None:
            self.scorer().reward_heads[adapter] = head

    # Scores and samples

    def scorer(self, longest: int | None = None) -> Scorer:
        """What scores responses; a new one where the old one was made for shorter ones.

        Args:
            longest: most tokens in a prompt + response; None: the scorer there is.
        """
        if self._scorer is None or (self.accelerator is None and (longest or 0) > (self._scorer.longest or 0)):
            heads = {} if self._scorer is None else dict(self._scorer.reward_heads)
            self._scorer = self.new_scorer(longest or 0, None)
            self._scorer.reward_heads.update(heads)
        return self._scorer

    def new_scorer(self, longest: int, head: nn.Linear | None) -> Scorer:
        """The scorer of this policy; a kind of policy that is scored in another way makes another one.

        Args:
            longest: most tokens in a prompt + response that will be scored.
            head: of a reward model.
        """
        device = self.accelerator.device if self.accelerator else None
        checkpointing = self.config.gradient_checkpointing
        return Scorer(self.model, longest, self.config.route, head, checkpointing, device)

    @property
    def devices(self) -> Accelerator:
        """The devices of a policy that is trained."""
        assert self.accelerator is not None, "made by Policy.to_train"
        return self.accelerator

    @property
    def device(self) -> torch.device:
        return self.accelerator.device if self.accelerator else next(self.model.parameters()).device

    def logps(self, examples: Sequence[Encoded], *, view: View = "policy", what: str = "scoring") -> Logps:
        """``(B, K)`` log-probabilities of all responses, without dropout or gradient; ``what`` names the progress bar."""
        records = []
        scorer = self.scorer(longest_of(examples))
        with self.view(view), scorer.taken.applied():
            for part in self._parts(scorer, examples, what):
                records.append(logps(scorer, scorer.collate(part).to(self.device)))
        return Logps(torch.cat([r.sums for r in records]), torch.cat([r.tokens for r in records]))

    def token_logps(self, examples: Sequence[Encoded], *, view: View = "policy") -> list[list[list[float]]]:
        """The log-probability of each token of each response, nats, without dropout or gradient."""
        scorer, out = self.scorer(longest_of(examples)), []
        with self.view(view), scorer.taken.applied():
            for part in self._parts(scorer, examples, "scoring"):
                read = scorer(scorer.collate(part).to(self.device), ["token_logps"])["token_logps"].tolist()
                out += [[row[: len(y)] for row, y in zip(own, e.responses)] for own, e in zip(read, part)]
        return out

    def rewards(self, examples: Sequence[Encoded], *, view: View = "policy", what: str = "scoring") -> Tensor:
        """``(B, K)`` rewards of all responses under a view that is a reward model, without dropout or gradient."""
        scorer = self.scorer(longest_of(examples) + 1)
        with self.view(view), scorer.taken.applied():
            parts = self._parts(scorer, examples, what)
            return torch.cat([scorer(scorer.collate(p).to(self.device), ["rewards"])["rewards"] for p in parts])

    def _parts(self, scorer: Scorer, examples: Sequence[Encoded], what: str) -> Iterator[list[Encoded]]:
        parts = scorer.parts(examples, self.config.tokens_per_forward)
        return iter(tqdm(parts, desc=what, leave=False, disable=len(parts) < 2))

    def sample(
        self,
        prompts: Sequence[list[int]],
        *,
        view: View = "policy",
        max_new_tokens: int,
        temperature: float = 1.0,
        seed: int = 0,
        batch_size: int = 256,
        mixture: float = 0.0,
        reference: View = None,
    ) -> list[list[int]]:
        """A response of a view to each prompt, in token ids: a pure function of weights, prompts, seed and batches.

        With a mixture above 0 the next token follows ``pi^(1 - mixture) ref^mixture``, normalised at each token. See
        :func:`pref_toolkit.training.generation.sample` and :func:`pref_toolkit.training.generation.sample_mixture`.
        """
        if mixture:
            both = [partial(self.view, view), partial(self.view, reference)]
            with processes.gathered(self._scorer):
                return generation.sample_mixture(
                    *(self.model, self.tokenizer, prompts, both, mixture),
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    seed=seed,
                    batch_size=batch_size,
                )
        with self.view(view), processes.gathered(self._scorer):
            return generation.sample(
                *(self.model, self.tokenizer, prompts),
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                batch_size=batch_size,
            )

    def texts(self, responses: Sequence[list[int]]) -> list[str]:
        """Responses as text, without special tokens."""
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in responses]

    def sampled_kl(
        self, prompts: Sequence[list[int]], reference: View, *, max_new_tokens: int, seed: int
    ) -> tuple[list[list[int]], float]:
        """A response of the policy to each prompt, and the sampled KL from policy to reference in nats a response."""
        answers = self.sample(prompts, max_new_tokens=max_new_tokens, seed=seed)
        drawn = [Encoded(p, [a], where="sample") for p, a in zip(prompts, answers)]
        policy, under_reference = (self.logps(drawn, view=view, what="kl").sums[:, 0] for view in ("policy", reference))
        kl, _ = metrics.sampled_kl(policy, under_reference)
        return answers, kl

    # Weights

    def weights(self, view: str = "policy") -> dict[str, Tensor]:
        """The weights of a view's adapter by name, and of its reward head."""
        adapter = self.adapter(view)
        assert adapter is not None, "the base has no weights of its own"
        processes.reshard(self._scorer)
        own: dict[str, Tensor] = dict(adapters.weights_of(self.model, adapter))
        if (head := self.head(view)) is not None:
            own[f"reward_heads.{adapter}.weight"] = head.weight
        return own

    def head(self, view: str = "policy") -> nn.Linear | None:
        """The reward head of a view, or None."""
        adapter = self.adapter(view)
        if self._scorer is None or adapter is None or adapter not in self._scorer.reward_heads:
            return None
        return cast(nn.Linear, self._scorer.reward_heads[adapter])

    def rank(self, view: str = "policy") -> int:
        """The rank of a view's adapter; 0 for the base."""
        adapter = self.adapter(view)
        return 0 if adapter is None else int(self._adapted.peft_config[adapter].r)

    def fingerprint(self, view: View = None) -> str:
        """A hash of the weights of a view; None: of the base."""
        if self._base_fingerprint is None:
            self._base_fingerprint = adapters.fingerprint(self.model)
        if view is None or (adapter := self.adapter(view)) is None:
            return self._base_fingerprint
        digest = hashlib.sha256(f"{self._base_fingerprint} {adapters.scale(self._adapted, adapter)}".encode())
        for _, value in sorted(self.weights(view).items()):
            digest.update(processes.full(value).detach().cpu().float().numpy().tobytes())
        return digest.hexdigest()

    def state(self) -> dict[str, Tensor]:
        """The weights of every adapter but the start's, whole; all processes must ask.

        Raises:
            NotFiniteError: naming a weight that is not finite.
        """
        views = [name for name, adapter in self.views.items() if adapter is not None and name != "start"]
        state = {name: processes.full(w) for view in views for name, w in self.weights(view).items()}
        for name, value in state.items():
            if not torch.isfinite(value).all():
                raise NotFiniteError(f"weight {name!r} is not finite")
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Put the adapters back to where :meth:`state` was taken."""
        views = [name for name, adapter in self.views.items() if adapter is not None and name != "start"]
        with torch.no_grad():
            for weight_name, weight in ((n, w) for view in views for n, w in self.weights(view).items()):
                weight.copy_(processes.spread_like(state[weight_name], weight))

    def save(self, directory: Path, view: str = "policy") -> None:
        """Write a view's adapter, in PEFT's format, and its reward head. All processes must ask; the main one writes."""
        adapter = self.adapter(view)
        assert adapter is not None, "the base has no adapter to save"
        own = {name: processes.full(w) for name, w in self.weights(view).items()}
        head = own.pop(f"reward_heads.{adapter}.weight", None)
        if self.accelerator is None or self.accelerator.is_main_process:
            adapters.save(self._adapted, adapter, directory, own, head, self.fingerprint(None))


def active_adapter(model: CausalLM | Adapted) -> str | None:
    """The name of the adapter that is on, or None for a model without adapters."""
    return model.active_adapter if isinstance(model, PeftModel) else None
