"""What is minimised: one pure function per method, and METHODS, the table of facts about them.

Every loss takes :class:`~pref_toolkit.logps.Logps` records and returns one number per example, ``(B,)``.
There is no mean, no metric and no configuration here; ``losses.dpo(policy, reference).mean()`` is a training loss.
"""

from pref_toolkit.losses.method import METHODS, Method
from pref_toolkit.losses.pairs import dpo, hinge_dpo, ipo, margin, orpo, simpo, slic_hf

__all__ = ["METHODS", "Method", "dpo", "hinge_dpo", "ipo", "margin", "orpo", "simpo", "slic_hf"]
