"""TRL's own trainers, given log-probabilities that are known. No formula of TRL's is copied here.

A trainer of TRL computes its loss in a method that asks a model for log-probabilities and reduces them. Here that method
runs as it is, with the options of TRL's own configuration class; only the model is a stand-in, which answers with the
numbers of :class:`Examples`. The trainers themselves would insist on a data set, a tokenizer and float32.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from datasets import Dataset
from torch import Tensor
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer
from trl.import_utils import suppress_experimental_warning
from trl.trainer.utils import FusedCausalLMOutput

from pref_toolkit.logps import Logps

with suppress_experimental_warning():  # that this part of TRL may change; its version is pinned
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer
    from trl.experimental.tpo import TPOConfig, TPOTrainer

PROMPT = 3
LONGEST = 6
EXAMPLES = 6


@dataclass(frozen=True)
class Examples:
    """B examples: a chosen and a rejected response and a supervised one (a target), as log-probabilities of tokens.

    Rows are sequences: the B chosen ones, the B rejected ones, the B targets. Column t is the prediction of token t + 1.

    Args:
        logp: ``(3B, T)`` under the policy, nats, padding included, which nobody may read.
        reference_logp: the same under the reference.
        log_sum_squares: ``(3B, T)`` ``log sum_v pi(v)^2`` of the policy, no gradient.
        tokens: ``(3B,)`` response tokens.
        scores: ``(B, 2)`` of a reward model.
        desirable: ``(B,)`` labels of the chosen responses, where they stand for single answers.
    """

    logp: Tensor
    reference_logp: Tensor
    log_sum_squares: Tensor
    tokens: Tensor
    scores: Tensor
    desirable: Tensor

    def only(self, i: int) -> Examples:
        """The one example ``i``."""
        rows = [i, EXAMPLES + i, 2 * EXAMPLES + i]
        return Examples(
            logp=self.logp[rows].detach().requires_grad_(),
            reference_logp=self.reference_logp[rows],
            log_sum_squares=self.log_sum_squares[rows],
            tokens=self.tokens[rows],
            scores=self.scores[[i]].detach().requires_grad_(),
            desirable=self.desirable[[i]],
        )

    @property
    def column(self) -> Tensor:
        """``(3B, T)`` position of the predicted token in its response, from 0; negative in the prompt."""
        return torch.arange(self.logp.shape[1]).expand_as(self.logp) - (PROMPT - 1)

    @property
    def read(self) -> Tensor:
        """``(3B, T)`` whether there is a token to predict, of the prompt or of the response."""
        return self.column < self.tokens[:, None]

    @property
    def response(self) -> Tensor:
        """``(3B, T)`` whether that token belongs to the response."""
        return self.read & (self.column >= 0)

    def records(self, logp: Tensor, kept: Tensor) -> Tensor:
        """``(B, 3)`` sums over the kept tokens of the chosen response, the rejected one and the target."""
        return (logp * kept).sum(1).reshape(3, -1).T

    def _record(self, logp: Tensor, columns: list[int]) -> Logps:
        return Logps(self.records(logp, self.response)[:, columns], self.tokens.reshape(3, -1).T[:, columns])

    @property
    def policy(self) -> Logps:
        return self._record(self.logp, [0, 1])

    @property
    def reference(self) -> Logps:
        return self._record(self.reference_logp, [0, 1])

    @property
    def target(self) -> Logps:
        return self._record(self.logp, [2])

    @property
    def answers(self) -> tuple[Logps, Logps]:
        """The chosen responses as single answers, under policy and reference."""
        return self._record(self.logp, [0]), self._record(self.reference_logp, [0])

    @property
    def rejected_answers(self) -> tuple[Logps, Logps]:
        return self._record(self.logp, [1]), self._record(self.reference_logp, [1])

    @property
    def heads(self) -> tuple[Logps, Logps]:
        """Policy and reference, cut after the tokens both responses have."""
        shared = self.tokens[: len(self.scores)].minimum(self.tokens[len(self.scores) : 2 * len(self.scores)])
        kept = self.response & (self.column < shared.repeat(3)[:, None])
        counts = shared[:, None].expand(-1, 2)
        policy, reference = (self.records(logp, kept)[:, :2] for logp in (self.logp, self.reference_logp))
        return Logps(policy, counts), Logps(reference, counts)

    @property
    def log_weights(self) -> Tensor:
        """WPO's: ``(B, 2)`` means over the response of ``log pi_t - log sum_v pi_t(v)^2``."""
        return self._record((self.logp - self.log_sum_squares).detach(), [0, 1]).per_token().sums


def examples_of(policy: Logps, reference: Logps, log_weights: Tensor) -> Examples:
    """Pairs of given sums, whose tokens are all equally likely; the chosen response is also the target."""
    columns = [0, 1, 0]
    tokens = policy.tokens[:, columns].T.flatten()
    longest = PROMPT + int(tokens.max()) - 1
    logp, ref, weights = (
        values[:, columns].T.reshape(-1, 1).repeat(1, longest)
        for values in (policy.per_token().sums, reference.per_token().sums, log_weights)
    )
    return Examples(
        logp=logp.requires_grad_(),
        reference_logp=ref,
        log_sum_squares=logp.detach() - weights,
        tokens=tokens,
        scores=torch.zeros(len(policy.sums), 2, dtype=torch.float64, requires_grad=True),
        desirable=torch.ones(len(policy.sums), dtype=torch.bool),
    )


def draw(dtype: torch.dtype) -> Examples:
    """Responses of 1 to 6 tokens of .05 to 3 nats each, the reference some tens of per cent away."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, LONGEST + 1, (3 * EXAMPLES,), generator=generator)
    shape = (3 * EXAMPLES, PROMPT + LONGEST - 1)
    logp = -0.05 - 2.95 * torch.rand(shape, generator=generator)
    return Examples(
        logp=logp.to(dtype, copy=True).requires_grad_(),
        reference_logp=(logp * torch.exp(0.2 * torch.randn(shape, generator=generator))).to(dtype),
        log_sum_squares=(logp + 0.3 * torch.randn(shape, generator=generator)).to(dtype),
        tokens=tokens,
        scores=torch.randn(EXAMPLES, 2, generator=generator).to(dtype).requires_grad_(),
        desirable=torch.tensor([True, False, True, True, False, False]),
    )


# The stand-ins.


def fused(logp: Tensor, log_sum_squares: Tensor):
    """A model that answers with per-token log-probabilities, 0 where there is no label, as TRL's fused head does."""

    def model(*, labels: Tensor, **_) -> FusedCausalLMOutput:
        kept = labels[:, 1:] != -100
        nothing = torch.zeros_like(logp[: len(labels)])
        return FusedCausalLMOutput(
            log_probs=logp[: len(labels)] * kept,
            entropy=nothing,
            log_sum_sq_probs=log_sum_squares[: len(labels)] * kept,
            mean_logits=nothing,
            is_top1=nothing.bool(),
        )

    return model


def with_logits(logp: Tensor):
    """A model that answers with logits over a vocabulary of two, in which token 0 has the given log-probability."""

    def model(input_ids: Tensor, **_) -> SimpleNamespace:
        rows = logp[: len(input_ids)]
        logits = torch.stack([rows, torch.log1p(-rows.exp())], dim=-1)
        return SimpleNamespace(logits=torch.cat([logits, torch.zeros_like(logits[:, :1])], dim=1))

    model.train = lambda: None
    return model


def everyone(values: Tensor) -> Tensor:
    """What a single process gathers from all."""
    return values


def trainer(kind: type, args, **attributes):
    """A trainer of TRL's with the attributes its loss reads, made without its constructor."""
    stub, model = object.__new__(kind), torch.nn.Module()
    model.is_gradient_checkpointing = False
    vars(stub).update(
        args=args,
        model=model,
        accelerator=SimpleNamespace(device=torch.device("cpu"), gather=everyone, gather_for_metrics=everyone),
        aux_loss_enabled=False,
        is_encoder_decoder=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    vars(stub).update(attributes)
    return stub


def options_of(config: type, **options):
    """TRL's options. ``activation_checkpointing`` is given because TRL's own default for it is deprecated."""
    fixed = {"output_dir": "unused", "use_cpu": True, "bf16": False, "activation_checkpointing": False}
    return config(**fixed, report_to="none", **options)


def named(args, *names: str) -> dict:
    """Options that the trainer keeps under their own names."""
    return {name: getattr(args, name) for name in names}


def batch_of(x: Examples, rows: slice = slice(None)) -> dict[str, Tensor]:
    """Prompt and response as tokens: all are token 0, which is what the models of this file predict."""
    first = torch.ones_like(x.tokens[rows, None])
    attention = torch.cat([first, x.read[rows]], dim=1).long()
    completion = torch.cat([0 * first, x.response[rows]], dim=1).long()
    return {"input_ids": 0 * attention, "attention_mask": attention, "completion_mask": completion}


# The trainers: examples and options to the loss of the batch, a scalar.


def dpo_trainer(x: Examples, **options) -> Tensor:
    args = options_of(DPOConfig, **options)
    stub = trainer(
        DPOTrainer,
        args,
        **named(args, "beta", "ld_alpha", "f_divergence_type", "f_alpha_divergence_coef", "label_smoothing"),
        **named(args, "use_weighting"),
        loss_types=args.loss_type,
        loss_weights=args.loss_weights or [1.0] * len(args.loss_type),
        precompute_ref_logps=False,
        ref_model=fused(x.reference_logp, x.log_sum_squares),
    )
    pairs = batch_of(x, slice(2 * len(x.scores)))
    return stub.compute_loss(fused(x.logp, x.log_sum_squares), pairs)


def online_dpo_trainer(x: Examples, **options) -> Tensor:
    """Of two samples of a prompt the one with the higher reward is the chosen one: here always the first."""
    args = options_of(OnlineDPOConfig, **options)
    pairs = batch_of(x, slice(2 * len(x.scores)))
    split = [
        half for key in ("input_ids", "attention_mask") for half in (pairs[key][:, :PROMPT], pairs[key][:, PROMPT:])
    ]
    prompt_ids, completion_ids, prompt_mask, completion_mask = split
    found: list[Tensor] = []
    stub = trainer(
        OnlineDPOTrainer,
        args,
        _beta=args.beta,
        max_length=args.max_length,
        ref_model=with_logits(x.reference_logp),
        reward_funcs=None,
        eos_token_ids=[1],
        processing_class=SimpleNamespace(batch_decode=lambda ids, **_: [""] * len(ids)),
        stats=defaultdict(list),
        _generate=lambda *_: (prompt_ids, prompt_mask, completion_ids, completion_mask, None),
        _calculate_rewards_from_functions=lambda **_: torch.tensor([1.0, 0.0]).repeat_interleave(len(x.scores)),
    )
    stub.accelerator.backward = lambda loss, **_: found.append(loss)
    stub.training_step(with_logits(x.logp), {"prompt": ["a prompt"] * len(x.scores)})
    return found[0]


def halves(x: Examples) -> dict[str, Tensor]:
    """Pairs in the form of TRL's older trainers."""
    batch = {}
    for k, name in enumerate(("chosen", "rejected")):
        side = batch_of(x, slice(k * len(x.scores), (k + 1) * len(x.scores)))
        batch[f"{name}_input_ids"], batch[f"{name}_attention_mask"] = side["input_ids"], side["attention_mask"]
        batch[f"{name}_labels"] = side["input_ids"].masked_fill(side["completion_mask"] == 0, -100)
    return batch


def cpo_trainer(x: Examples, **options) -> Tensor:
    args = options_of(CPOConfig, **options)
    attributes = named(args, "beta", "label_smoothing", "loss_type", "cpo_alpha", "simpo_gamma", "alpha")
    stub = trainer(CPOTrainer, args, **attributes, pad_token_id=0)
    return stub.get_batch_loss_metrics(with_logits(x.logp), halves(x))[0]


def orpo_trainer(x: Examples, **options) -> Tensor:
    args = options_of(ORPOConfig, **options)
    stub = trainer(ORPOTrainer, args, **named(args, "beta"), padding_value=0)
    return stub.get_batch_loss_metrics(with_logits(x.logp), halves(x))[0]


def tpo_trainer(x: Examples, **options) -> Tensor:
    args = options_of(TPOConfig, **options)
    stub = trainer(TPOTrainer, args, **named(args, "beta", "label_smoothing", "loss_type", "tpo_alpha", "tpo_l_gamma"))
    return stub.compute_loss(with_logits(x.logp), batch_of(x))


def kto_trainer(x: Examples, **options) -> Tensor:
    """The chosen responses are the answers, the rejected ones are those of other prompts."""
    args = options_of(KTOConfig, **options)
    B = len(x.scores)

    def model_of(logp: Tensor):
        matched, mismatched = (fused(logp[k * B :], x.log_sum_squares[k * B :]) for k in (0, 1))
        return lambda *, input_ids, **inputs: (mismatched if bool(input_ids.any()) else matched)(**inputs)

    answers, others = batch_of(x, slice(B)), batch_of(x, slice(B, 2 * B))
    others["input_ids"] = others["input_ids"] + 1  # by which the model knows them
    stub = trainer(
        KTOTrainer,
        args,
        **named(args, "beta", "loss_type", "desirable_weight", "undesirable_weight"),
        calculate_KL=args.loss_type == "kto",
        precompute_ref_logps=False,
        ref_model=model_of(x.reference_logp),
    )
    batch = {**answers, **{f"KL_{key}": value for key, value in others.items()}, "label": x.desirable}
    return stub.compute_loss(model_of(x.logp), batch)


class Letters:
    """A tokenizer: one token for each letter."""

    eos_token = "."

    def __call__(self, text: str, **_) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


def mismatched_by_kto(prompts: list[str]) -> list[str]:
    """Each prompt has one answer, its own capital letter: the answers with which TRL pairs the prompts for z0."""
    args = options_of(KTOConfig, per_device_train_batch_size=len(prompts), train_sampling_strategy="sequential")
    stub = trainer(KTOTrainer, args, _tokenizer=Letters(), calculate_KL=True)
    rows = [{"prompt": p, "completion": p.upper(), "label": bool(i % 2)} for i, p in enumerate(prompts)]
    prepared = stub._prepare_dataset(Dataset.from_list(rows), Letters(), args, "train")
    return [chr(answer[0]) for answer in prepared["KL_completion_ids"]]


def reward_trainer(x: Examples, margin: float = 0.0, **options) -> Tensor:
    args = options_of(RewardConfig, **options)

    def model(**_) -> SimpleNamespace:
        return SimpleNamespace(logits=x.scores.T.reshape(-1, 1))

    batch = batch_of(x, slice(2 * len(x.scores))) | {"margin": torch.full_like(x.scores[:, 0], margin)}
    return trainer(RewardTrainer, args).compute_loss(model, batch)
