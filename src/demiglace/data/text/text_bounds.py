"""Where a text begins and ends for a language model: the special tokens of its tokenizer."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from demiglace.config.data import AddBos
from demiglace.data.text.token_shards import end_of_text
from demiglace.errors import ConfigError


@dataclass(frozen=True)
class TextBounds:
    """The special tokens around a text."""

    begin: int | None  # beginning-of-text token that the model is used with; None for none
    end: int  # end-of-text token, which separates documents
    adds_end: bool  # whether the tokenizer adds it to a text
    name: str = ""  # of the beginning token
    note: str = ""  # why a beginning token that the tokenizer has is not used

    def describe(self) -> str:
        """Return the convention in words, for a protocol."""
        if self.begin is not None:
            return f"each document separately, each window after the beginning token {self.name}"
        note = f" ({self.note})" if self.note else ""
        return f"documents one after another, each after an end-of-text token, without a beginning token{note}"


def text_bounds(tokenizer: PreTrainedTokenizerBase, add_bos: AddBos) -> TextBounds:
    """Return the bounds of a text; for `auto`, with a beginning token where the tokenizer adds one.

    Models that were trained with it, such as Gemma, are of no use without it. Raises `ConfigError` for `true` and a
    tokenizer that has none, `ModelError` as `end_of_text` does.
    """
    end, begin = end_of_text(tokenizer), tokenizer.bos_token_id
    if add_bos == "true" and begin is None:
        raise ConfigError(
            "--add-bos true was given, and the tokenizer has no beginning-of-text token (bos_token); give auto or "
            "false."
        )
    ids: list[int] = tokenizer("a", verbose=False)["input_ids"]
    adds_begin = begin is not None and ids[0] == begin
    if add_bos == "true" or (add_bos == "auto" and adds_begin):
        return TextBounds(begin, end, ids[-1] == end, str(tokenizer.bos_token))
    note = ""
    if adds_begin:
        note = f"--add-bos false leaves out {tokenizer.bos_token}, which the tokenizer adds"
    elif begin not in (None, end):
        note = f"the tokenizer has {tokenizer.bos_token} and does not add it"
    return TextBounds(None, end, False, note=note)
