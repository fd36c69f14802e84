"""What is written when a comparison ends: results.json, summary.json, and the manifest if nothing is missing."""

from collections.abc import Mapping
from typing import Any

from filelock import FileLock

from demiglace.compare.home import STAGE, Files, claim
from demiglace.compare.plan import Plan
from demiglace.compare.records import records
from demiglace.compare.steps import is_done
from demiglace.compare.summary import summarise
from demiglace.manifest import Run, write_json


def steps_done(plan: Plan) -> set[str]:
    """The keys of the steps that stand. Raises `RunError` if one of their directories holds a run of other options."""
    return {step.key for step in plan.steps if is_done(step, plan.home)}


def write_results(
    plan: Plan, status: Mapping[str, str], errors: Mapping[str, str], config: dict[str, Any], read: Files
) -> None:
    """Write what a plan found, failed and missing runs named as such; the manifest only if every step is done.

    status, errors: by step key; config: of the manifest; read: what the grid reads of the user's own.
    """
    home = plan.home
    with FileLock(home / "locks" / "results.lock"):
        found = records(plan, status, errors)
        write_json(home / "results.json", {"records": found})
        write_json(home / "summary.json", summarise(found, home))
        if all(status[step.key] == "done" for step in plan.steps):
            Run(home, STAGE, config, claim(home, read)).finish(
                runs=len(plan.runs),
                steps={s.key: "best.json" if s.stage == "search" else "manifest.json" for s in plan.steps},
                read={name: [str(file) for file in files] for name, files in read.items()},
            )


def stories(plan: Plan) -> dict[str, str]:
    """Step key -> the last line of its failure, for those whose story is kept, in whichever process they failed."""
    files = {step.key: plan.home / "failed" / f"{step.key}.txt" for step in plan.steps}
    texts = {key: file.read_text(encoding="utf-8").strip() for key, file in files.items() if file.exists()}
    return {key: text.splitlines()[-1] for key, text in texts.items() if text}
