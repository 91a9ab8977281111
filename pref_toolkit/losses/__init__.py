"""What is minimised: one pure function per method, and METHODS, the table of facts about them.

Every loss returns one number per example, ``(B,)``. There is no mean, no metric and no configuration here;
``losses.dpo(policy, reference).mean()`` is a training loss. What a loss reads is named the same in all of them:

===================== ============== ==================================================================================
name                  shape          what it is
===================== ============== ==================================================================================
``policy``            Logps (B, K)   the responses under the model that is trained; best first where they are ranked
``reference``         Logps (B, K)   the same responses under the frozen reference, or the previous iterate
``target``            Logps (B, 1)   optional: a supervised response to each prompt, under the policy
``policy_first``       Logps (B, 2)   the policy's pairs cut after the first ``min(n_w, n_l)`` tokens
``reference_first``    Logps (B, 2)   the same cut of the reference
``rewards``           (B, K)         the rewards that the model in training gives to the responses; with gradient
``scores``            (B, K)         a judge's score of each response
``win_probabilities`` (B, 2)         the probability that each response beats one of the previous iterate
``desirable``         (B,) bool      whether the one answer to each prompt is desirable
``kl``                any            log-ratios of mismatched prompts and answers of the whole update, nats; no gradient
``shift``             ()             mean of two running means of ``beta rho``, one for each label; no gradient
``sequence_kl``       (B, 2)         sum over positions of KL(reference || policy), full vocabulary, nats; with gradient
``log_weights``       (B, 2)         mean over tokens of ``log pi_t - log sum_v pi_t(v)^2``, policy; no gradient
``dispersion``        (B,)           the reference's ``-log(Hbar / log V)`` over its mean on the data; no gradient
``policy_tokens``     (B, K, T)      log-probabilities of each token under the policy; anything behind the last
``reference_tokens``  (B, K, T)      the same of the reference
``drawn_tokens``      (B, K, T)      optional: the same of the policy that drew them; no gradient
``opponent``          Logps (B, 2)   the same responses under another module in training; no gradient
===================== ============== ==================================================================================

The examples in the docstrings begin with ``import torch``, ``from pref_toolkit.logps import Logps`` and
``from pref_toolkit.losses import *``.
"""

from typing import TYPE_CHECKING

from pref_toolkit.logps import log_ratios, margin
from pref_toolkit.losses.inputs import RowError
from pref_toolkit.losses.method import LOOP_LOSSES, METHODS, Method, find_method
from pref_toolkit.losses.mixture import Mixture, find

# A module enters its losses in METHODS when it is imported, so this is the order of the table.
from pref_toolkit.losses import rewards, pairs, lists, labels, token_distributions, policy_gradients, chase  # isort: skip  # noqa: F401

if TYPE_CHECKING:  # checkers and editors, which do not run the next statement, know the losses by their definitions
    from pref_toolkit.losses.chase import *  # noqa: F403
    from pref_toolkit.losses.labels import *  # noqa: F403
    from pref_toolkit.losses.lists import *  # noqa: F403
    from pref_toolkit.losses.pairs import *  # noqa: F403
    from pref_toolkit.losses.policy_gradients import *  # noqa: F403
    from pref_toolkit.losses.rewards import *  # noqa: F403
    from pref_toolkit.losses.token_distributions import *  # noqa: F403

globals().update({name: method.loss for name, method in (METHODS | LOOP_LOSSES).items()})

__all__ = [
    "LOOP_LOSSES",
    "METHODS",
    "Method",
    "Mixture",
    "RowError",
    "find",
    "find_method",
    "log_ratios",
    "margin",
    *METHODS,
    *LOOP_LOSSES,
]
