"""The options of every command."""

from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from demiglace.config.data import ADD_BOS, AddBos, CorpusConfig, DataConfig, DataLocation, ReadConfig
from demiglace.config.export_formats import EXPORTERS
from demiglace.config.options import LARGEST_SEED, group, option
from demiglace.config.training import LEARNING_RATE, STATIC_LEARNING_RATE, TrainConfig

Strategy = Literal["alternate", "distil", "bottom", "top", "first-middle-last", "by-kind", "random", "embeddings"]
TextStrategy = Literal["block-influence", "greedy"]  # measured on text
AnyStrategy = Literal["auto", Strategy, TextStrategy]
STATIC = "static"  # as --student: token vectors made by the teacher, and a linear layer


def _output(help: str = "run directory", default: Any = MISSING) -> Any:
    """Return the option --output."""
    return option(help, default, short="-o", decides=False, section="output", common=True)


def _model(help: str, default: Any = MISSING, **more: Any) -> Any:
    """Return an option that chooses a model or its shape."""
    return option(help, default, section="model", **more)


def _revision(of: str) -> Any:
    """Return the option --revision."""
    return _model(f"branch, tag or commit of a {of} that is a hub name; the same as NAME@REVISION", None)


def _pin(config: Any, *names: str) -> None:
    """Move --revision into the name of the model, so that every reader of that name has it.

    names: options of the model, of which the first that is given counts; without one --revision stays, and the command
    refuses it. That of a local model is refused when its name is resolved.
    """
    name = next((n for n in names if getattr(config, n)), None)
    if config.revision is None or name is None:
        return
    object.__setattr__(config, name, f"{getattr(config, name)}@{config.revision}")
    object.__setattr__(config, "revision", None)


def _choose_method(config: Any) -> None:
    """Replace the method auto by the one that it means for the student."""
    if config.method == "auto":
        object.__setattr__(config, "method", "vanilla-kd" if config.student == STATIC else "rail-balanced")


def _push_to_hub() -> Any:
    """Return the option --push-to-hub."""
    return option(
        "upload the finished model and its card to this repository of the Hugging Face hub, as OWNER/NAME; a new one "
        "is private",
        None,
        decides=False,
        section="output",
    )


def _allow_pickle() -> Any:
    """Return the option --allow-pickle."""
    return _model("load weights that exist only as a pickle file, which can run any code", False)


def _max_length() -> Any:
    """Return the option --max-length of commands that read a trained model."""
    return option(
        "longest example, in tokens; longer ones are truncated; none: as the model was trained, else its limit",
        None,
        at_least=4,
        section="data",
    )


@dataclass(frozen=True)
class VocabularyConfig:
    """Which tokens the embeddings keep."""

    SECTION: ClassVar[str] = "model"

    vocabulary: Literal["full", "trim"] = option(
        "full, or trim: keep the tokens that some texts use, special tokens and single characters", "full"
    )
    vocabulary_corpus: tuple[str, ...] | None = option(
        "texts whose tokens trim keeps, for distill beside the training texts: files, folders or globs, in the formats "
        "of a corpus, or CSV and TSV files",
        None,
    )
    vocabulary_size: int | None = option(
        "tokens that trim keeps at most, the most frequent ones; none: all that the texts use", None, at_least=1
    )


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tune a model on labelled rows of texts: a teacher, or a student without a teacher."""

    model: str = _model("model directory, run directory or hub name to start from", common=True)
    output: Path = _output()
    source: DataConfig = group(DataConfig)
    location: DataLocation = group(DataLocation)
    training: TrainConfig = group(TrainConfig)
    allow_pickle: bool = _allow_pickle()
    revision: str | None = _revision("model")
    push_to_hub: str | None = _push_to_hub()

    def __post_init__(self) -> None:
        _pin(self, "model")


@dataclass(frozen=True)
class WidthConfig:
    """Sizes of a narrower student, by the names of Hugging Face's configs."""

    intermediate_size: int | None = _model(
        "units of each feed-forward layer to keep; none: all", None, at_least=1, common=True
    )
    num_attention_heads: int | None = _model(
        "attention heads of each layer to keep; key and value heads shrink in the same ratio; none: all, or as many as "
        "--hidden-size allows where heads follow from it (BERT, GPT-2)",
        None,
        at_least=1,
    )
    hidden_size: int | None = _model("hidden channels to keep; none: all", None, at_least=1, common=True)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes that are given."""
        return {f.name: size for f in fields(self) if (size := getattr(self, f.name)) is not None}


@dataclass(frozen=True)
class TruncateConfig:
    """Truncate a model: keep some of its layers, of their units, or of its tokens; embeddings, norms and head stay.

    Strategies by position: alternate, distil, bottom, top, first-middle-last. Measured on text: block-influence drops
    the layers that change the direction of hidden states least; greedy drops one layer after another, each time the one
    without which the loss is least. Ablations: embeddings has new layers and a new final norm; random keeps only the
    shape.
    """

    model: str = _model("model directory, run directory or hub name", positional=True, common=True)
    output: Path = _output("directory of the truncated model")
    layers: int | None = _model(
        "number of layers to keep; none: all, if a size of the width is given", None, at_least=1, common=True
    )
    strategy: AnyStrategy = _model(
        "which layers to keep; auto: block-influence for a causal language model with --calibration, else by-kind for "
        "a model with several kinds of layers, else alternate",
        "auto",
        common=True,
    )
    keep: tuple[int, ...] | None = _model(
        "indices of the layers to keep, from 0, instead of --layers", None, at_least=0, common=True
    )
    width: WidthConfig = group(WidthConfig)
    calibration: tuple[str, ...] | None = option(
        "text to measure layers on, for block-influence and greedy, and units of the width: files, folders or globs; "
        ".txt, .jsonl, also with .gz or .zst, .parquet",
        None,
        section="corpus",
        common=True,
    )
    calibration_tokens: int = option(
        "tokens of that text to read, as many from each file", 20_000, at_least=1, section="corpus"
    )
    seed: int = _model(
        "seed of the new weights of --strategy embeddings and random; other than 0, also draws other calibration text",
        0,
        at_least=0,
        at_most=LARGEST_SEED,
    )
    trimming: VocabularyConfig = group(VocabularyConfig)
    reading: ReadConfig = group(ReadConfig)
    allow_pickle: bool = _allow_pickle()
    revision: str | None = _revision("model")
    push_to_hub: str | None = _push_to_hub()

    def __post_init__(self) -> None:
        _pin(self, "model")


@dataclass(frozen=True)
class DistillConfig:
    """Distill a teacher into a student, on rows of texts (with or without labels) or on a corpus."""

    teacher: str = _model("model directory or run directory of the fine-tuned teacher", common=True)
    output: Path = _output()
    student: str | None = _model(
        "model to train; static: token vectors made by the teacher, and a linear layer; none: the teacher truncated to "
        "--layers",
        None,
    )
    embedding_size: int | None = _model(
        "width of the token vectors of --student static; none: 256, or the teacher's width if that is less",
        None,
        at_least=1,
    )
    layers: int | None = _model(
        "layers of the student, truncated from the teacher; none: all, if a size of the width is given",
        None,
        at_least=1,
        common=True,
    )
    strategy: AnyStrategy = _model(
        "which of the teacher's layers the student keeps; block-influence and greedy are measured on 20,000 tokens of "
        "the training text; auto: block-influence for causal language models with --corpus, else by-kind for a "
        "teacher with several kinds of layers, else alternate",
        "auto",
    )
    keep: tuple[int, ...] | None = _model(
        "indices of the layers that the student keeps, from 0, instead of --layers", None, at_least=0
    )
    width: WidthConfig = group(WidthConfig)
    trimming: VocabularyConfig = group(VocabularyConfig)
    method: str = option(
        "a method of `demiglace methods`, or a YAML file that composes one; auto: rail-balanced, or vanilla-kd for "
        "--student static",
        "auto",
        section="method",
        common=True,
    )
    method_options: dict[str, Any] = option(
        "the method's options, as --method-options.NAME VALUE", {}, section="method"
    )
    cache: str = option(
        "cache of the teacher's logits and hidden states: auto (in the run directory), off, or a directory",
        "auto",
        section="cache",
    )
    cache_dtype: Literal["float16", "float32"] = option("number format of the cache", "float16", section="cache")
    source: DataConfig = group(DataConfig)
    label_map: dict[str, str | list[str] | None] = option(
        "label of the rows -> label of the teacher, where their names differ: {bad: LABEL_0, good: LABEL_1}",
        {},
        section="data",
    )
    text: CorpusConfig = group(CorpusConfig)
    cache_tokens: Literal["none", "sampled", "top-k"] = option(
        "with --corpus, which tokens of the teacher's distribution are cached: none (the teacher runs in every step), "
        "sampled (drawn from it: unbiased) or top-k (the most probable: biased, for comparison)",
        "none",
        section="cache",
    )
    cached_per_token: int = option(
        "entries of the teacher's distribution that are cached for each predicted token",
        12,
        at_least=1,
        section="cache",
    )
    mlm_probability: float = option(
        "masked language models: share of the tokens to predict", 0.15, above=0, below=1, section="corpus"
    )
    location: DataLocation = group(DataLocation)
    training: TrainConfig = group(TrainConfig, learning_rate=None)
    allow_pickle: bool = _allow_pickle()
    revision: str | None = _revision("teacher")
    push_to_hub: str | None = _push_to_hub()

    def __post_init__(self) -> None:
        _pin(self, "teacher")
        _choose_method(self)
        if self.training.learning_rate is None:
            rate = STATIC_LEARNING_RATE if self.student == STATIC else LEARNING_RATE
            object.__setattr__(self, "training", replace(self.training, learning_rate=rate))


def _option_like(name: str, kind: type = DistillConfig) -> Any:
    """Return the option of that name of another command."""
    found = next(f for f in fields(kind) if f.name == name)
    return field(default=found.default, default_factory=found.default_factory, metadata=found.metadata)


@dataclass(frozen=True)
class TokenizerConfig:
    """Train a tokenizer: byte-level BPE, which encodes every text, with an end-of-text token."""

    action: Literal["train"] = option("the word train", positional=True, common=True)
    corpus: tuple[str, ...] = option(
        "files, folders or globs of documents: .txt and .jsonl, also with .gz or .zst, .parquet",
        section="corpus",
        common=True,
    )
    output: Path = _output("directory of the tokenizer")
    vocab_size: int = option(
        "size of the vocabulary, the end-of-text token included", 8192, at_least=257, section="model", common=True
    )
    mask_token: bool = _model("also a mask token, for masked language models", False)
    reading: ReadConfig = group(ReadConfig)


@dataclass(frozen=True)
class PretrainConfig:
    """Pre-train a language model on text, causal or masked as its architecture is: a checkpoint, or new weights."""

    output: Path = _output()
    model: str | None = _model("model directory, run directory or hub name to continue from", None, common=True)
    architecture: str | None = _model(
        "instead of --model, new weights: a kind of model (gpt2, llama, bert, …), or a model directory for its config",
        None,
        common=True,
    )
    tokenizer: str | None = _model(
        "directory of a new model's tokenizer; none: that of --architecture", None, common=True
    )
    hidden_size: int | None = _model("width of a new model", None, at_least=1, common=True)
    num_layers: int | None = _model("layers of a new model", None, at_least=1, common=True)
    num_heads: int | None = _model(
        "attention heads of a new model; none: one for each 64 of its width", None, at_least=1
    )
    intermediate_size: int | None = _model(
        "width of a new model's feed-forward layers; none: 4 times --hidden-size", None, at_least=1
    )
    mlm_probability: float = option(
        "masked language models: share of the tokens to predict", 0.15, above=0, below=1, section="corpus"
    )
    text: CorpusConfig = group(CorpusConfig)
    training: TrainConfig = group(TrainConfig)
    allow_pickle: bool = _allow_pickle()
    revision: str | None = _revision("model")
    push_to_hub: str | None = _push_to_hub()

    def __post_init__(self) -> None:
        _pin(self, "model")


@dataclass(frozen=True)
class PlanConfig:
    """Estimate the cost of a run of distill, finetune or pretrain from the run's options; train and write nothing.

    Only the models' configs are read, so weights need not be there; of a large corpus only a part is read.
    `demiglace plan compress MODEL …` is `demiglace compress MODEL … --dry-run`.
    """

    teacher: str | None = _model("teacher of `distill`", None, common=True)
    model: str | None = _model("or model of `finetune`; with --corpus, of `pretrain`", None, common=True)
    architecture: str | None = _model("or architecture of a new model of `pretrain`", None, common=True)
    output: Path | None = option("run directory, whose disk would hold the cache", None, short="-o", section="output")
    student: str | None = _option_like("student")
    embedding_size: int | None = _option_like("embedding_size")
    layers: int | None = _option_like("layers")
    strategy: AnyStrategy = _option_like("strategy")
    keep: tuple[int, ...] | None = _option_like("keep")
    trimming: VocabularyConfig = group(VocabularyConfig)
    method: str = _option_like("method")
    method_options: dict[str, Any] = _option_like("method_options")
    label_map: dict[str, str | list[str] | None] = _option_like("label_map")
    cache: str = _option_like("cache")
    cache_dtype: Literal["float16", "float32"] = _option_like("cache_dtype")
    cache_tokens: Literal["none", "sampled", "top-k"] = _option_like("cache_tokens")
    cached_per_token: int = _option_like("cached_per_token")
    mlm_probability: float = _option_like("mlm_probability")
    tokenizer: str | None = _option_like("tokenizer", PretrainConfig)
    hidden_size: int | None = _model("width of the student or of a new model", None, at_least=1, common=True)
    num_layers: int | None = _option_like("num_layers", PretrainConfig)
    num_heads: int | None = _option_like("num_heads", PretrainConfig)
    num_attention_heads: int | None = _option_like("num_attention_heads", WidthConfig)
    intermediate_size: int | None = _model(
        "units of each feed-forward layer of the student; or of a new model: none: 4 times --hidden-size",
        None,
        at_least=1,
    )
    devices: int = option("processes that share the work", 1, at_least=1, section="hardware")
    flops: float | None = option(
        "FLOP/s that one device sustains, instead of a measurement of this machine", None, above=0, section="hardware"
    )
    calibration_seconds: float = option(
        "seconds for the measurement of this machine's speed", 10.0, above=0, section="hardware"
    )
    source: DataConfig = group(DataConfig)
    text: CorpusConfig = group(CorpusConfig)
    location: DataLocation = group(DataLocation)
    training: TrainConfig = group(TrainConfig)
    allow_pickle: bool = _option_like("allow_pickle")
    revision: str | None = _revision("teacher or model")

    def __post_init__(self) -> None:
        _pin(self, "teacher", "model")
        _choose_method(self)


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate a model on one or more sets of rows, out-of-domain ones included, or a language model on text."""

    SECTION: ClassVar[str] = "data"

    model: str = _model(
        "model directory, run directory, export directory, or a model file in an export directory",
        positional=True,
        common=True,
    )
    output: Path | None = _output("run directory of the results; none: they are only printed", None)
    data: tuple[str, ...] = option("tasks or files to evaluate on, as NAME or NAME:SPLIT", (), common=True)
    suite: tuple[str, ...] = option(
        "suites of further sets: ood (for the task that the model was trained on), another task's name, or a YAML file",
        (),
        common=True,
    )
    teacher: str | None = _model(
        "also report the agreement with this model, or with the model of this run of `evaluate`", None, common=True
    )
    label_map: dict[str, str | list[str] | None] = option(
        "label of the set -> label of the model: {entailment: entailment, neutral: not_entailment}", {}, common=True
    )
    text_columns: tuple[str, ...] | None = option("one or two text columns; none: found by their usual names", None)
    label_column: str | None = option(
        "label column, or columns of 0 and 1 for one label each, as A,B,C; none: found by its usual names", None
    )
    group_column: str | None = option(
        "column of the files, such as a source or a kind; results are also reported for each of its values", None
    )
    on_bad_rows: Literal["error", "drop"] = option("what to do with rows that cannot be used", "error")
    suite_rows: int | None = option(
        "use only this many rows of each set of a suite, drawn with the seed 0; the sets of --data are used in full",
        None,
        at_least=1,
    )
    max_rows_per_set: int | None = option(
        "use only this many rows of each set, drawn with the seed 0", None, at_least=1
    )
    max_length: int | None = _max_length()
    corpus: tuple[str, ...] = option(
        "causal language models: text whose perplexity is measured, for each file, folder or glob",
        (),
        section="corpus",
        common=True,
    )
    lambada: str | None = option(
        "causal language models: file of texts whose last word is to be predicted", None, section="corpus", common=True
    )
    block_size: int | None = option(
        "tokens of a window; none: 1024, or the model's limit", None, at_least=2, section="corpus"
    )
    stride: int | None = option(
        "tokens that each window adds; the other block size − stride are its context; none: windows do not overlap",
        None,
        at_least=1,
        section="corpus",
    )
    add_bos: AddBos = option(
        f"causal language models: a beginning-of-text token before each document: {ADD_BOS}", "auto", section="corpus"
    )
    reading: ReadConfig = group(ReadConfig)
    batch_tokens: int | None = option(
        "largest forward pass, in padded tokens; none: chosen for the device",
        None,
        decides=False,
        at_least=1,
        section="hardware",
    )
    location: DataLocation = group(DataLocation)
    allow_pickle: bool = _allow_pickle()
    revision: str | None = _revision("model")

    def __post_init__(self) -> None:
        _pin(self, "model")


@dataclass(frozen=True)
class GenerateConfig:
    """Generate text with a causal language model, to look at what it has learned."""

    SECTION: ClassVar[str] = "generation"

    model: str = _model("model directory, run directory or hub name", positional=True, common=True)
    prompt: tuple[str, ...] = option(
        "texts to continue; none: the beginning of a document", ("",), whole=True, common=True
    )
    new_tokens: int = option("new tokens, at most", 100, at_least=1, common=True)
    temperature: float = option("0: the most probable token; 1: drawn from the model's distribution", 0.8, at_least=0)
    top_p: float = option(
        "draw among the most probable tokens that hold this share of the probability", 0.95, above=0, at_most=1
    )
    add_bos: AddBos = option(f"a beginning-of-text token before the prompt: {ADD_BOS}", "auto")
    seed: int = option("seed of the draws", 0, at_least=0, at_most=LARGEST_SEED)
    allow_pickle: bool = _allow_pickle()
    revision: str | None = _revision("model")

    def __post_init__(self) -> None:
        _pin(self, "model")


@dataclass(frozen=True)
class CleanConfig:
    """Clean training text by rules, with a ledger of everything that was dropped or changed."""

    SECTION: ClassVar[str] = "corpus"

    sources: tuple[str, ...] = option(
        "files, folders, globs or addresses: .txt, .jsonl, .html, .warc, .wet, also with .gz or .zst, .parquet",
        positional=True,
        common=True,
    )
    output: Path | None = _output("run directory; not needed for --explain", None)
    rules: str = option(
        "paper (the two published rules), web, or a YAML file of rules", "web", section="method", common=True
    )
    decontaminate_against: tuple[str, ...] = option(
        "drop documents that hold text of these tasks' evaluation sets, or of these files",
        (),
        section="method",
        common=True,
    )
    format: Literal["parquet", "jsonl"] = option(
        "format of the shards; jsonl is compressed with Zstandard", "parquet", section="output"
    )
    remote: bool = option(
        "read sources that are addresses on the network (s3://…, https://…); they are refused without it",
        False,
        decides=False,
    )
    reading: ReadConfig = group(ReadConfig)
    keep_damaged: bool = option("use damaged and cut-off files up to the damage", False)
    engine: Literal["local", "ray"] = option(
        "this machine's cores, or a Ray cluster", "local", decides=False, section="hardware"
    )
    address: str | None = option(
        "address of the Ray cluster; none: a new one on this machine", None, decides=False, section="hardware"
    )
    workers: int | None = option(
        "parallel tasks; none: one for each core", None, decides=False, at_least=1, section="hardware"
    )
    explain: bool = option(
        "print what each rule finds in the sources; drop and write nothing",
        False,
        decides=False,
        section="method",
        common=True,
    )
    location: DataLocation = group(DataLocation)


@dataclass(frozen=True)
class ExportConfig:
    """Export a model for edge devices, check it against the original and measure it."""

    SECTION: ClassVar[str] = "output"

    model: str = _model("model directory or run directory", positional=True, common=True)
    output: Path = _output("directory of the exported model")
    to: str = option(
        f"format: {', '.join(EXPORTERS)}; gguf (llama.cpp) is for language models, openvino and executorch "
        "(phones) for classifiers, safetensors for transformers",
        "onnx",
        common=True,
    )
    quantize: tuple[str, ...] = option(
        "also write these precisions. onnx: fp16, int8 (weights in 8 bits, activations quantized dynamically), int4 "
        "(weights in 4 bits); openvino: int8-weights, int8 (activations in ranges measured on the check's rows); "
        "executorch: int8; gguf: "
        "q8_0, q5_1, q5_0, q4_1, q4_0, bf16, fp32; safetensors: bf16 or fp16",
        (),
        common=True,
    )
    reduce_range: Literal["auto", "true", "false"] = option(
        "onnx int8: keep weights to 7 bits, for x86 processors without 8-bit dot products (VNNI); auto: if this "
        "machine's is one",
        "auto",
    )
    embedding_bits: Literal["auto", "8", "4"] = option(
        "onnx int8 and int4: bits of a weight in embedding tables; auto: as many as matrices have", "auto"
    )
    data: str | None = option(
        "task or file with the rows of the parity check; none: the run's validation rows",
        None,
        section="data",
        common=True,
    )
    corpus: tuple[str, ...] = option(
        "language models: documents whose first tokens are compared; none: rows of Banking77",
        (),
        section="corpus",
    )
    reading: ReadConfig = group(ReadConfig)
    rows: int = option("rows of the parity check", 256, at_least=1, section="data")
    score_rows: int = option(
        "labelled rows, at most, on which each exported file is scored: of --data, else the run's test rows; 0: none",
        5_000,
        at_least=0,
        section="data",
    )
    teacher: str | None = _model("also measure this PyTorch model, for comparison", None, common=True)
    threads: int = option("threads of the speed measurement", 1, at_least=1, section="hardware")
    repeats: int = option(
        "timed calls for each latency; language models: a twentieth of it, prompts with a continuation each",
        100,
        at_least=1,
        section="hardware",
    )
    max_length: int | None = _max_length()
    location: DataLocation = group(DataLocation)
    allow_pickle: bool = _allow_pickle()
    revision: str | None = _revision("model")
    push_to_hub: str | None = _push_to_hub()

    def __post_init__(self) -> None:
        _pin(self, "model")


@dataclass(frozen=True)
class CompressConfig:
    """Compress a model to a budget: find, train and export the student with the best quality that fits.

    Size and latency of every candidate are measured on an exported graph before anything is trained. At least one of
    --max-mb and --max-latency-ms must be given. A repeated call with other limits uses what was measured and trained.
    """

    SECTION: ClassVar[str] = "method"

    model: str = _model(
        "fine-tuned classifier (model directory, run directory or hub name), or an encoder, which is fine-tuned first",
        positional=True,
        common=True,
    )
    output: Path = _output("directory of the compressed model, its report and all runs")
    max_mb: float | None = option("limit of the model file, in 10⁶ bytes", None, decides=False, above=0, common=True)
    max_latency_ms: float | None = option(
        "limit of the median latency of one row, in milliseconds on this machine",
        None,
        decides=False,
        above=0,
        common=True,
    )
    max_drop: float | None = option(
        "largest loss of the task's main metric on the validation rows, in points: hundredths of an accuracy, an F1 or "
        "a correlation; none: no limit",
        None,
        decides=False,
        at_least=0,
        common=True,
    )
    max_hours: float | None = option(
        "time for training; when it is used up, the students that are trained are exported",
        None,
        decides=False,
        above=0,
        common=True,
    )
    layers: tuple[int, ...] | None = _model(
        "numbers of layers to try; none: each up to 6, then fewer", None, at_least=1
    )
    width: Literal["auto", "full"] = _model(
        "width of the students: full, that of the model, or auto to try fewer feed-forward units, heads and hidden "
        "channels too",
        "auto",
    )
    vocabulary: Literal["auto", "full", "trim"] = _model(
        "tokens of the students: full, trim (those that the training texts use), or auto to try both", "auto"
    )
    vocabulary_corpus: tuple[str, ...] | None = _option_like("vocabulary_corpus", VocabularyConfig)
    vocabulary_size: int | None = _option_like("vocabulary_size", VocabularyConfig)
    precisions: tuple[str, ...] | None = option(
        "number formats of the exported file to try beside the full one, such as int8; none: all of the format but "
        "fp16, which processors compute in fp32",
        None,
        decides=False,
    )
    method: str = option(
        "distillation method; auto: rail-balanced, or vanilla-kd for students with too few layers for it", "auto"
    )
    method_options: dict[str, Any] = _option_like("method_options")
    students: int = option(
        "students that begin the training; after each round the better half is trained further, until two are left",
        4,
        at_least=1,
        common=True,
    )
    epochs: int = option(
        "epochs of the two last students, over all rounds, at least one in each", 4, at_least=1, section="training"
    )
    teacher_epochs: int = option("epochs of the teacher, if it is fine-tuned here", 3, at_least=1, section="training")
    learning_rate: float = option("peak learning rate of teacher and students", 2e-4, above=0, section="training")
    batch_size: int = option("examples of an optimizer step", 32, at_least=1, section="training")
    seed: int = option("seed of all runs", 0, at_least=0, at_most=LARGEST_SEED, section="training")
    label_map: dict[str, str | list[str] | None] = _option_like("label_map")
    source: DataConfig = group(DataConfig)
    location: DataLocation = group(DataLocation)
    to: str = option("format of the exported file", "onnx", section="output")
    threads: int = option("threads of the latency measurement", 1, at_least=1, section="hardware")
    repeats: int = option("timed calls for each latency", 100, at_least=1, section="hardware")
    dry_run: bool = option(
        "measure and list the candidates, and estimate the training; train nothing",
        False,
        decides=False,
        section="output",
        common=True,
    )
    engine: Literal["local", "ray"] = option(
        "local: this machine, one run after another; ray: over a cluster", "local", decides=False, section="hardware"
    )
    address: str | None = option(
        "Ray cluster (auto, HOST:PORT, ray://HOST:PORT); none: a new one on this machine",
        None,
        decides=False,
        section="hardware",
    )
    cpus_per_run: int = option(
        "Ray: processors, and threads, of each run", 1, decides=False, at_least=1, section="hardware"
    )
    gpus_per_run: float = option(
        "Ray: GPUs, or the share of one, of each run", 0.0, decides=False, at_least=0, section="hardware"
    )
    allow_pickle: bool = _allow_pickle()
    revision: str | None = _revision("model")
    push_to_hub: str | None = _push_to_hub()

    def __post_init__(self) -> None:
        _pin(self, "model")


@dataclass(frozen=True)
class CompareConfig:
    """Run a grid of methods, tasks, students and seeds, shared work once, and summarize the results."""

    grid: Path = option("YAML file of the grid; see docs/compare.md", positional=True, common=True)
    output: Path = _output("directory of all its runs")
    engine: Literal["local", "ray"] = option(
        "local: this machine, one run after another; ray: over a cluster", "local", section="hardware", common=True
    )
    address: str | None = option(
        "Ray cluster (auto, HOST:PORT, ray://HOST:PORT); none: a new one on this machine", None, section="hardware"
    )
    cpus_per_run: int = option("Ray: processors, and threads, of each run", 1, at_least=1, section="hardware")
    gpus_per_run: float = option("Ray: GPUs, or the share of one, of each run", 0.0, at_least=0, section="hardware")
    shard: str | None = option("this process's share of the student runs, as 3/8", None, section="hardware")
    dry_run: bool = option("print the runs and an estimate of their cost, and write nothing", False, common=True)
    search: Literal["none", "optuna"] = option(
        "optuna: first search each method's options, as in the grid's section `search`", "none", section="method"
    )
    no_baselines: bool = option("allow a grid without the methods none and vanilla-kd", False, section="method")
    location: DataLocation = group(DataLocation)


@dataclass(frozen=True)
class ReportConfig:
    """Write one HTML page about one or more runs, or about a comparison."""

    runs: tuple[Path, ...] = option("run directories, or one of `compare`", positional=True, common=True)
    output: Path = option("the page to write", Path("report.html"), short="-o", section="output", common=True)
    title: str = option("heading of the page", "demiglace report", section="output")
    tables: Path | None = option(
        "also write the tables, as CSV, Markdown, LaTeX and JSON, into this directory", None, section="output"
    )


@dataclass(frozen=True)
class CleanUpConfig:
    """Free disk space: remove what finished runs no longer need; model/, metrics, logs and manifests stay.

    Removed are last/ (the weights of the last epoch), checkpoints, caches of teachers' signals, tokenized corpora and
    temporary files. A comparison's shared caches are removed when the comparison is finished.
    """

    SECTION: ClassVar[str] = "output"

    runs: tuple[Path, ...] = option("run directories, or folders of them", positional=True, common=True)
    dry_run: bool = option("print what would be removed, and remove nothing", False, common=True)
    unfinished: bool = option(
        "also clean up unfinished runs, which then start again from their first step; runs in use are left alone",
        False,
        common=True,
    )


@dataclass(frozen=True)
class VerifyConfig:
    """Compare every file of complete runs with the digest that the run recorded; exit code 2 if one differs.

    Every command compares sizes and modification times of the files that it reads. This one computes all digests.
    """

    SECTION: ClassVar[str] = "output"

    runs: tuple[Path, ...] = option("run directories, or folders of them", positional=True, common=True)
    accept: bool = option("record the files as they are now, after you changed some on purpose", False, common=True)


@dataclass(frozen=True)
class DemoConfig:
    """Compress a classifier on real data: few labels and much text of Banking77, within 8 MB."""

    output: Path = _output("directory of the rows, and of the compression in small/", Path("demo"))
    labels: int = option("training rows that keep their labels", 1_000, at_least=77, section="data")
    teacher_epochs: int = option("epochs of the teacher, on the labelled rows", 10, at_least=1, section="training")
    student_epochs: int = option("epochs of the student, on all texts", 3, at_least=1, section="training")
    layers: int = _model("layers of the student", 2, at_least=1)
    seed: int = option("seed of every run", 0, at_least=0, at_most=LARGEST_SEED, section="training")


@dataclass(frozen=True)
class MethodsConfig:
    """List the distillation methods; `methods NAME` shows one's options, `methods show NAME` writes it as YAML."""

    name: tuple[str, ...] = option("one method to show in full, or `show` and a method", (), positional=True)
    student_layers: int = option("show: layers of the student of the layer mapping", 6, at_least=1)
    teacher_layers: int = option("show: layers of the teacher", 12, at_least=1)
    epochs: int = option("show: epochs of a mapping that changes", 3, at_least=1)
    seed: int = option("show: seed of a random mapping", 0, at_least=0, at_most=LARGEST_SEED)


@dataclass(frozen=True)
class TasksConfig:
    """List the named tasks."""

    name: str | None = option("one task to show in full", None, positional=True)
