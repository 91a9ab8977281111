"""Examples -> token ids. Training and generation get the ids of a prompt from one function, so they are the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pref_toolkit.data.examples import DataError, Example, Message
from pref_toolkit.data.report import Report
from pref_toolkit.data.rows import name, read

# Splits the spelling of a control token in a user's text, so that no tokenizer reads the spelling as the token. Valid
# text has no lone surrogate: `read` refuses rows with one.
BREAK = "\ud800"
ANCHOR = "\n"
ROWS_AT_ONCE = 1000


class NothingFits(DataError):
    """Every prompt is as long as ``max_length``, so no response fits. ``shortest`` is the tokens of the shortest prompt."""

    def __init__(self, sentence: str, shortest: int) -> None:
        super().__init__(sentence)
        self.shortest = shortest


@dataclass(frozen=True)
class Encoded:
    """An example as token ids.

    Args:
        prompt: ids of the prompt, at least one. A prompt is never cut.
        responses: K lists of ids, best first, each of at least one id. A response ends in EOS unless it was cut.
        where, scores, desirable, win_probabilities: as in ``Example``.
        target: ids of the supervised response, or None.
        drawn_logps: K lists of the log-probabilities with which a policy drew the tokens, nats; or None.
    """

    prompt: list[int]
    responses: list[list[int]]
    where: str
    scores: tuple[float, ...] | None = None
    desirable: bool | None = None
    win_probabilities: tuple[float, ...] | None = None
    target: list[int] | None = None
    drawn_logps: tuple[tuple[float, ...], ...] | None = None


def longest_of(examples: Sequence[Encoded]) -> int:
    """Most tokens in a prompt + response; a target is one. 0 without examples."""
    return max((len(e.prompt) + max(map(len, [*e.responses, e.target or []])) for e in examples), default=0)


def prepare(
    source: Any, tokenizer: Any, *, max_length: int | None = 1024, on_bad_row: str = "stop"
) -> tuple[list[Encoded], Report]:
    """Read rows and encode them. The report names every row that was refused, left out or changed.

    The arguments are those of ``read`` and ``encode``.

    Raises:
        DataError: for the reasons of ``read`` and ``encode``, or if no row remains.
    """
    report = Report()
    examples = read(source, on_bad_row=on_bad_row, report=report)
    encoded = encode(examples, tokenizer, max_length=max_length, report=report, on_bad_row=on_bad_row)
    if not encoded:
        reasons = ", ".join(f"{kind} {n}" for kind, n in report.counts.items())
        raise DataError(f"no examples left in {name(source)}: {reasons}")
    return encoded, report


def check(source: Any, tokenizer: Any = None, *, max_length: int | None = 1024) -> Report:
    """Check all rows and report every fault, instead of stopping at the first.

    Without a tokenizer, lengths in tokens are not checked.

    Raises:
        DataError: if ``source`` cannot be opened or has no rows, or the tokenizer has no EOS.
    """
    report = Report()
    examples = read(source, on_bad_row="skip", report=report)
    if tokenizer is not None:
        with suppress(NothingFits):  # the report names every row that is too long
            encode(examples, tokenizer, max_length=max_length, report=report, on_bad_row="skip")
    return report


@dataclass(frozen=True)
class _Rendered:
    """A prompt and its responses as text to tokenise. ``prefix`` holds the ids before the prompt's."""

    prefix: list[int]
    prompt: str
    responses: list[str]
    kinds: tuple[str, ...] = ()


def encode_prompt(tokenizer: Any, prompt: str | Sequence[Message]) -> list[int]:
    """The ids of a prompt, for training and for generation.

    Text gets the tokenizer's own prefix (one BOS, or nothing) once, even if the text already begins with BOS. The chat
    template renders chat messages, with its generation prompt. The spelling of a control token in a text or message is
    read as ordinary text. An empty prompt becomes BOS, or EOS if the tokenizer has no BOS: the first token of a response
    needs a token to be predicted from.

    Raises:
        DataError: if the tokenizer has no EOS, or no chat template that can render the messages.
    """
    reader = _Reader(tokenizer)
    rendered = reader.text(prompt, ()) if isinstance(prompt, str) else reader.chat(prompt, ())
    return reader.whole_prompt(rendered, reader.ids([rendered.prompt])[0])


def encode(
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    max_length: int | None,
    report: Report,
    on_bad_row: str = "stop",
) -> list[Encoded]:
    """The token ids of each example. Every response ends in exactly one EOS.

    Prompt and response are tokenised together, and the ids after the prompt's are those of the response. If the tokenizer
    merges characters across the boundary, the response is tokenised as a continuation instead, and the row is reported.

    Args:
        examples: from ``read``.
        tokenizer: any tokenizer of transformers, with an ``eos_token``; a chat template if the rows are messages.
        max_length: largest number of tokens in prompt + response. A longer response is cut; a row whose prompt leaves no
            room is left out. Both are reported. None sets no limit.
        report: receives the findings about rows that are left out or changed.
        on_bad_row: at a row that the chat template cannot render, ``"stop"`` raises and ``"skip"`` reports it.

    Raises:
        DataError: if the tokenizer has no EOS; if the chat template fails, or its prompt is not the beginning of the
            conversation (with ``"stop"``); if every prompt is as long as ``max_length``.
    """
    if max_length is not None and max_length < 2:
        raise DataError(f"max_length={max_length}, want 2 or more: a token of prompt and one of response")
    reader = _Reader(tokenizer)
    encoded: list[Encoded] = []
    too_long: list[int] = []
    for start in range(0, len(examples), ROWS_AT_ONCE):
        rendered = []
        for example in examples[start : start + ROWS_AT_ONCE]:
            try:
                rendered.append((example, reader.example(example)))
            except DataError as error:
                if on_bad_row == "stop":
                    raise DataError(f"{example.where}: {error}") from error
                report.add("chat template", example.where, str(error))
        ids = iter(reader.ids([text for _, r in rendered for text in (r.prompt, *(r.prompt + y for y in r.responses))]))
        for example, r in rendered:
            body = next(ids)
            prompt = reader.whole_prompt(r, body)
            together = [next(ids) for _ in r.responses]
            if max_length is not None and len(prompt) >= max_length:
                too_long.append(len(prompt))
                report.add("prompt too long", example.where, f"field 'prompt' fills max_length={max_length}; raise it")
                continue
            merged = any(both[: len(body)] != body for both in together)
            whole = [
                (both[len(body) :] if both[: len(body)] == body else reader.continuation(text)) + [reader.eos]
                for both, text in zip(together, r.responses)
            ]
            room = None if max_length is None else max_length - len(prompt)
            responses = [response[:room] for response in whole]
            cut = responses != whole
            target = responses.pop() if example.target is not None else None
            if len(responses) > 1 and all(response == responses[0] for response in responses):
                why = f"after the cut to max_length={max_length}" if cut else "to this tokenizer"
                report.add("identical tokens", example.where, f"the responses are the same {why}")
                continue
            for kind in r.kinds:
                report.add(kind, example.where, _REASONS[kind])
            if merged:
                report.add("boundary merge", example.where, "prompt and response would share a token; kept apart")
            if cut:
                report.add("response cut", example.where, f"the end and its EOS are lost at max_length={max_length}")
            own = (example.scores, example.desirable, example.win_probabilities)
            encoded.append(Encoded(prompt, responses, example.where, *own, target))
    if examples and len(too_long) == len(examples):
        shortest = f"(shortest prompt {min(too_long)} tokens)"
        raise NothingFits(f"all {len(examples)} rows exceed max_length={max_length} {shortest}", min(too_long))
    return encoded


_REASONS = {
    "BOS or EOS in text": "the text spells the token that is added anyway; one is kept",
    "control tokens in text": "they are read as ordinary text",
}


class _Reader:
    """A tokenizer with the ids that it puts before a text and the spellings of its control tokens."""

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token_id is None:
            raise DataError("tokenizer has no eos_token; set tokenizer.eos_token to the token that ends a response")
        self.tokenizer = tokenizer
        self.eos: int = tokenizer.eos_token_id
        spellings = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        # A token of one character cannot be broken in two.
        spellings = {text for text in spellings.union(tokenizer.all_special_tokens) if len(text) > 1}
        longest_first = sorted(spellings, key=len, reverse=True)
        self.control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        alone, dressed = (self._encode(["a"], add_special_tokens=add)[0] for add in (False, True))
        before = (n for n in range(len(dressed)) if dressed[n : n + len(alone)] == alone)
        self.prefix: list[int] = dressed[: next(before, 0)]

    def example(self, example: Example) -> _Rendered:
        responses = [*example.responses, *([] if example.target is None else [example.target])]
        if isinstance(example.prompt, str):
            return self.text(example.prompt, responses)
        return self.chat(example.prompt, responses)

    def text(self, prompt: str, responses: Sequence[Any]) -> _Rendered:
        bos, eos = self.tokenizer.bos_token, self.tokenizer.eos_token
        bare_prompt = _without(prompt, start=bos)
        bare = [_without(response, start=bos, end=eos) for response in responses]
        kinds = []
        if bare_prompt != prompt or bare != list(responses):
            kinds.append("BOS or EOS in text")
        if any(self.control.search(text) for text in (bare_prompt, *bare)):
            kinds.append("control tokens in text")
        prefix = self.prefix
        if bare_prompt != prompt and self.tokenizer.bos_token_id not in prefix:
            prefix = [self.tokenizer.bos_token_id, *prefix]
        return _Rendered(prefix, self._broken(bare_prompt), [self._broken(text) for text in bare], tuple(kinds))

    def chat(self, prompt: Sequence[Message], responses: Sequence[Any]) -> _Rendered:
        if not self.tokenizer.chat_template:
            raise DataError("the row is chat messages and the tokenizer has no chat_template; set one, or give text")
        given, given_responses = [*prompt], [[*response] for response in responses]
        prompt, responses = self._broken(given), self._broken(given_responses)
        kinds = ("control tokens in text",) if prompt != given or responses != given_responses else ()
        start = self._render(prompt, add_generation_prompt=True)
        ends = []
        for response in responses:
            whole = self._render([*prompt, *response], add_generation_prompt=False)
            if not whole.startswith(start):
                raise DataError(
                    "the chat template's prompt, with add_generation_prompt, is not the beginning of the whole "
                    "conversation it renders; training would not match generation, so change tokenizer.chat_template"
                )
            end = whole[len(start) :]
            # The template's text after EOS (often a line break) is never generated.
            ends.append(_without(end.rstrip(), end=self.tokenizer.eos_token) if self._ends(end) else end)
        return _Rendered([], start, ends, kinds)

    def _ends(self, text: str) -> bool:
        return text.rstrip().endswith(self.tokenizer.eos_token)

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # a template is somebody else's program and may raise anything
            reason = " ".join(str(error).split())[:300]
            raise DataError(f"the tokenizer's chat template cannot render the messages: {reason}") from error

    def _broken(self, value: Any) -> Any:
        """A text, or every text in messages, with the spelling of each control token split by BREAK."""
        if isinstance(value, dict):
            return {key: self._broken(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self._broken(part) for part in value]
        if not isinstance(value, str):
            return value
        while self.control.search(value):  # again, because spellings may overlap
            value = self.control.sub(lambda found: found[0][0] + BREAK + found[0][1:], value)
        return value

    def whole_prompt(self, rendered: _Rendered, body: list[int]) -> list[int]:
        bos = self.tokenizer.bos_token_id
        return rendered.prefix + body or [self.eos if bos is None else bos]

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, without special tokens. No token crosses a BREAK."""
        pieces = [text.split(BREAK) for text in texts]
        ids = self._encode([first for first, *_ in pieces])
        for row, (_, *rest) in zip(ids, pieces):
            for piece in rest:
                row.extend(self.continuation(piece))
        return ids

    def continuation(self, text: str) -> list[int]:
        """Ids of a text that continues another, without the space that some tokenizers put before a first word."""
        text, *rest = text.split(BREAK)
        anchor, both, ids = self._encode([ANCHOR, ANCHOR + text, text])
        if len(both) > len(anchor) and both[: len(anchor)] == anchor:
            ids = both[len(anchor) :]
        return ids + [i for piece in rest for i in self.continuation(piece)]

    def _encode(self, texts: list[str], add_special_tokens: bool = False) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=add_special_tokens, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]


def _without(text: str, start: str | None = None, end: str | None = None) -> str:
    while start and text.startswith(start):
        text = text.removeprefix(start)
    while end and text.endswith(end):
        text = text.removesuffix(end)
    return text
