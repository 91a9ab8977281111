"""What is true: every loss derived, step by step, and every step proved.

``ALL["dpo"].steps`` are the lines, ``ALL["dpo"].verify()`` proves them, and a notebook that shows ``ALL["dpo"]`` prints
the very objects that are proved.

What SymPy checks here: identities between finite expressions in real symbols, their derivatives, signs that follow from
the symbols' assumptions, and sums over a finite but arbitrary number of responses. What it does not check: that a
minimum exists, that limits may be swapped, anything about infinitely many responses or continuous distributions, or how
a network with shared parameters moves. Such steps are marked as arguments and say so when shown. A hinge is
differentiated away from its kink.
"""

from pref_toolkit.theory.derivations.beyond_pairs import bco, exo, kto, odpo, s_dpo
from pref_toolkit.theory.derivations.derivation import Derivation, DerivationError, Step
from pref_toolkit.theory.derivations.dpo import dpo
from pref_toolkit.theory.derivations.dpo_gradients import displacement, dpo_nll, dpop
from pref_toolkit.theory.derivations.fast_slow import cofs_dpo, ofs_dpo
from pref_toolkit.theory.derivations.ipo import ipo
from pref_toolkit.theory.derivations.one_family import (
    aot,
    apo_down,
    apo_zero,
    cdpo,
    discopop,
    f_dpo,
    gpo,
    nca,
    r_dpo,
    robust_dpo,
)
from pref_toolkit.theory.derivations.online import online_ipo, remax, rso
from pref_toolkit.theory.derivations.preferences import bradley_terry, plackett_luce
from pref_toolkit.theory.derivations.ranking import click, hinge_dpo, rrhf, slic_hf
from pref_toolkit.theory.derivations.reference_free import cpo, orpo
from pref_toolkit.theory.derivations.rlhf_optimum import rlhf
from pref_toolkit.theory.derivations.self_play import spin, sppo
from pref_toolkit.theory.derivations.simpo import simpo
from pref_toolkit.theory.derivations.token_level import ld_dpo, mallows_dpo, tdpo1, tdpo2, wpo

_BY_CHAPTER = (
    (bradley_terry, plackett_luce),
    (rlhf,),
    (dpo,),
    (displacement, dpo_nll, dpop),
    (ipo,),
    (hinge_dpo, slic_hf, click, rrhf),
    (simpo,),
    (orpo, cpo),
    (tdpo1, tdpo2, mallows_dpo, ld_dpo, wpo),
    (odpo, s_dpo, exo, kto, bco),
    (cdpo, robust_dpo, r_dpo, gpo, f_dpo, discopop, nca, apo_zero, apo_down, aot),
    (spin, sppo),
    (remax, rso, online_ipo),
    (ofs_dpo, cofs_dpo),
)

ALL: dict[str, Derivation] = {d.name: d for chapter in _BY_CHAPTER for d in chapter}
"""Every derivation by the name of its method or, as ``rlhf`` and ``displacement``, of its result."""

__all__ = ["ALL", "Derivation", "DerivationError", "Step"]
