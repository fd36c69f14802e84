"""The options of every command."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from demiglace.config.data import CorpusConfig, DataConfig, DataLocation, ReadConfig
from demiglace.config.export_formats import EXPORTERS
from demiglace.config.options import group, option
from demiglace.config.training import TrainConfig

Strategy = Literal["alternate", "distil", "bottom", "top", "first-middle-last", "random", "embeddings"]
TextStrategy = Literal["block-influence", "greedy"]  # measured on text
AnyStrategy = Literal["auto", Strategy, TextStrategy]


@dataclass(frozen=True)
class FinetuneConfig:
    """Train a classifier or regressor on labelled rows: a teacher, or a student with no teacher."""

    model: str = option("model directory, run directory or hub name to start from")
    output: Path = option("run directory", short="-o", decides=False)
    source: DataConfig = group(DataConfig)
    location: DataLocation = group(DataLocation)
    training: TrainConfig = group(TrainConfig)
    allow_pickle: bool = option("load weights that exist only as a pickle file, which can run any code", False)


@dataclass(frozen=True)
class TruncateConfig:
    """Keep some of a model's layers, and its embeddings, norms, pooler and head.

    Strategies by position: alternate, distil, bottom, top, first-middle-last. Measured on text: block-influence drops
    the layers that change the direction of hidden states least; greedy drops one layer after another, each time the one
    without which the loss is least. Ablations: embeddings has new layers and a new final norm; random keeps only the
    shape.
    """

    model: str = option("model directory, run directory or hub name", positional=True)
    output: Path = option("directory of the truncated model", short="-o", decides=False)
    layers: int | None = option("how many layers to keep", None, at_least=1)
    strategy: AnyStrategy = option(
        "which layers to keep; auto: block-influence for a causal language model with --calibration, else alternate",
        "auto",
    )
    keep: tuple[int, ...] | None = option("the layers to keep by 0-based index, instead of --layers", None, at_least=0)
    calibration: tuple[str, ...] | None = option(
        "text to measure layers on, for block-influence and greedy: files, folders or globs; .txt, .jsonl, also with "
        ".gz or .zst, .parquet",
        None,
    )
    calibration_tokens: int = option("tokens of that text to read, as many from each file", 20_000, at_least=1)
    seed: int = option(
        "seed of the new weights of embeddings and random; other than 0, also draws other calibration text",
        0,
        at_least=0,
    )
    reading: ReadConfig = group(ReadConfig)
    allow_pickle: bool = option("load weights that exist only as a pickle file, which can run any code", False)


@dataclass(frozen=True)
class DistillConfig:
    """Train a student on a teacher's signals."""

    teacher: str = option("model directory or run directory of the fine-tuned teacher")
    output: Path = option("run directory", short="-o", decides=False)
    student: str | None = option("model to train; without it the teacher is truncated to --layers", None)
    layers: int | None = option("layers of the student that is cut from the teacher", None, at_least=1)
    strategy: AnyStrategy = option(
        "which of the teacher's layers the student keeps; block-influence and greedy are measured on 20,000 tokens of "
        "the training text; auto: block-influence for causal language models with --corpus, else alternate",
        "auto",
    )
    keep: tuple[int, ...] | None = option("those layers by 0-based index, instead of --layers", None, at_least=0)
    method: str = option("a method of `demiglace methods`, or a YAML file that composes one", "rail-kd-l")
    method_options: dict[str, Any] = option("the method's own options, as --method-options.NAME VALUE", {})
    label_map: dict[str, str | list[str] | None] = option(
        "the rows' labels to the teacher's, where their names differ: {bad: LABEL_0, good: LABEL_1}", {}
    )
    cache: str = option(
        "where the teacher's signals are kept: auto (in the run directory), off, or a directory", "auto"
    )
    cache_dtype: Literal["float16", "float32"] = option("number format of the cached signals", "float16")
    source: DataConfig = group(DataConfig)
    text: CorpusConfig = group(CorpusConfig)
    cache_tokens: Literal["none", "sampled", "top-k"] = option(
        "with --corpus, which tokens of the teacher's distribution --cache keeps: none (the teacher is asked for every "
        "batch), sampled (drawn from it: unbiased) or top-k (its likeliest: biased, for comparison)",
        "none",
    )
    cached_per_token: int = option("how many of them for each predicted token", 12, at_least=1)
    masked_share: float = option("masked language models: share of the tokens to predict", 0.15, above=0, below=1)
    location: DataLocation = group(DataLocation)
    training: TrainConfig = group(TrainConfig)
    allow_pickle: bool = option("load weights that exist only as a pickle file, which can run any code", False)


def _option_like(name: str, kind: type = DistillConfig) -> Any:
    """The option of that name of another command."""
    found = next(f for f in fields(kind) if f.name == name)
    return field(default=found.default, default_factory=found.default_factory, metadata=found.metadata)


@dataclass(frozen=True)
class TokenizerConfig:
    """Train a tokenizer: byte-level BPE, which knows every text, with an end-of-text token."""

    action: Literal["train"] = option("train", positional=True)
    corpus: tuple[str, ...] = option(
        "files, folders or globs of documents: .txt and .jsonl, also with .gz or .zst, .parquet"
    )
    output: Path = option("directory of the tokenizer", short="-o", decides=False)
    vocab_size: int = option("tokens, the end-of-text token included", 8192, at_least=257)
    mask_token: bool = option("also a mask token, for masked language models", False)
    reading: ReadConfig = group(ReadConfig)


@dataclass(frozen=True)
class PretrainConfig:
    """Train a language model on text, causal or masked as its architecture is: any checkpoint, or new weights."""

    output: Path = option("run directory", short="-o", decides=False)
    model: str | None = option("model directory, run directory or hub name to go on from", None)
    config_of: str | None = option(
        "or new weights: the config of a kind of model (gpt2, llama, bert, …) or of a model directory", None
    )
    tokenizer: str | None = option("directory of the tokenizer of a new model; default: that of --config-of", None)
    hidden_size: int | None = option("width of a new model", None, at_least=1)
    num_layers: int | None = option("layers of a new model", None, at_least=1)
    num_heads: int | None = option("attention heads of a new model; default: 64 wide each", None, at_least=1)
    intermediate_size: int | None = option(
        "width inside of its layers; default: 4 times --hidden-size", None, at_least=1
    )
    masked_share: float = option("masked models: share of the tokens to predict", 0.15, above=0, below=1)
    text: CorpusConfig = group(CorpusConfig)
    training: TrainConfig = group(TrainConfig)
    allow_pickle: bool = option("load weights that exist only as a pickle file, which can run any code", False)


@dataclass(frozen=True)
class PlanConfig:
    """Tell what a run of distill, finetune or pretrain, given by its own options, will cost; run and write nothing.

    Models are read by their configs alone, so weights need not be there; of a large corpus only a part is read.
    """

    teacher: str | None = option("the teacher of `distill`", None)
    model: str | None = option("or the model of `finetune`; with --corpus, of `pretrain`", None)
    config_of: str | None = option("or what a new model of `pretrain` is made after", None)
    output: Path | None = option("run directory, on whose disk the teacher's signals would lie", None, short="-o")
    student: str | None = _option_like("student")
    layers: int | None = _option_like("layers")
    strategy: AnyStrategy = _option_like("strategy")
    keep: tuple[int, ...] | None = _option_like("keep")
    method: str = _option_like("method")
    method_options: dict[str, Any] = _option_like("method_options")
    label_map: dict[str, str | list[str] | None] = _option_like("label_map")
    cache: str = _option_like("cache")
    cache_dtype: Literal["float16", "float32"] = _option_like("cache_dtype")
    cache_tokens: Literal["none", "sampled", "top-k"] = _option_like("cache_tokens")
    cached_per_token: int = _option_like("cached_per_token")
    masked_share: float = _option_like("masked_share")
    tokenizer: str | None = _option_like("tokenizer", PretrainConfig)
    hidden_size: int | None = _option_like("hidden_size", PretrainConfig)
    num_layers: int | None = _option_like("num_layers", PretrainConfig)
    num_heads: int | None = _option_like("num_heads", PretrainConfig)
    intermediate_size: int | None = _option_like("intermediate_size", PretrainConfig)
    devices: int = option("processes that share the work", 1, at_least=1)
    flops: float | None = option(
        "sustained operations a second of one device, to assume instead of measuring this one", None, above=0
    )
    calibration_seconds: float = option("time for measuring this machine's speed", 10.0, above=0)
    source: DataConfig = group(DataConfig)
    text: CorpusConfig = group(CorpusConfig)
    location: DataLocation = group(DataLocation)
    training: TrainConfig = group(TrainConfig)
    allow_pickle: bool = _option_like("allow_pickle")


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a model on one or more sets of rows, out-of-domain ones included."""

    model: str = option(
        "model directory, run directory, export directory, or a model file in an export directory", positional=True
    )
    output: Path = option("run directory of the results", short="-o", decides=False)
    data: tuple[str, ...] = option("tasks or files to evaluate on, as NAME or NAME:SPLIT", ())
    suite: tuple[str, ...] = option(
        "suites of further sets: ood (of the task that the model was trained on), another task's name, or a YAML file",
        (),
    )
    teacher: str | None = option(
        "also report the agreement with this model, or the one that was measured in this run of `evaluate`", None
    )
    label_map: dict[str, str | list[str] | None] = option(
        "the set's label names to the model's: {entailment: entailment, neutral: not_entailment}", {}
    )
    text_columns: tuple[str, ...] | None = option(
        "the one or two text columns; found by usual names if not given", None
    )
    label_column: str | None = option("the label column; found by usual names if not given", None)
    group_column: str | None = option(
        "a column of the files by whose values the results are told apart too, such as a source or a kind", None
    )
    on_bad_rows: Literal["error", "drop"] = option("what to do about rows that cannot be used", "error")
    suite_rows: int | None = option(
        "use only this many rows of each set of a suite, drawn with the seed 0; the sets of --data are whole",
        None,
        at_least=1,
    )
    max_rows_per_set: int | None = option(
        "use only this many rows of each set, drawn with the seed 0", None, at_least=1
    )
    max_length: int = option("longest row in tokens; longer ones are cut", 128, at_least=4)
    corpus: tuple[str, ...] = option(
        "of a causal language model: text whose perplexity is measured, each file, folder or glob by itself", ()
    )
    lambada: str | None = option("of a causal language model: file of texts whose last word is to be predicted", None)
    block_size: int | None = option("tokens of a window; none: 1024, or what the model takes", None, at_least=2)
    stride: int | None = option(
        "new tokens of each window, so that block size − stride stand before each; none: windows do not overlap",
        None,
        at_least=1,
    )
    reading: ReadConfig = group(ReadConfig)
    batch_tokens: int | None = option(
        "largest forward pass in padded tokens; none: as the device likes it", None, decides=False, at_least=1
    )
    location: DataLocation = group(DataLocation)
    allow_pickle: bool = option("load weights that exist only as a pickle file, which can run any code", False)


@dataclass(frozen=True)
class GenerateConfig:
    """Let a causal language model go on with a text, for a look at what it has learned."""

    model: str = option("model directory, run directory or hub name", positional=True)
    prompt: tuple[str, ...] = option("texts to go on with; none: the beginning of a document", ("",), whole=True)
    new_tokens: int = option("tokens to add, at most", 100, at_least=1)
    temperature: float = option("0 takes the likeliest token, 1 draws as the model says", 0.8, at_least=0)
    top_p: float = option(
        "draw among the likeliest tokens that hold this share of the probability", 0.95, above=0, at_most=1
    )
    seed: int = option("decides what is drawn", 0, at_least=0)
    allow_pickle: bool = option("load weights that exist only as a pickle file, which can run any code", False)


@dataclass(frozen=True)
class CleanConfig:
    """Clean training text by rules, and keep the books of all that was dropped or changed."""

    sources: tuple[str, ...] = option(
        "files, folders, globs or addresses: .txt, .jsonl, .html, .warc, .wet, also with .gz or .zst, .parquet",
        positional=True,
    )
    output: Path | None = option("run directory; not needed for --explain", None, short="-o", decides=False)
    rules: str = option("paper (the two published rules), web, or a YAML file of rules", "web")
    against: tuple[str, ...] = option("drop documents that hold text of these tasks' evaluation sets, or files", ())
    format: Literal["parquet", "jsonl"] = option("kind of the shards; jsonl is packed with Zstandard", "parquet")
    reading: ReadConfig = group(ReadConfig)
    keep_damaged: bool = option("use damaged and cut-off files up to the damage", False)
    engine: Literal["local", "ray"] = option("this machine's cores, or a Ray cluster", "local", decides=False)
    address: str | None = option("the Ray cluster; none: the one of this machine", None, decides=False)
    workers: int | None = option("tasks at once; none: one a core", None, decides=False, at_least=1)
    explain: bool = option("say what each rule finds in the sources, and drop and write nothing", False, decides=False)
    location: DataLocation = group(DataLocation)


@dataclass(frozen=True)
class ExportConfig:
    """Write a model in a form for edge devices, check it against the original and measure it."""

    model: str = option("model directory or run directory", positional=True)
    output: Path = option("directory of the exported model", short="-o", decides=False)
    to: str = option(f"format: {', '.join(EXPORTERS)}", "onnx")
    quantize: Literal["none", "int8"] = option("int8: weights in 8 bits, activations quantised as they come", "none")
    data: str | None = option(
        "task or file whose rows the parity check uses; default: the run's own validation rows", None
    )
    rows: int = option("rows of the parity check", 256, at_least=1)
    teacher: str | None = option("measure this PyTorch model beside it", None)
    threads: int = option("threads of the latency measurement", 1, at_least=1)
    repeats: int = option("timed calls for each latency", 100, at_least=1)
    max_length: int = option("longest row in tokens; longer ones are cut", 128, at_least=4)
    location: DataLocation = group(DataLocation)
    allow_pickle: bool = option("load weights that exist only as a pickle file, which can run any code", False)


@dataclass(frozen=True)
class CompareConfig:
    """Run a grid of methods, tasks, students and seeds, shared work once, and summarize what it found."""

    grid: Path = option("YAML file of the grid; see docs/compare.md", positional=True)
    output: Path = option("directory of all its runs", short="-o", decides=False)
    engine: Literal["local", "ray"] = option("local: here, one run after another; ray: over a cluster", "local")
    address: str | None = option("Ray cluster (auto, HOST:PORT, ray://HOST:PORT); none: one on this machine", None)
    cpus_per_run: int = option("Ray: processors, and threads, of each run", 1, at_least=1)
    gpus_per_run: float = option("Ray: GPUs, or the share of one, of each run", 0.0, at_least=0)
    shard: str | None = option("this process's share of the student runs, as 3/8", None)
    dry_run: bool = option("print the runs and what they will cost, and write nothing", False)
    search: Literal["none", "optuna"] = option(
        "first search each method's options, as the grid's `search` says", "none"
    )
    no_controls: bool = option("allow a grid without the methods none and vanilla-kd", False)
    location: DataLocation = group(DataLocation)


@dataclass(frozen=True)
class ReportConfig:
    """One HTML page about one or more runs, or about a comparison."""

    runs: tuple[Path, ...] = option("run directories, or one of `compare`", positional=True)
    output: Path = option("the page to write", Path("report.html"), short="-o")
    title: str = option("heading of the page", "demiglace report")
    tables: Path | None = option("also write the tables, as CSV, Markdown, LaTeX and JSON, into this directory", None)


@dataclass(frozen=True)
class DemoConfig:
    """The whole way on real data: teacher, student, control, export, report."""

    output: Path = option("directory of the demo's runs", Path("demo"), short="-o", decides=False)
    teacher_epochs: int = option("epochs of the teacher", 3, at_least=1)
    student_epochs: int = option("epochs of the students", 2, at_least=1)
    layers: int = option("layers of the student", 3, at_least=1)
    seed: int = option("seed of every stage", 0, at_least=0)


@dataclass(frozen=True)
class MethodsConfig:
    """List the distillation methods; `methods NAME` tells one's options, `methods show NAME` writes it as YAML."""

    name: tuple[str, ...] = option("one method to show in full, or `show` and a method", (), positional=True)
    student_layers: int = option("show: layers of the student whose mapping is told", 6, at_least=1)
    teacher_layers: int = option("show: layers of the teacher", 12, at_least=1)
    epochs: int = option("show: epochs for which a changing mapping is told", 3, at_least=1)
    seed: int = option("show: seed of a random mapping", 0, at_least=0)


@dataclass(frozen=True)
class TasksConfig:
    """List the named tasks."""

    name: str | None = option("one task to show in full", None, positional=True)
