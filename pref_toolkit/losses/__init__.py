"""What is minimised: one pure function per method, and METHODS, the table of facts about them.

Every loss returns one number per example, ``(B,)``. There is no mean, no metric and no configuration here;
``losses.dpo(policy, reference).mean()`` is a training loss. What a loss reads is named the same in all of them:

===================== ============== ==================================================================================
name                  shape          what it is
===================== ============== ==================================================================================
``policy``            Logps (B, K)   the responses under the model that is trained; best first where they are ranked
``reference``         Logps (B, K)   the same responses under the frozen reference, or the previous iterate
``target``            Logps (B, 1)   optional: a supervised response to each prompt, under the policy
``policy_head``       Logps (B, 2)   the policy's pairs cut after the first ``min(n_w, n_l)`` tokens
``reference_head``    Logps (B, 2)   the same cut of the reference
``rewards``           (B, K)         the rewards that the model in training gives to the responses; with gradient
``scores``            (B, K)         a judge's score of each response
``win_probabilities`` (B, 2)         the probability that each response beats one of the previous iterate
``desirable``         (B,) bool      whether the one answer to each prompt is desirable
``kl``                any            log-ratios of mismatched prompts and answers of the whole update, nats; no gradient
``shift``             ()             running mean of ``beta rho`` over the answers seen; no gradient
``sequence_kl``       (B, 2)         sum over positions of KL(reference || policy), full vocabulary, nats; with gradient
``log_weights``       (B, 2)         mean over tokens of ``log pi_t - log sum_v pi_t(v)^2``, policy; no gradient
``dispersion``        (B,)           the reference's ``-log(Hbar / log V)`` over its mean on the data; no gradient
===================== ============== ==================================================================================

The examples in the docstrings begin with ``import torch``, ``from pref_toolkit.logps import Logps`` and
``from pref_toolkit.losses import *``.
"""

# The order of definition is the order of METHODS: reward models, pairs, lists, labels, token distributions.
# isort: off
from pref_toolkit.losses.method import METHODS, Method, find_method
from pref_toolkit.losses.inputs import RowError, log_ratios, margin
from pref_toolkit.losses.rewards import bradley_terry, plackett_luce
from pref_toolkit.losses.pairs import (
    aot,
    apo_down,
    apo_zero,
    cdpo,
    click,
    cpo,
    discopop,
    dpo,
    dpo_nll,
    dpop,
    f_dpo,
    gpo,
    hinge_dpo,
    ipo,
    nca,
    orpo,
    r_dpo,
    robust_dpo,
    simpo,
    slic_hf,
    spin,
    sppo,
)
from pref_toolkit.losses.lists import exo, odpo, rrhf, s_dpo
from pref_toolkit.losses.labels import bco, kto
from pref_toolkit.losses.token_distributions import ld_dpo, mallows_dpo, tdpo1, tdpo2, wpo
# isort: on

__all__ = [
    "METHODS",
    "Method",
    "RowError",
    "aot",
    "apo_down",
    "apo_zero",
    "bco",
    "bradley_terry",
    "cdpo",
    "click",
    "cpo",
    "discopop",
    "dpo",
    "dpo_nll",
    "dpop",
    "exo",
    "f_dpo",
    "find_method",
    "gpo",
    "hinge_dpo",
    "ipo",
    "kto",
    "ld_dpo",
    "log_ratios",
    "mallows_dpo",
    "margin",
    "nca",
    "odpo",
    "orpo",
    "plackett_luce",
    "r_dpo",
    "robust_dpo",
    "rrhf",
    "s_dpo",
    "simpo",
    "slic_hf",
    "spin",
    "sppo",
    "tdpo1",
    "tdpo2",
    "wpo",
]
