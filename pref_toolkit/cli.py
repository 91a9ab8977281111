"""The command line: ``pref-toolkit train | evaluate | generate | check-data | methods``.

Exit codes: 0 done; 2 bad input or usage, said in one sentence; 3 training stopped because a value was not finite; 143 after
SIGTERM, 130 after Ctrl-C and 129 after SIGHUP, with a checkpoint saved. Nothing heavy is imported before a command needs it, so
that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from pref_toolkit.errors import Complaint, NotFiniteError, Terminated
from pref_toolkit.training.config import TrainConfig

if TYPE_CHECKING:
    from pref_toolkit.training.policy import Policy


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    argv = [_underscored(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    with _spoken():
        return _run(argv)


def _run(argv: list[str]) -> int:
    known: list[str] = list(COMMANDS)
    try:
        parser, flags = build_parser(argv)
        known += flags
        arguments = parser.parse_args(argv)
        if arguments.command is None:
            parser.print_help()
            return 0
        return COMMANDS[arguments.command](arguments[arguments.command]) or 0
    except ArgumentError as error:
        return _complain(_with_nearest(str(error), known))
    except Complaint as error:
        return _complain(str(error))
    except NotFiniteError as error:
        print(f"pref-toolkit: training stopped: {error}", file=sys.stderr)
        return 3
    except Terminated as stopped:
        print(f"pref-toolkit: {stopped}", file=sys.stderr)
        return int(stopped.code or 0)
    except KeyboardInterrupt:
        print("pref-toolkit: interrupted; nothing was saved since the last checkpoint", file=sys.stderr)
        return 130


@contextmanager
def _spoken() -> Iterator[None]:
    """Inside, what the package logs is printed."""
    logger, handler = logging.getLogger("pref_toolkit"), logging.StreamHandler(sys.stdout)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def build_parser(argv: list[str]) -> tuple[ArgumentParser, list[str]]:
    """The parser for ``argv`` and the names of its options.

    ``train`` takes the hyperparameters of the method it is asked for, with the lab's own defaults if it trains there.
    """
    parser = ArgumentParser(
        prog="pref-toolkit", description="Preference optimisation of language models.", exit_on_error=False
    )
    commands = parser.add_subcommands(required=False, dest="command")
    made = {name: ArgumentParser(exit_on_error=False, description=run.__doc__) for name, run in COMMANDS.items()}

    train = made["train"]
    train.add_argument("--config", action="config", help="YAML file with any of these settings")
    train.add_argument("--method", type=str, default="dpo", help="a name that `pref-toolkit methods` lists")
    train.add_argument("--model", type=str, default="lab", help="a hub id, a directory, a saved run, `tiny` or `lab`")
    train.add_argument(
        "--data", type=str | None, default=None, help="a file, directory or hub id; the lab makes its own"
    )
    train.add_argument(
        "--resume", action="store_true", help="continue the run in --output from its newest whole checkpoint"
    )
    train.add_class_arguments(TrainConfig, skip={"resume"})
    if argv[:1] == ["train"]:
        from pref_toolkit.losses import find_method

        method = find_method(str(_asked_for("method", argv, "dpo")))
        for name, default in method.hyperparameters.items():
            kind = get_type_hints(method.loss)[name]
            train.add_argument(
                f"--{name}", type=kind, default=default, help=f"of {method.name}, in the paper's symbols"
            )
        if _asked_for("model", argv, "lab") == "lab":
            from pref_toolkit.lab.defaults import defaults

            train.set_defaults(defaults(method.name))

    model_help = "the directory of a run, a hub id, `tiny` or `lab`"
    evaluate = made["evaluate"]
    evaluate.add_argument("--model", type=str, required=True, help=model_help)
    evaluate.add_argument(
        "--data", type=str | None, default=None, help="preferences; a lab model without them meets the gold reward"
    )
    evaluate.add_argument("--max_length", type=int, default=1024, help="tokens in prompt + response")
    evaluate.add_argument("--seed", type=int, default=0, help="of the lab's prompts and samples")

    generate = made["generate"]
    generate.add_argument("--model", type=str, required=True, help=model_help)
    generate.add_argument("--max_new_tokens", type=int, default=128, help="longest answer, in tokens")
    generate.add_argument("--temperature", type=float, default=1.0, help="0 takes the likeliest token each time")
    generate.add_argument("--seed", type=int, default=0, help="of the samples")
    generate.add_argument("prompt", nargs="+", help="one or more prompts")

    check = made["check-data"]
    check.add_argument("data", help="a JSONL file (plain or gzipped), a directory or a hub id")
    check.add_argument("--model", type=str, default="tiny", help="whose tokenizer counts the tokens")
    check.add_argument("--max_length", type=int, default=1024, help="tokens in prompt + response")
    check.add_argument("--method", type=str | None, default=None, help="whose needs the rows must meet too")

    for name, sub in made.items():
        commands.add_subcommand(name, sub, help=(COMMANDS[name].__doc__ or "").partition("\n")[0])
    options = (
        [a.option_strings[0] for a in made[argv[0]]._actions if a.option_strings] if argv and argv[0] in made else []
    )
    return parser, [option.lstrip("-") for option in options]


def train(arguments: Namespace) -> None:
    """Train a policy on preferences; without arguments, DPO in the lab."""
    settings = {f.name: arguments[f.name] for f in fields(TrainConfig)}
    if settings["output"] is None:
        settings["output"] = _free_directory(f"{arguments.method}-{Path(arguments.model).name}")
    config = TrainConfig(**settings)
    if arguments.data is None and arguments.model != "lab":
        raise Complaint("train wants --data FILE for any model but the lab")

    import torch
    from accelerate import PartialState

    from pref_toolkit import report
    from pref_toolkit.losses import METHODS
    from pref_toolkit.training import run
    from pref_toolkit.training.loop import train as train_policy

    method = METHODS[arguments.method]
    hyperparameters = method.check(**{name: arguments[name] for name in method.hyperparameters})
    if arguments.model == "lab":
        torch.set_num_threads(1)  # its matrices are so small that a second thread costs more than it gains
    data = arguments.data
    if data is None:
        from pref_toolkit import lab

        k = lab.defaults.RANKED.get(method.name, 2)
        data = lab.rows(lab.defaults.PAIRS, method.needs, k=k, seed=config.seed)
    history = train_policy(arguments.model, None, data, arguments.method, config, **hyperparameters)
    processes = PartialState()
    processes.destroy_process_group()
    if not processes.is_main_process:
        return
    _print_table({"before": history.before, "after": history.after})
    if arguments.model == "lab" and processes.num_processes == 1:
        from pref_toolkit import lab

        judged = _judge(history.policy, config.seed)
        run.add(str(config.output), lab=judged)
        print(lab.describe(judged))
    print(f"report: {report.write(Path(str(config.output)))}")


def evaluate(arguments: Namespace) -> None:
    """Score a model on preferences, or a lab model by the gold reward."""
    from pref_toolkit.training.policy import Policy

    policy = Policy.load(arguments.model)
    if arguments.data is None:
        from pref_toolkit import lab

        if policy.model.config._name_or_path != "lab":
            raise Complaint("evaluate wants --data FILE for any model but one trained in the lab")
        print(lab.describe(_judge(policy, arguments.seed)))
        return
    from pref_toolkit.data import prepare
    from pref_toolkit.training.trainer import evaluate as score

    examples, findings = prepare(arguments.data, policy.tokenizer, max_length=arguments.max_length)
    print(findings)
    _print_table({arguments.model: score(policy, examples)})


def _judge(policy: Policy, seed: int) -> dict[str, Any]:
    """By the lab's gold reward: a policy by what it says, a reward model by what it picks of several samples."""
    from pref_toolkit import lab

    if (head := policy.head()) is None:
        return lab.evaluate(policy.model, policy.tokenizer, seed=seed)
    return lab.evaluate_best_of(policy.model, head, policy.tokenizer, seed=seed)


def generate(arguments: Namespace) -> None:
    """Sample answers to prompts."""
    from pref_toolkit.training import generation
    from pref_toolkit.training.policy import Policy

    policy = Policy.load(arguments.model)
    if policy.head() is not None:
        raise Complaint(f"{arguments.model} is a reward model: it scores answers, and `evaluate` says how well")
    answers = generation.generate(
        policy.model,
        policy.tokenizer,
        arguments.prompt,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
    )
    for prompt, answer in zip(arguments.prompt, answers):
        print(f"{prompt}\n    {answer}")


def check_data(arguments: Namespace) -> int:
    """Say what of a data set would be refused, left out or changed; with a method, by that method too.

    Exit code 2 if any row would be refused or left out.
    """
    from pref_toolkit.data import DataError, check, prepare
    from pref_toolkit.losses import find_method
    from pref_toolkit.training import models

    method = find_method(arguments.method) if arguments.method is not None else None
    _, tokenizer = models.load(arguments.model)
    found = check(arguments.data, tokenizer, max_length=arguments.max_length)
    if method is not None:
        from pref_toolkit.training.objective import Objective

        with suppress(DataError):  # no row is left, and the findings say why
            rows, _ = prepare(arguments.data, tokenizer, max_length=arguments.max_length, on_bad_row="skip")
            Objective.of(method.name).accept(rows, found, "skip")
    for finding in found.findings:
        print(finding)
    print(str(found) or "no fault found")
    return 2 if found.faults else 0


def methods(arguments: Namespace) -> None:
    """List the methods: formula, what they read, defaults, paper, chapter."""
    from pref_toolkit.losses import METHODS

    for name, method in METHODS.items():
        defaults = ", ".join(f"{key}={value}" for key, value in method.hyperparameters.items())
        print(f"{name}\n    {method.formula}\n    needs {method.reads}; {defaults or 'no hyperparameters'}")
        print(f"    {method.paper}, {method.equation}; chapter {method.chapter}")


COMMANDS: dict[str, Callable[[Namespace], int | None]] = {
    "train": train,
    "evaluate": evaluate,
    "generate": generate,
    "check-data": check_data,
    "methods": methods,
}


def _complain(sentence: str) -> int:
    print(f"pref-toolkit: {sentence}", file=sys.stderr)
    return 2


def _with_nearest(complaint: str, known: list[str]) -> str:
    """The parser's complaint on one line, with the nearest known name if it is about an unknown one."""
    complaint = re.sub(r"\s*\n\s*", " ", complaint)
    complaint = re.sub(r'Parser key "(\w+)"', r"\1", complaint)
    complaint = re.sub(r"<class '(\w+)'>|typing\.", r"\1", complaint)
    complaint = re.sub(
        r"Does not validate against any of the Union subtypes Subtypes: \[([^\]]*)\].*Given value: ",
        lambda found: f"Expected {found[1].replace(', NoneType', ' or nothing')}. Got value: ",
        complaint,
    )
    unknown = re.search(
        r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'|invalid choice: '([\w-]+)'", complaint
    )
    if unknown:
        near = get_close_matches(next(filter(None, unknown.groups())), known, n=1)
        complaint += f"; did you mean {near[0]!r}?" if near else ""
    return complaint


def _underscored(argument: str) -> str:
    """``--max-steps`` and ``--max_steps`` are the same option."""
    name, equals, value = argument.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if name.startswith("--") else argument


def _asked_for(name: str, argv: list[str], default: Any) -> Any:
    """The value of an option before the parser is complete: from the flags, else from the configuration file."""
    for place, argument in enumerate(argv):
        if argument.startswith(f"--{name}="):
            return argument.partition("=")[2]
        if argument == f"--{name}" and place + 1 < len(argv):
            return argv[place + 1]
    file = None if name == "config" else _asked_for("config", argv, None)
    try:
        content = yaml.safe_load(Path(file).read_text()) if file else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return default  # the parser will say what is wrong with the file
    return content.get(name, default) if isinstance(content, dict) else default


def _free_directory(name: str) -> str:
    return next(str(path) for n in count(1) if not (path := Path("runs") / f"{name}-{n}").exists())


def _print_table(columns: dict[str, dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    shown = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)
    print(f"{'held-out examples':22}" + "".join(f"{title:>14}" for title in columns))
    for name in names:
        print(f"{name:22}" + "".join(f"{shown(column.get(name)):>14}" for column in columns.values()))


if __name__ == "__main__":
    sys.exit(main())
