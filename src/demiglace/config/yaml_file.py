"""Read a YAML file in bounded time and memory: aliases and nesting can make a small file describe any amount."""

from pathlib import Path
from typing import Any

from demiglace.errors import ConfigError

_MOST_BYTES = 500_000
_MOST_VALUES = 200_000  # with each alias counted as what it repeats
_DEEPEST = 40


def load_yaml(file: Path | str) -> Any:
    """Return the value in a YAML file; None for an empty one.

    Raises `ConfigError` for a file that cannot be read, and for one that is larger, deeper nested or by its aliases
    longer than a config can be.
    """
    import yaml

    try:
        size = Path(file).stat().st_size
        if size > _MOST_BYTES:
            raise ConfigError(f"{file} has {size:,} bytes; a config has at most {_MOST_BYTES:,}. Is it the right file?")
        text = Path(file).read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _count(node, str(file), {}, 0)
        return yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file} could not be read: {error}") from error
    except RecursionError as error:
        raise _too_deep(str(file)) from error


def _count(node: Any, file: str, counts: dict[int, int | None], depth: int) -> int:
    """Return the number of values of a node, each alias as often as it is used. Raises `ConfigError`."""
    if depth > _DEEPEST:
        raise _too_deep(file)
    known = counts.get(id(node), 0)
    if known is None:
        raise ConfigError(f"{file}: an alias repeats the value that it is in; write the value in full.")
    if known:
        return known
    counts[id(node)] = None  # until its parts are counted
    parts: list[Any] = [] if isinstance(node.value, str) else node.value
    children = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
    total = 1 + sum(_count(child, file, counts, depth + 1) for child in children)
    if total > _MOST_VALUES:
        raise ConfigError(f"{file}: its aliases repeat more than {_MOST_VALUES:,} values; write them in full.")
    counts[id(node)] = total
    return total


def _too_deep(file: str) -> ConfigError:
    return ConfigError(f"{file}: values are nested deeper than {_DEEPEST} levels; a config has about four.")
