"""The graded exercises of the book: their cases, and :func:`check`, which a reader calls from the page.

An exercise asks for a function. :func:`check` calls the function on each case of the exercise and says which case failed,
what came out and what was wanted. A chapter's cases are in the module of its name.
"""

from pref_toolkit.course.grading import Verdict, check, labels

__all__ = ["Verdict", "check", "labels"]
