"""The settings of a run: every field is checked by its type."""

from dataclasses import fields
from typing import get_type_hints

import pytest

from pref_toolkit.cli import main
from pref_toolkit.errors import Complaint
from pref_toolkit.ranges import wanted
from pref_toolkit.training.config import TrainConfig

WRONG = {
    "batch_size": [(value, "at least 1 and whole") for value in (0, -1, 2.5, 2.0, True, None, "8", float("nan"))],
    "max_steps": [(value, "at least 1 and whole") for value in (0, 1.5, True)],
    "max_length": [(1, "at least 2 and whole")],
    "samples": [(-1, "at least 0 and whole")],
    "learning_rate": [(value, "a finite number >= 0") for value in (-1e-9, float("inf"), float("nan"), "1e-4", True)],
    "lora_dropout": [(value, "a finite number >= 0 and < 1") for value in (1, -0.1)],
    "route": [("row", "one of auto, segments, mask, rows")],
    "resume": [(1, "of type bool")],
}


@pytest.mark.parametrize("name, value, must", [(n, *wrong) for n, several in WRONG.items() for wrong in several])
def test_a_value_that_cannot_be_is_refused_in_one_sentence(name, value, must):
    with pytest.raises(Complaint) as complaint:
        TrainConfig(**{name: value})
    assert str(complaint.value) == f"{name} must be {must}, got {value!r}"


def test_no_field_is_without_a_check():
    """An object of no type that a field may have."""
    for field in fields(TrainConfig):
        with pytest.raises(Complaint, match=rf"^{field.name} must be "):
            TrainConfig(**{field.name: object()})


def test_the_defaults_are_what_their_types_say():
    kinds = get_type_hints(TrainConfig, include_extras=True)
    assert not [name for name, value in vars(TrainConfig()).items() if wanted(kinds[name], value) is not None]
    assert TrainConfig(learning_rate=0, epochs=2, max_steps=1, lora_alpha=None).max_steps == 1


def test_resume_needs_a_directory():
    with pytest.raises(Complaint, match="resume needs output"):
        TrainConfig(resume=True)


@pytest.mark.parametrize("value", ["2.5", "x", "true"])
def test_the_command_line_knows_the_type_behind_the_range(value, capsys):
    assert main(["train", "--batch-size", value]) == 2
    assert "batch_size: Expected a int. Got value: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    assert "--batch_size BATCH_SIZE examples in an update, over all devices. (type: int, default: 64)" in help_text
    assert "(type: Optional[int], default: 300)" in help_text  # of max_steps
