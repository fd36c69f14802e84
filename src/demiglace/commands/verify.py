"""`demiglace verify`: compare the files of complete runs with the digests in their manifests."""

from pathlib import Path

from demiglace.config.command_options import VerifyConfig
from demiglace.config.options import command
from demiglace.errors import RunError
from demiglace.report.format import count_of
from demiglace.runs.directory import is_complete, runs_below, write_manifest
from demiglace.runs.files import read_json
from demiglace.runs.integrity import changed, checksum_of, record
from demiglace.runs.result import Result


@command(VerifyConfig)
def verify(config: VerifyConfig) -> Result:
    """Compare every file of complete runs with the SHA-256 in the manifest; see `VerifyConfig`.

    Return the number of files by run. With `accept`, the present files are recorded in place of the former ones. Raises
    `RunError` for a path without a run, and, after all runs were read, for files that are not as the runs wrote them.
    """
    runs = [run for path in config.runs for run in runs_below(path)]
    complete = [run for run in runs if is_complete(run)]
    checked, damage, unknown = dict[str, int](), list[str](), list[str]()
    for run in complete:
        manifest = read_json(run / "manifest.json")
        if config.accept:
            manifest = write_manifest(run, manifest | {"files": record(run)})
        if "files" not in manifest:
            unknown.append(str(run))
            continue
        checked[str(run)] = len(manifest["files"])
        if manifest.get("checksum") != checksum_of(manifest):
            damage.append(f"{run / 'manifest.json'} has other content")
        damage += [f"{run / name} {what}" for name, what in changed(run, manifest["files"], full=True).items()]
    text = f"{count_of(sum(checked.values()), 'file')} of {count_of(len(checked), 'run')} compared"
    if unknown:
        text += f"; {count_of(len(unknown), 'run')} of an earlier version without digests ({_first(unknown)})"
    if len(runs) > len(complete):
        text += f"; {count_of(len(runs) - len(complete), 'unfinished run')} left out"
    if damage:
        raise RunError(
            f"{text}; {count_of(len(damage), 'file')} not as the run wrote them:\n  "
            + "\n  ".join(damage)
            + "\nRestore them, or remove the run directory and repeat its command. --accept records them as they are."
        )
    return Result(None, checked, (), f"{text}: all are as the runs wrote them")


def _first(names: list[str]) -> str:
    return ", ".join(str(Path(name)) for name in names[:3]) + (", …" if len(names) > 3 else "")
