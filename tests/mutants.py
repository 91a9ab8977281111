"""Faults planted in the losses, one at a time, and whether the tests of the losses notice.

    python tests/mutants.py              every fault, eight minutes on one core; exit code 1 if one survives
    python tests/mutants.py kto wpo      those in the named functions only
    python tests/mutants.py --every 50   every fiftieth of all

The faults are written by ``changes`` from the code itself: a sign, an operator, the order of operands, a constant, a term or
a call left out, a maximum for a minimum. Each is put into the loaded function in a process of its own, in which the tests of
the losses that use the function run until one fails. Not collected by pytest; ``test_mutants.py`` runs a sample.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pref_toolkit"
MODULES = (
    "logps",
    *(f"losses/{name}" for name in ("inputs", "rewards", "pairs", "lists", "labels", "token_distributions")),
)
TESTS = [ROOT / "tests" / "losses" / f"test_{name}.py" for name in ("losses", "identities")]


class Mutant(NamedTuple):
    """The characters from ``start`` to ``end`` of a module, in the code of ``function``, become ``new``."""

    module: str
    function: str
    start: int
    end: int
    new: str

    def __str__(self) -> str:
        """The function and its lines as they become."""
        source = source_of(self.module)
        first, last = source.rfind("\n", 0, self.start) + 1, source.index("\n", self.end)
        return f"{self.function}: {source[first : self.start].lstrip()}{self.new}{source[self.end : last]}"


EQUIVALENT = {
    "tensor_of: return value.to((torch.promote_types(dtype, value.dtype)))": "the wider of two types has no order",
    "ipo: return ((1 / (2 * tau) - margin(policy, reference))) ** 2": "a square has no sign",
    'LINKS: "square": lambda t: ((t - 1)) ** 2,': "a square has no sign",
    "sppo: return ((((P - 0.5) / beta - rho)) ** 2).sum(dim=1) / 2": "a square has no sign",
    'supervised: return tensor_of("target", only_response("target", target), (policy.rejected).shape)': "only its shape",
    **{
        "plackett_luce: places = [(rewards[:, k + 1 :] - rewards[:, k : k + 1]).logsumexp(dim=1) "
        f"for k in range(({n}))]": "nothing is chosen in the last place: its term is 0"
        for n in ("rewards.shape[1] + 1", "rewards.shape[1]")
    },
    **{
        f"log_odds: return logp - torch.where({where}, torch.log(-torch.expm1(logp)), torch.log1p(-torch.exp(logp)))": why
        for where, why in {
            "(logp >= -0.6931)": "both formulas hold there",
            "logp > -(1.6931)": "both formulas hold between, to rounding",
        }.items()
    },
}
"""The changes that no test can notice, and why."""

# What stands for what; both ways.
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
OPERATORS |= {ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr}
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
OPPOSITES = [("min", "max"), ("amin", "amax"), ("argmin", "argmax"), ("any", "all"), ("chosen", "rejected")]
OPPOSITE = dict(OPPOSITES) | {b: a for a, b in OPPOSITES}


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """A node, this one or its condition, and what may stand in its place."""
    match node:
        case ast.BinOp(left, operator, right):
            yield node, ast.BinOp(left, OPERATORS[type(operator)](), right)
            if isinstance(operator, ast.Sub | ast.Div):
                yield node, ast.BinOp(right, operator, left)
            yield node, left
            yield node, right
        case ast.UnaryOp(_, operand):
            yield node, operand
        case ast.BoolOp(_, values):
            yield from ((node, value) for value in values)
        case ast.Compare(left, [operator], [right]) if type(operator) in COMPARISONS:
            yield node, ast.Compare(left, [COMPARISONS[type(operator)]()], [right])
        case ast.Constant(bool() | str() | None):
            pass
        case ast.Constant(value):
            yield node, ast.Constant(value + 1)
        case ast.IfExp(_, body, orelse):
            yield node, body
            yield node, orelse
        case ast.If(test):
            yield test, ast.Constant(False)
        case ast.Expr(ast.Call()):
            yield node, ast.Pass()
        case ast.Attribute(value, name) if name in OPPOSITE:
            yield node, ast.Attribute(value, OPPOSITE[name])
        case ast.Call(function, arguments, keywords):
            words = [a for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            numbers = [a for a in arguments if a not in words]
            named = [ast.keyword(OPPOSITE.get(k.arg or "", k.arg), k.value) for k in keywords]
            if any(new.arg != k.arg for new, k in zip(named, keywords)):
                yield node, ast.Call(function, arguments, named)
            if len(numbers) > 1:
                yield node, ast.Call(function, [*words, numbers[1], numbers[0], *numbers[2:]], keywords)
            if isinstance(function, ast.Attribute) and ast.unparse(function.value) != "torch":
                yield node, function.value
            elif numbers and ast.unparse(function) != "bool":  # a tensor is as true as its bool
                yield node, numbers[0]


def nodes_of(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below this one that are computed with: no annotations, and nothing of how an error is worded."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise) or name == "annotation":
                continue
            if not (isinstance(node, ast.Expr) and isinstance(child, ast.Call)):  # a check has no value and no order
                yield child
            yield from nodes_of(child)


def functions_of(tree: ast.Module) -> Iterator[tuple[str, list[ast.stmt]]]:
    """The functions of a module and its tables of functions, by name, without their docstrings."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node.body[1:] if ast.get_docstring(node) else node.body
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, [node]


@cache
def source_of(module: str) -> str:
    source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    assert source.isascii()  # offsets of the syntax tree count bytes
    return source


def mutated(mutant: Mutant) -> str:
    """The source of the module with the fault in it."""
    source = source_of(mutant.module)
    return source[: mutant.start] + mutant.new + source[mutant.end :]


@cache
def mutants() -> list[Mutant]:
    """Every fault; of several that come to the same code, the first."""
    found = []
    for module in MODULES:
        source = source_of(module)
        starts = [0, *accumulate(map(len, source.splitlines(keepends=True)))]
        for function, body in functions_of(ast.parse(source)):
            first, last = starts[body[0].lineno - 1], starts[body[-1].end_lineno]
            known = {normal(source[first:last])}
            for node in (n for statement in body for n in (statement, *nodes_of(statement))):
                for place, change in changes(node):
                    new = f"({ast.unparse(change)})" if isinstance(place, ast.expr) else ast.unparse(change)
                    start = starts[place.lineno - 1] + place.col_offset
                    end = starts[place.end_lineno - 1] + place.end_col_offset
                    code = normal(source[first:start] + new + source[end:last])
                    if code not in known:
                        known.add(code)
                        found.append(Mutant(module, function, start, end, new))
    return found


def normal(body: str) -> str:
    """One text for all ways to write the same statements."""
    return ast.dump(ast.parse(f"if True:\n{body}" if body[0] == " " else body))


def plant(mutant: Mutant) -> None:
    """Put the fault into the function that is loaded: everybody who has imported it calls the new code."""
    module = import_module(f"pref_toolkit.{mutant.module.replace('/', '.')}")
    code = compile(mutated(mutant), str(PACKAGE / f"{mutant.module}.py"), "exec")
    held = vars(module)[mutant.function]
    if isinstance(held, dict):
        faulty = dict(vars(module))
        exec(code, faulty)
        held.update(faulty[mutant.function])
    else:
        held.__code__ = next(c for c in code.co_consts if getattr(c, "co_name", None) == mutant.function)


@cache
def users() -> dict[str, set[str]]:
    """By function, the functions that run it, itself among them."""
    bodies = {name: body for module in MODULES for name, body in functions_of(ast.parse(source_of(module)))}
    named = {
        name: {n.id for statement in body for n in ast.walk(statement) if isinstance(n, ast.Name)} & bodies.keys()
        for name, body in bodies.items()
    }
    found = {name: {name} for name in bodies}
    for _ in bodies:
        for user, used in named.items():
            for name in used:
                found[name] |= found[user]
    return found


class Planter:
    """Runs the tests of each mutant in a child of its own, instead of all tests once."""

    def __init__(self, chosen: list[Mutant]) -> None:
        self.chosen, self.caught, self.failed = chosen, {}, False

    def pytest_runtest_logreport(self, report) -> None:
        self.failed |= report.failed

    def pytest_runtestloop(self, session) -> bool:
        for mutant in self.chosen:
            tests = self.tests_of(session.items, users()[mutant.function])
            if not self.caught and self.notice(tests):
                raise RuntimeError("the tests fail without a mutant")
            self.caught[mutant] = self.notice(tests, mutant)
            print(f"{'caught  ' if self.caught[mutant] else 'SURVIVED'} {mutant}", flush=True)
        return True

    @staticmethod
    def tests_of(items, methods: set[str]) -> list:
        """The tests of these methods and those of none in particular; first one of each kind, then another of each."""
        chosen, seen = [], Counter()
        for item in items:
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            limit = parameters.get("limit")
            of = {limit.method, limit.becomes} if limit else {parameters.get("name")}
            if of == {None} or of & methods:
                chosen.append((seen[item.originalname], item))
                seen[item.originalname] += 1
        return [item for _, item in sorted(chosen, key=lambda numbered: numbered[0])]

    def notice(self, items, mutant: Mutant | None = None) -> bool:
        """Whether one of these tests fails."""
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            if mutant is not None:
                plant(mutant)
            for item, following in zip(items, [*items[1:], None]):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed:
                    break
            os._exit(self.failed)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code not in (0, 1):
            raise RuntimeError(f"the tests did not run (exit code {code}) with {mutant}")
        return code == 1


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Plant faults in the losses.")
    parser.add_argument("names", nargs="*", help="functions; all if none is named")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th fault")
    asked = parser.parse_args(argv)
    if unknown := set(asked.names) - {m.function for m in mutants()}:
        print(f"no mutant of {', '.join(sorted(unknown))}")
        return 2
    planter = Planter([m for m in mutants() if not asked.names or m.function in asked.names][:: asked.every])
    sys.path.insert(0, str(ROOT))  # the very code that the faults are made from
    import pytest
    import torch

    torch.set_num_threads(1)
    options = ["-p", "no:cacheprovider", "-p", "no:terminal", "-o", "addopts=", "--capture=no", "--rootdir", str(ROOT)]
    pytest.main([*options, *map(str, TESTS)], plugins=[planter])
    survived = {m for m, caught in planter.caught.items() if not caught}
    equivalent = {m for m in planter.caught if str(m) in EQUIVALENT}
    for mutant in equivalent - survived:
        print(f"NOT EQUIVALENT {mutant}")
    for mutant in survived - equivalent:
        print(f"SURVIVED {mutant}")
    print(f"{len(planter.caught)} mutants, {len(equivalent)} of them equivalent; {len(survived - equivalent)} survived")
    return 1 if survived != equivalent or len(planter.caught) < len(planter.chosen) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
