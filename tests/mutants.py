"""Faults planted in the losses, one at a time, and whether the tests of the losses notice.

    python tests/mutants.py            every fault; exit code 1 if one survives
    python tests/mutants.py kto wpo    those in the named functions only

Each fault is put into a copy of the package, and the tests whose name mentions its function run on that copy until one
fails. Not collected by pytest; ``test_mutants.py`` runs a handful.
"""

from __future__ import annotations

import ast
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TESTS = [ROOT / "tests" / "losses" / f"test_{name}.py" for name in ("losses", "identities", "method")]


class Mutant(NamedTuple):
    """``old`` becomes ``new``, once, in the code of ``function``; ``tests`` is a pytest ``-k`` expression."""

    file: str
    function: str
    old: str
    new: str
    tests: str = ""


MUTANTS = [
    # rewards
    Mutant("rewards", "bradley_terry", "- m)", "+ m)"),
    Mutant("rewards", "bradley_terry", "rewards[:, 0] - rewards[:, 1]", "rewards[:, 1] - rewards[:, 0]"),
    Mutant("rewards", "plackett_luce", "rewards[:, k + 1 :]", "rewards[:, k:]"),
    Mutant("rewards", "plackett_luce", ".sum(dim=0)", ".mean(dim=0)"),
    Mutant("rewards", "plackett_luce", "-logsigmoid(-torch", "-logsigmoid(torch"),
    # what every loss reads
    Mutant("inputs", "log_ratios", "policy.sums - reference.sums", "reference.sums - policy.sums", "dpo"),
    Mutant("inputs", "check_same_responses", "if policy.sums.shape != reference.sums.shape:", "if False:", "shape"),
    Mutant("inputs", "margin", "rho_w - rho_l", "rho_w + rho_l", "dpo"),
    Mutant(
        "inputs",
        "pair_log_ratios",
        "policy.rejected - reference.rejected",
        "reference.rejected - policy.rejected",
        "nca",
    ),
    Mutant("inputs", "ranked_log_ratios", "rho[:, 1:]", "rho[:, :-1]", "s_dpo"),
    Mutant("inputs", "ranked_log_ratios", "if rho.shape[1] < 2:", "if False:", "s_dpo"),
    Mutant("inputs", "tensor_of", "if value.shape != shape:", "if False:", "shape"),
    Mutant("inputs", "tensor_of", "torch.promote_types(value.dtype, dtype)", "value.dtype", "half"),
    Mutant("inputs", "only_response", "if record.sums.shape[1] != 1:", "if False:", "kto"),
    # pairs
    Mutant("pairs", "dpo", "-logsigmoid(", "logsigmoid("),
    Mutant("pairs", "dpo", "beta * margin(policy, reference)", "margin(policy, reference) / beta"),
    Mutant("pairs", "dpo", "margin(policy, reference))", "margin(reference, policy))"),
    Mutant("pairs", "dpo", "margin(policy, reference))", "margin(policy.per_token(), reference.per_token()))"),
    Mutant("pairs", "cdpo", "(1 - eps) * logsigmoid(t) - eps", "eps * logsigmoid(t) - (1 - eps)"),
    Mutant("pairs", "cdpo", "- eps * logsigmoid(-t)", "+ eps * logsigmoid(-t)"),
    Mutant("pairs", "robust_dpo", "+ eps * logsigmoid(-t)", "- eps * logsigmoid(-t)"),
    Mutant("pairs", "robust_dpo", "(1 - 2 * eps)", "(1 - eps)"),
    Mutant("pairs", "ipo", "1 / (2 * tau)", "2 * tau"),
    Mutant("pairs", "ipo", "1 / (2 * tau)", "1 / tau"),
    Mutant("pairs", "ipo", "margin(policy, reference)", "margin(policy.per_token(), reference.per_token())"),
    Mutant("pairs", "hinge_dpo", "1 - gamma", "1 + gamma"),
    Mutant("pairs", "hinge_dpo", "torch.relu(1 - gamma", "(1 - gamma"),
    Mutant("pairs", "slic_hf", "- policy.chosen + policy.rejected", "+ policy.chosen - policy.rejected"),
    Mutant("pairs", "slic_hf", "- lam *", "+ lam *"),
    Mutant("pairs", "supervised", "return policy.chosen", "return policy.rejected", "slic_hf"),
    Mutant("pairs", "click", "target.per_token()", "target"),
    Mutant("pairs", "click", "supervised(policy.per_token(),", "supervised(policy,"),
    Mutant("pairs", "click", "alpha * torch.relu(gamma", "torch.relu(alpha * gamma"),
    Mutant("pairs", "simpo", "- gamma)", "+ gamma)"),
    Mutant("pairs", "simpo", "mean.rejected) - gamma)", "mean.rejected - gamma))"),
    Mutant("pairs", "simpo", "mean = policy.per_token()", "mean = policy"),
    Mutant("pairs", "log_odds", "logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)", "pass", "orpo"),
    Mutant("pairs", "log_odds", "logp > -0.6931", "logp < -0.6931", "orpo"),
    Mutant("pairs", "log_odds", "return logp - torch", "return logp + torch", "orpo"),
    Mutant("pairs", "orpo", "-mean.chosen - lam", "-policy.chosen - lam"),
    Mutant("pairs", "orpo", "- lam * logsigmoid", "+ lam * logsigmoid"),
    Mutant("pairs", "cpo", "alpha * policy.per_token().chosen", "alpha * policy.chosen"),
    Mutant("pairs", "cpo", "policy.chosen - policy.rejected", "policy.rejected - policy.chosen"),
    Mutant("pairs", "dpo_nll", "- alpha", "+ alpha"),
    Mutant("pairs", "dpo_nll", "policy.per_token().chosen", "policy.per_token().rejected"),
    Mutant("pairs", "dpop", "torch.relu(-rho_w)", "torch.relu(rho_w)"),
    Mutant("pairs", "dpop", "torch.relu(-rho_w)", "torch.relu(-rho_l)"),
    Mutant("pairs", "dpop", "- lam * torch", "+ lam * torch"),
    Mutant("pairs", "r_dpo", "+ alpha * longer", "- alpha * longer"),
    Mutant("pairs", "growing_exp", "x.clamp(max=TANGENT_FROM)", "x", "f_dpo"),
    Mutant("pairs", "growing_exp", "* (1 + x - start)", "", "tangent"),
    Mutant("pairs", "growing_expm1", "x.clamp(max=TANGENT_FROM)", "x", "f_dpo"),
    Mutant("pairs", "growing_expm1", "+ start.exp() * (x - start)", "", "tangent"),
    Mutant("pairs", "spin", "(lam * margin(policy, reference))", "(margin(policy, reference) / lam)"),
    Mutant("pairs", "gpo", "(beta * margin(policy, reference))", "(margin(reference, policy) * beta)"),
    Mutant("pairs", "f_dpo", "g(rho_w) - g(rho_l)", "g(rho_w - rho_l)"),
    Mutant("pairs", "f_dpo", "-growing_exp(-rho)", "growing_exp(-rho)"),
    Mutant("pairs", "f_dpo", "-growing_expm1(-alpha * rho) / alpha", "-growing_expm1(-alpha * rho)"),
    Mutant("pairs", "f_dpo", "-growing_expm1(-alpha * rho) / alpha", "-growing_exp(-alpha * rho) / alpha"),
    Mutant("pairs", "discopop", "torch.sigmoid(-t / tau)", "torch.sigmoid(t / tau)"),
    Mutant("pairs", "discopop", "logsigmoid(t / tau) - t", "logsigmoid(t / tau) + t"),
    Mutant("pairs", "discopop", "growing_exp(logsigmoid(t / tau) - t)", "torch.sigmoid(t / tau) * torch.exp(-t)"),
    Mutant("pairs", "sppo", "(P - 0.5)", "(0.5 - P)"),
    Mutant("pairs", "sppo", "/ beta", "* beta"),
    Mutant("pairs", "sppo", ".sum(dim=1) / 2", ".sum(dim=1)"),
    Mutant("pairs", "nca", "logsigmoid(-b_l)", "logsigmoid(b_l)"),
    Mutant("pairs", "nca", "(logsigmoid(-b_w) + logsigmoid(-b_l)) / 2", "(logsigmoid(-b_w) + logsigmoid(-b_l))"),
    Mutant("pairs", "apo_zero", "-beta * rho_w", "beta * rho_w"),
    Mutant("pairs", "apo_down", "-beta * (rho_w - rho_l)", "beta * (rho_w - rho_l)"),
    Mutant("pairs", "aot", ".sort().values[rank]", ""),
    Mutant("pairs", "aot", ".argsort(stable=True).argsort()", ".argsort(stable=True)"),
    # lists
    Mutant("lists", "rrhf", "scores[:, :, None] < scores", "scores[:, :, None] > scores"),
    Mutant("lists", "rrhf", "scores[:, :, None] < scores", "scores[:, :, None] <= scores"),
    Mutant("lists", "rrhf", "policy.per_token().sums", "policy.sums"),
    Mutant("lists", "rrhf", ".sum(dim=(1, 2))", ".mean(dim=(1, 2))"),
    Mutant("lists", "rrhf", "policy.sums.gather", "mean.gather"),
    Mutant("lists", "rrhf", "scores.argmax", "scores.argmin"),
    Mutant("lists", "odpo", "- alpha * gap.log()", "+ alpha * gap.log()"),
    Mutant("lists", "odpo", "alpha * gap.log()", "alpha * gap"),
    Mutant("lists", "odpo", "(gap > 0).all()", "(gap >= 0).all()", "impossible"),
    Mutant("lists", "s_dpo", "others - best", "best - others"),
    Mutant(
        "lists", "s_dpo", "(beta * (others - best)).logsumexp(dim=1)", "(beta * (others - best)).exp().sum(1).log()"
    ),
    Mutant("lists", "s_dpo", ".logsumexp(dim=1)", ".mean(dim=1)"),
    Mutant("lists", "exo", "log_p.exp() * (log_p - q.log())", "q * (q.log() - log_p)"),
    Mutant("lists", "exo", "eps / others.shape[1]", "eps"),
    Mutant("lists", "exo", "[best, others]", "[others, best]"),
    # labels
    Mutant("labels", "signs", "1.0, -1.0", "-1.0, 1.0", "bco"),
    Mutant("labels", "signs", "desirable.dtype != torch.bool or", "", "booleans"),
    Mutant("labels", "kto", ".mean().clamp(min=0)", ".clamp(min=0).mean()"),
    Mutant("labels", "kto", ".clamp(min=0).detach()", ".clamp(min=0)"),
    Mutant("labels", "kto", "-s * beta", "s * beta"),
    Mutant("labels", "kto", "rho - z0", "rho + z0"),
    Mutant("labels", "kto", "new_tensor(lam_D), rho.new_tensor(lam_U)", "new_tensor(lam_U), rho.new_tensor(lam_D)"),
    Mutant("labels", "bco", "beta * rho - tensor_of", "beta * rho + tensor_of"),
    Mutant("labels", "bco", ".detach()", ""),
    Mutant("labels", "bco", "beta * rho", "rho / beta"),
    # token distributions
    Mutant("token_distributions", "tdpo1", "K[:, 1] - K[:, 0]", "K[:, 0] - K[:, 1]"),
    Mutant("token_distributions", "tdpo1", "K[:, 0])", "K[:, 0].detach())"),
    Mutant("token_distributions", "tdpo2", "K[:, 0].detach()", "K[:, 0]"),
    Mutant("token_distributions", "tdpo2", "K[:, 1] - K[:, 0].detach()", "K[:, 1].detach() - K[:, 0]"),
    Mutant("token_distributions", "tdpo2", "(D - alpha * (", "(alpha * (D - "),
    Mutant("token_distributions", "mallows_dpo", "* beta * D", "/ beta * D"),
    Mutant("token_distributions", "mallows_dpo", ".detach()", ""),
    Mutant("token_distributions", "ld_dpo", "alpha * whole.sums + (1 - alpha) *", "(1 - alpha) * whole.sums + alpha *"),
    Mutant("token_distributions", "ld_dpo", "weighted(reference, reference_head)", "weighted(reference, reference)"),
    Mutant("token_distributions", "wpo", ".detach()", ""),
    Mutant("token_distributions", "wpo", ".clamp(max=0).exp()", ".exp()"),
    Mutant("token_distributions", "wpo", "w.sum(dim=1).clamp(max=0)", "w.clamp(max=0).sum(dim=1)"),
    Mutant("token_distributions", "wpo", "w.sum(dim=1)", "w.mean(dim=1)"),
]


def mutated(source: str, mutant: Mutant) -> str:
    """The source with the fault in it.

    Raises:
        ValueError: if the function's code has no such text, so that the fault would change nothing.
    """
    tree = ast.parse(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == mutant.function]
    body = functions[0].body[1:] if ast.get_docstring(functions[0]) else functions[0].body
    lines = source.splitlines(keepends=True)
    start, end = body[0].lineno - 1, body[-1].end_lineno
    code = "".join(lines[start:end])
    changed = "".join(lines[:start]) + code.replace(mutant.old, mutant.new, 1) + "".join(lines[end:])
    if ast.dump(ast.parse(changed)) == ast.dump(tree):
        raise ValueError(f"{mutant} changes nothing")
    return changed


def tests_fail(package: Path, selection: str) -> bool:
    """Whether a test fails on this copy of the package, in a child process that already has the libraries loaded."""
    import pytest

    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        sys.path.insert(0, str(package.parent))
        code = pytest.main(
            ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-k", selection, *map(str, TESTS)]
        )
        imported = sys.modules["pref_toolkit.losses"].__file__ or ""
        os._exit(int(code) if imported.startswith(str(package)) else 99)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 1):
        raise RuntimeError(f"the tests did not run (exit code {code}) with -k {selection!r}")
    return code == 1


def main(names: list[str]) -> int:
    import numpy  # noqa: F401  loaded once, here; every child inherits them
    import scipy.special  # noqa: F401
    import sympy.parsing.sympy_parser  # noqa: F401
    import torch

    torch.set_num_threads(1)
    chosen = [m for m in MUTANTS if not names or m.function in names]
    unknown = set(names) - {m.function for m in MUTANTS}
    if unknown:
        print(f"no mutant of {', '.join(sorted(unknown))}")
        return 2
    survived = []
    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / "pref_toolkit"
        shutil.copytree(
            ROOT / "pref_toolkit" / "losses", package / "losses", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copy(ROOT / "pref_toolkit" / "logps.py", package)
        (package / "__init__.py").touch()
        if tests_fail(package, " or ".join(sorted({m.tests or m.function for m in chosen}))):
            print("the tests fail without a mutant")
            return 1
        for mutant in chosen:
            path = package / "losses" / f"{mutant.file}.py"
            source = path.read_text(encoding="utf-8")
            path.write_text(mutated(source, mutant), encoding="utf-8")
            caught = tests_fail(package, mutant.tests or mutant.function)
            path.write_text(source, encoding="utf-8")
            what = f"{mutant.file}.{mutant.function}: {mutant.old!r} -> {mutant.new!r}"
            print(f"{'caught  ' if caught else 'SURVIVED'} {what}", flush=True)
            survived += [] if caught else [what]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True  # two versions of a file within one second would share their bytecode
    sys.exit(main(sys.argv[1:]))
