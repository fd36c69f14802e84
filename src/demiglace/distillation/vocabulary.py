"""A student with fewer tokens than its teacher: which ones, and how the teacher is read nevertheless.

- Rows, and signals of full rows (logits, pooled states): each model reads the text with its tokenizer. So the signals
  are those of the full teacher, and students of any vocabulary share a cache.
- Signals of every token (attention, states of tokens), and language models: the teacher reads the student's tokens, by
  `models.trimmed_model.trim_model`. The logits of the removed tokens are left out, so that its distribution is that of
  the kept tokens, renormalized.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.command_options import STATIC, DistillConfig
from demiglace.console import say
from demiglace.data.batching import collate
from demiglace.data.rows.schema import Split
from demiglace.data.text.blocks import Blocks
from demiglace.data.text.readers import drops, read_texts, report_left_out
from demiglace.data.text.sources import corpus_files
from demiglace.data.text.vocabulary_texts import vocabulary_files, vocabulary_texts
from demiglace.data.tokenize import TokenizedSplit
from demiglace.errors import ConfigError
from demiglace.methods.base import Method
from demiglace.models.language_model import head_input
from demiglace.models.loading import check_same_vocabulary, load_config, resolve_model
from demiglace.models.modes import evaluating
from demiglace.models.trimmed_model import trim_model
from demiglace.models.trimmed_tokenizer import (
    Coverage,
    choose_vocabulary,
    coverage,
    report,
    trim_tokenizer,
    vocabulary_between,
)
from demiglace.models.vocabulary import TrimmedVocabulary, check_options, token_counts, trim_vocabulary
from demiglace.runs.directory import Run
from demiglace.runs.files import fingerprint, read_json, write_json
from demiglace.runs.processes import processes
from demiglace.training.datasets import TaskData, tokenize_splits, with_unlabelled

_FILE = "vocabulary.json"  # in the run directory
_MASS_TOKENS = 2_048  # on which the kept share of the teacher's probability is measured


@dataclass(frozen=True)
class StudentTokens:
    """The tokens of a student."""

    tokenizer: PreTrainedTokenizerBase
    vocabulary: TrimmedVocabulary | None = None  # which of the teacher's tokens they are; None: all
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the manifest

    def trim(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a model with these tokens, from one with the teacher's."""
        return model if self.vocabulary is None else trim_model(model, self.vocabulary)


def vocabulary_inputs(config: DistillConfig) -> dict[str, str]:
    """Return the fingerprint of --vocabulary-corpus, if given. Raises `ConfigError` for options that do not fit."""
    options = config.trimming
    check_options(options, corpus_needed=False)
    if not options.vocabulary_corpus:
        return {}
    return {"vocabulary corpus": fingerprint(vocabulary_files(options.vocabulary_corpus))}


def student_tokens(
    config: DistillConfig,
    run: Run,
    teacher: PreTrainedTokenizerBase,
    load: Callable[[str], PreTrainedTokenizerBase],
    splits: Mapping[str, Split] | None = None,
) -> StudentTokens:
    """Return the student's tokens: the teacher's, those that --student has, or those that --vocabulary trim chooses.

    How many tokens are kept, and how rows change, is printed. The choice is made once: a resumed run, and all processes
    of a `torchrun`, read RUN/vocabulary.json.

    Args:
        config: of the run.
        run: its directory.
        teacher: the teacher's tokenizer.
        load: loads the tokenizer of --student.
        splits: the rows; None for a corpus.

    Raises:
        ModelError: a student with other tokens than the teacher's, or a tokenizer that cannot be trimmed.
        ConfigError: a --vocabulary-size that is too small.
    """
    trims = config.trimming.vocabulary == "trim"
    if config.student and config.student != STATIC:
        student = load(config.student)
        if not trims and (known := vocabulary_between(teacher, student)) is not None:
            say(f"the student has {len(known):,} of the teacher's {known.full:,} tokens.")
            return StudentTokens(student, known, {"vocabulary": {"kept": len(known), "full": known.full}})
        check_same_vocabulary(teacher, student, padded=splits is not None)
    if not trims:
        return StudentTokens(teacher)
    file = run.path / _FILE
    if processes().is_main_process and not file.exists():
        _choose(config, teacher, splits, file)
    processes().wait_for_everyone()
    content = read_json(file)
    vocabulary = TrimmedVocabulary.from_json(content["vocabulary"])
    measured = None if content["coverage"] is None else Coverage(**content["coverage"])
    facts = report(vocabulary, measured, content["measured on"]) | {"drops": content["drops"]}
    return StudentTokens(trim_tokenizer(teacher, vocabulary), vocabulary, {"vocabulary": facts})


def _choose(
    config: DistillConfig, tokenizer: PreTrainedTokenizerBase, splits: Mapping[str, Split] | None, file: Path
) -> None:
    """Choose the tokens and measure them on the validation rows or corpus, else on a tenth of the texts."""
    options, left_out = config.trimming, Counter[str]()
    reading, model = config.text.reading, load_config(resolve_model(config.teacher))

    def texts() -> Iterator[str]:
        if splits is None:
            yield from read_texts(corpus_files(config.text.corpus), reading, left_out)
        else:
            yield from texts_of(split for name, split in splits.items() if name in ("train", "unlabelled"))
        yield from vocabulary_texts(vocabulary_files(options.vocabulary_corpus or ()), reading, left_out)

    measured: Coverage | None
    if splits is None and not config.text.validation_corpus:
        vocabulary, measured = choose_vocabulary(tokenizer, texts(), model, options.vocabulary_size)
        what = "of the texts, with the vocabulary of the others"
    else:
        vocabulary = trim_vocabulary(tokenizer, token_counts(tokenizer, texts()), model, size=options.vocabulary_size)
        held = (
            read_texts(corpus_files(config.text.validation_corpus), reading, Counter())
            if splits is None
            else texts_of([splits["validation"]])
        )
        measured = coverage(tokenizer, trim_tokenizer(tokenizer, vocabulary), vocabulary, held)
        what = "validation texts"
    report_left_out(left_out, "the vocabulary's texts")
    found = None if measured is None else asdict(measured)
    content = {"vocabulary": vocabulary.to_json(), "coverage": found, "measured on": what, "drops": drops(left_out)}
    write_json(file, content)


def texts_of(splits: Iterable[Split]) -> Iterator[str]:
    """Yield the texts of rows, both of pairs."""
    for split in splits:
        yield from split.texts
        yield from split.pairs or ()


def check_augmentation(config: DistillConfig, method: Method, *, trimmed: bool) -> None:
    """Raise `ConfigError` for a method that rewrites rows, if the student has fewer tokens than the teacher."""
    if method.augmentation is not None and trimmed:
        raise ConfigError(
            f"method {config.method} rewrites rows in the teacher's tokens, of which the student has only some; take a "
            "student with all of them, or another method, such as rail-balanced."
        )


def teacher_rows(
    splits: Mapping[str, Split],
    student: TaskData,
    tokenizer: PreTrainedTokenizerBase,
    models: Sequence[PreTrainedModel],
) -> dict[str, TokenizedSplit]:
    """Return the rows of all splits in the teacher's tokens, truncated as the student's.

    Where words have labels, only words that have a token in both count: rows of more tokens may lose their last ones.
    """
    rows = with_unlabelled(tokenize_splits(splits, student.max_length, tokenizer, models))
    return {name: _with_words_of(student.examples[name], each) for name, each in rows.items()}


def _with_words_of(of_student: TokenizedSplit, rows: TokenizedSplit) -> TokenizedSplit:
    if rows.starts is None or of_student.starts is None:
        return rows
    return replace(rows, starts=np.where(of_student.starts < 0, -1, rows.starts))


def say_other_tokens(rows: TokenizedSplit, of_student: TokenizedSplit, vocabulary: TrimmedVocabulary) -> None:
    """Print in how many training rows a teacher that reads the student's tokens reads others than its usual ones."""
    split = [np.split(each.ids, each.offsets[1:-1]) for each in (rows, of_student)]
    count = sum(not np.array_equal(old, vocabulary.kept[new]) for old, new in zip(*split, strict=True))
    say(
        f"the method compares single tokens, so the teacher reads the student's: in {count:,} of {len(rows):,} rows to "
        "train on they are not the teacher's usual ones."
    )


def kept_probability(teacher: PreTrainedModel, blocks: Blocks, vocabulary: TrimmedVocabulary) -> float:
    """Return the share of a language model's probability that kept tokens have, on about 2,000 tokens; print it.

    teacher: with its full vocabulary; blocks: of kept tokens, under their new ids.
    """
    batch = collate(blocks, np.arange(min(len(blocks), max(1, _MASS_TOKENS // blocks.size))), teacher.device)
    kept = torch.from_numpy(vocabulary.kept).to(teacher.device)
    inputs = batch.inputs | {"input_ids": kept[batch.input_ids]}
    with torch.inference_mode(), evaluating(teacher), head_input(teacher) as captured:
        teacher(**inputs)
    output, total, count = captured[0].at(batch.positions), 0.0, 0
    with torch.inference_mode():
        for hidden in output.hidden.split(64):
            logits = torch.nn.functional.linear(hidden, output.weight, output.bias).float()
            total += float(logits.softmax(-1)[:, kept].sum())
            count += len(hidden)
    share = total / count
    say(
        f"teacher: the kept tokens have {share:.1%} of its probability ({count:,} tokens of the validation blocks); "
        "the student learns the distribution over these, renormalized."
    )
    return share
