"""What is said to a user: a complaint in one sentence, and a value that is not finite."""

from __future__ import annotations


class Complaint(ValueError):
    """What a user asked for cannot be done. One sentence: what is wrong, where, and what to do.

    The command line prints it and returns 2. A plain ``ValueError`` is a mistake in a program, and shows its traceback.

    >>> raise Complaint("no such method: 'dop'; did you mean 'dpo'?")
    Traceback (most recent call last):
    pref_toolkit.errors.Complaint: no such method: 'dop'; did you mean 'dpo'?
    """


class ModelError(Complaint):
    """A model that cannot be loaded or trained."""


class NotFiniteError(ArithmeticError):
    """A weight, loss or gradient that is not finite: training has to stop. The command line returns 3."""
