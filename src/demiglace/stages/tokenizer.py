"""`demiglace tokenizer train`: a vocabulary out of text."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from demiglace.config import command, flatten
from demiglace.console import say
from demiglace.data.document_files import corpus_files
from demiglace.data.documents import Document, read_documents
from demiglace.errors import DataError
from demiglace.manifest import fingerprint, open_run
from demiglace.stages.config import TokenizerConfig

END = "<|endoftext|>"  # as GPT-2 calls it
MASK = "<|mask|>"


@command(TokenizerConfig)
def tokenizer(config: TokenizerConfig) -> Path:
    """Train a byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909; over bytes, as GPT-2's) and save it.

    Returns the directory, which `AutoTokenizer.from_pretrained` and `--tokenizer` read. Raises `DataError` for files
    without text, and text too short for so many tokens.
    """
    files = corpus_files(config.corpus)
    inputs = {"corpus": fingerprint(files)}
    run = open_run(config.output, "tokenizer", flatten(config, deciding_only=True), inputs)
    if run.complete:
        say(f"{run.path} is up to date.")
        return run.path
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    core.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = [END, *([MASK] if config.mask_token else [])]
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = _Texts(files, config)
    core.train_from_iterator(texts, trainer)
    if not texts.characters:
        raise DataError(f"{', '.join(config.corpus)} holds no text; look at --text-key, --unit and --max-document-mb.")
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
        pad_token=END,
        **({"mask_token": MASK} if config.mask_token else {}),
        clean_up_tokenization_spaces=False,
    )
    trained.save_pretrained(run.path)
    run.finish(vocab_size=found, documents=texts.documents, characters=texts.characters)
    say(f"{run.path}: {found:,} tokens from {texts.documents:,} documents, {texts.characters / 1e6:,.1f} MB of text")
    return run.path


class _Texts:
    """The documents' texts, counted as they go by."""

    def __init__(self, files: list[str], config: TokenizerConfig):
        self._files, self._config = files, config
        self.documents = self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for file in self._files:
            for document in read_documents(file, self._config.reading):
                if isinstance(document, Document):
                    self.documents += 1
                    self.characters += len(document.text)
                    yield document.text.encode("utf-8", "replace").decode("utf-8")
