"""What is true: every loss derived, step by step, and every step proved.

``ALL["dpo"].steps`` are the lines, ``ALL["dpo"].verify()`` proves them, and a notebook that shows ``ALL["dpo"]`` prints
the very objects that are proved.

What SymPy checks here: identities between finite expressions in real symbols, their derivatives, signs that follow from
the symbols' assumptions, and sums over a finite but arbitrary number of responses. What it does not check: that a
minimum exists, that limits may be swapped, anything about infinitely many responses or continuous distributions, or how
a network with shared parameters moves. Such steps are marked as arguments and say so when shown. A hinge is
differentiated away from its kink.
"""

from pref_toolkit.theory.derivations.derivation import Derivation, DerivationError, Step
from pref_toolkit.theory.derivations.dpo import dpo
from pref_toolkit.theory.derivations.preferences import bradley_terry
from pref_toolkit.theory.derivations.rlhf_optimum import rlhf
from pref_toolkit.theory.derivations.simpo import simpo

ALL: dict[str, Derivation] = {d.name: d for d in (bradley_terry, rlhf, dpo, simpo)}
"""Every derivation by the name of its method, and ``rlhf``."""

__all__ = ["ALL", "Derivation", "DerivationError", "Step"]
