"""A run's directory and its end: what is refused and left alone, what a signal leaves, and that it goes on from there."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from parts import begun
from safetensors.torch import load_file

from pref_toolkit import train
from pref_toolkit.cli import main
from pref_toolkit.errors import Complaint, Terminated
from pref_toolkit.training.models import tiny
from pref_toolkit.training.run import Run

ROOT = Path(__file__).parents[2]
FLAGS = ["--batch-size=2", "--held-out=2", "--lora-rank=2", "--lora-dropout=0.3", "--samples=0"]


def contents(directory):
    """Everything under a directory, byte by byte."""
    return {path: path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


def adapter_of(directory):
    return load_file(directory / "adapter" / "adapter_model.safetensors")


def assert_same_bits(one, other):
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Signals, to the command line

ENDS = {
    "Ctrl-C": (signal.SIGINT, 130),
    "SIGTERM": (signal.SIGTERM, 143),
    "SIGHUP": (signal.SIGHUP, 129),
    "SIGTERM after a SIGHUP under nohup": (signal.SIGTERM, 143),
}

# A program that is started in the background inherits Ctrl-C and SIGHUP as ignored, and so would the runs of its tests.
AS_FROM_A_TERMINAL = (
    "import os, signal, sys\n"
    "for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM): signal.signal(number, signal.SIG_DFL)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


def steps_in(directory):
    path = directory / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@pytest.fixture(scope="module")
def ended(rows, tmp_path_factory):
    """Directory, exit code and last words of a command for each signal, which it got after its first updates."""
    directory = tmp_path_factory.mktemp("runs")
    data = directory / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "pref_toolkit", "train", "--model=tiny", f"--data={data}", *FLAGS]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def end(name):
        number, _ = ENDS[name]
        output = directory / name
        mine = [*command, f"--output={output}", "--max-steps=1000000", "--save-every=1000000"]
        under = [sys.executable, "-c", AS_FROM_A_TERMINAL, *(["nohup"] if "nohup" in name else [])]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([*under, *mine], env=environment, **pipes)
        wait_for_steps(process, output, 1)
        if "nohup" in name:
            process.send_signal(signal.SIGHUP)
            wait_for_steps(process, output, steps_in(output) + 2)
        process.send_signal(number)
        _, told = process.communicate()
        return output, process.returncode, told.splitlines()[-1]

    with ThreadPoolExecutor(2) as pool:
        return data, dict(zip(ENDS, pool.map(end, ENDS)))


def wait_for_steps(process, output, number):
    while steps_in(output) < number:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


@pytest.mark.parametrize("name", ENDS)
def test_a_signal_saves_and_says_in_one_sentence_how_to_go_on(name, ended):
    output, code, told = ended[1][name]
    number, expected = ENDS[name]
    sentence = rf"pref-toolkit: stopped by {number.name} after (\d+) updates; continue it with --output (.+) --resume"
    assert code == expected
    found = re.fullmatch(sentence, told)
    assert found and Path(found[2]) == output and int(found[1]) == steps_in(output)
    assert [path.name for path in (output / "checkpoints").iterdir()] == [f"step-{int(found[1]):08d}"]
    assert not (output / "adapter").exists()


@pytest.fixture(scope="module")
def straight(ended, tmp_path_factory):
    """A run that nobody interrupts, as long as any of the others is to be."""
    data, found = ended
    total = max(steps_in(output) for output, *_ in found.values()) + 1
    output = tmp_path_factory.mktemp("straight") / "run"
    given = ["train", "--model=tiny", f"--data={data}", *FLAGS, f"--output={output}", f"--max-steps={total}"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main(given) == 0
    torch.set_num_threads(threads)
    return given, output


@pytest.mark.parametrize("name", ENDS)
def test_the_run_goes_on_as_if_nothing_had_been(name, ended, straight):
    given, expected = straight
    output, *_ = ended[1][name]
    flags = [flag for flag in given if not flag.startswith("--output")]
    assert main([*flags, f"--output={output}", "--resume"]) == 0
    assert_same_bits(adapter_of(output), adapter_of(expected))
    rows = [(directory / "metrics.jsonl").read_text().splitlines() for directory in (output, expected)]
    same = lambda lines: [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "kl")} for line in lines]
    assert same(rows[0]) == same(rows[1])


@pytest.fixture
def ctrl_c_as_from_a_terminal():
    """Tests that are started in the background inherit Ctrl-C as ignored."""
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, found)


def test_a_second_ctrl_c_stops_at_once(rows, quick, tmp_path, ctrl_c_as_from_a_terminal):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Run.open(quick(output=str(tmp_path / "run"))):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_without_a_directory_nothing_is_kept_and_that_is_said(rows, quick):
    with pytest.raises(Terminated) as stopped, Run.open(quick()) as run:
        policy, trainer, data = begun(run, rows)
        for step in run.steps(9, policy=policy, trainer=trainer):
            run.log(step, trainer.update(data.batch(step), 1e-4))
            os.kill(os.getpid(), signal.SIGTERM)
    assert str(stopped.value) == "stopped by SIGTERM after 1 updates; it has no output, so nothing is kept"


def test_a_signal_in_the_last_update_ends_a_finished_run(rows, quick, tmp_path):
    with Run.open(quick(output=str(tmp_path / "run"))) as run:
        policy, trainer, data = begun(run, rows)
        for step in run.steps(2, policy=policy, trainer=trainer):
            run.log(step, trainer.update(data.batch(step), 1e-4))
            if step == 1:
                os.kill(os.getpid(), signal.SIGTERM)
        run.finish()
    assert (tmp_path / "run" / "adapter").is_dir()


# Directories


def a_run(path):
    path.mkdir()
    (path / "run.json").write_text("{}")


def the_users(path):
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")
    (path / "adapter").mkdir()


def a_file(path):
    path.write_text("years of work")


# What is at the place of the output, whether the run is to be continued, and what is said.
REFUSED = {
    "a run, not continued": (a_run, False, "already holds a run: continue it with --resume, or name another directory"),
    "the user's files": (the_users, False, "holds files and no run; name a new or an empty directory"),
    "a file": (a_file, False, "is a file; name a directory"),
    "nothing to continue": (lambda path: None, True, "holds no run that could be continued"),
    "an empty directory to continue": (Path.mkdir, True, "holds no run that could be continued"),
    "the user's files to continue": (the_users, True, "holds no run that could be continued"),
    "a file to continue": (a_file, True, "holds no run that could be continued"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_directory_that_cannot_be_taken_is_refused_and_left_alone(case, rows, quick, tmp_path):
    make, resume, told = REFUSED[case]
    make(tmp_path / "out")
    before = contents(tmp_path)
    with pytest.raises(Complaint, match=rf"^{tmp_path / 'out'} {told}"):
        train(*tiny(), rows, config=quick(output=str(tmp_path / "out"), resume=resume))
    assert contents(tmp_path) == before


def test_a_directory_is_one_runs_at_a_time(rows, quick, tmp_path):
    """From its opening on, whether a second one is new or would continue it; afterwards it may be continued."""
    output = str(tmp_path / "run")
    with Run.open(quick(output=output)) as run:
        with pytest.raises(Complaint, match="is being written by another run"):
            Run.open(quick(output=output))
        policy, trainer, data = begun(run, rows)
        for step in run.steps(1, policy=policy, trainer=trainer):
            run.log(step, trainer.update(data.batch(step), 1e-4))
        before = contents(tmp_path)
        with pytest.raises(Complaint, match="is being written by another run"):
            train(*tiny(), rows, config=quick(output=output, resume=True))
        assert contents(tmp_path) == before
    assert len(train(*tiny(), rows, config=quick(output=output, resume=True)).steps) == 2


MISTAKES = {
    "no such data": (["--model=tiny", "--data=nothing.jsonl"], "nothing.jsonl"),
    "no model": (["--model=pairs.jsonl", "--data=pairs.jsonl"], "model 'pairs.jsonl' cannot be loaded"),
    "a broken row": (["--model=tiny", "--data=broken.jsonl"], "broken.jsonl:1"),
    "rows of another kind": (["--model=tiny", "--data=pairs.jsonl", "--method=kto"], "field 'label' is missing"),
}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_leaves_no_directory_behind(mistake, there, rows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given, told = MISTAKES[mistake]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("broken.jsonl").write_text("{\n")
    if there:
        Path("run").mkdir()
    before = contents(tmp_path)
    assert main(["train", *given, "--output=run"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("pref-toolkit: ") and told in sentence
    assert contents(tmp_path) == before


LOST = {
    "run.json": ["run.json"],
    "metrics.jsonl": ["metrics.jsonl"],
    "both": ["run.json", "metrics.jsonl"],
}


@pytest.mark.parametrize("lost", LOST)
def test_a_run_goes_on_from_whole_checkpoints_whatever_else_was_lost(lost, rows, quick, tmp_path, caplog):
    settings = {"samples": 0, "lora_dropout": 0.3, "learning_rate": 1e-3}
    straight = train(*tiny(), rows, config=quick(**settings, output=str(tmp_path / "straight"), max_steps=4))
    train(*tiny(), rows, config=quick(**settings, output=str(tmp_path / "run")))
    for name in LOST[lost]:
        (tmp_path / "run" / name).unlink()
    history = train(*tiny(), rows, config=quick(**settings, output=str(tmp_path / "run"), max_steps=4, resume=True))
    assert_same_bits(adapter_of(tmp_path / "run"), adapter_of(tmp_path / "straight"))
    kept = range(4) if lost == "run.json" else range(2, 4)
    assert [row["step"] for row in history.steps] == list(kept) and steps_in(tmp_path / "run") == len(kept)
    assert ("run.json cannot be read and is written anew" in caplog.text) == (lost != "metrics.jsonl")
    identities = [json.loads((tmp_path / d / "run.json").read_text())["identity"] for d in ("run", "straight")]
    assert identities[0] == identities[1] and straight.steps[3]["loss"] == history.steps[-1]["loss"]


def test_a_run_killed_before_its_first_file_was_whole_begins_again(rows, quick, tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    (output / ".partial-1-run.json").write_text('{"identity":')
    assert len(train(*tiny(), rows, config=quick(output=str(output), samples=0)).steps) == 2


def test_a_run_needs_no_package_that_it_does_not_use(rows, quick, tmp_path, monkeypatch):
    """The toolkit runs from its source too, and ``datasets`` reads some sources only."""

    def installed(name):
        if name in ("pref-toolkit", "datasets"):
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("pref_toolkit.training.run.version", installed)
    train("tiny", None, rows, "dpo", quick(output=str(tmp_path / "run"), max_steps=1, samples=0))
    versions = json.loads((tmp_path / "run" / "run.json").read_text())["versions"]
    assert versions["pref-toolkit"] is versions["datasets"] is None and versions["torch"] == version("torch")
