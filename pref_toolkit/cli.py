"""The command line: ``pref-toolkit train | evaluate | generate | check-data | methods``.

Exit codes: 0 done; 2 bad input or usage, with one sentence about it; 3 training stopped at a value that was not finite; 143
after SIGTERM, 130 after Ctrl-C and 129 after SIGHUP, with a checkpoint saved. A command imports heavy libraries only when it
needs them, so ``--help`` is quick.
"""

from __future__ import annotations

import logging
import re
import sys
from argparse import ArgumentParser as PlainParser
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from difflib import get_close_matches
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader
from yaml import YAMLError

from pref_toolkit.errors import Complaint, NotFiniteError, Terminated
from pref_toolkit.loops.config import LoopConfig
from pref_toolkit.loops.presets import LOOPS, settings_of
from pref_toolkit.training.config import TrainConfig

if TYPE_CHECKING:
    from pref_toolkit.training.policy import Policy
    from pref_toolkit.training.run import History


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    argv = [_underscored(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    with _spoken():
        return _run(argv)


def _run(argv: list[str]) -> int:
    try:
        parser = build_parser(argv)
        arguments = parser.parse_args(argv)
        if arguments.command is None:
            parser.print_help()
            return 0
        return COMMANDS[arguments.command](arguments[arguments.command]) or 0
    except ArgumentError as error:
        return _complain(_sentence(error))
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


def build_parser(argv: list[str]) -> ArgumentParser:
    """The parser for ``argv``: ``--method`` and ``--model`` decide the other options of ``train`` and their defaults.

    Raises:
        Complaint: for an unknown command, option or key of the configuration file, with the nearest known name.
    """
    if argv and not argv[0].startswith("-"):
        _require(argv[0], COMMANDS, f"no command {argv[0]!r}")
    parser = ArgumentParser(
        prog="pref-toolkit",
        description="Preference optimisation of language models.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    commands = parser.add_subcommands(required=False, dest="command")
    for name, run in COMMANDS.items():
        command = ArgumentParser(exit_on_error=False, description=run.__doc__)
        if name in OPTIONS:
            OPTIONS[name](command, argv if argv[:1] == [name] else [])
        commands.add_subcommand(name, command, help=(run.__doc__ or "").partition("\n")[0])
        if argv[:1] == [name]:
            known = ["help", *vars(command.get_defaults())]
            for flag in filter(None, map(FLAG.match, takewhile(lambda argument: argument != "--", argv))):
                _require(flag[1], known, f"unrecognized arguments: --{flag[1]}")
    return parser


def _train_options(parser: ArgumentParser, argv: list[str]) -> None:
    parser.add_argument("--config", type=str | None, default=None, help="YAML file with any of these settings")
    parser.add_argument(
        "--method",
        type=str,
        default="dpo",
        help="a name that `pref-toolkit methods` lists, several: dpo+sft, or a loop that draws its own answers: online_dpo",
    )
    parser.add_argument(
        "--weights",
        type=str | list[float] | None,
        default=None,
        help="of the parts of a mixture, as .8,.2; 1 each if not given",
    )
    parser.add_argument(
        "--model", type=str, default="lab", help="a hub id, a directory, a saved run, `tiny`, `lab` or `smollm2`"
    )
    parser.add_argument(
        "--data",
        type=str | None,
        default=None,
        help="a file, directory or hub id, for a loop of prompts, for cofs_dpo a,b; the lab makes its own",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --output from its newest whole checkpoint"
    )
    parser.add_class_arguments(TrainConfig, skip={"resume"})
    if not argv:
        return
    from pref_toolkit.losses import LOOP_LOSSES, METHODS, find

    first = PlainParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("config", "method", "model"):
        first.add_argument(f"--{name}")
    flags, _ = first.parse_known_args(argv)
    file = _settings(flags.config) if flags.config is not None else {}
    chosen = str(flags.method or file.get("method", "dpo"))
    if chosen in LOOPS:
        parser.add_class_arguments(LoopConfig)
        parser.set_defaults(dict(LOOPS[chosen].settings))
        method = (METHODS | LOOP_LOSSES)[LOOPS[chosen].loss]
        values = method.check(**LOOPS[chosen].hyperparameters)
    elif chosen not in METHODS and (near := get_close_matches(chosen, LOOPS, n=1, cutoff=0.8)):
        raise Complaint(f"no method {chosen!r}: did you mean {near[0]!r}?")
    else:
        method = find(chosen)
        values = method.hyperparameters
    for name, default in values.items():
        kind = method.kinds[name]
        kind = (
            get_args(kind)[0] if get_origin(kind) is Annotated else kind
        )  # ranges are checked, and said, by the method
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"of {method.name}, in the paper's symbol")
    if (flags.model or file.get("model", "lab")) == "lab":
        from pref_toolkit.lab.defaults import defaults

        parser.set_defaults(defaults(method.name))
    known = vars(parser.get_defaults()).keys() - {"config"}
    for name in file:
        _require(str(name), known, f"{flags.config}: no setting {str(name)!r}")
    checked = parser.parse_object(file)
    parser.set_defaults({name: checked[name] for name in file})  # defaults, because a flag overrides the file


MODEL_HELP = "the directory of a run, a hub id, `tiny`, `lab` or `smollm2`"


def _evaluate_options(parser: ArgumentParser, argv: list[str]) -> None:
    parser.add_argument("--model", type=str, required=True, help=MODEL_HELP)
    parser.add_argument(
        "--data", type=str | None, default=None, help="preferences; without them, the gold reward judges a lab model"
    )
    parser.add_argument("--max_length", type=int, default=1024, help="tokens in prompt + response")
    parser.add_argument("--seed", type=int, default=0, help="seed of the lab's prompts and samples")


def _generate_options(parser: ArgumentParser, argv: list[str]) -> None:
    parser.add_argument("--model", type=str, required=True, help=MODEL_HELP)
    parser.add_argument("--max_new_tokens", type=int, default=128, help="longest answer, in tokens")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 always takes the most likely token")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples")
    parser.add_argument(
        "--chat", action="store_true", help="each prompt is what a user says, in the model's chat template"
    )
    parser.add_argument("prompt", nargs="+", help="one or more prompts")


def _check_data_options(parser: ArgumentParser, argv: list[str]) -> None:
    parser.add_argument("data", help="a JSONL file (plain or gzipped), a directory or a hub id")
    parser.add_argument("--model", type=str, default="tiny", help="the model whose tokenizer counts the tokens")
    parser.add_argument("--max_length", type=int, default=1024, help="tokens in prompt + response")
    parser.add_argument(
        "--method", type=str | None, default=None, help="the method, or mixture, whose inputs rows must have"
    )


def train(arguments: Namespace) -> None:
    """Train a policy on preferences; without arguments, DPO in the lab."""
    settings = {f.name: arguments[f.name] for f in fields(TrainConfig)}
    if settings["output"] is None:
        settings["output"] = _free_directory(f"{arguments.method}-{Path(arguments.model).name}")
    config = TrainConfig(**settings)
    if arguments.data is None and arguments.model != "lab":
        raise Complaint("train wants --data FILE for any model but the lab")
    if arguments.method in LOOPS:
        return _train_with_loop(arguments, config)

    import torch

    from pref_toolkit.losses import find
    from pref_toolkit.training.loop import train as train_policy

    weights = _weights(arguments.weights)
    method = find(arguments.method, weights)
    hyperparameters = method.check(**{name: arguments[name] for name in method.hyperparameters})
    if arguments.model == "lab":
        torch.set_num_threads(1)  # its matrices are so small that a second thread costs more than it gains
    data = arguments.data
    if data is None:
        from pref_toolkit import lab

        k = lab.defaults.responses(method.name)
        data = lab.rows(lab.defaults.PAIRS, method.needs, k=k, seed=config.seed)
    history = train_policy(arguments.model, None, data, method.name, config, weights, **hyperparameters)
    _told(history, arguments.model, config)


def _train_with_loop(arguments: Namespace, config: TrainConfig) -> None:
    import torch

    from pref_toolkit.loops.train import train as train_with_loop
    from pref_toolkit.training.objective import Objective

    loop = LOOPS[arguments.method]
    settings = settings_of(arguments.method, **{f.name: arguments[f.name] for f in fields(LoopConfig)})
    hyperparameters = {name: arguments[name] for name in Objective.of(loop.loss).settings}
    asked, judge = arguments.data, None
    if arguments.model == "lab":
        from pref_toolkit import lab

        torch.set_num_threads(1)
        number = config.total(lab.defaults.PAIRS) * config.batch_size
        if loop.streams > 1:
            from pref_toolkit.lab.domains import streams

            asked = asked or streams(number // 2, seed=config.seed)
        elif loop.streams:
            asked = asked or lab.pairs(number, seed=config.seed)
        asked = asked or lab.asked(number, config.seed, answered=loop.answered)
        judge = lab.judge(seed=config.seed) if loop.asks and settings.judge is None else None
    history = train_with_loop(
        arguments.model, None, asked, arguments.method, judge, config, settings, **hyperparameters
    )
    _told(history, arguments.model, config)


def _told(history: History, model: str, config: TrainConfig) -> None:
    """What a run ends with: the table of held-out metrics, the lab's judgement, and the report."""
    from accelerate import PartialState

    from pref_toolkit import report
    from pref_toolkit.training import run

    processes = PartialState()
    processes.destroy_process_group()
    if not processes.is_main_process:
        return
    _print_table({"before": history.before, "after": history.after})
    if model == "lab" and processes.num_processes == 1:
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
    """Measure a policy by its samples, or a reward model by its choice among samples, with the lab's gold reward."""
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
    asked = [[{"role": "user", "content": p}] for p in arguments.prompt] if arguments.chat else arguments.prompt
    answers = generation.generate(
        policy.model,
        policy.tokenizer,
        asked,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
    )
    for prompt, answer in zip(arguments.prompt, answers):
        print(f"{prompt}\n    {answer}")


def check_data(arguments: Namespace) -> int:
    """Report the rows that would be refused, left out or changed; with a method, also those that it cannot use.

    The exit code is 2 if a row would be refused or left out.
    """
    from pref_toolkit.data import DataError, check, prepare
    from pref_toolkit.losses import find
    from pref_toolkit.training import models

    method = find(arguments.method) if arguments.method is not None else None
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
    """List the methods: formula, inputs, defaults, paper, chapter. Names joined by + make a mixture for `train`."""
    from pref_toolkit.losses import METHODS

    for name, method in METHODS.items():
        defaults = ", ".join(f"{key}={value}" for key, value in method.hyperparameters.items())
        print(f"{name}\n    {method.formula}\n    needs {method.reads}; {defaults or 'no hyperparameters'}")
        print(f"    {method.paper}, {method.equation}; chapter {method.chapter}")
    print("\nloops, which draw their own answers:\n")
    for name, loop in LOOPS.items():
        print(f"{name}\n    the loss of {loop.loss}, reference {loop.reference!r}; needs {loop.needs}")
        print(f"    {loop.paper}")


COMMANDS: dict[str, Callable[[Namespace], int | None]] = {
    "train": train,
    "evaluate": evaluate,
    "generate": generate,
    "check-data": check_data,
    "methods": methods,
}

OPTIONS: dict[str, Callable[[ArgumentParser, list[str]], None]] = {
    "train": _train_options,
    "evaluate": _evaluate_options,
    "generate": _generate_options,
    "check-data": _check_data_options,
}


def _complain(sentence: str) -> int:
    print(f"pref-toolkit: {sentence}", file=sys.stderr)
    return 2


def _sentence(error: ArgumentError) -> str:
    """The parser's message as one line, with plain names of settings and types."""
    text = " ".join(str(error).split())
    text = re.sub(r"Parser key \"(\w+)\"|<class '(\w+)'>|typing\.", lambda found: found[1] or found[2] or "", text)
    return re.sub(
        r"Does not validate .*Subtypes: \[(.*)\] Errors: .* Given value:",
        lambda found: f"Expected {found[1].replace(', NoneType', ' or nothing')}. Got value:",
        text,
    )


def _require(name: str, known: Collection[str], complaint: str) -> None:
    """Raise a complaint about an unknown name, with the nearest known one."""
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise Complaint(complaint + (f"; did you mean {near[0]!r}?" if near else ""))


FLAG = re.compile(r"^--([\w-]+)(?=$|=)")


def _underscored(argument: str) -> str:
    """``--max-steps`` and ``--max_steps`` are the same option."""
    return FLAG.sub(lambda flag: "--" + flag[1].replace("-", "_"), argument)


def _settings(file: str) -> dict[str, Any]:
    """The content of a YAML file. The parser's own loader reads only plain data, and ``1e-4`` as a number."""
    try:
        content = get_loader("yaml")(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise Complaint(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise Complaint(f"{file} must hold settings, one `name: value` a line")
    return content


def _weights(given: str | list[float] | None) -> list[float] | None:
    """The numbers of ``.8,.2,1``."""
    if not isinstance(given, str):
        return given
    try:
        return [float(number) for number in given.split(",")]
    except ValueError:
        raise Complaint(
            f"weights are numbers with commas between them, as in --weights .8,.2,1, got {given!r}"
        ) from None


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
