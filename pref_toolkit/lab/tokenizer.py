"""The lab's tokenizer: one token for each digit and each word."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pref_toolkit.lab.language import CLOSINGS, OPENINGS

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A new tokenizer. Encoding and decoding text of the language gives the text again; the same holds for ordinary tokens."""
    spoken = sorted({word for part in OPENINGS + CLOSINGS for word in part.split()})
    vocabulary = [*SPECIAL, *"0123456789+=", *spoken]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("[0-9+=]"), behavior="isolated")]
    )
    # Join the tokens with spaces, then remove the spaces between two digits and around the signs.
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            decoders.Replace(Regex("(?<=[0-9]) (?=[0-9])|(?<=[+=]) | (?=[+=])"), ""),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary.index("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
