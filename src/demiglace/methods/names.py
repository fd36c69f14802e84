"""The names of the methods and of their options, for checks before torch is imported.

Those of demiglace are read from the sources of this room, those of other packages from their entry points.
"""

import ast
import functools
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

ENTRY_POINTS = "demiglace.methods"  # the group of other packages' methods
_HOME = Path(__file__).parent
_TABLE = "demiglace.methods.registry"


def installed_methods() -> list[EntryPoint]:
    """Return the entry points of other packages' methods; nothing is imported for them."""
    return list(entry_points(group=ENTRY_POINTS))


@functools.cache
def option_names() -> dict[str, tuple[str, ...]]:
    """Return the names of the options of each method, as `methods.registry.METHODS` has them, in its order."""
    rows = (node for node in ast.walk(_module(_TABLE)) if _is_row(node))
    return {row.args[0].value: tuple(dict.fromkeys(_fields(_TABLE, row.args[1].id))) for row in rows}  # type: ignore


def _is_row(node: ast.AST) -> bool:
    """Return whether a node is a row of the table, with the method's name as a literal."""
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "MethodInfo"
    return is_call and isinstance(node.args[0], ast.Constant)  # type: ignore[attr-defined]


@functools.cache
def _module(name: str) -> ast.Module:
    file = _HOME / Path(*name.split(".")[2:]).with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _fields(module: str, name: str) -> list[str]:
    """Return the fields of a dataclass that a module of this room defines or imports, those of its bases first."""
    for node in _module(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = [field for base in node.bases if isinstance(base, ast.Name) for field in _fields(module, base.id)]
            own = [name for n in node.body if isinstance(n, ast.AnnAssign) for name in _options(module, n)]
            return [*bases, *own]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("demiglace.methods."):
            found = next((a.name for a in node.names if (a.asname or a.name) == name), None)
            if found is not None:
                return _fields(str(node.module), found)
    return []


def _options(module: str, node: ast.AnnAssign) -> list[str]:
    """Return the names of the options of a field: its name, or the fields of the dataclass that it is a group of."""
    value = node.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and isinstance(node.target, ast.Name):
        if value.func.id == "option":
            return [node.target.id]
        if value.func.id == "group" and isinstance(value.args[0], ast.Name):
            return _fields(module, value.args[0].id)
    return []
