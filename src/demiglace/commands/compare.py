"""`demiglace compare`: a grid of methods, tasks, students and seeds."""

from demiglace.compare.directory import identity, is_up_to_date
from demiglace.config.command_options import CompareConfig
from demiglace.config.options import command, read_yaml
from demiglace.console import say
from demiglace.given_objects import saved_objects
from demiglace.runs.files import read_json
from demiglace.runs.result import Result


@command(CompareConfig, objects=saved_objects)
def compare(config: CompareConfig) -> Result:
    """Run every student of a grid, its evaluation and what they share, each once; then summarize them.

    Returns the comparison's directory: TASK/…, an ordinary run for each step, results.json (a record for each student
    run and teacher), summary.json and manifest.json. Interrupted, the same call goes on; with more seeds or methods in
    the grid it does what is new. Failed runs take nothing else down: at the end `RunError` names them, or
    `FailedRunsError` where one of them was no user's mistake. Raises `ConfigError` for a wrong grid before any run.
    """
    content = read_yaml(config.grid)
    if not config.dry_run and is_up_to_date(config.output, identity(content, config.search)):
        say(f"{config.output} is up to date.")
        return Result(config.output, {"records": len(read_json(config.output / "results.json")["records"])})
    from demiglace.compare.run import run_grid  # torch and transformers, which the answer above does without

    return run_grid(config, content)
