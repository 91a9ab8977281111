"""The three definitions that begin the derivation of every loss on the margin."""

from __future__ import annotations

from pref_toolkit.theory.derivations.derivation import define
from pref_toolkit.theory.derivations.symbols import D, l_l, l_w, r_l, r_w, rho_l, rho_w

MARGIN = (
    define(
        rho_w,
        l_w - r_w,
        "This log-ratio says how much likelier the policy makes the chosen response than the reference does, in nats.",
    ),
    define(rho_l, l_l - r_l, "This is the log-ratio of the rejected response."),
    define(
        D, rho_w - rho_l, "The margin says how much more than the reference the policy prefers the chosen response."
    ),
)
