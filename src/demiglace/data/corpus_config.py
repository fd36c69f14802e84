"""Options that say which text a language model reads, and how it is cut."""

from dataclasses import dataclass

from demiglace.config.options import group, option
from demiglace.data.document_config import ReadConfig


@dataclass(frozen=True)
class CorpusConfig:
    """Documents to train a language model on, as blocks of tokens."""

    corpus: tuple[str, ...] = option(
        "files, folders or globs of documents: .txt, .jsonl, .parquet, also .gz and .zst, or a run of `clean`", ()
    )
    validation_corpus: tuple[str, ...] = option(
        "documents to validate on; without them the last blocks of the corpus, which are then not trained on", ()
    )
    validation_blocks: int = option("at most so many blocks to validate on", 256, at_least=1)
    block_size: int | None = option("tokens of a row; none: 512, or what the model takes", None, at_least=2)
    max_tokens: int | None = option(
        "use only so many tokens of the corpus, in blocks drawn with the seed 0", None, at_least=1
    )
    token_files: str = option(
        "where the token files are kept: auto (in the run directory, till its end), or a directory that runs share",
        "auto",
        decides=False,
    )
    reading: ReadConfig = group(ReadConfig)
