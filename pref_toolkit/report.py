"""The directory of a run -> ``report.html``, one self-contained page with curves, numbers, data findings and samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from pref_toolkit import figures, lab

SAMPLES_SHOWN = 12

# Title, label with unit, and the columns to draw. Columns without numbers are left out.
CURVES = [
    ("Loss", "loss (nats)", {"loss": "loss"}),
    (
        "Chosen above rejected",
        "share of pairs",
        {"by implicit reward": "reward_accuracy", "by likelihood": "likelihood_accuracy"},
    ),
    ("Margin of the implicit reward", "margin D (nats)", {"margin": "margin"}),
    (
        "Change of log-probability since step 0",
        "change (nats)",
        {"chosen": "chosen_change", "rejected": "rejected_change"},
    ),
    ("Gradient norm", "norm before clipping", {"norm": "gradient_norm"}),
]


def write(directory: Path) -> Path:
    """Write ``report.html`` from ``run.json``, ``metrics.jsonl`` and ``samples.json``, and return its path."""
    facts = json.loads((directory / "run.json").read_text())
    steps = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    samples = json.loads((directory / "samples.json").read_text())
    environment = Environment(loader=PackageLoader("pref_toolkit", "."), autoescape=True)
    page = environment.get_template("report.html.jinja").render(
        facts=facts,
        judged=lab.describe(facts["lab"]) if "lab" in facts else None,
        pictures=[_picture(*curve, steps) for curve in CURVES],
        samples=samples,
        shown=SAMPLES_SHOWN,
        steps=steps,
    )
    path = directory / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _picture(title: str, unit: str, curves: dict[str, str], steps: list[dict[str, Any]]) -> dict[str, str] | None:
    known = {name: key for name, key in curves.items() if steps and all(row[key] is not None for row in steps)}
    if not known:
        return None
    fig, ax = figures.figure(height=2.8)
    figures.lines(
        ax,
        [row["step"] for row in steps],
        {name: [row[key] for row in steps] for name, key in known.items()},
        xlabel="step",
        ylabel=unit,
    )
    ends = "; ".join(f"{name} from {steps[0][key]:.3g} to {steps[-1][key]:.3g}" for name, key in known.items())
    return {"title": title, "svg": str(figures.show(fig, alt=f"{title} over {len(steps)} steps: {ends}."))}
