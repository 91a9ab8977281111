"""SIGKILL at random moments of a loop's run: ``python tests/benchmarks/kills.py [LOOP ...] [--kills 10] [--seed 0]``.

For each loop a run that nobody kills, then as many runs as there are kills: each is killed once, at a moment drawn evenly over
its draws and updates and within one of them, and continued. It must end with the same adapter, bit for bit. The judge syncs a
line for each call to a file before it answers, so a call that a kill cut off counts as made. A call is asked again only if the
kill came after the judge was asked and before its scores were a file: the script counts these, and fails for any other.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

JUDGE = """
import json, os

def counting(prompts, answers):
    line = json.dumps([prompts, answers]) + "\\n"
    file = os.open(os.environ["JUDGE_LOG"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(file, line.encode())
    os.fsync(file)
    os.close(file)
    return [[len(set(a)) + len(a) / 10 for a in own] for own in answers]
"""
LOOPS = {
    "self_play": ["--rounds=3"],
    "online_dpo": ["--judge=counting_judge:counting", "--answers=3"],
}
COMMON = [
    *("--model=tiny", "--data=rows.jsonl", "--max-steps=24", "--batch-size=4", "--lora-rank=2", "--save-every=5"),
    *("--samples=2", "--sample-tokens=8"),
]


def started(here: Path, loop: str, output: str, *more: str) -> subprocess.Popen[bytes]:
    """A run of the command line."""
    command = [sys.executable, "-m", "pref_toolkit", "train", f"--method={loop}", *COMMON, *LOOPS[loop]]
    with (here / f"{output}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, f"--output={output}", *more],
            cwd=here,
            env=os.environ | {"JUDGE_LOG": str(here / f"{output}.calls"), "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )


def events(run: Path) -> int:
    """Draws and updates that the run has behind it."""
    metrics = run / "metrics.jsonl"
    updates = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    return updates + len([file for file in run.glob("made/*/*.jsonl") if not file.name.startswith(".")])


def wait_for(child: subprocess.Popen[bytes], run: Path, number: int) -> None:
    """Until the run is begun and has so many events behind it, or is over."""
    while child.poll() is None and not ((run / "run.json").exists() and events(run) >= number):
        time.sleep(0.002)


def ended(child: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a run that must come to its end."""
    if child.wait() != 0:
        raise SystemExit(f"a run failed:\n{log.read_text()[-2000:]}")


def calls(here: Path, output: str) -> list[str]:
    """What the judge was asked, in order."""
    path = here / f"{output}.calls"
    return path.read_text().splitlines() if path.exists() else []


def adapter(here: Path, output: str) -> bytes:
    """The trained adapter's file."""
    return (here / output / "adapter" / "adapter_model.safetensors").read_bytes()


def killed_at_random(here: Path, loop: str, kills: int, moments: random.Random) -> None:
    """Kill and continue, and say what came of it."""
    whole = f"{loop}-whole"
    child = started(here, loop, whole)
    wait_for(child, here / whole, 0)
    began = time.perf_counter()
    ended(child, here / f"{whole}.log")
    lasts = time.perf_counter() - began
    wanted, unbroken = adapter(here, whole), calls(here, whole)
    total = events(here / whole)
    print(f"{loop}: {total} draws and updates in {lasts:.1f} s, {len(unbroken)} calls of the judge", flush=True)
    repeated = 0
    for number in range(1, kills + 1):
        output = f"{loop}-{number}"
        child = started(here, loop, output)
        wait_for(child, here / output, moments.randrange(total))
        time.sleep(moments.uniform(0, lasts / total))
        alive = child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        metrics = here / output / "metrics.jsonl"
        reached = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        saved = sorted(path.name for path in (here / output).glob("checkpoints/step-*"))
        before = calls(here, output)
        if not (here / output / "adapter" / "adapter_model.safetensors").exists():
            ended(started(here, loop, output, "--resume"), here / f"{output}.log")
        after = calls(here, output)[len(before) :]
        again = int(bool(before) and bool(after) and before[-1] == after[0])
        repeated += again
        print(
            f"  kill {number:2}: {'' if alive else 'came too late, '}after {reached} updates, "
            f"{saved[-1] if saved else 'no checkpoint'}; judge {len(before)} + {len(after)}"
            f"{' of which one again' if again else ''}; adapter {'equal' if adapter(here, output) == wanted else 'DIFFERS'}",
            flush=True,
        )
        assert adapter(here, output) == wanted
        assert [*before[: len(before) - again], *after] == unbroken
    print(f"  {kills} kills, {repeated} calls again", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill loops at random moments and continue them.")
    parser.add_argument("loops", nargs="*", help="all of them if none is named")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    moments = random.Random(asked.seed)
    with TemporaryDirectory() as directory:
        here = Path(directory)
        (here / "counting_judge.py").write_text(JUDGE)
        rows = [{"prompt": f"{n} + 1 =", "chosen": f"{n + 1}", "rejected": f"{n}"} for n in range(40)]
        (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for loop in asked.loops or LOOPS:
            killed_at_random(here, loop, asked.kills, moments)


if __name__ == "__main__":
    main()
