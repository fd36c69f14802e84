"""`demiglace tokenizer train`: a vocabulary out of text."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from demiglace.config.command_options import TokenizerConfig
from demiglace.config.options import command, flatten
from demiglace.console import say
from demiglace.data.text.readers import counted, drops, read_texts, report_left_out
from demiglace.data.text.sources import corpus_files
from demiglace.errors import DataError, RunError
from demiglace.runs.directory import open_run, read_manifest
from demiglace.runs.files import fingerprint
from demiglace.runs.result import Result

END = "<|endoftext|>"  # as GPT-2 calls it
MASK, PAD = "<|mask|>", "<|pad|>"


@command(TokenizerConfig)
def tokenizer(config: TokenizerConfig) -> Result:
    """Train a byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909; over bytes, as GPT-2's) and save it.

    Returns the directory, which `AutoTokenizer.from_pretrained` and `--tokenizer` read. Raises `DataError` for files
    without text, and text too short for so many tokens, and `RunError` where the directory cannot be written.
    """
    files = corpus_files(config.corpus)
    inputs = {"corpus": fingerprint(files)}
    run = open_run(config.output, "tokenizer", flatten(config, result_options_only=True), inputs)
    if run.complete:
        say(f"{run.path} is up to date.")
        return _result(run.path)
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    core.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    # a masked language model is to tell padding from ends of text, which some of them number no position of
    own = {"mask_token": MASK, "pad_token": PAD} if config.mask_token else {"pad_token": END}
    special = list(dict.fromkeys([END, *own.values()]))
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = _Texts(files, config)
    core.train_from_iterator(texts, trainer)
    if not texts.documents:
        raise DataError(
            f"{', '.join(config.corpus)} holds no text ({counted(texts.left_out) or 'no document'}); look at the "
            "files, --text-key, --unit and --max-document-mb."
        )
    found = core.get_vocab_size()
    if found < config.vocab_size:
        raise DataError(
            f"{texts.characters:,} characters of text give {found:,} tokens and no more; give more text or "
            f"--vocab-size {found}."
        )
    trained = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=END,
        eos_token=END,
        unk_token=END,
        **own,
        clean_up_tokenization_spaces=False,
    )
    try:
        trained.save_pretrained(run.path)
    except OSError as error:
        raise RunError(f"{run.path} could not be written ({error}); make room there and repeat the command.") from error
    report_left_out(texts.left_out)
    counts = {"documents": texts.documents, "characters": texts.characters, "bytes": texts.bytes}
    run.finish(vocab_size=found, **counts, drops=drops(texts.left_out))
    say(f"{run.path}: {found:,} tokens from {texts.documents:,} documents, {texts.bytes / 1e6:,.1f} MB of text")
    return _result(run.path)


def _result(path: Path) -> Result:
    """Return the size of the vocabulary and of the text with the tokenizer's directory."""
    manifest = read_manifest(path)
    return Result(path, {name: manifest[name] for name in ("vocab_size", "documents", "characters", "bytes")})


class _Texts:
    """The documents' texts, counted as they go by."""

    def __init__(self, files: list[str], config: TokenizerConfig):
        self._files, self._config = files, config
        self.documents = self.characters = self.bytes = 0
        self.left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[str]:
        for text in read_texts(self._files, self._config.reading, self.left_out):
            self.documents += 1
            self.characters += len(text)
            self.bytes += len(text.encode())
            yield text
