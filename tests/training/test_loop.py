"""The loop: what an update is, what stops it, and what a run leaves behind."""

import json
import math
import os
import signal
import threading
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from parts import begun, made
from rounding import CLOSE, everything_in_float64, rounding

from pref_toolkit import train
from pref_toolkit.data import prepare
from pref_toolkit.errors import ModelError, NotFiniteError, Terminated
from pref_toolkit.losses import METHODS
from pref_toolkit.training import checkpoints, dataset, models, processes
from pref_toolkit.training.adapters import trainable
from pref_toolkit.training.models import tiny
from pref_toolkit.training.run import Run

# Policy = reference, a running mean of 0, a reward head of 0.
AT_LOG_2 = ["dpo", "cdpo", "robust_dpo", "dpop", "spin", "gpo", "f_dpo", "aot", "s_dpo", "bco", "tdpo1", "tdpo2"]
AT_LOG_2 += ["mallows_dpo", "ld_dpo", "bradley_terry", "plackett_luce"]
STEP_0 = dict.fromkeys(AT_LOG_2, math.log(2)) | {"ipo": 1 / (4 * 0.1**2), "hinge_dpo": 1.0, "kto": 0.5}


def adapters(history):
    return {name: value.detach().clone() for name, value in trainable(history.model).items()}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_starts_where_its_formula_says(method, rows_for, quick):
    history = train(*tiny(), rows_for(method), method, quick())
    assert len(history.steps) == 2
    assert all(math.isfinite(row["loss"]) for row in history.steps)
    if method in STEP_0:
        assert history.steps[0]["loss"] == pytest.approx(STEP_0[method], abs=rounding(4, STEP_0[method]))
    assert any(value.abs().max() > 0 for name, value in adapters(history).items() if "lora_B" in name)
    assert history.before["reward_accuracy"] == 0.5 and history.before["margin"] == 0.0
    assert history.after["examples"] == 2


def test_dpo_learns_to_rank_what_it_trains_on(rows, quick):
    history = train(*tiny(), rows, "dpo", quick(max_steps=25, batch_size=12, learning_rate=1e-3, held_out=0))
    assert history.steps[-1]["reward_accuracy"] > 0.9
    assert history.steps[-1]["loss"] < 0.5 < history.steps[0]["loss"]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", METHODS)
def test_an_update_does_not_depend_on_how_it_is_split(method, rows_for, quick):
    """In the second update, when policy and reference differ."""
    gradients = []
    for tokens in (10_000, 1):
        settings = {"tokens_per_forward": tokens, "batch_size": 5, "learning_rate": 1e-2, "held_out": 0, "samples": 0}
        history = train(*tiny(), rows_for(method), method, quick(**settings))
        gradients.append({name: value.grad for name, value in trainable(history.model).items()})
        assert any(gradient.norm() > 0 for gradient in gradients[-1].values())
    for name, whole in gradients[0].items():
        assert (whole - gradients[1][name]).norm() <= CLOSE * whole.norm(), name


def test_an_epoch_shows_every_example_once_and_drops_none(quick):
    config, n = quick(batch_size=5), 12
    shown = [i for step in range(12) for i in dataset.indices(step, config, n)]
    for epoch in range(5):
        assert sorted(shown[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert shown[:n] != shown[n : 2 * n]


def test_held_out_examples_are_never_trained_on(rows, quick):
    encoded, _ = prepare(rows, tiny()[1])
    training, held_out = dataset.split(encoded, quick(held_out=4))
    assert len(held_out) == 4
    assert {e.where for e in training} | {e.where for e in held_out} == {e.where for e in encoded}
    assert not {e.where for e in training} & {e.where for e in held_out}


def test_a_weight_that_is_not_finite_stops_before_the_first_step(rows, quick):
    model, tokenizer = tiny()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = math.nan
    with pytest.raises(NotFiniteError, match=r"model\.layers\.1\.mlp\.up_proj\.weight.*before the first step"):
        train(model, tokenizer, rows, config=quick())


def test_a_run_that_diverges_stops_and_saves_nothing_broken(rows, quick, tmp_path):
    config = quick(output=str(tmp_path), learning_rate=1e20, save_every=1, max_steps=9)
    with pytest.raises(NotFiniteError, match=r"step \d: .*not finite"):
        train(*tiny(), rows, config=config)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    "save_every, told", [(1, r"step 1: weight '.*lora_B.*' is not finite"), (9, "step 2: the loss of dataset:")]
)
def test_a_weight_that_breaks_is_never_saved(save_every, told, rows, quick, tmp_path):
    config = quick(output=str(tmp_path), save_every=save_every, samples=0)
    with pytest.raises(NotFiniteError, match=told), Run.open(config) as run:
        policy, trainer, data = begun(run, rows)
        for step in run.steps(9, policy=policy, trainer=trainer):
            run.log(step, trainer.update(data.batch(step), config.rate(step)))
            if step == 1:
                next(w for name, w in policy.weights().items() if "lora_B" in name).data.fill_(math.nan)
    saved = checkpoints.newest(tmp_path / "checkpoints")
    assert (saved.step if saved else 0) == (1 if save_every == 1 else 0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", ["dpo", "kto", "bco", "aot"])
def test_out_of_memory_halves_the_forward_and_keeps_the_update(method, rows_for, quick, caplog):
    settings = quick(max_steps=1, held_out=0, samples=0)
    expected = {n: w.grad for n, w in trainable(train(*tiny(), rows_for(method), method, settings).model).items()}

    def short_of_memory(scorer, inputs):
        if inputs[0].tokens.shape[0] > 1:
            raise torch.cuda.OutOfMemoryError("no room")

    policy, trainer, data = made(rows_for(method), method, settings)
    policy.scorer().register_forward_pre_hook(short_of_memory)
    trainer.update(data.batch(0), settings.rate(0))
    assert "going on with" in caplog.text
    for name, value in trainable(policy.model).items():
        assert (value.grad - expected[name]).norm() <= CLOSE * expected[name].norm(), name


@pytest.mark.parametrize(("forward_tokens", "times"), [(100_000, 2), (150, 4)])
def test_losses_that_depend_on_one_another_are_scored_twice_only_if_they_must(forward_tokens, times, rows, quick):
    """Policy and reference: once each where an update goes in one forward, else before and with the gradient."""
    seen = Counter()
    settings = quick(max_steps=1, held_out=0, samples=0, tokens_per_forward=forward_tokens)
    policy, trainer, data = made(rows, "aot", settings)
    count = lambda scorer, inputs: seen.update([tuple(inputs[0].tokens.flatten().tolist())])
    policy.scorer().register_forward_pre_hook(count)
    trainer.update(data.batch(0), settings.rate(0))
    assert set(seen.values()) == {times}


def test_a_process_whose_values_are_not_finite_stops_all(monkeypatch):
    accelerator = SimpleNamespace(num_processes=2, distributed_type=None)
    monkeypatch.setattr(
        processes, "all_gather", lambda _, mine: [*mine, (NotFiniteError, "step 3: a row is not finite")]
    )
    with pytest.raises(NotFiniteError, match="step 3: a row"):
        processes.agreed(accelerator, lambda: "well")


def test_sigterm_saves_a_checkpoint_and_exits_143(rows, quick, tmp_path):
    config = quick(output=str(tmp_path))
    with pytest.raises(Terminated) as stopped, Run.open(config) as run:
        policy, trainer, data = begun(run, rows)
        for step in run.steps(9, policy=policy, trainer=trainer):
            run.log(step, trainer.update(data.batch(step), config.rate(step)))
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == 143
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    history = train(*tiny(), rows, config=quick(output=str(tmp_path), max_steps=5, resume=True))
    assert [row["step"] for row in history.steps] == list(range(5))


def test_training_works_outside_the_main_thread(rows, quick):
    results = []
    thread = threading.Thread(target=lambda: results.append(train(*tiny(), rows, config=quick())))
    thread.start()
    thread.join()
    assert len(results[0].steps) == 2


def test_a_run_leaves_everything_needed_to_repeat_it(rows, quick, tmp_path):
    history = train(*tiny(), rows, "simpo", quick(output=str(tmp_path), max_steps=3), gamma=0.5)
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert written == json.loads(json.dumps(history.steps))
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["identity"]["method"] == "simpo"
    assert facts["identity"]["hyperparameter gamma"] == 0.5 and facts["identity"]["hyperparameter beta"] == 2.0
    assert facts["config"]["max_steps"] == 3 and facts["before"] == history.before and facts["after"] == history.after
    samples = json.loads((tmp_path / "samples.json").read_text())
    assert len(samples) == 1 and set(samples[0]) == {"prompt", "before", "after"}


def test_a_second_run_does_not_overwrite_the_first(rows, quick, tmp_path):
    train(*tiny(), rows, config=quick(output=str(tmp_path)))
    with pytest.raises(ValueError, match="already holds a run"):
        train(*tiny(), rows, config=quick(output=str(tmp_path)))


def test_a_saved_adapter_loads_on_its_base_and_on_no_other(rows, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "tiny", tiny)
    history = train("tiny", None, rows, config=quick(output=str(tmp_path), learning_rate=1e-2))
    loaded, tokenizer = models.load(str(tmp_path))
    ids = torch.tensor([tokenizer("what now")["input_ids"]])
    with everything_in_float64(), torch.no_grad():
        one, other = (model.eval().double()(ids).logits for model in (history.model, loaded))
    assert (one - other).norm() <= CLOSE * one.norm()

    def another():
        model, tokenizer = tiny()
        model.lm_head.weight.data[0, 0] += 1
        return model, tokenizer

    monkeypatch.setattr(models, "tiny", another)
    with pytest.raises(ModelError, match="other weights than those of 'tiny'"):
        models.load(str(tmp_path))


def test_an_adapter_that_would_move_the_reference_is_refused(rows, quick):
    from peft import LoraConfig, get_peft_model

    for options in ({"bias": "all"}, {"init_lora_weights": "olora"}):
        model, tokenizer = tiny()
        config = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", **options)
        with pytest.warns(FutureWarning):  # peft reads a name that transformers has renamed
            policy = get_peft_model(model, config)
        with pytest.raises(ModelError, match="change the reference"):
            train(policy, tokenizer, rows, config=quick())


def test_more_tokens_than_the_model_has_positions_are_refused(rows, quick):
    model, tokenizer = tiny()
    model.config.max_position_embeddings = 20
    with pytest.raises(ModelError, match=r"dataset:\d+: \d+ tokens .* has 20 positions: set max_length"):
        train(model, tokenizer, rows, config=quick())


def test_bad_settings_are_said_in_one_sentence(rows, quick):
    with pytest.raises(ValueError, match="did you mean 'dpo'"):
        train(*tiny(), rows, "dppo", quick())
    with pytest.raises(ValueError, match="did you mean 'beta'"):
        train(*tiny(), rows, "dpo", quick(), bta=1)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        quick(batch_size=0)
    with pytest.raises(ValueError, match="resume needs output"):
        quick(resume=True)
