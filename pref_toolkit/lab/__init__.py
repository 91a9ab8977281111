"""A small language whose true reward is known, so that accuracy, win rate and KL are measured and not judged."""

from pref_toolkit.lab import defaults
from pref_toolkit.lab.annotators import Annotator
from pref_toolkit.lab.evaluation import describe, evaluate, evaluate_best_of
from pref_toolkit.lab.judging import asked, judge
from pref_toolkit.lab.language import gold, politeness, prompts, words
from pref_toolkit.lab.reward_kl import frontier, optimum
from pref_toolkit.lab.sampling import pairs, rankings, rows
from pref_toolkit.lab.shipped import MODEL_PATH, load

__all__ = [
    "MODEL_PATH",
    "Annotator",
    "asked",
    "defaults",
    "describe",
    "evaluate",
    "evaluate_best_of",
    "frontier",
    "gold",
    "judge",
    "load",
    "optimum",
    "pairs",
    "politeness",
    "prompts",
    "rankings",
    "rows",
    "words",
]
