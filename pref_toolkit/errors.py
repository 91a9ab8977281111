"""Errors that are reported to a user: a complaint in one sentence, and a value that is not finite."""

from __future__ import annotations


class Complaint(ValueError):
    """A request of a user that cannot be met. The message is one sentence: the fault, its place and the remedy.

    The command line prints the message and returns 2. A plain ``ValueError`` is a mistake in a program, and the command line
    shows its traceback.

    >>> raise Complaint("no such method: 'dop'; did you mean 'dpo'?")
    Traceback (most recent call last):
    pref_toolkit.errors.Complaint: no such method: 'dop'; did you mean 'dpo'?
    """


class ModelError(Complaint):
    """A model that cannot be loaded or trained."""


class NotFiniteError(ArithmeticError):
    """A weight, loss or gradient that is not finite, so that training has to stop. The command line returns 3."""
