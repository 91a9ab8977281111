"""Which loop reads which setting: one that it reads changes its run, and it refuses the others."""

from dataclasses import fields

import pytest
import torch

from pref_toolkit.cli import main
from pref_toolkit.errors import Complaint
from pref_toolkit.loops.config import LoopConfig
from pref_toolkit.loops.presets import LOOPS, settings_of
from pref_toolkit.loops.train import train
from pref_toolkit.training.config import TrainConfig
from pref_toolkit.training.models import tiny

ROWS = [{"prompt": f"{n} + 1 =", "chosen": f"{n + 1}", "rejected": f"{n}"} for n in range(8)]
turned = lambda row: {"prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]}
# Neither module of a pair stays ahead on the first stream. The first pair of the second says the contrary of the others.
CONTRARY = [*ROWS[:4], *map(turned, ROWS[:4])]
OTHER = [{"prompt": f"{n} + 1 =", "chosen": "many", "rejected": f"{n + 1}"} for n in range(8)]
OTHER[0] = turned(OTHER[0])
ONLINE = ["online_dpo", "online_ipo", "ipo_md"]
JUDGED_ROUNDS = ["iterative_dpo", "iterative_sppo", "iterative_click", "rerank", "rso"]
SELF = ["self_play", "generations"]
GRADIENTS = ["reinforce", "remax", "rloo", "grpo"]
CHASED = ["ofs_dpo", "cofs_dpo"]
ASKING = [*ONLINE, *JUDGED_ROUNDS, *GRADIENTS]
# Setting: a value that is no loop's default, and who reads it, in the order of LOOPS.
SETTINGS = {
    "answers": (3, ASKING),
    "temperature": (0.5, [*ONLINE, *JUDGED_ROUNDS, *SELF]),
    "mixture": (0.5, [*ONLINE, "rerank"]),
    "rounds": (4, [*JUDGED_ROUNDS, *SELF]),
    "last_lam": (5.0, ["self_play"]),
    "kept": (3, ["rso"]),
    "acceptance": (50.0, ["rso"]),
    "greedy": (None, ["reinforce", "remax"]),
    "updates": (2, GRADIENTS),
    "slow_rate": (0.9, CHASED),
    "exchange_every": (1, CHASED),
    "memory": (1, ["cofs_dpo"]),
    "judge": ("my_judges:longest", ASKING),
    "judge_limit": (1.0, ASKING),
}
CASES = [(name, setting) for name in LOOPS for setting in SETTINGS]
READ = [case for case in CASES if case[0] in SETTINGS[case[1]][1]]


def other(name, setting):
    """A value that is not the loop's default."""
    value = SETTINGS[setting][0]
    return not settings_of(name).greedy if setting == "greedy" else value


def test_every_setting_is_in_the_table():
    assert [field.name for field in fields(LoopConfig)] == [*SETTINGS]


@pytest.mark.parametrize("name, setting", [case for case in CASES if case not in READ])
def test_a_setting_that_is_not_read_is_refused(name, setting):
    readers = ", ".join(SETTINGS[setting][1])
    sentence = f"^{name} does not read {setting}, which is a setting of {readers}$"
    value = other(name, setting)
    with pytest.raises(Complaint, match=sentence):
        settings_of(name, **{setting: value})
    with pytest.raises(Complaint, match=sentence):  # made without settings_of
        train("tiny", None, ROWS, name, None, None, LoopConfig(**{**LOOPS[name].settings, setting: value}))
    assert settings_of(name, **{setting: getattr(settings_of(name), setting)}) == settings_of(name)


def scores(prompts, answers):
    return [[len(set(a)) + len(a) / 10 for a in own] for own in answers]


def run(name, **given):
    """The weights after a few updates."""
    steps = {"ofs_dpo": 12, "cofs_dpo": 24}.get(name, 4)
    short = {"batch_size": 2, "lora_rank": 2, "learning_rate": 1e-2, "sample_tokens": 4, "samples": 0, "held_out": 0}
    rows = {"ofs_dpo": CONTRARY, "cofs_dpo": [CONTRARY, OTHER]}.get(name, ROWS)
    judge = scores if LOOPS[name].asks else None
    settings = settings_of(name, **({"exchange_every": 2} if name in CHASED else {}) | given)
    policy = train(*tiny(), rows, name, judge, TrainConfig(**short, max_steps=steps), settings).policy
    return {n: w.detach().clone() for n, w in policy.weights().items()}


@pytest.fixture(scope="module")
def as_they_are():
    return {}


@pytest.mark.parametrize("name, setting", [case for case in READ if not case[1].startswith("judge")])
def test_a_setting_that_is_read_changes_the_run(name, setting, as_they_are):
    if name not in as_they_are:
        as_they_are[name] = run(name)
    one, two = as_they_are[name], run(name, **{setting: other(name, setting)})
    assert any(not torch.equal(one[n], two[n]) for n in one)


def test_a_judge_s_settings_are_read_by_whoever_asks():
    """That they change a run: ``test_a_reward_model_is_a_judge`` and ``test_loop_commands``."""
    for setting in ("judge", "judge_limit"):
        assert [name for name, loop in LOOPS.items() if setting in loop.reads] == ASKING
    assert [name for name, loop in LOOPS.items() if loop.asks] == ASKING


def test_the_command_line_refuses_before_it_draws(tmp_path, capsys):
    output = tmp_path / "run"
    assert main(["train", "--method=ofs_dpo", "--kept=3", f"--output={output}"]) == 2
    assert capsys.readouterr().err == "pref-toolkit: ofs_dpo does not read kept, which is a setting of rso\n"
    assert not output.exists()
