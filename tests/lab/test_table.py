"""The lab table: every method has a row, the rows can be made again, and what is reported is what was run."""

import json
import statistics
import subprocess
import sys

import pytest

from pref_toolkit.lab import table
from pref_toolkit.losses import METHODS
from pref_toolkit.training.config import TrainConfig

MADE = table.load()


def test_every_method_is_tried_and_reported_on_every_seed():
    missing = METHODS.keys() - {row["method"] for row in MADE["rows"]}
    assert not missing, f"run: python -m pref_toolkit.lab.table {' '.join(sorted(missing))}"
    tried = [(t["method"], t["setting"], t["seed"]) for t in MADE["trials"]]
    assert tried == [(m, setting, table.TRIAL_SEED) for m in METHODS for setting in table.GRID[m]]
    reported = [(row["method"], row["seed"]) for row in MADE["rows"]]
    assert reported == [(m, seed) for seed in table.SEEDS for m in METHODS]
    assert len(table.SEEDS) >= 3 and table.TRIAL_SEED not in table.SEEDS


def test_a_new_method_needs_no_grid_of_its_own():
    dpo = METHODS["dpo"]
    assert table.grid(dpo) == table.around("beta", 0.3, 1, 3) and "dpo" not in table.EXCEPTIONS
    for name, method in METHODS.items():
        default = table.grid(method)
        assert 2 <= len(default) <= 4
        for setting in default:
            method.check(**{k: v for k, v in setting.items() if k != "learning_rate"})
        assert (table.GRID[name] == default) == (name not in table.EXCEPTIONS)


@pytest.mark.parametrize("method", METHODS)
def test_a_grid_is_small_and_of_settings_that_exist(method):
    assert 2 <= len(table.GRID[method]) <= 4
    for setting in table.GRID[method]:
        METHODS[method].check(**{k: v for k, v in setting.items() if k not in TrainConfig.__dataclass_fields__})


@pytest.mark.parametrize("method", METHODS)
def test_what_is_reported_is_the_best_trial_and_nothing_is_above_the_frontier(method):
    own = [t for t in MADE["trials"] if t["method"] == method and "stopped" not in t]
    rows = [row for row in MADE["rows"] if row["method"] == method]
    most = max(t["accuracy"] for t in own)
    assert all(row["setting"] in [t["setting"] for t in own if t["accuracy"] == most] for row in rows)
    for row in rows:
        assert row["distance"] == pytest.approx(row["frontier"] - row["accuracy"])
        assert row["distance"] > -0.03  # a sample of 1000 may be lucky


def as_file(made):
    return json.dumps(made, indent=1) + "\n"


def only(method, made=MADE, **changed):
    """A table of one method's runs, as they would be made again."""
    return {part: [run | changed for run in made[part] if run["method"] == method] for part in ("trials", "rows")}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A copy of the table, and what was asked to be made: each method's own runs, after a second."""
    path, asked = tmp_path / "table.json", []
    path.write_text(as_file(MADE))
    monkeypatch.setattr(table, "FILE", path)
    header = {name: MADE[name] for name in table.header()}  # whatever versions are installed here
    monkeypatch.setattr(table, "header", lambda: header)

    def make(names):
        asked.extend(names)
        runs = [only(name) for name in names]
        joined = {part: [run for one in runs for run in one[part]] for part in ("trials", "rows")}
        return table.header() | {"seconds": 1} | joined

    monkeypatch.setattr(table, "make", make)
    return path, asked


def test_methods_that_are_named_are_made_again_and_no_others(file):
    path, asked = file
    assert table.main(["simpo", "dpo", "simpo"]) == 0
    assert asked == ["simpo", "dpo"]
    assert path.read_text() == table.Path(table.__file__).with_name("table.json").read_text()


def test_new_rows_go_where_the_method_stands_and_the_others_stay_as_they_are():
    without = MADE | {part: [run for run in MADE[part] if run["method"] != "simpo"] for part in ("trials", "rows")}
    assert table.merged(without, only("simpo") | {"seconds": 60}) == MADE | {"seconds": MADE["seconds"] + 60}
    other = table.merged(MADE, only("simpo", accuracy=0.5) | {"seconds": 60})
    assert only("simpo", other) == only("simpo", accuracy=0.5) and other["seconds"] == MADE["seconds"]
    assert [r for r in other["rows"] if r["method"] != "simpo"] == [r for r in MADE["rows"] if r["method"] != "simpo"]
    assert [r["method"] for r in other["rows"]] == [r["method"] for r in MADE["rows"]]


def test_all_are_made_where_none_is_named(file):
    path, asked = file
    path.unlink()
    assert table.main([]) == 0
    assert asked == list(METHODS) and set(json.loads(path.read_text())) == set(MADE)


def test_an_unknown_method_is_named_in_one_sentence(file, capsys):
    path, asked = file
    assert table.main(["dpo", "dppo"]) == 2
    assert capsys.readouterr().err == "lab.table: no method 'dppo': did you mean 'dpo'?\n"
    assert not asked and path.read_text() == as_file(MADE)


def test_rows_that_were_made_otherwise_do_not_stand_in_one_table(file, capsys):
    path, asked = file
    version = MADE["versions"]["torch"].partition("+")[0]
    for change, told in (
        ({"updates": 50}, "updates: 50 -> 100"),
        ({"versions": MADE["versions"] | {"torch": "1.0"}}, "versions: {'torch': '1.0',"),
    ):
        path.write_text(as_file(MADE | change))
        assert table.main(["dpo"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("lab.table: the table was made otherwise") and told in err
        assert not asked
    path.write_text(as_file(MADE | {"versions": MADE["versions"] | {"torch": f"{version}+cu130"}}))
    assert table.main(["dpo"]) == 0  # the same version, built for another device


def test_the_defaults_of_the_lab_are_part_of_it():
    """In a process of its own: another import may have loaded them."""
    ask = "from pref_toolkit import lab; print(lab.defaults.RANKED['s_dpo'])"
    assert subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout == "4\n"


def test_the_budget_is_the_same_for_all():
    for method in ("dpo", "rrhf", "kto"):
        k = {"rrhf": 4, "kto": 1}.get(method, 2)
        rows, held_out = table.rows(METHODS[method].needs, k, seed=0)
        assert len(rows) * k == MADE["updates"] * MADE["responses"] == table.UPDATES * table.RESPONSES
        assert len(held_out) == table.HELD_OUT
        responses = {r.get("completion", r.get("chosen")) or len(r["responses"]) for r in rows}
        assert responses == {4} if k == 4 else len(responses) > 20


def test_the_summary_is_mean_and_spread():
    values = [row["length"] - row["length_before"] for row in MADE["rows"] if row["method"] == "simpo"]
    summary = table.summary()
    assert summary["simpo"]["length_change"] == (statistics.mean(values), statistics.stdev(values))
    assert summary["bradley_terry"]["chosen_change"] is None
    assert list(summary) == list(METHODS)


def test_the_same_seed_gives_the_same_row(monkeypatch):
    monkeypatch.setattr(table, "UPDATES", 3)
    monkeypatch.setattr(table, "HELD_OUT", 20)
    table.rows.cache_clear()
    setting = table.GRID["dpo"][0]
    first = table.one_run("dpo", setting, 7)
    table.rows.cache_clear()
    assert first == table.one_run("dpo", setting, 7) != table.one_run("dpo", setting, 8)
    table.rows.cache_clear()


def test_a_run_that_diverges_is_recorded_and_never_chosen(monkeypatch):
    monkeypatch.setattr(table, "UPDATES", 3)
    stopped = table.one_run("dpo", {"beta": 1.0, "learning_rate": 1e18}, 7)
    table.rows.cache_clear()
    assert "not finite" in stopped["stopped"]
    whole = {"method": "dpo", "setting": {"beta": 3}, "accuracy": 0.1, "kl": 1.0}
    assert table.best([stopped, whole], "dpo") == {"beta": 3}


# The numbers of another processor differ in their last bits, which may turn a few of the 1000 sampled answers.
@pytest.mark.parametrize(("method", "seed"), [("ipo", 1), ("simpo", 2)])
def test_a_row_of_the_table_can_be_made_again(method, seed):
    (row,) = [row for row in MADE["rows"] if (row["method"], row["seed"]) == (method, seed)]
    again = table.one_run(method, row["setting"], seed)
    for name, within in {"accuracy": 0.02, "win_rate": 0.02, "kl": 0.02, "distance": 0.05, "length": 0.1}.items():
        assert again[name] == pytest.approx(row[name], abs=within), name
    assert again["chosen_change"] == pytest.approx(row["chosen_change"], abs=0.02)
