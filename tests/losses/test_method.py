"""The table of methods and the check of what a user writes."""

import math

import pytest

from pref_toolkit import losses
from pref_toolkit.losses import METHODS


def test_a_method_knows_its_loss_and_its_source():
    dpo = METHODS["dpo"]
    assert dpo.loss is losses.dpo
    assert dpo.needs == ("policy", "reference")
    assert dpo.hyperparameters == {"beta": 0.1}
    assert dpo.formula == "-log sigmoid(beta D)"
    assert (dpo.paper, dpo.equation, dpo.chapter) == ("Rafailov et al. 2023, arXiv:2305.18290", "eq. 7", "methods/dpo")


def test_every_method_is_public():
    for name, method in METHODS.items():
        assert getattr(losses, name) is method.loss
        assert name in losses.__all__


def test_an_optional_argument_is_no_need():
    assert METHODS["slic_hf"].needs == ("policy",)
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
