"""The page about one or more runs, or about a comparison; the same tables as files."""

from pathlib import Path

from demiglace.config import command_options as configs
from demiglace.config.command_options import ReportConfig
from demiglace.config.options import command, options_of
from demiglace.console import say
from demiglace.errors import RunError
from demiglace.report.comparison import table_files as comparison_tables
from demiglace.report.comparison.page import render_comparison
from demiglace.report.compression.page import render_compression
from demiglace.report.runs.load import collect
from demiglace.report.runs.page import render
from demiglace.report.runs.table_files import write_tables
from demiglace.results.load import is_comparison, read_comparison
from demiglace.runs.directory import read_manifest, stage_of
from demiglace.runs.files import read_json, write_atomically
from demiglace.runs.result import Result

_CONFIGS = {
    "tokenizer": configs.TokenizerConfig,
    "clean": configs.CleanConfig,
    "pretrain": configs.PretrainConfig,
    "finetune": configs.FinetuneConfig,
    "truncate": configs.TruncateConfig,
    "distill": configs.DistillConfig,
    "evaluate": configs.EvaluateConfig,
    "export": configs.ExportConfig,
    "demo": configs.DemoConfig,
}


@command(ReportConfig)
def report(config: ReportConfig) -> Result:
    """Write one self-contained HTML page about runs, directories of runs, a compression or a comparison.

    Return its path.

    Raises `RunError` for what is no complete run, for a comparison beside other runs, and where a file cannot be
    written; an older page is then intact.
    """
    output = Path(config.output)
    if len(config.runs) == 1 and stage_of(config.runs[0]) == "compress":
        html = render_compression(read_manifest(config.runs[0]), config.runs[0])
    else:
        html = _comparison(config, output.parent) if _is_comparison(config.runs) else _runs(config)
    _make(output.parent, output.name)
    write_atomically(output, html.encode("utf-8", errors="replace"))  # JSON can hold half a surrogate pair
    say(f"wrote {output}")
    return Result(output)


def _is_comparison(runs: tuple[Path, ...]) -> bool:
    found = [run for run in runs if is_comparison(run)]
    if found and len(runs) > 1:
        raise RunError(f"{found[0]} is a comparison, which has a page of its own; give it alone.")
    return bool(found)


def _comparison(config: ReportConfig, folder: Path) -> str:
    root = config.runs[0]
    found = read_comparison(root, config.title)
    if config.tables is not None:
        _make(config.tables, "tables")
        written = comparison_tables.write_tables(read_json(root / "summary.json"), config.tables)
        say(f"wrote {', '.join(map(str, written))}")
    return render_comparison(found, {stage: options_of(kind) for stage, kind in _CONFIGS.items()}, folder)


def _runs(config: ReportConfig) -> str:
    page = collect(config.runs, config.title)
    if config.tables is not None:
        _make(config.tables, "tables")
        say(f"wrote {', '.join(map(str, write_tables(page, config.tables)))}")
    return render(page, {stage: options_of(kind) for stage, kind in _CONFIGS.items()})


def _make(directory: Path, what: str) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{directory} is no directory to write {what} to: {error.strerror}.") from error
