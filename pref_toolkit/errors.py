"""Errors that are reported to a user: a complaint in one sentence, and a value that is not finite."""

from __future__ import annotations

from signal import Signals


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


class Terminated(SystemExit):
    """A signal told the run to stop; a checkpoint was saved if the run has a directory.

    The exit code is 128 + the signal's number, as a shell gives it: 143 for SIGTERM, 130 for Ctrl-C, 129 for SIGHUP.

    Args:
        step: updates done.
        number: of the signal.
        output: directory of the run, or None.
    """

    def __init__(self, step: int, number: int, output: str | None) -> None:
        super().__init__(128 + number)
        self.step, self.number, self.output = step, number, output

    def __str__(self) -> str:
        kept = (
            f"continue it with --output {self.output} --resume"
            if self.output
            else "it has no output, so nothing is kept"
        )
        return f"stopped by {Signals(self.number).name} after {self.step} updates; {kept}"
