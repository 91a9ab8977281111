"""How two computations of one number are compared: in float64 where the code allows it, else within a bound from its sizes.

In which order a processor adds is its own affair, so equality in float32 on one machine says nothing of another, and how much
a model makes of a rounding has no close bound. In float64 no order of the sums of these small models comes near ``CLOSE``, and
every mistake is far above it.
"""

import sys
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode

CLOSE = 1e-9
"""Relative, or absolute for numbers of about 1, in float64: sums of 1e5 terms differ by 2e-11 of their size at most."""


def rounding(terms, magnitude, dtype=torch.float32):
    """The most by which two orders of a sum of ``terms`` numbers can differ whose absolute values add up to ``magnitude``."""
    return terms * torch.finfo(dtype).eps * magnitude


@contextmanager
def everything_in_float64():
    """Models made and run inside have float64 for their weights and for whatever is computed of them."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _ByName():
            yield
    finally:
        torch.set_default_dtype(before)


class _ByName(TorchFunctionMode):
    """Libraries ask for float32 by name, to be exact where they are given half precision: here they get float64."""

    LIBRARIES = ("transformers", "trl")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        asked = func is torch.Tensor.float or any(a is torch.float32 for a in (*args, kwargs.get("dtype")))
        if asked and _caller() in self.LIBRARIES:
            func = torch.Tensor.double if func is torch.Tensor.float else func
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
            kwargs = kwargs | ({"dtype": torch.float64} if "dtype" in kwargs else {})
        return func(*args, **kwargs)


def _caller():
    """The package whose code called torch."""
    package_of = lambda frame: frame.f_globals["__name__"].partition(".")[0]
    frame = sys._getframe(2)
    while package_of(frame) == "torch":
        frame = frame.f_back
    return package_of(frame)
