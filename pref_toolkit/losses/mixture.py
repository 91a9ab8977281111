"""A weighted sum of losses on the same records: a fact of a run, not a method of the table."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pref_toolkit.errors import Complaint
from pref_toolkit.logps import Logps
from pref_toolkit.losses.inputs import RowError
from pref_toolkit.losses.method import METHODS, Method, find_method

LABEL = "desirable"
"""What a loss of single answers reads, and what a pair says of its two."""


@dataclass(frozen=True)
class Mixture(Method):
    """A weighted sum of losses, with the facts that a method has, made from those of its parts.

    Beside a loss of pairs, a loss of labelled answers reads both answers of the pair: the chosen one as desirable, the rejected
    one as undesirable. Its value for the pair is the sum of the two. If all parts read labelled answers, so does the mixture.

    A hyperparameter has the name of its part before it: ``dpo_beta``.

    Example:
        >>> from pref_toolkit.losses import find
        >>> mixture = find("dpo+bco", weights=[0.8, 0.2])
        >>> mixture.formula
        '0.8 (-log sigmoid(dpo_beta D)) + 0.2 sum_{w, l}(-log sigmoid(s (bco_beta rho - shift)))'
        >>> mixture.needs
        ('policy', 'reference', 'shift')
        >>> mixture.check(dpo_beta=0.5)["dpo_beta"]
        0.5
    """

    parts: tuple[Method, ...] = ()
    weights: tuple[float, ...] = ()

    @classmethod
    def of(cls, name: str, weights: Sequence[float] | None = None) -> Mixture:
        """The mixture of a name such as ``dpo+sft``; every weight is 1 if none are given.

        Raises:
            Complaint: if a part is unknown or named twice, the parts cannot share records, or there is not one finite weight,
                0 or more, for each part.
        """
        parts = tuple(find_method(part.strip()) for part in name.split("+"))
        names = [part.name for part in parts]
        if twice := next((part for part in names if names.count(part) > 1), None):
            raise Complaint(
                f"{name!r} names {twice!r} twice: a mixture has each loss once, and its weight says how much of it"
            )
        policies = ["policy" in part.needs for part in parts]
        if len(set(policies)) > 1:
            of_policy, of_rewards = names[policies.index(True)], names[policies.index(False)]
            raise Complaint(
                f"{of_rewards!r} trains a reward model and {of_policy!r} a policy, so they cannot be parts of one mixture"
            )
        chosen = (1.0,) * len(parts) if weights is None else tuple(weights)
        if len(chosen) != len(parts):
            raise Complaint(f"{name!r} wants {len(parts)} weights, one for each part, got {len(chosen)}")
        for weight in chosen:
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise Complaint(f"the weight of a part must be a finite number >= 0, got {weight!r}")
        papers = "; ".join(dict.fromkeys(part.paper for part in parts))
        batchwise = any(part.batchwise for part in parts)
        where = "a weighted sum of their losses"
        chosen = tuple(map(float, chosen))
        loss = partial(weighted_sum, parts, chosen)
        return cls(loss, papers, where, "methods/family_map", batchwise, parts, chosen)

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    @property
    def needs(self) -> tuple[str, ...]:
        """What any part needs, in the order of the table of methods."""
        needed = {name for part in self.parts for name in part.needs}
        if not all(LABEL in part.needs for part in self.parts):
            needed.discard(LABEL)  # a pair says it
        return tuple(name for name in dict.fromkeys(n for m in METHODS.values() for n in m.needs) if name in needed)

    @property
    def optional(self) -> tuple[str, ...]:
        """What any part may be given, and no part needs."""
        return tuple(dict.fromkeys(n for part in self.parts for n in part.optional if n not in self.needs))

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return {f"{part.name}_{name}": value for part in self.parts for name, value in part.hyperparameters.items()}

    @property
    def kinds(self) -> dict[str, Any]:
        return {f"{part.name}_{name}": kind for part in self.parts for name, kind in part.kinds.items()}

    @property
    def formula(self) -> str:
        """The weighted formulas of the parts, in which each hyperparameter has its part's name before it."""
        terms = []
        for part, weight in zip(self.parts, self.weights):
            own = part.formula
            for name in part.hyperparameters:
                own = re.sub(rf"\b{re.escape(name)}\b", f"{part.name}_{name}", own)
            both = "sum_{w, l}" if LABEL in part.needs and LABEL not in self.needs else ""
            terms.append(f"{weight:g} {both}({own})")
        return " + ".join(terms)

    def settings_beside(self, argument: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The hyperparameters of the part that needs an argument."""
        part = next(part for part in self.parts if argument in part.needs)
        return of_part(part, settings)


def find(name: str, weights: Sequence[float] | None = None) -> Method:
    """A method by name, or the mixture of several whose names are joined by ``+``.

    Args:
        name: such as ``dpo``, or ``dpo+bco+sft``.
        weights: of the parts of a mixture; 1 each if not given.

    Raises:
        Complaint: for a name that is no method's, weights without a mixture, and for the reasons of
            :meth:`pref_toolkit.losses.Mixture.of`.

    Example:
        >>> find("dpo").name, find("dpo+bco", [0.8, 0.2]).weights
        ('dpo', (0.8, 0.2))
        >>> find("dpo", [0.8])
        Traceback (most recent call last):
        pref_toolkit.errors.Complaint: weights are of the parts of a mixture such as dpo+sft, and 'dpo' is one method
    """
    if "+" in name:
        return Mixture.of(name, weights)
    method = find_method(name)
    if weights is not None:
        raise Complaint(f"weights are of the parts of a mixture such as dpo+sft, and {name!r} is one method")
    return method


def weighted_sum(parts: Sequence[Method], weights: Sequence[float], **given: Any) -> Tensor:
    """``sum_m w_m L_m``, ``(B,)``: the losses of the parts, each on what it reads of the inputs and settings given.

    Raises:
        ValueError: if a loss of labelled answers is given other records than pairs.
    """
    total: Tensor | None = None
    for part, weight in zip(parts, weights):
        inputs = {name: given[name] for name in (*part.needs, *part.optional) if name in given}
        settings = of_part(part, given)
        alone = LABEL not in part.needs or LABEL in given
        loss = part.loss(**inputs, **settings) if alone else of_both_answers(part, inputs, settings)
        total = weight * loss if total is None else total + weight * loss
    assert total is not None, "a mixture has parts"
    return total


def of_both_answers(part: Method, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Tensor:
    """``(B,)`` the loss of the chosen response as a desirable answer plus that of the rejected one as an undesirable one.

    Raises:
        ValueError: if the records do not hold pairs.
    """
    pairs, k = len(inputs["policy"].sums), inputs["policy"].sums.shape[1]
    if k != 2:
        raise RowError(f"{part.name} in a mixture wants K=2 responses to each prompt, got K={k}", 0)
    answers = {
        # The chosen responses of all pairs, then the rejected ones.
        name: Logps(value.sums.T.reshape(-1, 1), value.tokens.T.reshape(-1, 1)) if isinstance(value, Logps) else value
        for name, value in inputs.items()
    }
    labels = torch.arange(2 * pairs, device=inputs["policy"].sums.device) < pairs
    return part.loss(**answers, **{LABEL: labels}, **settings).reshape(2, pairs).sum(0)


def of_part(part: Method, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The part's own hyperparameters among those of the mixture."""
    named = {name: f"{part.name}_{name}" for name in part.hyperparameters}
    return {name: settings[key] for name, key in named.items() if key in settings}
