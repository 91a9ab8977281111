"""A mixture: the weighted sum of its parts on the same records, as a function and as a run."""

import json

import numpy as np
import pytest
import torch
from parts import made, updates
from rounding import CLOSE

from pref_toolkit import lab, losses, train
from pref_toolkit.cli import main
from pref_toolkit.data import DataError
from pref_toolkit.errors import Complaint
from pref_toolkit.lab import defaults
from pref_toolkit.logps import Logps
from pref_toolkit.losses import METHODS, find
from pref_toolkit.training.models import tiny
from pref_toolkit.training.objective import INPUTS

EXACT = {"rtol": 1e-12, "atol": 1e-12}
MPO = "dpo+bco+sft"
WEIGHTS = [0.8, 0.2, 1.0]
BETAS = {"dpo_beta": 0.3, "bco_beta": 0.2}
BRIEF = ["--max-steps=2", "--batch-size=4", "--held-out=2", "--samples=1", "--sample-tokens=4", "--lora-rank=2"]


def pairs(b=5):
    """Policy and reference on random pairs."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(b, 2, generator=generator, dtype=torch.float64) * 3 - 20
    tokens = torch.randint(1, 9, (b, 2), generator=generator)
    return Logps(draw().requires_grad_(), tokens), Logps(draw(), tokens)


def in_numpy(policy, reference, shift):
    """0.8 DPO + 0.2 (BCO of the chosen as a desirable and of the rejected as an undesirable answer) + SFT of the chosen."""
    under_policy = policy.sums.detach().numpy()
    rho = under_policy - reference.sums.numpy()
    minus_log_sigmoid = lambda x: np.log1p(np.exp(-x))
    dpo = minus_log_sigmoid(0.3 * (rho[:, 0] - rho[:, 1]))
    bco = minus_log_sigmoid(0.2 * rho[:, 0] - shift) + minus_log_sigmoid(-(0.2 * rho[:, 1] - shift))
    return 0.8 * dpo + 0.2 * bco - under_policy[:, 0]


def test_the_value_is_the_formula_in_numpy():
    policy, reference = pairs()
    loss = find(MPO, WEIGHTS).loss(
        policy=policy, reference=reference, shift=torch.tensor(0.4, dtype=torch.float64), **BETAS
    )
    np.testing.assert_allclose(loss.detach().numpy(), in_numpy(policy, reference, 0.4), **EXACT)


def test_value_and_gradient_are_the_weighted_sums_of_the_parts():
    policy, reference = pairs()
    one = lambda record, k: Logps(record.sums[:, [k]], record.tokens[:, [k]])
    yes, shift = torch.ones(5, dtype=torch.bool), torch.tensor(0.4, dtype=torch.float64)
    kl = torch.tensor([0.5, 1.5]).double()
    parts = [
        losses.dpo(policy, reference, beta=0.3),
        losses.bco(one(policy, 0), one(reference, 0), yes, shift, beta=0.2)
        + losses.bco(one(policy, 1), one(reference, 1), ~yes, shift, beta=0.2),
        losses.sft(policy),
        losses.kto(one(policy, 0), one(reference, 0), yes, kl, beta=0.1)
        + losses.kto(one(policy, 1), one(reference, 1), ~yes, kl, beta=0.1),
    ]
    mixture = find(f"{MPO}+kto", [*WEIGHTS, 0.5])
    own = mixture.check(**BETAS)
    loss = mixture.loss(policy=policy, reference=reference, shift=shift, kl=kl, **own)
    expected = sum(weight * part for weight, part in zip([*WEIGHTS, 0.5], parts))
    torch.testing.assert_close(loss, expected, **EXACT)
    gradients = [torch.autograd.grad(value.sum(), policy.sums)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, **EXACT)
    assert gradients[0].abs().min() > 0


def test_its_facts_are_those_of_its_parts():
    mixture = find(MPO, WEIGHTS)
    assert mixture.name == MPO and mixture.weights == (0.8, 0.2, 1.0)
    assert mixture.needs == ("policy", "reference", "shift") and mixture.optional == ("target",)
    assert mixture.hyperparameters["dpo_beta"] == METHODS["dpo"].hyperparameters["beta"]
    assert mixture.hyperparameters["bco_beta"] == METHODS["bco"].hyperparameters["beta"]
    assert mixture.formula.startswith("0.8 (-log sigmoid(dpo_beta D)) + 0.2 sum_{w, l}(-log sigmoid(s (bco_beta rho")
    assert all(METHODS[part].paper in mixture.paper for part in MPO.split("+"))
    assert not mixture.batchwise and find("dpo+aot").batchwise
    assert find("dpo+sft").weights == (1.0, 1.0)
    # Labelled answers stay what they are where every part reads them.
    assert "desirable" in find("kto+bco").needs and "desirable" not in find("kto+sft").needs
    assert MPO not in METHODS


def test_no_two_hyperparameters_of_a_mixture_have_one_name():
    named = [f"{name}_{own}" for name, method in METHODS.items() for own in method.hyperparameters]
    assert len(named) == len(set(named))


MISTAKES = {
    "unknown part": (("dpo+sff", None), "no method 'sff': did you mean 'sft'"),
    "a part twice": (("dpo+dpo", None), "names 'dpo' twice"),
    "two weights for three": ((MPO, [1, 1]), "wants 3 weights, one for each part, got 2"),
    "a negative weight": ((MPO, [0.8, -0.2, 1]), "must be a finite number >= 0, got -0.2"),
    "a weight that is no number": ((MPO, [0.8, float("nan"), 1]), "must be a finite number >= 0, got nan"),
    "weights without a mixture": (("dpo", [1]), "'dpo' is one method"),
    "a reward model and a policy": (
        ("dpo+bradley_terry", None),
        "'bradley_terry' trains a reward model and 'dpo' a policy",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_one_sentence(mistake):
    (name, weights), sentence = MISTAKES[mistake]
    with pytest.raises(Complaint) as refusal:
        find(name, weights)
    assert sentence in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_hyperparameter_must_be_a_part_s_and_in_its_range():
    with pytest.raises(Complaint, match=r"no hyperparameter 'beta': did you mean '\w+_beta'"):
        find(MPO).check(beta=0.1)
    with pytest.raises(Complaint, match=r"'bco_beta' of method 'dpo\+bco\+sft' must be a finite number > 0"):
        find(MPO).check(bco_beta=0)


def test_rankings_are_refused_by_the_part_that_reads_pairs(quick):
    ranked = [{"prompt": f"q{i}", "responses": ["a", "b", "c"], "scores": [3, 2, 1]} for i in range(6)]
    with pytest.raises(DataError, match="K=2"):
        train(*tiny(), ranked, "bco+sft", quick())
    assert len(train(*tiny(), ranked, "s_dpo+sft", quick()).steps) == 2


def test_a_reward_mixture_trains_a_reward_head(rows_for, quick):
    assert train(*tiny(), rows_for("bradley_terry"), "bradley_terry+plackett_luce", quick()).reward_head is not None


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", [MPO, "dpo+kto", "wpo+sft", "aot+sft", "tdpo2+sft"])
def test_an_update_does_not_depend_on_how_it_is_split(method, rows, quick):
    """With a target in every other row, in the second update, when policy and reference differ."""
    given = [row | ({"target": "something else"} if i % 2 else {}) for i, row in enumerate(rows)]
    gradients = []
    for tokens in (10_000, 1):
        settings = {"tokens_per_forward": tokens, "batch_size": 5, "learning_rate": 1e-2, "held_out": 0}
        _, trainer, data = made(given, method, quick(**settings))
        for _ in updates(trainer, data, 2):
            last = {name: weight.grad.clone() for name, weight in trainer.weights.items()}
        gradients.append(last)
    for name, whole in gradients[0].items():
        assert (whole - gradients[1][name]).norm() <= CLOSE * whole.norm(), name


@pytest.mark.usefixtures("float64")
def test_a_run_s_losses_are_the_weighted_sums_and_the_shift_counts_both_answers(rows, quick):
    given = [row | {"target": "something else"} for row in rows]
    _, trainer, data = made(given, "dpo+bco+sft", quick(learning_rate=1e-2), bco_beta=0.3)
    seen, shifts = [], []
    for update in updates(trainer, data, 3):
        s = update.scored
        shift = trainer.whole_update["shift"].value(s.examples)
        shifts.append((shift.item(), sum(seen) / max(1, len(seen))))
        policy, reference = s.logps(s.policy), s.logps(s.reference)
        beta = trainer.objective.settings["dpo_beta"]
        dpo = losses.dpo(policy, reference, beta=beta)
        rho = 0.3 * (policy.sums - reference.sums) - shift
        bco = -torch.nn.functional.logsigmoid(rho * torch.tensor([1.0, -1.0])).sum(1)
        torch.testing.assert_close(update.losses, dpo + bco - s.policy["sums"][:, 2], rtol=CLOSE, atol=CLOSE)
        seen += (0.3 * (s.policy["sums"] - s.reference["sums"])[:, :2]).flatten().tolist()
    assert shifts[2][0] == pytest.approx(shifts[2][1], rel=CLOSE) and shifts[2][0] != 0


def test_kto_in_a_mixture_sees_both_answers_of_mismatched_pairs(rows, quick):
    _, trainer, data = made(rows, "dpo+kto", quick())
    next(updates(trainer, data, 1))
    assert trainer.whole_update["kl"].ratios.numel() == 2 * 4


def test_a_target_is_refused_beside_responses_that_are_cut(rows, quick):
    given = [row | {"target": "x"} for row in rows]
    name = next(name for name, m in METHODS.items() if "first_sums" in {INPUTS[n].policy for n in m.needs})
    with pytest.raises(DataError, match="take field 'target' out"):
        train(*tiny(), given, f"{name}+sft", quick())
    assert len(train(*tiny(), rows, f"{name}+sft", quick()).steps) == 2


def facts(run):
    return json.loads((run / "run.json").read_text())


def test_the_command_line_trains_resumes_and_evaluates_it_on_pairs(rows, tmp_path, capsys):
    data, run = tmp_path / "rows.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [
        "train",
        "--method",
        MPO,
        "--weights",
        ".8,.2,1",
        "--dpo-beta",
        "0.3",
        "--model",
        "tiny",
        "--data",
        str(data),
    ]
    given += ["--output", str(run), *BRIEF]
    assert main(["check-data", str(data), "--method", MPO]) == 0
    assert main(given) == 0
    identity = facts(run)["identity"]
    assert identity["method"] == MPO and identity["hyperparameter dpo_beta"] == 0.3
    assert [identity[f"weight of {part}"] for part in MPO.split("+")] == WEIGHTS
    assert "weight of bco" in (run / "report.html").read_text()
    assert main([*given, "--resume", "--max-steps", "3"]) == 0
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2]
    capsys.readouterr()
    assert main([*given, "--resume", "--weights", "1,.2,1"]) == 2
    assert "weight of dpo: 0.8 -> 1.0" in capsys.readouterr().err
    assert main(["evaluate", "--model", str(run), "--data", str(data)]) == 0
    assert "reward_accuracy" in capsys.readouterr().out


def test_a_file_may_list_the_weights(rows, tmp_path):
    data, run, file = tmp_path / "rows.jsonl", tmp_path / "run", tmp_path / "run.yaml"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file.write_text(f"method: {MPO}\nweights: [0.8, 0.2, 1]\nbco_beta: 0.5\nmodel: tiny\ndata: {data}\n")
    assert main(["train", "--config", str(file), "--output", str(run), *BRIEF]) == 0
    identity = facts(run)["identity"]
    assert [identity[f"weight of {part}"] for part in MPO.split("+")] == WEIGHTS
    assert identity["hyperparameter bco_beta"] == 0.5


def test_it_trains_in_the_lab_with_the_lab_s_hyperparameters(tmp_path, monkeypatch):
    monkeypatch.setattr(defaults, "PAIRS", 40)
    monkeypatch.setattr(lab, "evaluate", lambda *given, real=lab.evaluate, **named: real(*given, **named | {"n": 20}))
    run = tmp_path / "run"
    assert main(["train", "--method", MPO, "--weights", ".8,.2,1", *BRIEF, "--output", str(run)]) == 0
    made_by = facts(run)
    assert made_by["identity"]["hyperparameter dpo_beta"] == defaults.METHODS["dpo"]["beta"]
    assert made_by["identity"]["weight of bco"] == 0.2 and made_by["lab"]["n"] == 20


@pytest.mark.parametrize(
    "given, sentence",
    [
        (["--method", MPO, "--weights", "a,b,c"], "weights are numbers with commas between them"),
        (["--method", MPO, "--weights", ".8,.2"], "wants 3 weights"),
        (["--weights", "1"], "'dpo' is one method"),
        (["--method", MPO, "--dpo-bta", "1"], "did you mean 'dpo_beta'"),
    ],
)
def test_a_mistake_on_the_command_line_leaves_nothing(given, sentence, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", *given, "--output", str(run)]) == 2
    assert sentence in capsys.readouterr().err and not run.exists()


def test_the_help_of_methods_says_that_names_can_be_joined(capsys):
    with pytest.raises(SystemExit) as leave:
        main(["--help"])
    assert leave.value.code == 0
    assert "Names joined by + make a mixture" in " ".join(capsys.readouterr().out.split())
