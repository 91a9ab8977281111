"""Rows in any accepted form -> checked examples. The report names every row that is dropped or changed."""

from __future__ import annotations

import difflib
import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from pref_toolkit.data.examples import DataError, Example, Message
from pref_toolkit.data.report import Report

FORMS = (
    ("prompt", "chosen", "rejected"),
    ("chosen", "rejected"),
    ("prompt", "responses", "scores"),
    ("prompt", "responses", "win_probabilities"),
    ("prompt", "completion", "label"),
)
ACCEPTED = "accepted are " + ", or ".join(" + ".join(form) for form in FORMS)
NUMBERS = ("scores", "win_probabilities")  # fields with one number for each response
BESIDE = {*NUMBERS, "target"}  # optional fields of a row with two or more responses
MARKER = "\n\nAssistant:"  # Anthropic HH: the last marker that both transcripts share ends the prompt
MAX_LINE_BYTES = 16 * 2**20
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")
_KEY = re.compile(r'"(?!role"|content")([^"\\]+)"\s*:')


class Fault(Exception):
    """A malformed row: the kind of its fault, and a sentence that names the field."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


def read(source: Any, *, on_bad_row: str = "stop", report: Report) -> list[Example]:
    """Read rows and check them. The examples have the order of the rows.

    Args:
        source: a ``.jsonl`` or ``.jsonl.gz`` file; a directory or hub id, read by the ``datasets`` library; a
            ``datasets.Dataset``; or an iterable of dicts. Each row has one of these forms, with text or chat messages:
            ``prompt, chosen, rejected``; ``chosen, rejected`` with a shared beginning; ``prompt, responses`` with the best
            response first, or in any order with ``scores`` or ``win_probabilities``; ``prompt, completion, label``. A row
            with two or more responses may also have ``scores`` and ``win_probabilities``, which must agree with the order
            of a pair, and, if it has a prompt, a supervised ``target``. A field of another form is reported as unread.
        on_bad_row: ``"stop"`` raises at a malformed row, ``"skip"`` adds it to ``report`` and goes on.
        report: receives the findings about rows that are refused, left out or doubtful.

    Raises:
        DataError: for the first malformed row (with ``"stop"``), with its file, line and field; or if ``source`` cannot
            be opened or has no rows.
    """
    if on_bad_row not in ("stop", "skip"):
        raise DataError(f"on_bad_row is {on_bad_row!r}, want 'stop' or 'skip'")
    examples: list[Example] = []
    seen = 0
    for seen, (where, row) in enumerate(_rows(source), start=1):  # noqa: B007 (read after the loop)
        try:
            if isinstance(row, Fault):
                raise row
            example = _example(row, where, report)
        except Fault as fault:
            if on_bad_row == "stop":
                raise DataError(f"{where}: {fault.detail}") from None
            report.add(fault.kind, where, fault.detail)
            continue
        if len(example.responses) > 1 and all(r == example.responses[0] for r in example.responses):
            names = "chosen and rejected" if len(example.responses) == 2 else "all responses"
            report.add("identical pair", where, f"{names} are the same text")
        else:
            examples.append(example)
    if not seen:
        raise DataError(f"no examples in {name(source)}")
    _doubts(examples, report)
    return examples


def read_prompts(source: Any) -> list[Example]:
    """Prompts to be answered: rows with a ``prompt``, and an ``answer`` if a loop learns from it, or preferences, of which the
    prompt and the best response count.

    Args:
        source: as for ``read``; an iterable may also hold the prompts themselves, as text or chat messages.

    Returns:
        Examples with the best response, or without any.

    Raises:
        DataError: for the first malformed row, with its file, line and field; or if there is none.
    """
    found: list[Example] = []
    for where, row in _rows(source):
        try:
            if isinstance(row, Fault):
                raise row
            if not isinstance(row, Mapping):
                row = {"prompt": row}
            if _given(row) & {*chain(*FORMS)} == {"prompt"}:
                answers = (_content(row["answer"], "answer"),) if "answer" in _given(row) else ()
                found.append(Example(_content(row["prompt"], "prompt"), answers, where))
            else:
                example = _example(row, where, Report())
                found.append(Example(example.prompt, example.responses[:1], where))
        except Fault as fault:
            raise DataError(f"{where}: {fault.detail}") from None
    if not found:
        raise DataError(f"no prompts in {name(source)}")
    return found


def name(source: Any) -> str:
    """The name of a source in messages: its path or hub id, or ``"dataset"``."""
    return str(source) if isinstance(source, str | Path) else "dataset"


# From a source to rows


def _rows(source: Any) -> Iterator[tuple[str, Any]]:
    """Each row with its place, ``"file:line"``. In place of a row that cannot be read there is a Fault."""
    if isinstance(source, str | Path) and (path := Path(source).expanduser()).is_file():
        for number, row in _lines(path):
            yield f"{source}:{number}", row
        return
    table = _table(source) if isinstance(source, str | Path) else source
    if hasattr(table, "with_format"):  # a datasets.Dataset, or a DatasetDict of them
        table = _split(table, name(source)).with_format(None)
    if isinstance(table, Mapping) or not isinstance(table, Iterable):
        raise DataError(f"examples are a {type(table).__name__}, want a path, a Dataset or an iterable of dicts")
    for number, row in enumerate(table, start=1):
        yield f"{name(source)}:{number}", row


def _table(source: str | Path) -> Any:
    path = Path(source).expanduser()
    is_hub_id = isinstance(source, str) and re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source)
    if not path.is_dir() and (not is_hub_id or path.suffix in (".jsonl", ".json", ".gz", ".parquet", ".csv")):
        raise DataError(f"no such file or directory: {source}")
    import datasets  # a slow import that most sources do not need

    saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    try:
        return datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
    except Exception as error:  # errors of the library, of pyarrow and of the network have no common type
        reason = " ".join(str(error).split())[:300]
        what = source if path.is_dir() else f"{source}, which is no file or directory here"
        raise DataError(f"the datasets library cannot load {what}: {type(error).__name__}: {reason}") from error


def _split(table: Any, source: str) -> Any:
    if not isinstance(table, Mapping):
        return table
    if "train" in table or len(table) == 1:
        return table["train" if "train" in table else next(iter(table))]
    raise DataError(f"{source} has splits {', '.join(table)}, none called train; pass the one you want as a Dataset")


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Line number and row (or Fault) of each line that is not blank, one line in memory at a time."""
    if path.suffix in (".parquet", ".csv", ".arrow"):
        raise DataError(f"{path}: want .jsonl or .jsonl.gz; for other formats name the directory that holds the file")
    number = 0
    try:
        with path.open("rb") as head:
            zipped = head.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_LINE_BYTES)
                    limit = f"{MAX_LINE_BYTES // 2**20} MiB"
                    yield number, Fault("line too long", f"line is longer than {limit}, want one row a line")
                    continue
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line.strip():
                    yield number, _parse(line.rstrip(b"\r\n"))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield number + 1, Fault("broken file", f"compressed data breaks off ({error}); copy the file again")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _parse(line: bytes) -> Any:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        before, byte = line[: error.start].decode("utf-8"), line[error.start]
        return Fault("encoding", f"{_last_field(before)} has byte 0x{byte:02x}, which is not UTF-8; save it as UTF-8")
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        what = f"{error.msg.removesuffix(' at')} at column {error.pos + 1}"
        near = _last_field(text[: error.pos])
        return Fault("broken JSON", f"broken JSON near {near}: {what}; want one whole object a line")
    except RecursionError:
        return Fault("broken JSON", "brackets are nested too deeply, want one flat object a line")
    except ValueError as error:  # a number of too many digits
        return Fault("broken JSON", f"broken JSON: {error}")
    except Fault as fault:
        return fault


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):  # the json module would silently keep the last value
        twice = next(key for key in fields if sum(key == k for k, _ in pairs) > 1)
        raise Fault("wrong shape", f"field {twice!r} is given twice")
    return fields


def _last_field(text: str) -> str:
    """The field that contains a place in a JSON line, found from the text before that place."""
    keys = _KEY.findall(text)
    return f"field {keys[-1][:40]!r}" if keys else "the start of the line"


# From a row to an example


def _example(row: Any, where: str, report: Report) -> Example:
    if not isinstance(row, Mapping):
        raise Fault("wrong shape", f"row is {_kind(row)}, want an object; {ACCEPTED}")
    form = _form(row)
    unread = sorted({*chain(*FORMS), *BESIDE} & _given(row) - {*form} - (set() if "label" in form else BESIDE))
    prompt: Any = _content(row["prompt"], "prompt", empty=True) if "prompt" in form else None
    responses: Any
    scores, desirable, win_probabilities, target = None, None, None, None
    if "label" in form:
        responses, desirable = [_content(row["completion"], "completion")], row["label"]
        if not isinstance(desirable, bool):
            raise _wrong("label", desirable, _want("label"))
    else:
        responses, scores, win_probabilities = _ranked(row, _several(row) if "responses" in form else _pair(row))
        target = row.get("target")
    if "prompt" not in form:
        if target is not None:
            raise Fault(
                "missing field", "field 'prompt' is missing, without which field 'target' has nothing to answer"
            )
        prompt, responses = _shared_beginning(*responses)
    elif target is None:
        prompt, responses = _one_style(prompt, responses, where, report)
    else:
        with_target = [*responses, _content(target, "target")]
        prompt, (*responses, target) = _one_style(prompt, with_target, where, report)
    if scores is not None and len(set(scores)) < len(scores):
        report.add("tied scores", where, "equal scores, so the order given decides")
    for field in unread:
        report.add("unread field", where, f"field {field!r} is not read beside {' + '.join(form)}")
    return Example(prompt, tuple(responses), where, scores, desirable, win_probabilities, target)


def _given(row: Mapping[str, Any]) -> set[str]:
    """The fields that have a value. The datasets library gives every row all fields and fills missing ones with null."""
    return {key for key, value in row.items() if value is not None}


def _pair(row: Mapping[str, Any]) -> list[Any]:
    return [_content(row[field], field) for field in ("chosen", "rejected")]


def _form(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The accepted form of ``row``. Raises a Fault that names the missing or null field."""
    given = _given(row)
    # A row whose prompt is null has the field, so the form without a prompt is not meant.
    forms = [form for form in FORMS if form != ("chosen", "rejected") or "prompt" not in row]
    wanted = [tuple(field for field in form if field not in NUMBERS) for form in forms]
    fits = list(dict.fromkeys(form for form in wanted if given.issuperset(form)))
    if not fits:
        form = min(wanted, key=lambda form: (len(set(form) - given), -len(given.intersection(form))))
        missing = next(field for field in form if field not in given)
        if missing in row:
            raise Fault("null", f"field {missing!r} is null, want {_want(missing)}")
        near = difflib.get_close_matches(missing, [str(key) for key in row if key not in form], n=1)
        hint = f" (is {near[0]!r} meant for it?)" if near else ""
        fields = ", ".join(str(key)[:40] for key in list(row)[:12]) or "none"
        raise Fault("missing field", f"field {missing!r} is missing{hint}; the row has {fields}; {ACCEPTED}")
    if len(fits) > 1:
        names = " and ".join(" + ".join(form) for form in fits)
        raise Fault("wrong shape", f"row fits more than one form, {names}; keep the fields of one")
    return fits[0]


def _want(field: str) -> str:
    wants = {"prompt": "text or chat messages", "responses": "a list of texts", "label": "true or false"}
    return wants.get(field, "non-empty text or chat messages")


def _kind(value: Any) -> str:
    """A value's type in JSON's words."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")


def _wrong(field: str, value: Any, want: str) -> Fault:
    return Fault("null" if value is None else "wrong type", f"field {field!r} is {_kind(value)}, want {want}")


def _content(value: Any, field: str, *, empty: bool = False) -> str | tuple[Message, ...]:
    """``value``, checked, as text or chat messages. ``empty`` allows empty text."""
    if isinstance(value, str):
        return _text(value, field, empty=empty)
    if not isinstance(value, list | tuple):
        raise _wrong(field, value, _want(field))
    if not value:
        raise Fault("empty text", f"field {field!r} is an empty list, want chat messages")
    messages: list[Message] = []
    for i, message in enumerate(value):
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            raise Fault("wrong type", f"field '{field}[{i}]' is not a chat message, want role and content")
        # The datasets library gives every message all keys and fills missing ones with null.
        messages.append({str(key): part for key, part in message.items() if part is not None})
        for key in ("role", "content"):
            if not isinstance(part := message[key], str):
                raise _wrong(f"{field}[{i}].{key}", part, "text")
            _text(part, f"{field}[{i}].{key}", empty=key == "content" and message["role"] != "assistant")
    return tuple(messages)


def _text(value: str, field: str, *, empty: bool) -> str:
    if not value and not empty:
        raise Fault("empty text", f"field {field!r} is empty, want non-empty text")
    if bad := _FORBIDDEN.search(value):
        what = "a NUL character" if bad[0] == "\x00" else f"a lone surrogate (\\u{ord(bad[0]):04x})"
        raise Fault("forbidden character", f"field {field!r} has {what} at character {bad.start() + 1}; remove it")
    return value


def _several(row: Mapping[str, Any]) -> list[Any]:
    given = row["responses"]
    if not isinstance(given, list | tuple):
        raise _wrong("responses", given, _want("responses"))
    if len(given) < 2:
        raise Fault("wrong shape", f"field 'responses' has length {len(given)}, want 2 or more responses")
    return [_content(response, f"responses[{i}]") for i, response in enumerate(given)]


def _ranked(
    row: Mapping[str, Any], responses: list[Any]
) -> tuple[list[Any], tuple[float, ...] | None, tuple[float, ...] | None]:
    """Responses best first, and their scores and win probabilities in the same order if the row has any."""
    scores, win_probabilities = (_numbers(row, field, len(responses)) for field in NUMBERS)
    ranked_by = scores or win_probabilities or [0.0] * len(responses)
    order = sorted(range(len(responses)), key=lambda i: -ranked_by[i])  # stable: ties keep their order
    if row.get("responses") is None and order != [0, 1]:
        field = "scores" if scores else "win_probabilities"
        raise Fault("wrong shape", f"field {field!r} puts 'rejected' above 'chosen'; exchange them, or the numbers")
    in_order = lambda values: None if values is None else tuple(values[i] for i in order)
    return [responses[i] for i in order], in_order(scores), in_order(win_probabilities)


def _numbers(row: Mapping[str, Any], field: str, responses: int) -> list[float] | None:
    """One finite number for each response, or None if the row has no such field."""
    given = row.get(field)
    if given is None:
        # A misspelt field would leave a ranking in the wrong order. A pair states its order itself.
        others = [str(key) for key in row if key not in NUMBERS and row.get("responses") is not None]
        if near := difflib.get_close_matches(field, others, n=1, cutoff=0.8):
            raise Fault("missing field", f"field {field!r} is missing (is {near[0]!r} meant for it?)")
        return None
    if not isinstance(given, list | tuple) or len(given) != responses:
        found = f"of length {len(given)}" if isinstance(given, list | tuple) else _kind(given)
        raise Fault("wrong type", f"field {field!r} is {found}, want one number for each of {responses} responses")
    for i, value in enumerate(given):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(f"{field}[{i}]", value, "a number")
        if not _is_finite(value):
            raise Fault("wrong type", f"field '{field}[{i}]' is not finite, want a number")
        if field == "win_probabilities" and not 0 <= value <= 1:
            raise Fault("wrong type", f"field '{field}[{i}]' is {value}, want a probability between 0 and 1")
    return [float(value) for value in given]


def _is_finite(score: int | float) -> bool:
    try:
        return math.isfinite(score)
    except OverflowError:
        return False


def _shared_beginning(chosen: Any, rejected: Any) -> tuple[Any, tuple[Any, Any]]:
    """Split two whole conversations into their shared prompt and the two responses."""
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise Fault("wrong type", "one of fields 'chosen' and 'rejected' is text, the other messages; want one style")
    if not isinstance(chosen, str):
        # Go back from the last shared message to a place where the assistant speaks next in both.
        start = next((i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
        start = min(start, len(chosen) - 1, len(rejected) - 1)
        while start > 0 and not chosen[start]["role"] == rejected[start]["role"] == "assistant":
            start -= 1
        if start < 1:
            raise Fault("wrong shape", "fields 'chosen' and 'rejected' share no message before an answer; add 'prompt'")
        return chosen[:start], (chosen[start:], rejected[start:])
    shared = next((i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
    cut = chosen.rfind(MARKER, 0, shared)
    if cut < 0:
        raise Fault("wrong shape", f"fields 'chosen' and 'rejected' share no {MARKER!r} to split after; add 'prompt'")
    end = cut + len(MARKER)
    for field, text in (("chosen", chosen), ("rejected", rejected)):
        if len(text) == end:
            raise Fault("empty text", f"field {field!r} has nothing after the shared {MARKER!r}, want a response")
    return chosen[:end], (chosen[end:], rejected[end:])


def _one_style(prompt: Any, responses: list[Any], where: str, report: Report) -> tuple[Any, list[Any]]:
    """Prompt and responses in one style, text or messages. The prompt's messages are removed from the responses."""
    if all(isinstance(part, str) for part in (prompt, *responses)):
        if prompt and all(len(r) > len(prompt) and r.startswith(prompt) for r in responses):
            report.add("repeated prompt", where, "every response begins with the prompt, and is kept so")
        if any(r.isspace() for r in responses):
            report.add("blank response", where, "a response is only white space")
        return prompt, responses
    if any(isinstance(r, str) for r in responses):
        raise Fault("wrong type", "some of prompt and responses are text, others chat messages; want one style")
    if isinstance(prompt, str):
        # UltraFeedback: the prompt is text, and each response is the whole conversation.
        if len(responses) == 2:
            messages, pair = _shared_beginning(*responses)
            if messages[-1]["content"] == prompt:
                return messages, list(pair)
        raise Fault("wrong type", "field 'prompt' is text and the responses are chat messages; make it messages too")
    if all(r[: len(prompt)] == prompt for r in responses):
        responses = [r[len(prompt) :] for r in responses]
        report.add("repeated prompt", where, "the prompt's messages are taken off the responses")
    if any(not r or r[0]["role"] != "assistant" for r in responses):
        raise Fault("wrong shape", "a response in chat messages does not begin with role 'assistant'")
    return prompt, responses


def _doubts(examples: list[Example], report: Report) -> None:
    """Report rows that repeat or contradict an earlier one, and rankings that list a response twice."""
    rows: dict[bytes, str] = {}
    claims: dict[bytes, str] = {}
    for example in examples:
        k = len(example.responses)
        if any(a == b for a, b in combinations(example.responses, 2)):
            report.add("repeated response", example.where, "a response is listed twice")
        key = _digest(example.prompt, example.responses, example.desirable)
        if key in rows:
            report.add("duplicate row", example.where, f"same as {rows[key]}")
            continue
        rows[key] = example.where
        if k == 1:
            other = rows.get(_digest(example.prompt, example.responses, not example.desirable))
            if other:
                report.add("contradicting label", example.where, f"the other label at {other}")
            continue
        pairs = [
            (example.responses[i], example.responses[j])
            for i, j in combinations(range(k), 2)
            if not example.scores or example.scores[i] > example.scores[j]
        ]
        opposite = next((at for a, b in pairs if (at := claims.get(_digest(example.prompt, b, a)))), None)
        if opposite:
            report.add("contradicting pair", example.where, f"prefers the opposite of {opposite}")
        for better, worse in pairs:
            claims.setdefault(_digest(example.prompt, better, worse), example.where)


def _digest(*parts: Any) -> bytes:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).digest()
