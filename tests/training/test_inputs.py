"""What a loss is given, against its definition computed one row at a time; and which rows are refused."""

import json
import math
from dataclasses import replace

import pytest
import torch
from parts import asked_of_the_reference, made, updates
from rounding import CLOSE
from safetensors.torch import load_file
from small import SHAPES, SMALL, examples_of, model_of
from transformers import CohereConfig

from pref_toolkit import train
from pref_toolkit.cli import main
from pref_toolkit.data import DataError
from pref_toolkit.data.tokens import Encoded
from pref_toolkit.errors import ModelError, NotFiniteError
from pref_toolkit.losses import LOOP_LOSSES, METHODS
from pref_toolkit.training import adapters, head, models
from pref_toolkit.training.adapters import trainable, with_adapters
from pref_toolkit.training.models import tiny
from pref_toolkit.training.modes import reference
from pref_toolkit.training.objective import INPUTS
from pref_toolkit.training.scoring import Scorer
from pref_toolkit.training.whole_update import mismatched


def policy_of(shape="llama"):
    """A policy away from its reference."""
    policy = with_adapters(model_of(SHAPES[shape]), rank=4, alpha=None, dropout=0.0)
    torch.manual_seed(3)
    for weight in trainable(policy).values():
        torch.nn.init.normal_(weight, std=0.1)
    return policy


def distributions(model, example, response):
    """``(T, V)`` next-token log-probabilities at a response's positions, from one unpadded sequence, in float64."""
    logits = model(input_ids=torch.tensor([example.prompt + response])).logits[0].double()
    start = len(example.prompt) - 1
    return logits[start : start + len(response)].log_softmax(-1)


DEFINITIONS = {
    "sums": lambda p, r, y, n: sum(p[t, y[t]] for t in range(len(y))),
    "first_sums": lambda p, r, y, n: sum(p[t, y[t]] for t in range(n)),
    "entropies": lambda p, r, y, n: -(p.exp() * p).sum(),
    "log_weights": lambda p, r, y, n: (
        sum(p[t, y[t]] - (p[t].exp() ** 2).sum().log() for t in range(len(y))).detach() / len(y)
    ),
    "sequence_kls": lambda p, r, y, n: (r.exp() * (r - p)).sum(),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("route", ["segments", "mask", "rows"])
@pytest.mark.parametrize("reading", DEFINITIONS)
def test_readings_are_their_definitions_and_so_are_their_gradients(reading, route, monkeypatch):
    """In chunks of seven positions, so that chunks end inside responses."""
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", {"cpu": 7 * 61})
    policy, examples, weight = policy_of(), examples_of(2), torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.0, 1.0]])
    expected = []
    for example in examples:
        shortest = min(len(y) for y in example.responses)
        for y in example.responses:
            with reference(policy):
                r = distributions(policy, example, y)
            expected.append(DEFINITIONS[reading](distributions(policy, example, y), r, y, shortest))
    expected = torch.stack(expected).view(3, 2)
    if expected.requires_grad:
        (expected * weight).sum().backward()
    gradients = {name: value.grad.clone() for name, value in trainable(policy).items() if value.grad is not None}
    policy.zero_grad()

    scorer = Scorer(policy, 64, route)
    batch = scorer.collate(examples)
    with reference(policy):
        hidden = scorer(batch, ["hidden"])["hidden"]
    value = scorer(batch, [reading], hidden if reading == "sequence_kls" else None)[reading]
    assert torch.allclose(value, expected, rtol=CLOSE, atol=CLOSE)
    assert value.requires_grad == expected.requires_grad == (reading != "log_weights")
    if value.requires_grad:
        (value * weight).sum().backward()
        for name, parameter in trainable(policy).items():
            assert (parameter.grad - gradients[name]).norm() <= CLOSE * gradients[name].norm(), name


def test_whole_distributions_exist_a_chunk_at_a_time(monkeypatch):
    """No tensor of more than a chunk's logits is made, nor kept for the gradient."""
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", {"cpu": 4 * 61})
    policy, examples = policy_of(), examples_of(2, n=6)
    scorer = Scorer(policy, 64)
    batch = scorer.collate(examples)
    with reference(policy):
        hidden = scorer(batch, ["hidden"])["hidden"]
    made, kept = [], []
    policy.get_output_embeddings().register_forward_hook(lambda module, given, out: made.append(out.shape[-2]))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        value = scorer(batch, ["sums", "sequence_kls"], hidden)["sequence_kls"]
    assert len(batch.scored) > 12 and max(made) == 4
    assert not [shape for shape in kept if shape[-1:] == (61,) and len(shape) > 1 and shape[-2] != 32]
    value.sum().backward()
    assert max(made) == 4


def test_a_model_that_changes_its_logits_behind_the_head_is_refused():
    with pytest.raises(ModelError, match="cohere changes its logits after the output layer"):
        Scorer(model_of(CohereConfig(**SMALL, logit_scale=0.5, pad_token_id=0)), 64).check_head()
    Scorer(model_of(SHAPES["llama"]), 64).check_head()


# Mismatched pairs


def test_partners_are_from_another_prompt_and_never_their_own_answer():
    update = [
        Encoded([1, p], [[9, y]], where=f"row {i}") for i, (p, y) in enumerate([(1, 1), (1, 2), (2, 2), (3, 1), (3, 3)])
    ]
    pairs = mismatched(update, longest=64)
    assert [(p.prompt[1], p.responses[0][1]) for p in pairs] == [(1, 2), (1, 1), (2, 1), (3, 2), (3, 1)]
    for own, pair in zip(update, pairs):
        assert pair.prompt == own.prompt and pair.responses != own.responses
        assert any(pair.responses == other.responses and other.prompt != own.prompt for other in update)
    assert [len(p.responses[0]) for p in mismatched(update, longest=3)] == [1] * 5


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if "kl" in m.needs])
def test_an_update_of_one_prompt_is_refused(method, quick):
    rows = [{"prompt": "q", "completion": f"answer {i}", "label": i % 2 == 0} for i in range(6)]
    with pytest.raises(DataError, match="raise batch_size"):
        train(*tiny(), rows, method, quick(held_out=0))


@pytest.mark.usefixtures("float64")
def test_the_whole_update_s_mismatched_pairs_make_the_kl(rows_for, quick):
    """However the update is split, each loss sees one and the same mean, which is that of the definition."""
    name = next(name for name, m in METHODS.items() if "kl" in m.needs)
    settings = {"batch_size": 5, "learning_rate": 1e-2, "held_out": 0}
    by_step = []
    for tokens in (1, 10_000):
        _, trainer, data = made(rows_for(name), name, quick(tokens_per_forward=tokens, **settings))
        for update in updates(trainer, data, 2):
            kl = trainer.whole_update["kl"].value(update.scored.examples)
            assert not kl.requires_grad
            expected = trainer.objective.loss(replace(update.scored, batch_stats={"kl": kl}))
            assert torch.allclose(update.losses, expected, rtol=CLOSE)
            by_step.append(kl)
    assert len(by_step) == 4 and all(len(kl) == 5 for kl in by_step)
    assert torch.equal(by_step[0], torch.zeros(5)) and by_step[1].abs().min() > 0
    assert torch.allclose(by_step[1], by_step[3], rtol=CLOSE, atol=CLOSE)


# Running mean


@pytest.mark.usefixtures("float64")
def test_the_running_means_count_every_answer_once(rows_for, quick):
    """One mean for each label, over the updates before; their mean is the shift, however many answers each kind has."""
    name = next(name for name, m in METHODS.items() if "shift" in m.needs)
    rewards, shifts = {True: [], False: []}, []
    _, trainer, data = made(rows_for(name), name, quick(learning_rate=1e-2, tokens_per_forward=40))
    beta = trainer.objective.settings["beta"]
    for update in updates(trainer, data, 4):
        scored = update.scored
        shift = trainer.whole_update["shift"].value(scored.examples)
        expected = trainer.objective.loss(replace(scored, batch_stats={"shift": shift}))
        assert torch.allclose(update.losses, expected, rtol=CLOSE)
        shifts.append((shift.item(), sum(sum(kind) / max(1, len(kind)) for kind in rewards.values()) / 2))
        for example, reward in zip(scored.examples, beta * (scored.policy["sums"] - scored.reference["sums"])[:, 0]):
            rewards[bool(example.desirable)].append(reward.item())
    assert sum(map(len, rewards.values())) == 16 and shifts[0] == (0.0, 0.0) and shifts[3][0] != 0
    assert len(rewards[True]) != len(rewards[False])  # or one mean over all answers would be the same number
    for used, expected in shifts:
        assert used == pytest.approx(expected, rel=CLOSE)


# Dispersion


@pytest.mark.usefixtures("float64")
def test_dispersion_is_the_reference_s_and_has_mean_one(rows, quick):
    name = next(name for name, m in METHODS.items() if "dispersion" in m.needs)
    _, trainer, data = made(rows, name, quick(held_out=0))
    trainer.prepare(data.training)
    kept = dict(zip([e.where for e in data.training], trainer.whole_update["dispersion"].value(data.training).tolist()))
    model, tokenizer = tiny()
    raw = {}
    for i, row in enumerate(rows, start=1):
        prompt = tokenizer(row["prompt"])["input_ids"]
        answers = [tokenizer(row[c], add_special_tokens=False)["input_ids"] + [2] for c in ("chosen", "rejected")]
        log_ps = [distributions(model, Encoded(prompt, [], where=""), y) for y in answers]
        entropies = [-(log_p.exp() * log_p).sum(-1).mean().item() for log_p in log_ps]  # of each response by itself
        raw[f"dataset:{i}"] = -math.log(sum(entropies) / 2 / math.log(len(tokenizer)))
    mean = sum(raw.values()) / len(raw)
    assert kept == pytest.approx({where: value / mean for where, value in raw.items()}, rel=CLOSE)
    assert sum(kept.values()) / 12 == pytest.approx(1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("store", [False, True])
def test_one_pass_over_the_reference_gives_dispersion_and_sums(store, rows, quick, tmp_path):
    name = next(name for name, m in METHODS.items() if "dispersion" in m.needs)
    settings = {"learning_rate": 1e-2, "max_steps": 4, "held_out": 0, "samples": 0}
    if store:
        settings["reference_store"] = str(tmp_path)
    losses = []
    for live in (False, True):
        policy, trainer, data = made(rows, name, quick(**settings))
        asked = asked_of_the_reference(policy)
        trainer.prepare(data.training)
        told = len(asked)
        assert all(names == ["sums", "entropies"] for *names, _ in asked)
        assert sum(n for *_, n in asked) == (0 if live and store else 12)
        trainer.stored = not live
        losses.append([update.losses.mean().item() for update in updates(trainer, data, 4)])
        assert asked[told:] == ([("sums", 4)] * 4 if live else [])
    assert losses[0] == pytest.approx(losses[1], rel=CLOSE)


# Targets


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if "target" in m.optional])
def test_a_target_of_the_row_is_the_supervised_response(method, rows, quick):
    """The chosen response as target changes nothing; another one changes loss and gradient."""
    losses = {}
    for kind, target in {"none": None, "chosen": "chosen", "other": "rejected"}.items():
        given = [row | ({"target": row[target]} if target else {}) for row in rows]
        losses[kind] = [row["loss"] for row in train(*tiny(), given, method, quick(learning_rate=1e-3)).steps]
    assert losses["none"] == pytest.approx(losses["chosen"], rel=CLOSE)
    assert abs(losses["other"][0] - losses["none"][0]) > 1e-3


def test_mixed_rows_with_and_without_target_train(rows, quick):
    method = next(name for name, m in METHODS.items() if "target" in m.optional)
    given = [row | ({"target": "something else"} if i % 2 else {}) for i, row in enumerate(rows)]
    assert len(train(*tiny(), given, method, quick()).steps) == 2


def with_long_target(rows):
    return [row | ({"target": "y" * 59} if i == 5 else {}) for i, row in enumerate(rows)]  # and EOS


@pytest.mark.parametrize("scaled", [True, False])
def test_a_head_that_cannot_be_read_in_parts_is_reported(scaled, rows, quick, caplog):
    """All logits at once are gigabytes where the vocabulary is large."""
    model, tokenizer = tiny()
    if scaled:
        model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0] * 1.001,))
    train(model, tokenizer, rows, "dpo", quick(held_out=0, samples=0, max_steps=1))
    assert ("all logits of a forward are in memory at once" in caplog.text) == scaled


@pytest.mark.parametrize("method, route", [("slic_hf", "rows"), ("click", "rows"), ("dpo", "segments")])
def test_a_target_counts_among_the_longest_where_it_is_read(method, route, quick, caplog):
    rows = with_long_target([{"prompt": f"q{i}", "chosen": "yes", "rejected": "no"} for i in range(12)])
    model, tokenizer = tiny()
    model.config.sliding_window = 16
    train(model, tokenizer, rows, method, quick(held_out=0, samples=0, max_steps=1))
    assert (f"slower route 'rows': {2 + 1 + 60} tokens" in caplog.text) == (route == "rows")


@pytest.mark.parametrize("method", ["slic_hf", "dpo"])
def test_a_target_longer_than_the_model_s_positions_is_refused_where_it_is_read(method, quick):
    rows = with_long_target([{"prompt": f"q{i}", "chosen": "yes", "rejected": "no"} for i in range(12)])
    model, tokenizer = tiny()
    model.config.max_position_embeddings = 48
    run = lambda: train(model, tokenizer, rows, method, quick(samples=0, max_steps=1))
    if method == "dpo":
        run()
    else:
        with pytest.raises(ModelError, match=r"^dataset:6: 63 tokens .* 48 positions"):
            run()


# More than two responses


@pytest.mark.parametrize("method", ["plackett_luce", "rrhf", "s_dpo", "exo"])
def test_rankings_of_four_train(method, rows, quick):
    ranked = [
        {
            "prompt": row["prompt"],
            "responses": [row["rejected"], f"maybe {i}", "who knows", row["chosen"]],
            "scores": [0, 2, 1, 3],
        }
        for i, row in enumerate(rows)
    ]
    history = train(*tiny(), ranked, method, quick())
    assert len(history.steps) == 2 and all(math.isfinite(row["loss"]) for row in history.steps)


# Refusals


PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
SCORED = {"prompt": "q", "responses": ["a", "b"], "scores": [2, 1]}
LABELLED = {"prompt": "q", "completion": "a", "label": True}
REFUSED = {
    **{
        f"{name} without {field}": (name, LABELLED if field == "label" else SCORED, PAIR, f"field '{field}' is missing")
        for name, m in METHODS.items()
        for field in [INPUTS[n].field for n in m.needs if INPUTS[n].field]
        if "policy" in m.needs and field != "win_probabilities"
    },
    "bradley_terry on three": (
        "bradley_terry",
        SCORED,
        {"prompt": "q", "responses": ["a", "b", "c"]},
        "field 'responses' holds 3, but",
    ),
    "bradley_terry on threes": (
        "bradley_terry",
        *[{"prompt": "q", "responses": ["a", "b", "c"]}] * 2,
        "refuses 'responses': a pair loss wants K=2 responses to each prompt, got K=3",
    ),
    "plackett_luce on labels": (
        *("plackett_luce", LABELLED, LABELLED),
        "refuses 'completion': a ranking loss wants K >= 2 responses to each prompt, got K=1",
    ),
    "sppo with scores": ("sppo", SCORED, SCORED, "field 'win_probabilities' is missing"),
    "pairs with a label": ("dpo", PAIR, LABELLED, "field 'completion' holds 1, but"),
    "labels only": ("dpo", LABELLED, LABELLED, "wants K=2 responses to each prompt, got K=1"),
    "tied scores": ("odpo", SCORED, SCORED | {"scores": [1, 1]}, "score higher, got 1 against 1"),
    "a chance of two": (
        "sppo",
        {"prompt": "q", "responses": ["a", "b"], "win_probabilities": [0.6, 0.4]},
        {"prompt": "q", "responses": ["a", "b"], "win_probabilities": [2, 1]},
        "field 'win_probabilities[0]' is 2",
    ),
    "mixed numbers": (
        "plackett_luce",
        SCORED,
        {"prompt": "q", "responses": ["a", "b", "c"], "scores": [3, 2, 1]},
        "field 'responses' holds 3, but",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_row_that_lacks_what_the_method_reads_is_refused_with_its_place(case, tmp_path, quick):
    method, good, bad, told = REFUSED[case]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps(row | {"prompt": f"q{i}"}) + "\n" for i, row in enumerate([good, good, bad, good]))
    )
    with pytest.raises(DataError) as refused:
        train(*tiny(), str(path), method, quick())
    place = 1 if good is bad else 3
    assert str(refused.value).startswith(f"{path}:{place}: ") and told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_scores_are_read_in_float64(quick):
    """In float32 these two are equal."""
    rows = [SCORED | {"prompt": f"q{i}", "scores": [100_000_001, 100_000_000]} for i in range(4)]
    assert len(train(*tiny(), rows, "odpo", quick()).steps) == 2


def test_unfit_rows_can_be_skipped_and_are_counted(quick):
    rows = [SCORED | {"prompt": f"q{i}", "scores": [1, 1] if i == 4 else [2, 1]} for i in range(8)]
    history = train(*tiny(), rows, "odpo", quick(on_bad_row="skip", held_out=0))
    assert history.data.counts["unfit for the method"] == 1
    assert "dataset:5" in str(history.data)


# Reward models


REWARDS = [name for name, m in METHODS.items() if "policy" not in m.needs]


@pytest.mark.parametrize("method", REWARDS)
def test_a_reward_model_learns_and_is_saved_beside_its_adapter(method, rows, quick, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(models, "tiny", tiny)
    config = quick(output=str(tmp_path / "run"), max_steps=20, batch_size=12, learning_rate=3e-3, held_out=0)
    history = train("tiny", None, rows, method, config)
    assert history.steps[-1]["reward_accuracy"] > 0.9 > history.steps[0]["reward_accuracy"] == 0.5
    assert history.steps[-1]["loss"] < 0.5 < history.steps[0]["loss"]
    saved = load_file(tmp_path / "run" / "adapter" / adapters.REWARD_HEAD)
    assert torch.equal(saved["weight"], history.reward_head.weight)
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["evaluate", "--model", str(tmp_path / "run"), "--data", str(file)]) == 0
    shown = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("reward_accuracy"))
    assert float(shown.split()[1]) > 0.9
    assert main(["generate", "--model", str(tmp_path / "run"), "q"]) == 2
    assert "is a reward model" in capsys.readouterr().err


@pytest.mark.usefixtures("float64")
def test_a_reward_is_read_after_the_whole_response():
    """The hidden state of the last token itself, whichever route, and even where the response is one token."""
    policy, examples = policy_of(), [Encoded([5, 6, 7], [[8], [9], [8, 9, 10]], where="row")]
    head = adapters.new_reward_head(policy)
    torch.nn.init.normal_(head.weight)
    for route in ("segments", "mask", "rows"):
        scorer = Scorer(policy, 64, route, head)
        with torch.no_grad():
            given = scorer(scorer.collate(examples), ["rewards"])["rewards"][0]
            for reward, response in zip(given, examples[0].responses):
                ids = torch.tensor([examples[0].prompt + response])
                last = policy.get_base_model().base_model(input_ids=ids).last_hidden_state[0, -1]
                assert reward.item() == pytest.approx(head(last).item(), rel=CLOSE)


# Losses that read the whole update


@pytest.mark.usefixtures("float64")
def test_a_batchwise_loss_sees_all_pairs_of_the_update_with_one_dropout(rows, quick):
    name = next(name for name, m in METHODS.items() if m.batchwise)
    settings = {"batch_size": 5, "held_out": 0, "lora_dropout": 0.5, "learning_rate": 1e-2}
    policy, trainer, data = made(rows, name, quick(tokens_per_forward=1, **settings))
    before, live, all_pairs = [], [], []

    def note(scorer, inputs, readings):
        if any(module.training for module in scorer.model.modules()):  # the policy, with its dropout
            (live if torch.is_grad_enabled() else before).append(readings["sums"].detach())

    policy.scorer().register_forward_hook(note)
    for update in updates(trainer, data, 2):
        assert torch.allclose(update.losses, trainer.objective.loss(update.scored), rtol=CLOSE)
        all_pairs.append(update.scored.policy["sums"])
    assert len(before) == len(live) == 10 and all(s.shape == (5, 2) for s in all_pairs)
    assert all(torch.allclose(*one, rtol=CLOSE) for one in zip(before, live))
    assert torch.equal(torch.cat(live), torch.cat(all_pairs))
    assert not torch.allclose(*all_pairs, rtol=CLOSE)


def test_every_need_of_every_method_has_an_input():
    named = {name for m in (METHODS | LOOP_LOSSES).values() for name in (*m.needs, *m.optional)}
    assert named <= set(INPUTS) and set(INPUTS) <= named | {"rewards"}


def test_an_unsure_reference_is_needed_for_dispersion(rows, quick):
    """A reference that gives all probability to one token has no finite dispersion."""
    name = next(name for name, m in METHODS.items() if "dispersion" in m.needs)
    model, tokenizer = tiny()
    with torch.no_grad():
        model.lm_head.weight.mul_(1e6)
    with pytest.raises(NotFiniteError, match="mean entropy on dataset:"):
        train(model, tokenizer, rows, name, quick())
