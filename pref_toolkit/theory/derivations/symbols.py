"""The symbols that derivations share, three functions that SymPy lacks (sigma, relu, indicator), and a slope at a point.

The names are those of the losses, for one pair: ``l_w, l_l`` are log-probabilities of the chosen and the rejected response
under the policy, ``r_w, r_l`` those under the reference, ``n_w, n_l`` numbers of tokens, ``s_w, s_l`` reward scores.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

l_w, l_l, r_w, r_l, s_w, s_l = sp.symbols("l_w l_l r_w r_l s_w s_l", real=True)
rho_w, rho_l = sp.symbols("rho_w rho_l", real=True)
D = sp.Symbol("margin", real=True)  # SymPy sorts factors by name; this name prints beta D instead of D beta
n_w, n_l = sp.symbols("n_w n_l", positive=True)
beta, tau = sp.symbols("beta tau", positive=True)
lam, alpha = sp.symbols("lam alpha", nonnegative=True)
gamma, delta = sp.symbols("gamma delta", real=True)

L = sp.Function(r"\mathcal{L}", real=True)
"""The loss, as a function of the policy's log-probabilities."""

LATEX_NAMES = {
    lam: r"\lambda",
    sp.Symbol("lam", positive=True): r"\lambda",
    D: "D",
    sp.Symbol("margin_ld", real=True): r"D_{\mathrm{ld}}",
    sp.Symbol("kl", real=True): r"\mathrm{KL}",
    sp.Symbol("eps", positive=True): r"\epsilon",
    sp.Symbol("phi", positive=True): r"\varphi",
    sp.Symbol("phi_0", positive=True): r"\varphi_{0}",
    sp.Symbol("H", positive=True): r"\bar{H}",
    sp.Symbol("V_0", positive=True): "V",
    sp.Symbol("m_ref", real=True): r"m_{\mathrm{ref}}",
    sp.Symbol("weight", nonnegative=True): r"\,\mathrm{weight}",
}
"""LaTeX for symbols whose names SymPy would not print as the papers do."""


class sigma(sp.Function):
    """The logistic function ``1 / (1 + e^{-t})``."""

    nargs = 1

    def doit(self, **hints: Any) -> sp.Expr:
        return 1 / (1 + sp.exp(-self.args[0].doit(**hints)))

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sigma(self.args[0]) * sigma(-self.args[0])

    def _eval_is_real(self) -> bool | None:
        return self.args[0].is_real

    def _eval_is_positive(self) -> bool | None:
        return self.args[0].is_real

    def _latex(self, printer: Any, exp: Any = None) -> str:
        power = "" if exp is None else f"^{{{exp}}}"
        return rf"\sigma{power}\left({printer._print(self.args[0])}\right)"


class relu(sp.Function):
    """``max(0, t)``, written out as ``(t + |t|) / 2``."""

    nargs = 1

    def doit(self, **hints: Any) -> sp.Expr:
        t = self.args[0].doit(**hints)
        return (t + sp.Abs(t)) / 2

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return indicator(self.args[0])

    def _eval_is_nonnegative(self) -> bool | None:
        return self.args[0].is_real

    def _latex(self, printer: Any, exp: Any = None) -> str:
        power = "" if exp is None else f"^{{{exp}}}"
        return rf"\max\left(0,\, {printer._print(self.args[0])}\right){power}"


class indicator(sp.Function):
    """1 where ``t > 0`` and 0 where ``t < 0``: the derivative of :class:`relu` away from its kink at ``t = 0``."""

    nargs = 1

    def doit(self, **hints: Any) -> sp.Expr:
        return (1 + sp.sign(self.args[0].doit(**hints))) / 2

    def _eval_is_real(self) -> bool | None:
        return self.args[0].is_real

    def _eval_is_nonnegative(self) -> bool | None:
        return self.args[0].is_real

    def _latex(self, printer: Any, exp: Any = None) -> str:
        return rf"\mathbb{{1}}\left[{printer._print(self.args[0])} > 0\right]"


def slope(function: sp.Expr, x: sp.Symbol, at: sp.Expr) -> sp.Subs:
    """The derivative of a function of ``x`` at a point."""
    return sp.Subs(sp.Derivative(function, x), x, at)
