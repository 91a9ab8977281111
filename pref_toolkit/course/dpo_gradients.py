"""Cases of the graded exercises of ``book/methods/dpo_gradients.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from pref_toolkit import losses
from pref_toolkit.course.cases import Case, exercise
from pref_toolkit.theory import bandits

double = torch.float64
ONE_PAIR = bandits.Comparisons(torch.tensor([[0, 1]]), torch.ones(1, dtype=double))


@exercise("dpo-gradients-ex-6")
def ches_and_change() -> Iterator[Case]:
    """CHES by a double loop over tokens, and the change of the chosen log-probability by automatic differentiation."""
    generator = torch.Generator().manual_seed(0)
    for about, n_w, n_l, d, v in (
        ("equal lengths", 3, 3, 4, 5),
        ("a long rejected response", 2, 6, 3, 5),
        ("a long chosen response", 5, 1, 3, 8),
    ):
        h_w, h_l = (torch.randn(n, d, dtype=double, generator=generator) for n in (n_w, n_l))
        y_w, y_l = (torch.randint(v, (n,), generator=generator) for n in (n_w, n_l))
        head = torch.randn(v, d, dtype=double, generator=generator).requires_grad_()

        logits_w, logits_l = h_w @ head.T, h_l @ head.T
        l_w, l_l = (logits.log_softmax(-1)[range(len(y)), y].sum() for logits, y in ((logits_w, y_w), (logits_l, y_l)))
        (g_w,) = torch.autograd.grad(l_w, head, retain_graph=True)
        (g_l,) = torch.autograd.grad(l_l, head, retain_graph=True)
        score = sum(float(a @ b) for a in h_w for b in h_l) - sum(float(a @ b) for a in h_w for b in h_w)
        one_hot = torch.eye(v, dtype=double)
        e_w, e_l = one_hot[y_w] - logits_w.softmax(-1).detach(), one_hot[y_l] - logits_l.softmax(-1).detach()
        yield Case(about, (h_w, e_w, h_l, e_l), (score, float((g_w * (g_w - g_l)).sum())))


@exercise("dpo-gradients-ex-7")
def design() -> Iterator[Case]:
    """A softmax over embeddings whose chosen response falls in the first step of DPO: the step is made."""
    for about, k, d in (("three responses in the plane", 3, 2), ("four", 4, 2), ("six in four dimensions", 6, 4)):
        yield Case(about, (k, d), fault=_judge(k, d))


def _judge(k: int, d: int) -> Callable[[Any], str]:
    def fault(got: Any) -> str:
        embeddings, start = (torch.as_tensor(value, dtype=double) for value in got)
        if embeddings.shape != (k, d) or start.shape != (d,):
            shapes = f"{tuple(embeddings.shape)} and {tuple(start.shape)}"
            return f"got shapes {shapes}, wanted {(k, d)} and {(d,)}."
        if not bool(embeddings.isfinite().all() and start.isfinite().all()):
            return "not all numbers are finite."
        longest = float(embeddings.norm(dim=-1).max())
        if longest > 2 + 1e-9:
            return f"an embedding has length {longest:.3g}, and 2 is allowed."
        before = torch.softmax(embeddings @ start, dim=-1)
        if float(before.min()) < 0.01:
            return f"a response has probability {float(before.min()):.2g} at the start, and at least 0.01 is wanted."
        if float(before[0]) < float(before.max()) - 1e-9:
            return f"response {int(before.argmax())} is likelier than the chosen one at the start."
        after = bandits.minimise(
            losses.dpo, ONE_PAIR, before, features=embeddings, start=start, steps=1, learning_rate=0.01, beta=0.1
        )[1]
        change = float((after[0] / before[0]).log())
        if change > -1e-9:
            return f"the first step changes the chosen log-probability by {change:+.2g} nats: it does not fall."
        return ""

    return fault
