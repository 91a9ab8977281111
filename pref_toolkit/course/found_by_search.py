"""Cases of the graded exercises of ``book/methods/found_by_search.md``."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pref_toolkit import losses
from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.logps import Logps

double = torch.float64


def _rising(tau: float) -> tuple[float, float]:
    """Ends of the interval around 0 in which neighbouring values of the loss grow, on a fine grid."""
    t = torch.arange(-5000, 5001, dtype=double) * 1e-4
    zero = torch.zeros_like(t)
    loss = losses.discopop(Logps.pair(t, zero), Logps.pair(zero, zero), beta=1.0, tau=tau)
    grows = (loss.diff() > 0).tolist()
    if not (grows[4999] and grows[5000]):
        return 0.0, 0.0
    low, high = 5000, 5000
    while grows[low - 1]:
        low -= 1
    while grows[high]:
        high += 1
    return float(t[low]), float(t[high])


@exercise("found-by-search-ex-6")
def rising() -> Iterator[Case]:
    """The interval in which DiscoPOP rises, from values of the loss and without its derivative."""
    for about, tau in (("the default", 0.05), ("a narrow switch", 0.02), ("almost flat", 0.09), ("no bump", 0.2)):
        yield Case(about, (tau,), _rising(tau), rtol=0, atol=6e-4)


@exercise("found-by-search-ex-7")
def honest() -> Iterator[Case]:
    """Winner, both means and the best of the second half, by loops."""
    generator = torch.Generator().manual_seed(0)
    for about, losses_, sets in (("three losses", 3, 4), ("many losses, few sets", 20, 2), ("many sets", 5, 40)):
        scores = torch.rand(losses_, sets, dtype=double, generator=generator)
        half = sets // 2
        first = [sum(row[:half]) / half for row in scores.tolist()]
        second = [sum(row[half:]) / half for row in scores.tolist()]
        best = first.index(min(first))
        yield Case(about, (scores,), (best, first[best], second[best], second.index(min(second))))
