"""Rows in any accepted form become checked examples; anything else names file, line and field."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest
from transcripts import SOURCES

from pref_toolkit.data import DataError, Example, Report, check, read
from pref_toolkit.data import rows as rows_module

GOOD = {"prompt": "the question ", "chosen": "good", "rejected": "bad"}
USER = {"role": "user", "content": "hi"}
YES, NO = {"role": "assistant", "content": "yes"}, {"role": "assistant", "content": "no"}
SYSTEM = {"role": "system", "content": ""}


def pair(i: int) -> dict:
    return {"prompt": f"question {i} ", "chosen": f"good {i}", "rejected": f"bad {i}"}


def one(row) -> Example:
    (example,) = read([row], report=Report())
    return example


HH = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"

FORMS = {
    "text pair": (GOOD, "the question ", ("good", "bad"), None, None),
    "empty prompt": (GOOD | {"prompt": ""}, "", ("good", "bad"), None, None),
    "metadata is ignored": (GOOD | {"source": None, "id": 7}, "the question ", ("good", "bad"), None, None),
    "hh transcript": ({"chosen": HH + " yes", "rejected": HH + " no"}, HH, (" yes", " no"), None, None),
    "hh, one reply begins the other": (
        {"chosen": HH + " a", "rejected": HH + " a\n\nHuman: d\n\nAssistant: e"},
        HH,
        (" a", " a\n\nHuman: d\n\nAssistant: e"),
        None,
        None,
    ),
    "hh, conversations that part before their last reply": (
        {"chosen": HH + " a\n\nHuman: d\n\nAssistant: e", "rejected": HH + " b\n\nHuman: d\n\nAssistant: f"},
        HH,
        (" a\n\nHuman: d\n\nAssistant: e", " b\n\nHuman: d\n\nAssistant: f"),
        None,
        None,
    ),
    "chat pair": ({"prompt": [USER], "chosen": [YES], "rejected": [NO]}, (USER,), ((YES,), (NO,)), None, None),
    "chat, shared beginning": (
        {"chosen": [SYSTEM, USER, YES], "rejected": [SYSTEM, USER, NO]},
        (SYSTEM, USER),
        ((YES,), (NO,)),
        None,
        None,
    ),
    "chat, one reply begins the other": (
        {"chosen": [USER, YES], "rejected": [USER, YES, USER, NO]},
        (USER,),
        ((YES,), (YES, USER, NO)),
        None,
        None,
    ),
    "prompt text beside whole chats": (
        {"prompt": "hi", "chosen": [USER, YES], "rejected": [USER, NO]},
        (USER,),
        ((YES,), (NO,)),
        None,
        None,
    ),
    "null keys of messages fall away": (
        {"prompt": [USER | {"name": None}], "chosen": [YES], "rejected": [NO]},
        (USER,),
        ((YES,), (NO,)),
        None,
        None,
    ),
    "ranking": (
        {"prompt": "q", "responses": ["a", "b", "c"], "scores": [1, 3.5, 2]},
        "q",
        ("b", "c", "a"),
        (3.5, 2.0, 1.0),
        None,
    ),
    "ties stay in order": (
        {"prompt": "q", "responses": ["a", "b", "c"], "scores": [1, 2, 1]},
        "q",
        ("b", "a", "c"),
        (2.0, 1.0, 1.0),
        None,
    ),
    "pair with scores": (GOOD | {"scores": [2, 1]}, "the question ", ("good", "bad"), (2.0, 1.0), None),
    "pair with chances": (
        GOOD | {"win_probabilities": [0.7, 0.2], "responses": None},
        *("the question ", ("good", "bad"), None, None, (0.7, 0.2)),
    ),
    "transcripts with scores": (
        {"chosen": HH + " yes", "rejected": HH + " no", "scores": [2, 1]},
        *(HH, (" yes", " no"), (2.0, 1.0), None),
    ),
    "a pair's order is its own, whatever 'score' says": (
        GOOD | {"score": 7},
        *("the question ", ("good", "bad"), None, None),
    ),
    "pair with target": (GOOD | {"target": "t"}, "the question ", ("good", "bad"), None, None, None, "t"),
    "ranking with target": (
        {"prompt": "q", "responses": ["a", "b", "c"], "scores": [1, 3, 2], "target": "t"},
        *("q", ("b", "c", "a"), (3.0, 2.0, 1.0), None, None, "t"),
    ),
    "ranking without scores": ({"prompt": "q", "responses": ["a", "b"]}, "q", ("a", "b"), None, None),
    "chat ranking": (
        {"prompt": [USER], "responses": [[NO], [YES]], "scores": [0, 1]},
        (USER,),
        ((YES,), (NO,)),
        (1.0, 0.0),
        None,
    ),
    "label": ({"prompt": "q", "completion": "a", "label": False}, "q", ("a",), None, False),
    "chat label": ({"prompt": [USER], "completion": [YES], "label": True}, (USER,), ((YES,),), None, True),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_accepted_form(form):
    row, *expected = FORMS[form]
    assert one(row) == Example(*expected[:2], "dataset:1", *expected[2:])


def without(*fields: str, **more) -> dict:
    return {key: value for key, value in (GOOD | more).items() if key not in fields}


# Each bad line stands sixth of eight; what it is called, and what its message must say.
BAD = {
    "null": (GOOD | {"chosen": None}, "null", ["field 'chosen' is null", "want non-empty text"]),
    "null prompt": (GOOD | {"prompt": None}, "null", ["field 'prompt' is null"]),
    "number": (GOOD | {"chosen": 7}, "wrong type", ["field 'chosen' is a number", "want non-empty text"]),
    "object": (GOOD | {"rejected": {"a": 1}}, "wrong type", ["field 'rejected' is an object"]),
    "missing": (
        without("rejected"),
        "missing field",
        ["field 'rejected' is missing", "has prompt, chosen", "accepted"],
    ),
    "near miss": (
        without("chosen", choosen="good"),
        "missing field",
        ["field 'chosen' is missing (is 'choosen' meant"],
    ),
    "no field at all": ({}, "missing field", ["field 'chosen' is missing", "the row has none"]),
    "empty": (GOOD | {"rejected": ""}, "empty text", ["field 'rejected' is empty"]),
    "empty list": (GOOD | {"rejected": []}, "empty text", ["field 'rejected' is an empty list"]),
    "NUL": (GOOD | {"chosen": "a\0b"}, "forbidden character", ["field 'chosen' has a NUL", "character 2"]),
    "lone surrogate": (GOOD | {"chosen": "a\ud800"}, "forbidden character", ["field 'chosen' has a lone surrogate"]),
    "broken": (
        '{"prompt": "q", "chosen": "good',
        "broken JSON",
        ["broken JSON near field 'chosen'", "string starting at column 27"],
    ),
    "list": ("[1, 2]", "wrong shape", ["row is a list, want an object"]),
    "two rows in a line": (json.dumps(GOOD) * 2, "broken JSON", ["broken JSON", "Extra data"]),
    "nested": ("[" * 10_000, "broken JSON", ["nested too deeply"]),
    "long number": ('{"prompt": ' + "1" * 5000 + "}", "broken JSON", ["broken JSON"]),
    "twice": ('{"prompt": "q", "chosen": "a", "chosen": "b"}', "wrong shape", ["field 'chosen' is given twice"]),
    "two forms": (GOOD | {"completion": "c", "label": True}, "wrong shape", ["more than one form"]),
    "mixed styles": (GOOD | {"chosen": [YES]}, "wrong type", ["some", "text, others chat messages"]),
    "prompt text, chat answers": ({"prompt": "q", "chosen": [YES], "rejected": [NO]}, "wrong shape", ["'prompt'"]),
    "other prompt text": (
        {"prompt": "other", "chosen": [USER, YES], "rejected": [USER, NO]},
        "wrong type",
        ["field 'prompt' is text and the responses are chat messages"],
    ),
    "message without role": (
        {"prompt": [USER], "chosen": [{"content": "a"}], "rejected": [NO]},
        "wrong type",
        ["field 'chosen[0]' is not a chat message"],
    ),
    "null content": (
        {"prompt": [USER], "chosen": [YES | {"content": None}], "rejected": [NO]},
        "null",
        ["field 'chosen[0].content' is null"],
    ),
    "empty answer": (
        {"prompt": [USER], "chosen": [YES], "rejected": [NO | {"content": ""}]},
        "empty text",
        ["field 'rejected[0].content' is empty"],
    ),
    "answer by the user": (
        {"prompt": [USER], "chosen": [USER], "rejected": [NO]},
        "wrong shape",
        ["does not begin with role 'assistant'"],
    ),
    "nothing shared": ({"chosen": "a", "rejected": "b"}, "wrong shape", ["share no", "Assistant:", "add 'prompt'"]),
    "no chat shared": ({"chosen": [YES], "rejected": [NO]}, "wrong shape", ["share no message", "add 'prompt'"]),
    "text and chat": ({"chosen": HH, "rejected": [NO]}, "wrong type", ["one style"]),
    "empty hh reply": ({"chosen": HH + " yes", "rejected": HH}, "empty text", ["field 'rejected' has nothing after"]),
    "one response": ({"prompt": "q", "responses": ["a"]}, "wrong shape", ["field 'responses' has length 1"]),
    "responses as text": ({"prompt": "q", "responses": "ab"}, "wrong type", ["field 'responses' is text"]),
    "null response": ({"prompt": "q", "responses": ["a", None]}, "null", ["field 'responses[1]' is null"]),
    "scores too short": (
        {"prompt": "q", "responses": ["a", "b"], "scores": [1]},
        "wrong type",
        ["field 'scores' is of length 1", "each of 2 responses"],
    ),
    "score as text": (
        {"prompt": "q", "responses": ["a", "b"], "scores": [1, "2"]},
        "wrong type",
        ["field 'scores[1]' is text, want a number"],
    ),
    "score not finite": (
        '{"prompt": "q", "responses": ["a", "b"], "scores": [1, NaN]}',
        "wrong type",
        ["field 'scores[1]' is not finite"],
    ),
    "score too large": (
        '{"prompt": "q", "responses": ["a", "b"], "scores": [1, 1' + "0" * 400 + "]}",
        "wrong type",
        ["field 'scores[1]' is not finite"],
    ),
    "misspelt scores": (
        {"prompt": "q", "responses": ["a", "b"], "score": [1, 2]},
        "missing field",
        ["field 'scores' is missing (is 'score' meant"],
    ),
    "scores against a pair's order": (GOOD | {"scores": [1, 2]}, "wrong shape", ["field 'scores' puts 'rejected'"]),
    "chances against a pair's order": (
        GOOD | {"win_probabilities": [0.1, 0.2]},
        "wrong shape",
        ["field 'win_probabilities' puts 'rejected' above 'chosen'"],
    ),
    "one score beside a pair": (GOOD | {"scores": 2}, "wrong type", ["field 'scores' is a number", "2 responses"]),
    "target without prompt": (
        {"chosen": HH + " yes", "rejected": HH + " no", "target": "t"},
        "missing field",
        ["field 'prompt' is missing, without which field 'target'"],
    ),
    "label as number": ({"prompt": "q", "completion": "a", "label": 1}, "wrong type", ["field 'label' is a number"]),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("filename", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_malformed_row_names_file_line_and_field(case, filename, write):
    line, kind, words = BAD[case]
    path = write([*map(pair, range(5)), line, pair(5), pair(6)], filename)
    with pytest.raises(DataError) as error:
        read(path, report=Report())
    assert str(error.value).startswith(f"{path}:6: ")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)

    report = Report()
    assert len(read(path, on_bad_row="skip", report=report)) == 7
    assert report.counts == {kind: 1}
    assert report.faults[0].where == f"{path}:6"
    assert str(report.faults[0]) == str(error.value)


def test_bytes_that_are_not_utf8_name_their_field(write):
    lines = [json.dumps(pair(i)).encode() for i in range(3)]
    lines[1] = '{"prompt": "q", "chosen": "café", "rejected": "thé"}'.encode("latin-1")
    path = write(b"\n".join(lines))
    with pytest.raises(DataError, match=r":2: field 'chosen' has byte 0xe9, which is not UTF-8"):
        read(path, report=Report())
    report = Report()
    assert len(read(path, on_bad_row="skip", report=report)) == 2
    assert report.counts == {"encoding": 1}


def test_a_utf16_file_is_refused_at_its_first_line(write):
    path = write("\n".join(json.dumps(pair(i)) for i in range(2)).encode("utf-16"))
    with pytest.raises(DataError, match=r":1: .*not UTF-8"):
        read(path, report=Report())


LAYOUTS = {
    "line breaks of Windows": "\r\n".join(json.dumps(pair(i)) for i in range(3)).encode(),
    "byte order mark": b"\xef\xbb\xbf" + "\n".join(json.dumps(pair(i)) for i in range(3)).encode(),
    "blank lines": "\n\n".join(json.dumps(pair(i)) for i in range(3)).encode() + b"\n \n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_change_nothing(layout, write):
    read_back = read(write(LAYOUTS[layout]), report=(report := Report()))
    assert [example.prompt for example in read_back] == [pair(i)["prompt"] for i in range(3)]
    assert str(report) == ""


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c"])
def test_line_separators_inside_a_text_do_not_split_a_row(character, write):
    text = f"a{character}b"
    content = json.dumps(GOOD | {"chosen": text}, ensure_ascii=False).encode()
    (example,) = read(write(content), report=Report())
    assert example.responses[0] == text


def test_each_row_may_have_its_own_form(write):
    path = write([GOOD, {"prompt": "q", "completion": "a", "label": True}, {"chosen": HH + "x", "rejected": HH + "y"}])
    assert [len(example.responses) for example in read(path, report=Report())] == [2, 1, 2]


@pytest.mark.parametrize("content", [b"", b"\n\n", gzip.compress(b"", mtime=0)])
def test_a_file_without_rows(content, write):
    path = write(content)
    with pytest.raises(DataError, match=f"no examples in {path}"):
        read(path, report=Report())


def test_a_line_over_the_limit_is_refused_in_bounded_memory(write, monkeypatch):
    monkeypatch.setattr(rows_module, "MAX_LINE_BYTES", 2**20)
    path = write(json.dumps(pair(0)).encode() + b"\n" + b"x" * 2**26 + b"\n" + json.dumps(pair(1)).encode())
    tracemalloc.start()
    report = Report()
    kept = read(path, on_bad_row="skip", report=report)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == 2
    assert [str(fault) for fault in report.faults] == [f"{path}:2: line is longer than 1 MiB, want one row a line"]
    assert peak < 8 * 2**20


def test_a_compressed_file_that_breaks_off(write):
    whole = write([pair(i) | {"id": f"{i * 7919 % 1009:x}"} for i in range(500)], "rows.jsonl.gz")
    cut = write(whole.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"rows.jsonl:\d+: compressed data breaks off"):
        read(cut, report=Report())
    report = Report()
    kept = read(cut, on_bad_row="skip", report=report)
    assert 0 < len(kept) < 500
    assert report.counts == {"broken file": 1}


def test_rows_from_python_and_from_datasets(write, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [pair(i) for i in range(3)]
    expected = [(e.prompt, e.responses) for e in read(rows, report=Report())]
    table = datasets.Dataset.from_list(rows)
    table.save_to_disk(tmp_path / "saved")
    for source in (iter(rows), table, datasets.DatasetDict({"test": table}), tmp_path / "saved"):
        found = read(source, report=Report())
        assert [(e.prompt, e.responses) for e in found] == expected
    assert [e.where for e in read(table, report=Report())] == ["dataset:1", "dataset:2", "dataset:3"]
    assert found[2].where == f"{tmp_path / 'saved'}:3"


def test_a_directory_is_read_by_the_datasets_library(write, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "pairs").mkdir()
    write([pair(i) for i in range(3)], "pairs/train.jsonl")
    assert len(read(str(tmp_path / "pairs"), report=Report())) == 3
    write(['{"prompt": "q", "chosen": '], "pairs/train.jsonl")
    with pytest.raises(DataError, match="cannot load"):
        read(str(tmp_path / "pairs"), report=Report())


def test_a_name_that_is_neither_here_nor_on_the_hub(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def unreachable(name):
        raise ConnectionError(f"Couldn't reach {name!r}\non the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        DataError, match="cannot load some/pairs, which is no file or directory here: ConnectionError"
    ) as e:
        read("some/pairs", report=Report())
    assert "\n" not in str(e.value)


def test_splits_without_a_train_split_are_named():
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([GOOD])
    with pytest.raises(DataError, match="splits a, b, none called train"):
        read(datasets.DatasetDict({"a": table, "b": table}), report=Report())


def test_a_bad_row_of_a_dataset_names_its_number():
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([GOOD, GOOD | {"chosen": None}])
    with pytest.raises(DataError, match=r"^dataset:2: field 'chosen' is null"):
        read(table, report=Report())


@pytest.mark.parametrize("missing", ["nowhere.jsonl", "./nowhere", "../nowhere", "/a/b/c", Path("nowhere"), "a/b.gz"])
def test_a_path_that_is_not_there(missing):
    with pytest.raises(DataError, match=f"no such file or directory: {missing}"):
        read(missing, report=Report())


@pytest.mark.parametrize(("source", "words"), [(7, "examples are a int"), (GOOD, "examples are a dict")])
def test_a_source_that_is_no_data(source, words):
    with pytest.raises(DataError, match=words):
        read(source, report=Report())


def test_another_file_format_is_named(write):
    with pytest.raises(DataError, match=r"want \.jsonl or \.jsonl\.gz"):
        read(write(b"PAR1", "rows.parquet"), report=Report())


def test_on_bad_row_is_stop_or_skip():
    with pytest.raises(ValueError, match="want 'stop' or 'skip'"):
        read([GOOD], on_bad_row="ignore", report=Report())


A, B = {"prompt": "q", "chosen": "A", "rejected": "B"}, {"prompt": "q", "chosen": "B", "rejected": "A"}
RANKED = {"prompt": "q", "responses": ["C", "B", "A"], "scores": [3, 2, 1]}
LABELLED = {"prompt": "q", "completion": "A", "label": True}

DOUBTS = {
    "contradiction": ([A, B], 2, {"contradicting pair": 1}, "dataset:1"),
    "another prompt is none": ([A, B | {"prompt": "p"}], 2, {}, ""),
    "ranking against pair": ([A, RANKED], 2, {"contradicting pair": 1}, "dataset:1"),
    "labels": ([LABELLED, LABELLED | {"label": False}], 2, {"contradicting label": 1}, "dataset:1"),
    "duplicate": ([A, A, A], 3, {"duplicate row": 2}, "dataset:1"),
    "tie": ([RANKED | {"scores": [2, 1, 1]}, A], 2, {"tied scores": 1}, "equal scores"),
    "identical": ([A, A | {"rejected": "A"}], 1, {"identical pair": 1}, "chosen and rejected are the same text"),
    "identical ranking": ([A, {"prompt": "q", "responses": ["x"] * 3}], 1, {"identical pair": 1}, "all responses"),
    "listed twice": ([{"prompt": "q", "responses": ["x", "y", "x"]}], 1, {"repeated response": 1}, "listed twice"),
    "prompt repeated": (
        [{"prompt": "q", "chosen": "q yes", "rejected": "q no"}],
        1,
        {"repeated prompt": 1},
        "kept so",
    ),
    "prompt's messages repeated": (
        [{"prompt": [USER], "chosen": [USER, YES], "rejected": [USER, NO]}],
        1,
        {"repeated prompt": 1},
        "taken off",
    ),
    "equal scores of a pair": ([A | {"scores": [1, 1]}], 1, {"tied scores": 1}, "equal scores"),
    "label beside a pair": (
        [A | {"label": True}],
        1,
        {"unread field": 1},
        "field 'label' is not read beside prompt + chosen + rejected",
    ),
    "pair's field beside a ranking": (
        [RANKED | {"chosen": "C"}],
        1,
        {"unread field": 1},
        "field 'chosen' is not read beside prompt + responses",
    ),
    "target and scores beside a label": (
        [LABELLED | {"target": "t", "scores": [1]}],
        1,
        {"unread field": 2},
        "field 'target' is not read beside prompt + completion + label",
    ),
    "blank": ([A | {"rejected": " \n"}], 1, {"blank response": 1}, "white space"),
}


@pytest.mark.parametrize("case", DOUBTS)
def test_well_formed_rows_that_teach_little_are_counted(case):
    rows, kept, counts, words = DOUBTS[case]
    report = Report()
    examples = read(rows, report=report)
    assert len(examples) == kept
    assert report.counts == counts
    assert words in str(report)


def test_a_contradiction_names_both_lines(write):
    path = write([A, pair(1), B])
    report = check(path)
    assert str(report) == (
        f"1 row kept but changed or doubtful: contradicting pair: {path}:3 (prefers the opposite of {path}:1)"
    )
    assert report.faults == []


def test_check_goes_through_all_rows(write):
    path = write([GOOD | {"chosen": None}, pair(1), GOOD | {"rejected": ""}, A | {"rejected": "A"}])
    assert [fault.where for fault in check(path).faults] == [f"{path}:1", f"{path}:3", f"{path}:4"]


@pytest.mark.parametrize("source", SOURCES)
def test_transcripts_split_after_the_last_shared_marker(source):
    report = Report()
    examples = read(SOURCES[source], report=report)
    assert report.faults == []
    for row, example in zip(SOURCES[source], examples, strict=True):
        assert example.prompt.endswith("\n\nAssistant:")
        assert [example.prompt + response for response in example.responses] == [row["chosen"], row["rejected"]]
        # No later marker is shared.
        replies = [response.split("\n\nAssistant:") for response in example.responses]
        assert min(map(len, replies)) == 1 or replies[0][0] != replies[1][0]
