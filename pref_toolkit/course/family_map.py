"""Cases of the graded exercises of ``book/methods/family_map.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pref_toolkit import losses
from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.logps import Logps

double = torch.float64


@exercise("family-map-ex-4")
def general() -> Iterator[Case]:
    """The common form, against named losses of the toolkit on the same pairs."""
    rho = torch.tensor([[2.0, -1.0], [-7.0, 4.0], [0.0, 0.0]], dtype=double)
    n = torch.tensor([[4, 10], [20, 8], [7, 7]])
    scores = torch.tensor([[2.0, 1.0], [0.5, -1.0], [3.0, 2.9]], dtype=double)
    policy, reference = Logps(rho, n), Logps(torch.zeros_like(rho), n)
    none = torch.zeros(3, dtype=double)
    longer = 0.1 * (n[:, 1] - n[:, 0]).double()
    gap = (scores[:, 0] - scores[:, 1]).log()
    far = Logps(1000 * rho, n)
    for about, given, beta, offset, link, wanted in (
        ("DPO", policy, 0.3, none, "logistic", losses.dpo(policy, reference, beta=0.3)),
        ("a price on length", policy, 0.1, longer, "logistic", losses.r_dpo(policy, reference, beta=0.1, alpha=0.1)),
        ("an offset of scores", policy, 0.5, gap, "logistic", losses.odpo(policy, reference, scores, beta=0.5)),
        ("the hinge", policy, 0.2, none, "hinge", losses.hinge_dpo(policy, reference, gamma=0.2)),
        ("the square", policy, 0.1, none, "square", 0.1**2 * losses.ipo(policy, reference, tau=0.05)),
        ("margins of thousands of nats", far, 1.0, none, "logistic", losses.dpo(far, reference, beta=1.0)),
    ):
        yield Case(about, (*given.sums.T, beta, offset, link), wanted)


def _of_margin(method: str, **given: object) -> Callable[[Tensor], Tensor]:
    def loss(t: Tensor) -> Tensor:
        zero = torch.zeros_like(t)
        return losses.METHODS[method].loss(Logps.pair(t, zero), Logps.pair(zero, zero), beta=1.0, **given)

    return loss


@exercise("family-map-ex-5")
def ending() -> Iterator[Case]:
    """The end of a curve, as its chapter has it."""
    for about, method, given, wanted in (
        ("DPO", "dpo", {}, "fades"),
        ("conservative DPO", "cdpo", {"eps": 0.1}, "target"),
        ("robust DPO", "robust_dpo", {"eps": 0.1}, "for ever"),
        ("the hinge", "gpo", {"link": "hinge"}, "ends"),
        ("the square", "gpo", {"link": "square"}, "target"),
        ("the exponential", "gpo", {"link": "exponential"}, "fades"),
        ("the correlation", "gpo", {"link": "correlation"}, "for ever"),
    ):
        yield Case(about, (_of_margin(method, **given),), wanted)
