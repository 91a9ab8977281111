"""Losses that read more of a response than its sum: whole next-token distributions, or where its tokens lie.

The distributions themselves never come here. Each loss names the one number per response, or per prompt, that it needs
of them, so that a scorer can reduce them chunk by chunk without ever holding ``(B, T, V)``.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from pref_toolkit.logps import Logps, check_same_pairs, margin
from pref_toolkit.losses.inputs import tensor_of
from pref_toolkit.losses.method import NonNegative, Positive, method
from pref_toolkit.losses.pairs import dpo


@method(
    paper="Zeng et al. 2024, arXiv:2404.11999",
    equation="the loss of TDPO's first version",
    chapter="methods/token_level",
)
def tdpo1(policy: Logps, reference: Logps, sequence_kl: Tensor, *, beta: Positive = 0.1) -> Tensor:
    """Token-level DPO, first version: ``-log sigmoid(beta (D - (K_l - K_w)))``.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        sequence_kl: ``(B, 2)`` ``K_w, K_l``, nats: the sum over the response's positions of KL(reference || policy)
            over the full vocabulary, with its gradient in the policy.
        beta: strength of the pull to the reference, per nat; the paper's symbol.

    Returns:
        ``(B,)`` losses. At policy = reference, where ``sequence_kl`` is 0, each is ``log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs, or ``sequence_kl`` has another shape.

    Example:
        >>> import torch
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> tdpo1(policy, reference, torch.tensor([[1.0, 4.0], [0.0, 0.0]]))  # 3 - (4 - 1) = 0, and 0
        tensor([0.6931, 0.6931])
    """
    D = margin(policy, reference)
    K = tensor_of("sequence_kl", sequence_kl, policy.sums.shape, D.dtype)
    return -logsigmoid(beta * (D - (K[:, 1] - K[:, 0])))


@method(
    paper="Zeng et al. 2024, arXiv:2404.11999",
    equation="the loss of TDPO's second version",
    chapter="methods/token_level",
)
def tdpo2(
    policy: Logps, reference: Logps, sequence_kl: Tensor, *, beta: Positive = 0.1, alpha: NonNegative = 0.5
) -> Tensor:
    """Token-level DPO, second version: ``-log sigmoid(beta (D - alpha (K_l - stopgrad(K_w))))``.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        sequence_kl: ``(B, 2)`` ``K_w, K_l``, nats, as for ``tdpo1``. The chosen response's gradient is stopped here.
        beta: strength of the pull to the reference, per nat; the paper's symbol.
        alpha: weight of the difference of divergences; the paper's symbol.

    Returns:
        ``(B,)`` losses. At policy = reference, where ``sequence_kl`` is 0, each is ``log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs, or ``sequence_kl`` has another shape.

    Example:
        >>> import torch
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> tdpo2(policy, reference, torch.tensor([[1.0, 4.0], [0.0, 0.0]]))  # log(1 + exp(-0.15)), log 2
        tensor([0.6210, 0.6931])
    """
    D = margin(policy, reference)
    K = tensor_of("sequence_kl", sequence_kl, policy.sums.shape, D.dtype)
    return -logsigmoid(beta * (D - alpha * (K[:, 1] - K[:, 0].detach())))


@method(
    paper="Chen et al. 2024, arXiv:2405.14953",
    equation="the DPO form with a dispersion index (version 5, MallowsPO)",
    chapter="methods/token_level",
)
def mallows_dpo(policy: Logps, reference: Logps, dispersion: Tensor, *, beta: Positive = 0.1) -> Tensor:
    """DPO weighted by how sure the reference is of a prompt: ``-log sigmoid(phi beta D)``. Published as MallowsPO.

    ``phi = -phi0 log(Hbar / log V)``: ``Hbar`` is the entropy of the reference's next-token distributions, averaged over
    the positions of each response and then over the prompt's responses, as in the authors' code. ``V`` is the size of the
    vocabulary, and ``phi0`` makes the mean of ``phi`` over the data set 1, as we read it; the authors' code has a constant,
    0.29, in the place of ``phi0``.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        dispersion: ``(B,)`` ``phi`` of each prompt, no unit. 1 is DPO. Its gradient is stopped here.
        beta: strength of the pull to the reference, per nat; the default is DPO's.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs, or ``dispersion`` has another shape.

    Example:
        >>> import torch
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> mallows_dpo(policy, reference, torch.tensor([2.0, 1.0]))  # DPO with beta = 0.2, and log 2
        tensor([0.4375, 0.6931])
    """
    D = margin(policy, reference)
    phi = tensor_of("dispersion", dispersion, D.shape, D.dtype).detach()
    return -logsigmoid(phi * beta * D)


@method(
    paper="Liu et al. 2024, arXiv:2409.06411",
    equation="the loss with length-desensitised likelihoods",
    chapter="methods/token_level",
)
def ld_dpo(
    policy: Logps,
    reference: Logps,
    policy_first: Logps,
    reference_first: Logps,
    *,
    beta: Positive = 0.1,
    alpha: NonNegative = 0.5,
) -> Tensor:
    """Length-desensitised DPO, the longer response's tail weighted by alpha: ``-log sigmoid(beta D_ld)``.

    ``D_ld`` is the margin of head + ``alpha`` tail, where the tail is what lies beyond the first ``min(n_w, n_l)``
    tokens, in the policy **and** in the reference. Weighted in the policy only, it is not 0 at policy = reference.

    Args:
        policy: pairs ``(B, 2)``, nats, with their token counts.
        reference: the same pairs under the frozen reference.
        policy_first: the same pairs cut after the first ``min(n_w, n_l)`` tokens of each response.
        reference_first: the same cut of the reference.
        beta: strength of the pull to the reference, per nat; the default is DPO's.
        alpha: weight of the tail; the paper's symbol. 1 is DPO.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs, or a head's lengths are not ``min(n_w, n_l)``.

    Example:
        >>> import torch
        >>> policy = Logps(torch.tensor([[-12.0, -15.0]]), torch.tensor([[4, 10]]))
        >>> reference = Logps(torch.tensor([[-14.0, -14.0]]), torch.tensor([[4, 10]]))
        >>> policy_first = Logps(torch.tensor([[-12.0, -6.0]]), torch.tensor([[4, 4]]))
        >>> reference_first = Logps(torch.tensor([[-14.0, -6.0]]), torch.tensor([[4, 4]]))
        >>> ld_dpo(policy, reference, policy_first, reference_first)  # log(1 + exp(-0.25)): the tail's nat counts half
        tensor([0.5759])
    """
    check_same_pairs(policy, reference)
    shortest = policy.tokens.amin(dim=1, keepdim=True).expand_as(policy.tokens)
    for name, head in (("policy_first", policy_first), ("reference_first", reference_first)):
        if head.tokens.shape != shortest.shape or bool((head.tokens != shortest).any()):
            raise ValueError(f"{name} must hold the first min(n_w, n_l) tokens of each response of the policy's pairs")
    weighted = lambda whole, head: alpha * whole.sums + (1 - alpha) * head.sums
    rho = weighted(policy, policy_first) - weighted(reference, reference_first)
    return -logsigmoid(beta * (rho[:, 0] - rho[:, 1]))


@method(paper="Zhou et al. 2024, arXiv:2406.11827", equation="the weighted DPO loss", chapter="methods/token_level")
def wpo(policy: Logps, reference: Logps, log_weights: Tensor, *, beta: Positive = 0.01) -> Tensor:
    """DPO weighted by the policy's own likelihood: ``-stopgrad(min(1, exp(w_w + w_l))) log sigmoid(beta D)``.

    The minimum with 1 is the authors' code. Equation 2 of the paper, as one library cites it, has none, and that library
    follows the paper.

    Args:
        policy: pairs ``(B, 2)``, nats.
        reference: the same pairs under the frozen reference.
        log_weights: ``(B, 2)`` ``w_w, w_l``: the mean over the response's tokens of
            ``log pi_t - log sum_v pi_t(v)^2``, nats. Its gradient is stopped here.
        beta: strength of the pull to the reference, per nat; the default is that of the authors' configurations.

    Returns:
        ``(B,)`` losses. At policy = reference each is ``min(1, exp(w_w + w_l)) log 2``.

    Raises:
        ValueError: if the records do not hold the same pairs, or ``log_weights`` has another shape.

    Example:
        >>> import torch
        >>> policy = Logps.pair(torch.tensor([-12.0, -14.0]), torch.tensor([-15.0, -14.0]))
        >>> reference = Logps.pair(torch.tensor([-14.0, -14.0]), torch.tensor([-14.0, -14.0]))
        >>> wpo(policy, reference, torch.tensor([[0.5, 0.2], [-0.5, -0.2]]), beta=0.1)  # 1 and exp(-0.7) times DPO
        tensor([0.5544, 0.3442])
    """
    loss = dpo(policy, reference, beta=beta)
    w = tensor_of("log_weights", log_weights, policy.sums.shape, loss.dtype).detach()
    return w.sum(dim=1).clamp(max=0).exp() * loss
