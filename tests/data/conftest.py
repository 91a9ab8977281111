"""Small tokenizers, built here, for the ways in which real ones differ."""

import gzip
import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

LINES = [
    "the answer is good",
    "the answer is bad",
    "is the other answer wer good?",
    "Human: hello Assistant: hello",
] * 4
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level(*specials: str) -> Tokenizer:
    """GPT-2's kind: byte-level pieces that merge across "ans|wer"."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=list(specials), show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer


def starting_with(tokenizer: Tokenizer, *specials: str) -> Tokenizer:
    """`tokenizer`, which now puts `specials` in front of every text."""
    ids = [(special, tokenizer.token_to_id(special)) for special in specials]
    tokenizer.post_processor = processors.TemplateProcessing(single=[*specials, "$A"], special_tokens=ids)
    return tokenizer


def metaspace(model, trainer) -> Tokenizer:
    """SentencePiece's kind: a space stands in front of a text's first word."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.train_from_iterator(LINES, trainer)
    return starting_with(tokenizer, "<s>")


def words() -> Tokenizer:
    """Whole words, the control tokens among them: looking one up by its spelling would find it."""
    vocabulary = ["<s>", "</s>", "<unk>", "the", "answer", "is", "good", "bad"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def build(kind: str) -> PreTrainedTokenizerFast:
    marks = {"bos_token": "<s>", "eos_token": "</s>"}
    specials = ["<s>", "</s>", "<unk>"]
    if kind == "adds_bos":
        return PreTrainedTokenizerFast(tokenizer_object=starting_with(byte_level("<s>", "</s>"), "<s>"), **marks)
    if kind == "no_bos":
        return PreTrainedTokenizerFast(tokenizer_object=byte_level("</s>"), eos_token="</s>")
    if kind == "unused_bos":  # GPT-2 and others: a BOS that is EOS, and that the tokenizer never puts in front
        return PreTrainedTokenizerFast(tokenizer_object=byte_level("<|end|>"), bos_token="<|end|>", eos_token="<|end|>")
    if kind == "metaspace":
        trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=specials, show_progress=False)
        tokenizer = metaspace(models.BPE(unk_token="<unk>"), trainer)
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **marks)
    if kind == "unigram":
        trainer = trainers.UnigramTrainer(
            vocab_size=60, special_tokens=specials, unk_token="<unk>", show_progress=False
        )
        tokenizer = metaspace(models.Unigram(), trainer)
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **marks)
    if kind == "words":
        return PreTrainedTokenizerFast(tokenizer_object=starting_with(words(), "<s>"), unk_token="<unk>", **marks)
    if kind == "chat":  # its template writes EOS after every message
        tokenizer = byte_level("<|im_start|>", "<|im_end|>")
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
        tokenizer.chat_template = CHATML
        return tokenizer
    if kind == "chat_bos":  # its tokenizer adds BOS and its template writes BOS; the template writes no EOS
        tokenizer = build("adds_bos")
        tokenizer.chat_template = (
            "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}[assistant]{% endif %}"
        )
        return tokenizer
    raise KeyError(kind)


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    """One tokenizer of each kind that takes text; tests do not change them."""
    return {kind: build(kind) for kind in ("adds_bos", "no_bos", "unused_bos", "metaspace", "unigram", "words")}


@pytest.fixture
def make_tokenizer():
    """A fresh tokenizer of a kind, for a test to change."""
    return build


@pytest.fixture
def write(tmp_path):
    """Write rows (dicts), lines (text) or bytes to a file, gzipped if its name says so, and give its path."""

    def write(content, filename="rows.jsonl"):
        if isinstance(content, list):
            lines = [line if isinstance(line, str) else json.dumps(line) for line in content]
            content = "".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass")
        path = tmp_path / filename
        path.write_bytes(gzip.compress(content) if filename.endswith(".gz") else content)
        return path

    return write
