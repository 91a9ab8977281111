"""Two modules on one base that learn from a stream of preferences and chase each other; and modules of several domains.

OFS-DPO: both modules take DPO's loss, the one in the fast role plus the race, the other minus it. Their learning rates differ
and stay with them. Every ``exchange_every`` updates the module whose DPO loss was the lower takes the fast role. The view
``policy`` is always the module in that role. COFS-DPO: each domain has two modules of its own, and ``policy`` becomes a
weighted sum of the domains' weight updates. Source: Qi et al. 2024, arXiv:2406.05534.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # so that the names of the loops are known without what they run on
    from torch import Tensor

    from pref_toolkit.data.tokens import Encoded
    from pref_toolkit.loops.session import Session
    from pref_toolkit.training.trainer import Row

PARTS = 4
"""The weights of the domains are tried in steps of one fourth."""


class Chase:
    """Both modules with their trainers, their learning rates, and their losses since the last exchange.

    Args:
        session: the loop's; its trainer is that of the module in the fast role.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.fast = session, session.trainer
        session.policy.copy("policy", "opponent")
        self.slow = session.another("chase_slow", policy="opponent", opponent="policy")
        self.begin()

    def begin(self) -> None:
        """Fresh optimisers; the module in the fast role is the one that learns fast."""
        import torch

        self.fast.forget()
        self.slow.forget()
        self.rates = torch.tensor([1.0, self.session.settings.slow_rate], dtype=torch.float64)
        self.sums = torch.zeros(2, dtype=torch.float64)

    def update(self, examples: list[Encoded], place: int) -> Row:
        """Gradients of both, then a step of both; where one is due, an exchange."""
        import torch

        from pref_toolkit.losses import dpo

        updates = [self.fast.gradients(examples), self.slow.gradients(examples)]
        rate, rates = self.session.config.rate(place), self.rates.tolist()
        row, slow = (t.step(u, rate * r) for t, u, r in zip((self.fast, self.slow), updates, rates))
        scored, beta = [u.scored for u in updates], float(self.fast.objective.settings["beta"])
        own = [dpo(s.logps(s.policy), s.logps(s.reference), beta=beta).mean().item() for s in scored]
        self.sums += torch.tensor(own, dtype=torch.float64)
        exchanged = False
        if (place + 1) % self.session.settings.exchange_every == 0:
            if exchanged := bool(self.sums[1] < self.sums[0]):
                self.fast.exchange(self.slow)
                self.rates = self.rates.flip(0)
            self.sums = torch.zeros_like(self.sums)
        return row | {"slow_loss": slow["loss"], "fast_dpo": own[0], "slow_dpo": own[1], "exchanged": int(exchanged)}

    def state(self) -> dict[str, Tensor]:
        return {"rates": self.rates, "sums": self.sums}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.rates, self.sums = state["rates"], state["sums"]


def fast_slow(session: Session) -> None:
    """One stream, or one after the other; with several, each domain's modules begin where the first one's did."""
    run, policy, domains = session.run, session.policy, session.streams
    chase, length = Chase(session), ceil(session.total / len(domains))
    kept = [f"domain-{number + 1}" for number in range(len(domains))] if len(domains) > 1 else []
    for name in ["fresh", *kept] if kept else []:
        policy.copy("policy", name)  # a checkpoint holds it, so it must be there to be restored
    ends = range(length, session.total, length)
    for step in run.steps(session.total, save_at=ends, policy=policy, trainer=chase.fast, slow=chase.slow, roles=chase):
        number, place = divmod(step, length)
        if place == 0 and number:
            policy.copy("fresh", "policy")
            policy.copy("fresh", "opponent")
            chase.begin()
        row = chase.update(session.streamed(number, place), place)
        if kept:
            policy.copy("policy", kept[number])
        run.log(step, row | {"domain": number})
    if kept:
        weights = chosen(session, kept)
        policy.combine(dict(zip(kept, weights)), "policy")
        run.note(domain_weights=weights)


def chosen(session: Session, kept: list[str]) -> list[float]:
    """The weights of the domains, in fourths that add up to 1, at which DPO's loss on a few kept pairs of each is lowest."""
    from pref_toolkit.losses import dpo

    policy, objective = session.policy, session.trainer.objective
    memory = [example for stream in session.streams for example in stream[: session.settings.memory]]
    reference = policy.logps(memory, view=objective.views["reference"])
    tried: dict[tuple[int, ...], float] = {}
    for picked in combinations_with_replacement(range(len(kept)), PARTS):
        counts = tuple(picked.count(n) for n in range(len(kept)))
        policy.combine({name: count / PARTS for name, count in zip(kept, counts)}, "tried")
        loss = dpo(policy.logps(memory, view="tried"), reference, beta=float(objective.settings["beta"]))
        tried[counts] = loss.mean().item()
    best = min(tried, key=lambda counts: tried[counts])
    return [count / PARTS for count in best]
