"""Make ``lab_pairs.jsonl``: ``python data/make_lab_pairs.py [file]``."""

import json
import sys
from pathlib import Path

from pref_toolkit import lab

target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("lab_pairs.jsonl")
rows = lab.pairs(200, seed=0, annotator=lab.Annotator(error=0.1))
target.write_text("".join(json.dumps(row) + "\n" for row in rows))
