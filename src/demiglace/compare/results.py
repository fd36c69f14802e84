"""What is written when a comparison ends: results.json, summary.json, and the manifest if nothing is missing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demiglace.compare.directory import STAGE, Files, claim
from demiglace.compare.job_graph import Plan, Step
from demiglace.compare.jobs import best_file, is_done
from demiglace.compare.protocol import declaration
from demiglace.compare.records import records
from demiglace.errors import RunError
from demiglace.results.summary import summarise
from demiglace.runs.directory import Run, read_json, write_json


def steps_done(plan: Plan) -> set[str]:
    """The keys of the steps that stand. Raises `RunError` if one of their directories holds a run of other options."""
    done = {step.key for step in plan.steps if is_done(step, plan.home)}
    for step in plan.steps:
        # asked again: meanwhile another process may have ended the search and begun its runs
        if step.search is not None and step.search not in done and not is_done(plan.step(step.search), plan.home):
            _check_not_begun(step, plan.step(step.search), plan.home)
    return done


def _check_not_begun(step: Step, search: Step, home: Path) -> None:
    """Raise `RunError` for a run with options of no search, or of fewer trials than its search is to have."""
    best = best_file(home, search.key)
    if not (home / step.key / "run.json").exists():
        return
    if not best.exists():
        raise RunError(
            f"{home / step.key} was made without a search. Give another --output, or leave --search out as it was."
        )
    raise RunError(
        f"{home / step.key} was begun with the best options of {read_json(best)['trials']} trials, and "
        f"{search.key} is to have {search.trials}. Give another --output, or `trials` as they were; or remove "
        f"{home / step.key}* and all other runs of that search, which are then made with its new best."
    )


def write_results(
    plan: Plan, status: Mapping[str, str], errors: Mapping[str, str], config: dict[str, Any], read: Files
) -> None:
    """Write what a plan found, failed and missing runs named as such; the manifest only if every step is done.

    status, errors: by step key; config: of the manifest, and of results.json, which is there without one too; read:
    what the grid reads of the user's own.
    """
    home, found = plan.home, records(plan, status, errors)
    write_json(home / "results.json", {"config": config, "records": found})
    declared = declaration(home)
    write_json(home / "summary.json", summarise(found, home, plan.grid.primary, declared))
    if all(status[step.key] == "done" for step in plan.steps):
        Run(home, STAGE, config, claim(home, read)).finish(
            runs=len(plan.runs),
            steps={s.key: "best.json" if s.stage == "search" else "manifest.json" for s in plan.steps},
            read={name: [str(file) for file in files] for name, files in read.items()},
            protocol=declared,
        )


def stories(plan: Plan) -> dict[str, str]:
    """Step key -> how it failed, for those whose story is kept, in whichever process: of a traceback its last line."""
    files = {step.key: plan.home / "failed" / f"{step.key}.txt" for step in plan.steps}
    texts = {key: file.read_text(encoding="utf-8").strip() for key, file in files.items() if file.exists()}
    return {k: t.splitlines()[-1] if t.startswith("Traceback") else t for k, t in texts.items() if t}
