"""What is true: every loss derived, step by step, and of every step what stands behind it: a proof, or no more than words.

``ALL["dpo"].steps`` are the lines, ``ALL["dpo"].verify()`` proves them, and a notebook that shows ``ALL["dpo"]`` prints
the very objects that are proved.

What SymPy checks here: identities between finite expressions in real symbols, their derivatives, signs that follow from
the symbols' assumptions, and sums over a finite but arbitrary number of responses. What it does not check: that a
minimum exists, that limits may be swapped, anything about infinitely many responses or continuous distributions, or how
a network with shared parameters moves. Such steps are marked as arguments and say so when shown. A hinge is
differentiated away from its kink. :mod:`pref_toolkit.theory.derivations.proof` says under what conditions an equality is
proved, and :meth:`pref_toolkit.theory.derivations.Derivation.counts` how many steps are.
"""

from importlib import import_module
from pkgutil import iter_modules

from pref_toolkit.theory.derivations.derivation import Counts, Derivation, DerivationError, Step

ALL: dict[str, Derivation] = {}
"""Every derivation of the modules here by the name of its method or, as ``rlhf`` and ``displacement``, of its result."""

for _module in iter_modules(__path__, f"{__name__}."):
    for _value in vars(import_module(_module.name)).values():
        if isinstance(_value, Derivation) and ALL.setdefault(_value.name, _value) is not _value:
            raise ValueError(f"{_module.name} holds a second derivation of {_value.name!r}")

__all__ = ["ALL", "Counts", "Derivation", "DerivationError", "Step"]
