"""Objects that a Python program gives where the command line takes paths: models, tokenizers, rows, grids.

They are written to the run directory's `inputs/` under a name with a hash of their content, and the command then reads
them as it reads any other path. So their content is part of the run's identity: an equal call resumes, a call with
other rows or weights is refused.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from demiglace.console import is_main_process
from demiglace.data.rows.objects import is_rows, write_rows
from demiglace.errors import ConfigError
from demiglace.runs.directory import INPUTS, check_output
from demiglace.runs.files import fingerprint, to_json

_MODELS = ("model", "teacher", "student")
_ROWS = ("data", "validation", "test", "unlabelled", "corpus", "validation_corpus", "calibration", "vocabulary_corpus")
_GRID = "grid"


@contextmanager
def saved_objects(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a command's options with objects replaced by the paths of files that hold them.

    The files are in `inputs/` of the option `output`, or without one in a temporary directory, for as long as the
    command runs. Raises `UserError` for objects that cannot be written; a refused command leaves nothing behind.
    """
    names = [name for name, value in options.items() if _is_object(name, value)]
    if not names and not _is_tokenizer(options.get("tokenizer")):
        yield dict(options)
        return
    output = options.get("output")
    if not isinstance(output, (str, os.PathLike)):
        with TemporaryDirectory(prefix="demiglace-") as folder:
            yield _saved(options, names, _Inputs(Path(folder) / INPUTS))
        return
    check_output(Path(output))
    inputs = _Inputs(Path(output) / INPUTS)
    try:
        yield _saved(options, names, inputs)
    except BaseException:
        inputs.remove_unused()
        raise


@contextmanager
def saved_for_now(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield options as `saved_objects` does, with all files in a temporary directory, for a command without a run."""
    with saved_objects({name: value for name, value in options.items() if name != "output"}) as given:
        yield given | ({"output": options["output"]} if "output" in options else {})


def name_of(path: str) -> str:
    """Return NAME-HASH for a path that `saved_objects` made, which does not depend on the run; others as they are."""
    is_saved = Path(path).parent.name == INPUTS and re.fullmatch(r"\w+-[0-9a-f]{16}", Path(path).stem)
    return Path(path).stem if is_saved else path


class _Inputs:
    """The folder of what a call gave as objects."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._new: list[Path] = []

    def add(self, name: str, write: Callable[[Path], Path], mark: str | None = None) -> Path:
        """Return the path NAME-MARK of the file or folder that `write(draft folder)` makes; an existing one is kept.

        mark: a hash of the content; None for that of the files written.
        """
        path = self._folder / f"{name}-{mark}"
        if mark and (path.exists() or not is_main_process()):
            return path
        draft = self._folder / f"draft-{os.getpid()}.part"
        draft.mkdir(parents=True)
        try:
            written = write(draft)
            files = sorted(written.iterdir()) if written.is_dir() else [written]
            path = self._folder / f"{name}-{mark or fingerprint(files)}{written.suffix}"
            if not path.exists() and is_main_process():
                written.rename(path)
                self._new.append(path)
        finally:
            shutil.rmtree(draft)
        return path

    def remove_unused(self) -> None:
        """Remove what this call wrote, unless the run in the directory reads it."""
        claim = self._folder.parent / "run.json"
        used = claim.read_text(encoding="utf-8") if claim.is_file() else ""
        for path in self._new:
            if path.name not in used:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()


def _is_object(name: str, value: Any) -> bool:
    """Return whether the value of an option is an object that is written to a file."""
    if name in _MODELS:
        return _is_model(value)
    if name in _ROWS:
        return is_rows(value) or (isinstance(value, (list, tuple)) and any(map(is_rows, value)))
    return name == _GRID and isinstance(value, Mapping)


def _is_model(value: Any) -> bool:
    return hasattr(value, "save_pretrained") and hasattr(value, "state_dict") and not isinstance(value, type)


def _is_tokenizer(value: Any) -> bool:
    return hasattr(value, "save_pretrained") and not _is_model(value) and not isinstance(value, type)


def _saved(options: Mapping[str, Any], names: Sequence[str], inputs: _Inputs) -> dict[str, Any]:
    """Return the options with the named objects as paths, and without the tokenizer that belongs to a model."""
    given, tokenizer = dict(options), options.get("tokenizer")
    if any(name in _MODELS for name in names):
        given.pop("tokenizer", None)
    elif _is_tokenizer(tokenizer):
        raise ConfigError(
            "tokenizer was given as an object, and no model was; a model's directory has its tokenizer. Leave it out, "
            "or give the model as an object too."
        )
    for name in names:
        if name in _MODELS:
            given[name] = _save_model(name, options[name], tokenizer, inputs)
        elif name == _GRID:
            given[name] = inputs.add(name, lambda draft: _write_grid(options[_GRID], draft / "grid.yaml"))
        else:
            given[name] = _save_rows(name, options[name], inputs)
    _wait_for_others()
    return given


def _save_model(name: str, model: Any, tokenizer: Any, inputs: _Inputs) -> str:
    from demiglace.models.objects import fingerprint_objects, save_objects

    if tokenizer is not None and not _is_tokenizer(tokenizer):
        raise ConfigError(
            f"tokenizer was given {tokenizer!r}; expected a tokenizer object, for the {name} that was given as a model."
        )

    def write(draft: Path) -> Path:
        save_objects(model, tokenizer, draft / "model", name)
        return draft / "model"

    return str(inputs.add(name, write, fingerprint_objects(model, tokenizer)))


def _save_rows(name: str, value: Any, inputs: _Inputs) -> Any:
    if not is_rows(value):  # several sets, some of them paths
        return [_save_rows(name, item, inputs) if is_rows(item) else item for item in value]
    return str(inputs.add(name, lambda draft: write_rows(value, draft / "rows", name)))


def _write_grid(content: Mapping[str, Any], file: Path) -> Path:
    import yaml

    try:
        file.write_text(yaml.safe_dump(json.loads(to_json(content)), sort_keys=False), encoding="utf-8")
    except TypeError as error:
        raise ConfigError(
            f"the grid holds an object ({error}); expected names, numbers and paths: save models and rows first."
        ) from error
    return file


def _wait_for_others() -> None:
    """Let the processes of a `torchrun` wait until the first one has written the files."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from demiglace.runs.processes import processes

        processes().wait_for_everyone()
