"""The command line: what a user types, what they get, and how a mistake is answered."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transcripts import MADE

from pref_toolkit.cli import COMMANDS, build_parser, main

QUICK = ["--model=tiny", "--max-steps=2", "--batch-size=2", "--held-out=2", "--lora-rank=2"]
QUICK += ["--samples=1", "--sample-tokens=4"]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"question {i}", "chosen": f"yes {i}", "rejected": "no " * (1 + i % 3)} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(capsys, *argv):
    """Exit code, standard output and standard error of one command."""
    code = main(list(argv))
    out, err = capsys.readouterr()
    return code, out, "\n".join(line for line in err.splitlines() if line.startswith("pref-toolkit:"))


def test_train_evaluate_generate(capsys, data, tmp_path):
    run = str(tmp_path / "run")
    code, out, _ = said(
        capsys, "train", *QUICK, "--data", str(data), "--output", run, "--method", "simpo", "--gamma", "0.3"
    )
    assert code == 0 and "reward_accuracy" in out
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["identity"]["method"] == "simpo" and facts["identity"]["hyperparameter gamma"] == 0.3
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        *("adapter", "checkpoints", "metrics.jsonl", "report.html", "run.json", "samples.json")
    }
    report = (tmp_path / "run" / "report.html").read_text()
    assert "<svg" in report and "aria-label=" in report and "http://" not in report.replace("http://www.w3.org", "")
    code, out, _ = said(capsys, "evaluate", "--model", run, "--data", str(data))
    assert code == 0 and "examples" in out
    code, out, _ = said(capsys, "generate", "--model", run, "--max-new-tokens", "3", "question 1")
    assert code == 0 and out.startswith("question 1\n")


def test_resume_continues_and_a_second_run_is_not_overwritten(capsys, data, tmp_path):
    train = ["train", *QUICK, "--data", str(data), "--output", str(tmp_path / "run")]
    assert said(capsys, *train)[0] == 0
    code, _, err = said(capsys, *train)
    assert code == 2 and "already holds a run" in err
    assert said(capsys, *train, "--resume", "--max-steps", "3")[0] == 0
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2]
    code, _, err = said(capsys, *train, "--resume", "--seed", "5")
    assert code == 2 and "seed: 0 -> 5" in err


def test_a_yaml_key_and_a_flag_are_the_same_thing(capsys, data, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(f"method: ipo\ntau: 0.5\nmodel: tiny\ndata: {data}\nmax_steps: 1\nbatch_size: 2\nheld_out: 2\n")
    output = tmp_path / "run"
    assert said(capsys, "train", "--config", str(file), "--output", str(output), "--batch-size", "3")[0] == 0
    facts = json.loads((output / "run.json").read_text())
    assert facts["identity"]["hyperparameter tau"] == 0.5
    assert facts["config"]["batch_size"] == 3 and facts["config"]["max_steps"] == 1
    assert json.loads((output / "metrics.jsonl").read_text())["loss"] == pytest.approx(1.0)  # 1 / (4 tau^2)


@pytest.mark.parametrize("flag_first", [True, False])
def test_a_flag_overrides_the_file(flag_first, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("method: simpo\ngamma: 1\nmodel: tiny\nlearning_rate: 1e-3\nresume: true\noutput: here\n")
    given = [["--gamma", "0.25"], ["--config", str(file)]]
    argv = ["train", *given[not flag_first], *given[flag_first]]
    arguments = build_parser(argv).parse_args(argv).train
    assert (arguments.gamma, arguments.learning_rate, arguments.resume) == (0.25, 1e-3, True)
    assert isinstance(arguments.learning_rate, float)


def test_a_choice_is_a_word_on_the_command_line_and_in_yaml(capsys, data, tmp_path):
    file = tmp_path / "run.yaml"
    settings = f"method: f_dpo\ndivergence: forward_kl\nmodel: tiny\ndata: {data}\n"
    file.write_text(settings + "max_steps: 1\nheld_out: 2\nsamples: 1\n")
    for name, more in {"forward_kl": [], "jensen_shannon": ["--divergence", "jensen_shannon"]}.items():
        output = tmp_path / name
        assert said(capsys, "train", "--config", str(file), "--output", str(output), *more)[0] == 0
        assert json.loads((output / "run.json").read_text())["identity"]["hyperparameter divergence"] == name


MISTAKES = {
    "unknown flag": (["--bta", "1"], "did you mean 'beta'"),
    "unknown method": (["--method", "dppo"], "did you mean 'dpo'"),
    "another method's hyperparameter": (["--gamma", "1"], "unrecognized arguments: --gamma"),
    "no such choice": (["--method", "spin", "--link", "logstic"], "link: Expected"),
    "negative beta": (["--beta", "-1"], "'beta' of method 'dpo' must be a finite number > 0"),
    "beta not a number": (["--beta", "nan"], "beta: Expected a float. Got value: nan"),
    "a word for a number": (["--max-steps", "ten"], "max_steps: Expected int or nothing. Got value: ten"),
    "no such model": (["--model", "./nowhere"], "nowhere"),
    "no such data": (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
    "no such configuration": (["--config", "nowhere.yaml"], "nowhere.yaml"),
    "batch of none": (["--batch-size", "0"], "batch_size must be at least 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_one_sentence(mistake, capsys, data, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments, sentence = MISTAKES[mistake]
    code, _, err = said(capsys, "train", *QUICK, "--data", str(data), "--output", str(tmp_path / "run"), *arguments)
    assert code == 2
    assert sentence in err and err.count("\n") == 0 and "Traceback" not in err
    assert not (tmp_path / "run").exists()


HOSTILE = {
    "a python object": "seed: !!python/object/apply:os.system ['touch canary']\n",
    "an unknown key": "btch_size: 3\n",
    "a word for a number": "max_steps: ten\n",
    "no mapping": "- 1\n- 2\n",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_bad_configuration_file_is_refused(kind, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(HOSTILE[kind])
    code, _, err = said(capsys, "train", "--config", "c.yaml")
    assert code == 2 and err
    assert not (tmp_path / "canary").exists()
    if kind == "an unknown key":
        assert "did you mean 'batch_size'" in err


BAD_ROWS = {
    "null": (b'{"prompt": "q", "chosen": null, "rejected": "b"}', "chosen"),
    "number": (b'{"prompt": "q", "chosen": 7, "rejected": "b"}', "chosen"),
    "missing field": (b'{"prompt": "q", "chosen": "a"}', "rejected"),
    "broken JSON": (b'{"prompt": "q", "chosen": "a", "rej', "JSON"),
    "empty string": (b'{"prompt": "q", "chosen": "", "rejected": "b"}', "chosen"),
    "identical pair": (b'{"prompt": "q", "chosen": "a", "rejected": "a"}', "chosen"),
    "prompt longer than the limit": (b'{"prompt": "' + b"q" * 99 + b'", "chosen": "a", "rejected": "b"}', "prompt"),
    "latin-1 bytes": ('{"prompt": "q", "chosen": "é", "rejected": "b"}'.encode("latin-1"), "UTF-8"),
}


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_check_data_names_file_line_and_field(fault, capsys, data):
    row, field = BAD_ROWS[fault]
    lines = data.read_bytes().splitlines()
    data.write_bytes(b"\n".join([*lines[:5], row, *lines[5:]]) + b"\n")
    code, out, _ = said(capsys, "check-data", str(data), "--max-length", "60")
    assert code == 2
    (line,) = [line for line in out.splitlines() if line.startswith(f"{data}:6: ")]
    assert field in line


def test_check_data_finds_nothing_in_good_data(capsys, data):
    code, out, _ = said(capsys, "check-data", str(data))
    assert (code, out) == (0, "no fault found\n")


def test_check_data_with_a_method_names_the_rows_that_it_would_refuse(capsys, data):
    """In the words of `train`, but all of them."""
    scored = json.dumps({"prompt": "q", "chosen": "a", "rejected": "b", "scores": [2, 1]})
    lines = data.read_text().splitlines()
    data.write_text("\n".join([scored, *lines[:2], scored.replace("q", "p"), '{"prompt": "q"}']))
    assert said(capsys, "check-data", str(data), "--method", "dpo")[1].count("\n1 row") == 1
    code, out, _ = said(capsys, "check-data", str(data), "--method", "odpo")
    wanted = "field 'scores' is missing, which odpo reads"
    assert code == 2 and [f"{data}:{n}: {wanted}" in out.splitlines() for n in range(1, 6)] == [0, 1, 1, 0, 0]
    assert said(capsys, "train", *QUICK, "--data", str(data), "--method", "odpo", "--on-bad-row", "skip")[0] == 0
    data.write_text(scored)
    assert said(capsys, "check-data", str(data), "--method", "odpo")[:2] == (0, "no fault found\n")
    assert said(capsys, "check-data", str(data), "--method", "kto")[0] == 2
    assert "did you mean 'dpo'" in said(capsys, "check-data", str(data), "--method", "dppo")[2]


def test_methods_lists_every_method(capsys):
    from pref_toolkit.losses import METHODS

    code, out, _ = said(capsys, "methods")
    assert code == 0
    for name, method in METHODS.items():
        assert (
            f"{name}\n    {method.formula}\n    needs {method.reads}; " in out
            and method.paper in out
            and method.chapter in out
        )


def test_help_is_offered_for_each_command(capsys):
    for argv in ([], ["--help"], *(["train --help", "evaluate --help", "generate --help", "check-data --help"])):
        argv = argv.split() if isinstance(argv, str) else argv
        try:
            assert main(argv) == 0
        except SystemExit as leave:
            assert leave.code == 0
        assert "pref-toolkit" in capsys.readouterr().out


def test_help_does_not_need_docstrings():
    command = [sys.executable, "-OO", "-m", "pref_toolkit", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert all(f"    {name}" in done.stdout for name in COMMANDS)


def test_a_prompt_may_look_like_a_flag():
    argv = ["generate", "--model", "tiny", "--", "--help me", "--max-tokens"]
    assert build_parser(argv).parse_args(argv).generate.prompt == argv[-2:]


def test_a_chat_is_sent_in_the_template(capsys):
    """The answer to the plain prompt is another, and a model without a template is one sentence."""
    ask = ["generate", "--max-new-tokens", "8", "--temperature", "0", "hello"]
    told = [said(capsys, *ask, "--model", "tiny", *chat)[1] for chat in ([], ["--chat"], ["--chat"])]
    assert told[0] != told[1] == told[2]
    code, _, err = said(capsys, *ask, "--model", "lab", "--chat")
    assert code == 2 and "no chat_template" in err


def test_an_unknown_command_is_answered_with_the_nearest(capsys):
    code, _, err = said(capsys, "trian")
    assert code == 2 and "did you mean 'train'" in err


def test_a_run_that_diverges_exits_3(capsys, data, tmp_path):
    code, _, err = said(
        capsys, "train", *QUICK, "--data", str(data), "--output", str(tmp_path / "run"), "--learning-rate", "1e20"
    )
    assert code == 3 and "not finite" in err and "step" in err


def test_sigterm_exits_143_with_a_checkpoint(data, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "pref_toolkit", "train", *QUICK, "--max-steps", "100000", "--data", str(data)]
    process = subprocess.Popen([*command, "--output", str(run)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text()):
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    assert process.returncode == 143, out.decode()
    assert len(list((run / "checkpoints").iterdir())) == 1


def test_transcripts_train_and_report_accuracy_before_and_after(capsys, tmp_path):
    data, run = tmp_path / "transcripts.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in MADE))
    code, out, _ = said(capsys, "train", *QUICK, "--data", str(data), "--held-out", "5", "--output", str(run))
    assert code == 0 and "prompt too long" in out and "response cut" in out
    facts = json.loads((run / "run.json").read_text())
    assert facts["before"]["reward_accuracy"] == 0.5 and facts["after"]["examples"] == 5
