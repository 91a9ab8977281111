"""Every method that TRL 1.16 has too, against TRL's own code: the same loss, or another one by a stated difference.

Both sides see the same random log-probabilities of tokens, and must agree within 1e-6 in value and in the gradient by
each of them. Where they do not, the row says why, and what of ours gives TRL's number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Literal

import pytest
import torch
from rounding import CLOSE, everything_in_float64, rounding
from torch import Tensor
from trl_trainers import (
    EXAMPLES,
    Examples,
    cpo_trainer,
    dpo_trainer,
    draw,
    examples_of,
    kto_trainer,
    mismatched_by_kto,
    online_dpo_trainer,
    orpo_trainer,
    reward_trainer,
    tpo_trainer,
)

from pref_toolkit import losses
from pref_toolkit.logps import Logps
from pref_toolkit.losses import METHODS
from pref_toolkit.losses.disagreements import DISAGREEMENTS, POLICY, REFERENCE

Numbers = Callable[[float, float], dict]
Loss = Callable[[Examples, float, float], Tensor]


@dataclass(frozen=True)
class Peer:
    """A loss of ours beside one of TRL's, both as functions of two numbers ``b`` and ``c``, their hyperparameters.

    Args:
        method: ours.
        trainer: TRL's.
        options: TRL's options.
        ours: our loss of each example; what trains is its mean.
        differs: ``never``, ``in a batch`` (equal on one example, but the mean of ours is not TRL's) or ``always``.
        why: the difference in a sentence.
        theirs: TRL's loss of a batch, put together from ours.
        dtype: what TRL computes in.
    """

    method: str
    trainer: Callable[..., Tensor]
    options: Numbers
    ours: Loss
    differs: Literal["never", "in a batch", "always"] = "never"
    why: str = ""
    theirs: Loss | None = None
    dtype: torch.dtype = torch.float64

    def __str__(self) -> str:
        named = ", ".join(f"{k}={v}" for k, v in self.options(0.1, 0.2).items() if isinstance(v, str | list))
        return f"{self.method} - {self.trainer.__name__} {named}".strip()


def of_pairs(method: str, **fixed) -> Callable[[Numbers], Loss]:
    """A loss of policy and reference on pairs, whose hyperparameters are named."""

    def with_settings(settings: Numbers) -> Loss:
        return lambda x, b, c: METHODS[method].loss(x.policy, x.reference, **fixed, **settings(b, c))

    return with_settings


def same(method: str, settings: Numbers, options: Numbers, **given) -> Peer:
    """A pair loss of TRL's DPO trainer that is ours."""
    return Peer(method, dpo_trainer, options, of_pairs(method)(settings), **given)


def nothing(x: Examples) -> Logps:
    """A reference that likes all responses equally: what a loss without a reference has."""
    return Logps(torch.zeros_like(x.policy.sums), x.policy.tokens)


def supervised(record: Logps) -> Tensor:
    """``(B,)`` minus the mean log-probability per token: our supervised term."""
    return -record.per_token().sums[:, 0]


def over_all_tokens(record: Logps) -> Tensor:
    """Minus the mean over all tokens of a batch: TRL's."""
    return -record.sums[:, 0].sum() / record.tokens[:, 0].sum()


def chosen(x: Examples) -> Logps:
    return x.answers[0]


def prompt_and_chosen(x: Examples) -> Logps:
    """The chosen response and all tokens of its prompt but the first, which nothing predicts."""
    kept = x.read[: len(x.scores)]
    return Logps((x.logp[: len(x.scores)] * kept).sum(1, keepdim=True), kept.sum(1, keepdim=True))


def slic_in_cpo(x: Examples, b: float) -> Tensor:
    """``max(0, 1 - b (l_w - l_l))``: SLiC's hinge at delta = 1 / b, times b."""
    return b * losses.slic_hf(x.policy, delta=1 / b, lam=0.0)


def both_answers(x: Examples, beta: float, shift: Tensor) -> Tensor:
    """``(B,)`` BCO on the chosen response as a desirable answer plus the rejected one as an undesirable one."""
    labels = torch.ones(len(x.scores), dtype=torch.bool)
    desirable = losses.bco(*x.answers, labels, shift, beta=beta)
    return desirable + losses.bco(*x.rejected_answers, ~labels, shift, beta=beta)


def bco_of_pairs(x: Examples, b: float, c: float) -> Tensor:
    """BCO as the paper has it: the shift is the mean of beta rho, here over the answers of the batch."""
    return both_answers(x, b, (b * (x.policy.sums - x.reference.sums)).detach().mean())


def sure(x: Examples) -> Tensor:
    """Win probabilities 1 and 0."""
    return torch.tensor([1.0, 0.0]).expand_as(x.policy.sums)


def kto(x: Examples, b: float, c: float) -> Tensor:
    mismatched = torch.sub(*(record.sums for record in x.rejected_answers))
    return losses.kto(*x.answers, x.desirable, mismatched, beta=b, lam_D=0.5 + c, lam_U=1.5)


TOKEN_MEAN = "The supervised term is a mean over all tokens of the batch, not of each response's mean."
MEANS = "TRL divides each log-ratio by its response's length."

PEERS = [
    Peer(
        "bradley_terry",
        reward_trainer,
        lambda b, c: {"margin": c},
        lambda x, b, c: losses.bradley_terry(x.scores, m=c),
    ),
    same("dpo", lambda b, c: {"beta": b}, lambda b, c: {"loss_type": "sigmoid", "beta": b}),
    Peer("dpo", online_dpo_trainer, lambda b, c: {"beta": b}, of_pairs("dpo")(lambda b, c: {"beta": b})),
    same(
        "dpo",
        lambda b, c: {"beta": b},
        lambda b, c: {"loss_type": "sigmoid_norm", "beta": b},
        differs="always",
        why=MEANS,
        theirs=lambda x, b, c: losses.dpo(x.policy.per_token(), x.reference.per_token(), beta=b).mean(),
    ),
    same(
        "cdpo",
        lambda b, c: {"beta": b, "eps": c},
        lambda b, c: {"loss_type": "sigmoid", "beta": b, "label_smoothing": c},
        differs="always",
        why="The DPO trainer's default loss ignores label_smoothing.",
        theirs=lambda x, b, c: losses.dpo(x.policy, x.reference, beta=b).mean(),
    ),
    Peer(
        "cdpo",
        cpo_trainer,
        lambda b, c: {"loss_type": "sigmoid", "beta": b, "label_smoothing": c, "cpo_alpha": 0.0},
        lambda x, b, c: losses.cdpo(x.policy, nothing(x), beta=b, eps=c),
    ),
    same(
        "robust_dpo",
        lambda b, c: {"beta": b, "eps": c},
        lambda b, c: {"loss_type": "robust", "beta": b, "label_smoothing": c},
    ),
    same(
        "ipo",
        lambda b, c: {"tau": b},
        lambda b, c: {"loss_type": "ipo", "beta": b},
        differs="always",
        why=MEANS,
        theirs=lambda x, b, c: losses.ipo(x.policy.per_token(), x.reference.per_token(), tau=b).mean(),
    ),
    Peer(
        "ipo",
        online_dpo_trainer,
        lambda b, c: {"loss_type": "ipo", "beta": b},
        of_pairs("ipo")(lambda b, c: {"tau": b}),
    ),
    same("hinge_dpo", lambda b, c: {"gamma": b}, lambda b, c: {"loss_type": "hinge", "beta": b}),
    Peer(
        "slic_hf",
        cpo_trainer,
        lambda b, c: {"loss_type": "hinge", "beta": b, "cpo_alpha": c},
        lambda x, b, c: losses.slic_hf(x.policy, delta=1 / b, lam=c),
        differs="always",
        why="The margin is divided by delta, and the supervised term is a mean over tokens, not a sum.",
        theirs=lambda x, b, c: slic_in_cpo(x, b).mean() + c * over_all_tokens(chosen(x)),
    ),
    Peer(
        "click",
        tpo_trainer,
        lambda b, c: {"loss_type": "hinge", "beta": b, "tpo_alpha": 1.0},
        lambda x, b, c: losses.click(x.policy, x.target, alpha=b, gamma=1 / b),
        differs="in a batch",
        why=TOKEN_MEAN,
        theirs=lambda x, b, c: slic_in_cpo(x, b).mean() + over_all_tokens(x.target),
    ),
    Peer(
        "simpo",
        cpo_trainer,
        lambda b, c: {"loss_type": "simpo", "beta": b, "simpo_gamma": c, "cpo_alpha": 0.0},
        lambda x, b, c: losses.simpo(x.policy, beta=b, gamma=c),
    ),
    Peer(
        "simpo",
        cpo_trainer,
        lambda b, c: {"loss_type": "simpo", "beta": b, "simpo_gamma": c},
        lambda x, b, c: losses.simpo(x.policy, beta=b, gamma=c),
        differs="always",
        why="The CPO trainer adds a supervised term of weight 1 unless cpo_alpha is set to 0.",
        theirs=lambda x, b, c: losses.simpo(x.policy, beta=b, gamma=c).mean() + over_all_tokens(chosen(x)),
    ),
    Peer(
        "orpo",
        orpo_trainer,
        lambda b, c: {"beta": c},
        lambda x, b, c: losses.orpo(x.policy, lam=c),
        differs="always",
        why="The supervised term counts the prompt's tokens too, and is a mean over all tokens of the batch.",
        theirs=lambda x, b, c: (
            (losses.orpo(x.policy, lam=c) - supervised(chosen(x))).mean() + over_all_tokens(prompt_and_chosen(x))
        ),
    ),
    Peer(
        "cpo",
        cpo_trainer,
        lambda b, c: {"loss_type": "sigmoid", "beta": b, "cpo_alpha": c},
        lambda x, b, c: losses.cpo(x.policy, beta=b, alpha=c),
        differs="in a batch",
        why=TOKEN_MEAN,
        theirs=lambda x, b, c: losses.cpo(x.policy, beta=b, alpha=0.0).mean() + c * over_all_tokens(chosen(x)),
    ),
    same(
        "dpo_nll",
        lambda b, c: {"beta": b, "alpha": c},
        lambda b, c: {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, c], "beta": b},
        differs="in a batch",
        why=TOKEN_MEAN,
        theirs=lambda x, b, c: losses.dpo(x.policy, x.reference, beta=b).mean() + c * over_all_tokens(chosen(x)),
    ),
    same("spin", lambda b, c: {"lam": b}, lambda b, c: {"loss_type": "sigmoid", "beta": b}),
    same("spin", lambda b, c: {"lam": b, "link": "hinge"}, lambda b, c: {"loss_type": "hinge", "beta": b}),
    same("gpo", lambda b, c: {"beta": b}, lambda b, c: {"loss_type": "sigmoid", "beta": b}),
    same("gpo", lambda b, c: {"beta": b, "link": "hinge"}, lambda b, c: {"loss_type": "hinge", "beta": b}),
    Peer(
        "gpo",
        online_dpo_trainer,
        lambda b, c: {"loss_type": "ipo", "beta": b},
        of_pairs("gpo", link="square")(lambda b, c: {"beta": 2 * b}),
        differs="always",
        why="The square link at beta = 2 tau is IPO times beta^2.",
        theirs=lambda x, b, c: losses.gpo(x.policy, x.reference, beta=2 * b, link="square").mean() / (2 * b) ** 2,
    ),
    *(
        same(
            "f_dpo",
            lambda b, c, ours=ours: {"beta": b, "divergence": ours},
            lambda b, c, theirs=theirs: {"loss_type": "sigmoid", "beta": b, "f_divergence_type": theirs},
        )
        for ours, theirs in {
            "reverse_kl": "reverse_kl",
            "forward_kl": "forward_kl",
            "jensen_shannon": "js_divergence",
        }.items()
    ),
    same(
        "f_dpo",
        lambda b, c: {"beta": b, "divergence": "alpha", "alpha": c},
        lambda b, c: {
            "loss_type": "sigmoid",
            "beta": b,
            "f_divergence_type": "alpha_divergence",
            "f_alpha_divergence_coef": c,
        },
        differs="always",
        why="TRL's alpha is 1 - alpha: its forward KL is at 0 and its reverse KL at 1.",
        theirs=lambda x, b, c: losses.f_dpo(x.policy, x.reference, beta=b, divergence="alpha", alpha=1 - c).mean(),
        dtype=torch.float32,  # TRL knows no other here but half precision
    ),
    same(
        "discopop",
        lambda b, c: {"beta": b, "tau": c},
        lambda b, c: {"loss_type": "discopop", "beta": b, "discopop_tau": c},
    ),
    Peer(
        "sppo",
        dpo_trainer,
        lambda b, c: {"loss_type": "sppo_hard", "beta": b},
        lambda x, b, c: losses.sppo(x.policy, x.reference, sure(x), beta=b),
        differs="always",
        why="TRL sums the two squares without the half; win probabilities are 1 and 0.",
        theirs=lambda x, b, c: 2 * losses.sppo(x.policy, x.reference, sure(x), beta=b).mean(),
    ),
    same(
        "dpo_norm",
        lambda b, c: {"beta": b},
        lambda b, c: {"loss_type": "sigmoid_norm", "beta": b},
    ),
    Peer(
        "sft",
        dpo_trainer,
        lambda b, c: {"loss_type": "sft"},
        lambda x, b, c: losses.sft(x.policy, per="token"),
        differs="in a batch",
        why="The mean is over all tokens of the batch.",
        theirs=lambda x, b, c: over_all_tokens(chosen(x)),
    ),
    same("nca", lambda b, c: {"beta": b}, lambda b, c: {"loss_type": "nca_pair", "beta": b}),
    same("apo_zero", lambda b, c: {"beta": b}, lambda b, c: {"loss_type": "apo_zero", "beta": b}),
    same("apo_down", lambda b, c: {"beta": b}, lambda b, c: {"loss_type": "apo_down", "beta": b}),
    same("aot", lambda b, c: {"beta": b}, lambda b, c: {"loss_type": "aot", "beta": b}),
    same(
        "exo",
        lambda b, c: {"beta": b, "eps": c},
        lambda b, c: {"loss_type": "exo_pair", "beta": b, "label_smoothing": c},
    ),
    Peer(
        "kto",
        kto_trainer,
        lambda b, c: {"beta": b, "desirable_weight": 0.5 + c, "undesirable_weight": 1.5},
        kto,
    ),
    Peer(
        "bco",
        dpo_trainer,
        lambda b, c: {"loss_type": "bco_pair", "beta": b},
        bco_of_pairs,
        differs="always",
        why="There is no shift.",
        theirs=lambda x, b, c: both_answers(x, b, torch.zeros((), dtype=torch.float64)).mean(),
    ),
    Peer(
        "ld_dpo",
        dpo_trainer,
        lambda b, c: {"loss_type": "sigmoid", "beta": b, "ld_alpha": c},
        lambda x, b, c: losses.ld_dpo(x.policy, x.reference, *x.heads, beta=b, alpha=c),
    ),
    Peer(
        "wpo",
        dpo_trainer,
        lambda b, c: {"loss_type": "sigmoid", "beta": b, "use_weighting": True},
        lambda x, b, c: losses.wpo(x.policy, x.reference, x.log_weights, beta=b),
        differs="always",
        why="The weight of a pair is not clamped at 1.",
        theirs=lambda x, b, c: (x.log_weights.sum(1).exp() * losses.dpo(x.policy, x.reference, beta=b)).mean(),
    ),
]

NOT_IN_TRL = {"chi_po", "plackett_luce", "rrhf", "dpop", "r_dpo", "odpo", "s_dpo", "tdpo1", "tdpo2", "mallows_dpo"}

# TRL's losses that no row of ours has: AOT over unpaired answers, and what the CPO and TPO
# trainers make of other losses' names without a reference.
NOT_OURS = {
    dpo_trainer: {"aot_unpaired"},
    cpo_trainer: {"ipo"},
    tpo_trainer: {"sigmoid", "ipo", "tpo-l"},
}

SETTINGS = [(0.1, 0.1), (0.7, 0.4)]


def value_and_gradient(loss: Callable[[Examples], Tensor], x: Examples) -> list[Tensor]:
    value = loss(x)
    gradients = torch.autograd.grad(value, [x.logp, x.scores], allow_unused=True, materialize_grads=True)
    return [value.detach(), *gradients]


def equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    """But for rounding: of float32 by about a hundred sums, products and exponentials."""
    close = CLOSE if ours[0].dtype == torch.float64 else rounding(100, 1)
    return all(torch.allclose(a, b.to(a.dtype), rtol=close, atol=close) for a, b in zip(ours, theirs, strict=True))


def test_every_method_is_compared_or_known_to_be_missing():
    assert {peer.method for peer in PEERS} == set(METHODS) - NOT_IN_TRL
    assert set(METHODS) >= NOT_IN_TRL


@pytest.mark.parametrize("trainer", NOT_OURS, ids=lambda trainer: trainer.__name__)
def test_every_loss_of_trl_is_compared_or_known_to_be_another(trainer):
    with pytest.raises(ValueError, match="Should be one of") as refusal:
        trainer(draw(torch.float64), loss_type="no such")
    offered = set(re.findall(r"'([\w-]+)'", str(refusal.value).split("Should be one of")[1]))
    types = [peer.options(0.1, 0.1)["loss_type"] for peer in PEERS if peer.trainer is trainer]
    compared = {name for kind in types for name in (kind if isinstance(kind, list) else [kind])}
    assert compared.isdisjoint(NOT_OURS[trainer])
    assert compared | NOT_OURS[trainer] == offered


@pytest.mark.parametrize(("b", "c"), SETTINGS)
@pytest.mark.parametrize("peer", PEERS, ids=str)
def test_a_loss_is_trls_or_differs_as_stated(peer, b, c):
    everything = draw(peer.dtype)
    batches = {"one example": [everything.only(i) for i in range(EXAMPLES)], "a batch": [everything]}
    differs = {"never": set(), "in a batch": {"a batch"}, "always": set(batches)}[peer.differs]
    with everything_in_float64() if peer.dtype == torch.float64 else nullcontext():
        for size, examples in batches.items():
            as_ours, moved = [], []
            for x in examples:
                theirs = value_and_gradient(lambda x: peer.trainer(x, **peer.options(b, c)), x)
                ours = value_and_gradient(lambda x: peer.ours(x, b, c).mean(), x)
                as_ours.append(equal(ours, theirs))
                if size in differs:
                    stated = value_and_gradient(lambda x: peer.theirs(x, b, c), x)
                    assert equal(stated, theirs), size
                moved.append(any(bool(gradient.any()) for gradient in theirs[1:]))
            # Not in every single example: a hinge may be slack, a weight below its clamp.
            assert any(moved)
            assert (not all(as_ours)) if size in differs else all(as_ours), (size, as_ours)


def test_differences_are_explained():
    for peer in PEERS:
        assert bool(peer.why) == (peer.theirs is not None) == (peer.differs != "never"), str(peer)


# Disagreements whose example TRL can be run on, and which of the two numbers it has: 0 is ours.
ON_THE_EXAMPLE = {
    "ipo_sum_or_mean": (1, dpo_trainer, {"loss_type": "ipo"}),
    "simpo_gamma": (0, cpo_trainer, {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0}),
    "simpo_in_cpo": (1, cpo_trainer, {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0}),
    "dpo_on_means": (1, dpo_trainer, {"loss_type": "sigmoid_norm"}),
    "label_smoothing": (1, dpo_trainer, {"loss_type": "robust", "label_smoothing": 0.1}),
    "label_smoothing_ignored": (1, dpo_trainer, {"loss_type": "sigmoid", "label_smoothing": 0.1}),
    "sppo_scale": (1, dpo_trainer, {"loss_type": "sppo_hard"}),
    "wpo_clamp": (1, dpo_trainer, {"use_weighting": True}),
}


@pytest.mark.parametrize("name", ON_THE_EXAMPLE)
def test_trl_has_the_number_of_a_disagreement(name):
    which, trainer, options = ON_THE_EXAMPLE[name]
    x = examples_of(POLICY, REFERENCE, torch.tensor([[0.5, 0.2]], dtype=torch.float64))
    assert trainer(x, **options).item() == pytest.approx(DISAGREEMENTS[name].numbers()[which], rel=CLOSE)


def test_the_answers_behind_ktos_z0_are_those_of_the_neighbours():
    """Mismatched as long as neighbours answer different prompts; ours are always of another prompt."""
    assert mismatched_by_kto(["a", "b", "c", "d"]) == ["D", "A", "B", "C"]
    assert mismatched_by_kto(["a", "a", "c", "d"])[1] == "A"


def test_the_defaults_that_a_disagreement_names():
    """SPPO with DPO's beta, 100 times the paper's; a CPO trainer whose supervised term is on."""
    x = draw(torch.float64)
    sppo = partial(dpo_trainer, x, loss_type="sppo_hard")
    assert sppo() == sppo(beta=100 * METHODS["sppo"].hyperparameters["beta"])
    simpo = partial(cpo_trainer, x, loss_type="simpo")
    assert simpo() == simpo(cpo_alpha=1.0) != simpo(cpo_alpha=0.0)


def test_this_is_the_version_that_is_described():
    assert version("trl") == "1.16.0"
