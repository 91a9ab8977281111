"""Methods that generate: a policy draws answers, a judge scores them, and a loss of ``METHODS`` learns from that."""

from pref_toolkit.loops.draws import Asked, Draws
from pref_toolkit.loops.judges import Judge
from pref_toolkit.loops.presets import LOOPS, Loop
from pref_toolkit.loops.session import LoopConfig, Session
from pref_toolkit.loops.train import find, settings_of, train

__all__ = ["LOOPS", "Asked", "Draws", "Judge", "Loop", "LoopConfig", "Session", "find", "settings_of", "train"]
