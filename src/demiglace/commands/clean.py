"""`demiglace clean`: training text through rules."""

from importlib.util import find_spec

from demiglace.config.command_options import CleanConfig
from demiglace.config.options import command
from demiglace.errors import ConfigError, install_command
from demiglace.runs.directory import read_manifest
from demiglace.runs.result import Result

_LIBRARIES = ("daft", "ftfy", "py3langid", "trafilatura", "fastwarc")


@command(CleanConfig)
def clean(config: CleanConfig) -> Result | None:
    """Clean documents: shards/ of what is left, ledger/ of what was dropped or changed, cleaning.html to look at.

    Returns the run directory; interrupted, the same call goes on. The result does not depend on the number of workers,
    the engine or the order of sources. With `explain` it prints what each rule finds instead. Raises `ConfigError`,
    `DataError` for sources that are not there or cannot be opened, `RunError`, and `UserError` where a task meets
    damaged files, which `keep_damaged` uses up to the damage.
    """
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise ConfigError(f"cleaning needs {', '.join(missing)}, not installed; run: {install_command('clean')}")
    if config.engine == "ray" and find_spec("ray") is None:
        raise ConfigError(f"--engine ray needs Ray: {install_command('clean', 'ray')}, or leave --engine out.")
    from demiglace.cleaning.sources import clean_sources

    path = clean_sources(config)
    return None if path is None else Result(path, read_manifest(path)["totals"])
