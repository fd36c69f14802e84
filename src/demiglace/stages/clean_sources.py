"""Cleaning from sources to a finished run."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from demiglace.cleaning import run as cleaning
from demiglace.cleaning.contamination import Decontamination
from demiglace.cleaning.engine import start
from demiglace.cleaning.explain import explain
from demiglace.cleaning.page import write_page
from demiglace.cleaning.ruleset import AnyRule, described, rules_of
from demiglace.cleaning.steps import Plan
from demiglace.config import flatten
from demiglace.console import say
from demiglace.data.document_files import find_sources
from demiglace.data.documents import Document, read_documents
from demiglace.data.sources import read_task
from demiglace.data.tasks import TASKS
from demiglace.errors import ConfigError, unknown
from demiglace.manifest import fingerprint, open_run
from demiglace.stages.config import CleanConfig


def clean_sources(config: CleanConfig) -> Path | None:
    """See `demiglace.stages.clean.clean`."""
    rules = rules_of(config.rules, config.against)
    sources = find_sources(config.sources)
    if config.explain:
        explain(sources, rules, config.reading, list(_reference(rules, config)))
        return None
    if config.output is None:
        raise ConfigError("no output directory was given; add --output (-o), or --explain to write nothing.")
    _check_apart(sources, config.output)
    for name in config.against:
        _check_reference(name)
    local = [s for s in sources if "://" not in s]
    names = dict.fromkeys(sources, "address") | {s: fingerprint([s]) for s in local}
    options = flatten(config, deciding_only=True) | {"rules": described(rules)}
    options.pop("sources")
    run = open_run(config.output, "clean", options, names)
    if run.complete:
        say(f"{run.path} is up to date.")
        return run.path
    start(config.engine, config.address)
    size = sum(Path(s).stat().st_size for s in local)
    plan = Plan(
        str(run.path.absolute()),
        tuple(s if "://" in s else str(Path(s).absolute()) for s in sources),
        tuple(described(rules)),
        asdict(config.reading),
        config.keep_damaged,
        config.format,
        cleaning.bucket_count(size),
    )
    cleaning.prepare(plan, _reference(rules, config))
    result = cleaning.run(plan, config.workers or os.cpu_count() or 1)
    totals = cleaning.summary(result["rules"])
    write_page(run.path / "cleaning.html", plan, result)
    shards = [f"shards/{f.name}" for f in cleaning.shard_files(run.path)]
    brief = {name: _brief(tally) for name, tally in result["rules"].items()}
    run.finish(sources=sources, totals=totals, rules=brief, shards=shards)
    cleaning.clear(plan)
    _say_result(run.path, totals)
    return run.path


def _check_apart(sources: list[str], output: Path) -> None:
    """Raise `ConfigError` where a source is in the output."""
    home = output.absolute()
    for source in sources:
        if "://" not in source and home in Path(source).absolute().parents:
            raise ConfigError(f"the source {source} is in the output directory {output}; give another --output.")


def _check_reference(name: str) -> None:
    if name not in TASKS and not Path(name).exists():
        raise ConfigError(f"--against {name}: " + unknown("task", name, TASKS) + "; nor is there such a file.")


def _reference(rules: Sequence[AnyRule], config: CleanConfig) -> Iterator[str]:
    """The texts that documents must not share: of all sets of tasks but train, and of files."""
    for name in (name for rule in rules if isinstance(rule, Decontamination) for name in rule.against):
        if name not in TASKS:
            yield from (d.text for d in read_documents(name, config.reading) if isinstance(d, Document))
            continue
        task = TASKS[name]
        for split in task.splits:
            if split != "train":
                table = read_task(name, task, split, config.location)
                for column in task.text_columns:
                    yield from (str(text) for text in table.columns[column])


def _brief(tally: dict) -> dict:
    """A rule's tally without what only the page shows."""
    return {k: v for k, v in tally.items() if k not in ("histograms", "dropped", "kept")}


def _say_result(path: Path, totals: dict[str, list[int]]) -> None:
    before, after = totals["documents"]
    share = totals["characters"][1] / max(1, totals["characters"][0])
    say(f"{path}: {after:,} of {before:,} documents are left, {share:.1%} of the characters; see {path}/cleaning.html.")
