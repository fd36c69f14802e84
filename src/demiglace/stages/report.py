"""The page about one or more runs."""

from pathlib import Path

from demiglace.config import command, options_of
from demiglace.console import say
from demiglace.errors import RunError
from demiglace.manifest import write_atomically
from demiglace.report.collect import collect
from demiglace.report.render import render
from demiglace.stages import config as configs
from demiglace.stages.config import ReportConfig

_CONFIGS = {
    "finetune": configs.FinetuneConfig,
    "truncate": configs.TruncateConfig,
    "distill": configs.DistillConfig,
    "evaluate": configs.EvaluateConfig,
    "export": configs.ExportConfig,
    "demo": configs.DemoConfig,
}


@command(ReportConfig)
def report(config: ReportConfig) -> Path:
    """Write one self-contained HTML page about runs, or directories of runs; return its path.

    Raises `RunError` for what is no complete run, and where the page cannot be written; an older page is then intact.
    """
    page = collect(config.runs, config.title)
    html = render(page, {stage: options_of(kind) for stage, kind in _CONFIGS.items()})
    output = Path(config.output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{output.parent} is no directory to write {output.name} to: {error.strerror}.") from error
    write_atomically(output, html.encode("utf-8", errors="replace"))  # JSON can hold half a surrogate pair
    say(f"wrote {output}")
    return output
