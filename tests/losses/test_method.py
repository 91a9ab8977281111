"""The table of methods and the check of what a user writes."""

import inspect
import math
import re
import subprocess
import sys

import pytest

from pref_toolkit import losses
from pref_toolkit.losses import LOOP_LOSSES, METHODS


def test_a_method_knows_its_loss_and_its_source():
    dpo = METHODS["dpo"]
    assert dpo.loss is losses.dpo
    assert dpo.needs == ("policy", "reference")
    assert dpo.hyperparameters == {"beta": 0.1}
    assert dpo.formula == "-log sigmoid(beta D)"
    assert (dpo.paper, dpo.equation, dpo.chapter) == ("Rafailov et al. 2023, arXiv:2305.18290", "eq. 7", "methods/dpo")


def test_without_docstrings_only_the_formula_is_missing():
    """In a process of its own: ``python -OO`` strips docstrings."""
    ask = """
import torch
from pref_toolkit import losses
from pref_toolkit.logps import Logps
pair = Logps.pair(torch.tensor([-12.0]), torch.tensor([-15.0]))
dpo = losses.METHODS["dpo"]
print(dpo.loss.__doc__, dpo.check(), dpo.needs, dpo.loss(pair, pair))
try:
    dpo.formula
except ValueError as complaint:
    print(complaint)
"""
    done = subprocess.run([sys.executable, "-OO", "-B", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "None {'beta': 0.1} ('policy', 'reference') tensor([0.6931])",
        "method 'dpo' has no formula: it is the first ``literal`` of the docstring, and python -OO strips docstrings",
    ]


def test_every_method_is_public():
    for name, method in METHODS.items():
        assert getattr(losses, name) is method.loss
        assert name in losses.__all__


def test_an_optional_argument_is_no_need():
    assert METHODS["slic_hf"].needs == ("policy",)
    assert METHODS["slic_hf"].reads == "policy, target if given"
    assert METHODS["odpo"].reads == "policy, reference, scores"
    assert METHODS["slic_hf"].hyperparameters == {"delta": 1.0, "lam": 0.1}


def test_check_fills_in_the_defaults():
    assert METHODS["simpo"].check() == {"beta": 2.0, "gamma": 1.0}
    assert METHODS["simpo"].check(gamma=0) == {"beta": 2.0, "gamma": 0}


@pytest.mark.parametrize("value", [0, 0.0, -1, -0.1, math.nan, math.inf, -math.inf, "0.1", True, None, [0.1]])
def test_check_refuses_a_beta_that_is_no_finite_number_above_0(value):
    with pytest.raises(ValueError) as error:
        METHODS["dpo"].check(beta=value)
    assert str(error.value) == f"hyperparameter 'beta' of method 'dpo' must be a finite number > 0, got {value!r}"


def test_check_takes_0_where_the_range_is_closed():
    assert METHODS["orpo"].check(lam=0)["lam"] == 0
    with pytest.raises(ValueError, match=r"must be a finite number >= 0, got -1e-09"):
        METHODS["orpo"].check(lam=-1e-9)


def test_check_names_the_nearest_hyperparameter():
    with pytest.raises(ValueError, match=r"method 'dpo' has no hyperparameter 'betta': did you mean 'beta'\?"):
        METHODS["dpo"].check(betta=0.1)


def test_check_lists_the_hyperparameters_when_none_is_near():
    with pytest.raises(ValueError, match=r"method 'simpo' has no hyperparameter 'tau': it has beta, gamma$"):
        METHODS["simpo"].check(tau=0.1)


@pytest.mark.parametrize("value", [0.5, 0.7, -0.1, math.nan, "0.1", True])
def test_check_keeps_a_share_of_wrong_labels_below_one_half(value):
    assert METHODS["robust_dpo"].check(eps=0)["eps"] == 0
    with pytest.raises(ValueError) as error:
        METHODS["robust_dpo"].check(eps=value)
    wanted = "hyperparameter 'eps' of method 'robust_dpo' must be a finite number >= 0 and < 0.5"
    assert str(error.value) == f"{wanted}, got {value!r}"


def test_check_takes_one_of_the_names_of_a_choice():
    assert METHODS["spin"].check(link="hinge") == {"lam": 0.1, "link": "hinge"}
    for value in ("hing", "square", 1, None, True):
        with pytest.raises(ValueError) as error:
            METHODS["spin"].check(link=value)
        wanted = "hyperparameter 'link' of method 'spin' must be one of logistic, hinge, correlation, exponential"
        assert str(error.value) == f"{wanted}, got {value!r}"


def test_only_a_loss_that_reads_the_batch_says_so():
    assert [name for name, method in METHODS.items() if method.batchwise] == ["aot"]


def test_the_names_of_what_losses_read_are_listed_once():
    """One name per idea: every argument of every loss is in the table of the package's docstring, and nothing else."""
    arguments = {
        parameter.name
        for method in (METHODS | LOOP_LOSSES).values()
        for parameter in inspect.signature(method.loss).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    assert set(re.findall(r"^``(\w+)`` ", losses.__doc__, re.M)) == arguments
