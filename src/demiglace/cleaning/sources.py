"""The cleaning command: find the sources, open the run directory, run the tasks, write page and manifest."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demiglace.cleaning import run as cleaning
from demiglace.cleaning.daft_executor import start
from demiglace.cleaning.explain import explain
from demiglace.cleaning.page import write_page
from demiglace.cleaning.references import fingerprint_texts, read_references, reference_names
from demiglace.cleaning.registry import AnyRule, load_rules, to_config
from demiglace.cleaning.tasks import READ, CleaningSpec
from demiglace.config.command_options import CleanConfig
from demiglace.config.options import flatten
from demiglace.console import notice, say
from demiglace.data.text.addresses import check_addresses, is_address
from demiglace.data.text.sources import find_sources, is_inside
from demiglace.data.text.streams import cannot_read
from demiglace.errors import ConfigError
from demiglace.runs.directory import Run, open_run
from demiglace.runs.files import fingerprint

_REMEDIES = {  # beginning of the reason why documents were skipped -> options that may help
    "too long": "--max-document-mb, or --unit line or paragraph for .txt",
    "no text under": "--text-key",
}


def clean_sources(config: CleanConfig) -> Path | None:
    """Clean the sources and return the run directory; see `demiglace.commands.clean.clean`."""
    rules = load_rules(config.rules, config.decontaminate_against)
    if config.output is None and not config.explain:
        raise ConfigError("no output directory was given; add --output (-o), or --explain to write nothing.")
    check_addresses([*config.sources, *reference_names(rules)], config.remote)
    if config.output is not None:
        _check_output(config.sources, config.output)
    sources = find_sources(config.sources, exclude=config.output)
    references = read_references(rules, config.reading, config.location)
    texts = [text for name in references for text in references[name]]
    if config.explain:
        explain(list(sources), rules, config.reading, texts)
        return None
    inputs = {source: _identity(source, size) for source, size in sources.items()}
    inputs |= {f"against {name}": fingerprint_texts(reference_texts) for name, reference_texts in references.items()}
    run = _open_run(config, rules, inputs)
    spec = CleaningSpec(
        str(run.path.absolute()),
        tuple(sources),
        tuple(s if is_address(s) else str(Path(s).absolute()) for s in sources),
        tuple(to_config(rules)),
        asdict(config.reading),
        config.keep_damaged,
        config.format,
        cleaning.bucket_count(sum(sources.values())),
    )
    if run.complete:
        cleaning.clear(spec)  # intermediate files of a run that was killed after its manifest was written
        say(f"{run.path} is up to date.")
        return run.path
    start(config.engine, config.address)
    cleaning.prepare(spec, texts)
    result = cleaning.run(spec, config.workers or _cores(config))
    totals = cleaning.summary(result["rules"])
    write_page(run.path / "cleaning.html", spec, result)
    shards = [f"shards/{f.name}" for f in cleaning.shard_files(run.path)]
    counts = {name: _counts(tally) for name, tally in result["rules"].items()}
    for note, count in result["rules"].get(READ, {}).get("notes", {}).items():
        notice("reading", f"{count:,} documents: {note}.", documents=count)
    run.finish(sources=list(sources), totals=totals, rules=counts, shards=shards)
    cleaning.clear(spec)
    _log_result(run.path, totals, counts.get(READ, {}).get("reasons", {}))
    return run.path


def _check_output(sources: Sequence[str], output: Path) -> None:
    """Raise `ConfigError` if a source is inside the output. If a source contains the output, the rest of it is read."""
    for source in sources:
        if not is_address(source) and is_inside(source, output):
            raise ConfigError(f"the source {source} is in the output directory {output}; give another --output.")


def _identity(source: str, size: int) -> str:
    """Return the fingerprint of a file; of a remote file, which is not read twice, its size."""
    if is_address(source):
        return f"an address, {size} bytes"
    try:
        return fingerprint([source])
    except OSError as error:
        raise cannot_read(source, error) from error


def _open_run(config: CleanConfig, rules: Sequence[AnyRule], inputs: Mapping[str, str]) -> Run:
    assert config.output is not None
    options = flatten(config, result_options_only=True) | {"rules": to_config(rules)}
    options.pop("sources")
    return open_run(config.output, "clean", options, inputs)


def _cores(config: CleanConfig) -> int:
    """Return the number of CPU cores of this machine, or of the Ray cluster."""
    if config.engine == "local":
        return os.cpu_count() or 1
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _counts(tally: dict[str, Any]) -> dict[str, Any]:
    """Return a tally without the keys that only the page shows."""
    return {k: v for k, v in tally.items() if k not in ("histograms", "dropped", "kept")}


def _log_result(path: Path, totals: dict[str, list[int]], skipped: Mapping[str, int]) -> None:
    before, after = totals["documents"]
    share = totals["characters"][1] / max(1, totals["characters"][0])
    say(f"{path}: {after:,} of {before:,} documents are left, {share:.1%} of the characters; see {path}/cleaning.html.")
    if skipped:
        why = "; ".join(f"{reason}: {count:,}{_remedy(reason)}" for reason, count in skipped.items())
        say(f"{sum(skipped.values()):,} documents were not read ({why}).")


def _remedy(reason: str) -> str:
    return next((f", see {flag}" for start, flag in _REMEDIES.items() if reason.startswith(start)), "")
