"""Digests of what the commands of reference_runs.py made, and the differences between two sets of them.

A file's digest has parts, so that a difference can be named: the tensors of weights, the keys of JSON, the lines of a
table. What differs between two runs of the same code is replaced before (see `normalised` and `normalised_lines`).
"""

import csv
import hashlib
import io
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import zstandard

Digests = Mapping[str, Mapping[str, Any]]

KINDS = ("weights", "predictions", "shards", "tables", "json", "printed", "other")
SUFFIXES = {
    **dict.fromkeys((".safetensors", ".onnx"), "weights"),
    **dict.fromkeys((".npy", ".npz"), "predictions"),
    **dict.fromkeys((".bin", ".parquet", ".zst"), "shards"),
    **dict.fromkeys((".md", ".csv", ".tex"), "tables"),
    **dict.fromkeys((".json", ".jsonl"), "json"),
    ".txt": "printed",
}
SHARD_FOLDERS = {"cache", "signals", "tokens"}  # arrays below one of these are no predictions
# pages show what tables hold; the data base of a search has its times inside, and its trials are runs
LEFT_OUT = (".html", ".log", ".lock", ".part", ".pyc", ".db")
SEPARATORS = {".md": "|", ".tex": "&"}  # of a table's cells
SHOWN = 6  # parts of a file that are named
REPLACED = "(differs by run)"

# keys of JSON, and columns of tables, whose values no two runs share
VARYING = re.compile(
    r"(\w*_)?seconds|\w+_per_second|Capture|Training|.*(training|capture), s"  # times and speeds
    r"|latency_ms\w*|latency, ms|Latency .*|p\d+, batch.\d+|One row|\d+ rows"
    r"|peak_memory_mb|Peak memory"
    r"|finished|declared_at"  # dates
    r"|versions|transformers_version|machine"
    r"|files|checksum"  # digests of files, logs with times included
)
SIZES = re.compile("bytes|Size")  # of an ONNX file: it holds the places of source code, see `_onnx_parts`
DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?([+-]\d\d:\d\d|Z)?)?")
IN_LINES = (
    (re.compile(r"^(Made with|Trained \(date\) on|Median latencies of a call on) .*"), r"\1 " + REPLACED),
    (re.compile(r"[\d.,]+ [KMG]iB free"), f"{REPLACED} free"),  # of disk and memory, in what `plan` prints
)


def digest_tree(root: Path) -> dict[str, dict[str, Any]]:
    """Return path -> kind, sha256 and parts (name -> digest, or value for JSON and lines) of all files below `root`."""
    found, root = {}, root.resolve()
    for file in sorted(f for f in root.rglob("*") if f.is_file() and not f.name.endswith(LEFT_OUT)):
        parts = dict(_parts(file, root))
        together = _sha(json.dumps(parts, sort_keys=True).encode())
        found[file.relative_to(root).as_posix()] = {"kind": _kind(file, root), "sha256": together, "parts": parts}
    return found


def write_digests(home: Path, digests: Digests) -> None:
    """Write home/digests.json."""
    (home / "digests.json").write_text(json.dumps(digests, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_digests(home: Path) -> Digests:
    """Return what `write_digests` wrote. Raises `SystemExit` where there is nothing."""
    file = home / "digests.json"
    if not file.exists():
        raise SystemExit(f"{file} is missing; run: python benchmarks/reference_runs.py make {home}")
    found: Digests = json.loads(file.read_text(encoding="utf-8"))
    return found


def renamed(digests: Digests, names: Mapping[str, str]) -> Digests:
    """Return the digests with these words, old -> new, renamed in paths, keys and texts."""
    if not names:
        return digests
    words = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, names)) + r")(?![\w-])")
    text = words.sub(lambda found: names[found[1]], json.dumps(digests, ensure_ascii=False))
    replaced: Digests = json.loads(text)
    return replaced


def differences(before: Digests, after: Digests, kinds: Collection[str] = KINDS) -> list[str]:
    """Return a line for each file of these kinds that is missing, new, moved, or differs, with the parts that do."""
    before, after = ({p: d for p, d in side.items() if d["kind"] in kinds} for side in (before, after))
    new = after.keys() - before.keys()
    lines = []
    for path, (kind, parts) in ((p, (d["kind"], d["parts"])) for p, d in sorted(before.items())):
        if path not in after:
            # a folder may be named after a digest of keys: where a key got another name, equal files are elsewhere
            same = next((p for p in sorted(new) if after[p]["parts"] == parts), None)
            new = new - {same}
            lines.append(f"missing  {kind}  {path}" if same is None else f"moved    {kind}  {path} -> {same}")
        elif parts != after[path]["parts"]:
            lines.append(f"differs  {kind}  {path}: {_named(parts, after[path]['parts'])}")
    return lines + [f"new      {after[path]['kind']}  {path}" for path in sorted(new)]


def _named(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Name the parts that differ, the first ones with their values."""
    names = [n for n in dict.fromkeys((*before, *after)) if before.get(n) != after.get(n)]
    shown = [f"{n} ({_short(before.get(n))} -> {_short(after.get(n))})" for n in names[:SHOWN]]
    return "; ".join(shown) + (f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _short(value: str | None) -> str:
    return "nothing" if value is None else value if len(value) < 60 else f"{value[:57]}..."


def _kind(file: Path, root: Path) -> str:
    kind = SUFFIXES.get(file.suffix, "other")
    is_shard = kind == "predictions" and SHARD_FOLDERS & set(file.relative_to(root).parts)
    return "shards" if is_shard else kind


def _parts(file: Path, root: Path) -> Iterator[tuple[str, str]]:
    match file.suffix:
        case ".safetensors":
            yield from _tensor_parts(file)
        case ".onnx":
            yield from _onnx_parts(file)
        case ".json":
            yield from _flat(normalised(json.loads(file.read_text(encoding="utf-8")), root))
        case ".jsonl" | ".zst":
            with (zstandard.open if file.suffix == ".zst" else open)(file, "rt", encoding="utf-8") as lines:
                for i, line in enumerate(lines):
                    yield from _flat(normalised(json.loads(line), root), f"[{i}]")
        case ".parquet":
            yield from _column_parts(file, root)
        case ".md" | ".csv" | ".tex" | ".txt":
            lines = normalised_lines(file.read_text(encoding="utf-8"), file.suffix, root)
            yield from ((f"line {i}", line) for i, line in enumerate(lines, 1))
        case _:
            yield "bytes", _sha(file.read_bytes())


def _tensor_parts(file: Path) -> Iterator[tuple[str, str]]:
    """Yield each tensor's name, and a digest of its format, shape and bytes, whatever the header's order and notes."""
    content = file.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    for name in sorted(header.keys() - {"__metadata__"}):
        about = header[name]
        start, end = about["data_offsets"]
        yield name, _sha(f"{about['dtype']} {about['shape']} ".encode() + content[begin + start : begin + end])


def _column_parts(file: Path, root: Path) -> Iterator[tuple[str, str]]:
    """Yield each column's name, and a digest of its format and values; cleaned text names its source by a full path."""
    table = pq.read_table(file)
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = normalised(column.to_pylist(), root)
        yield name, _sha(f"{column.type} {json.dumps(values)}".encode())


def _onnx_parts(file: Path) -> Iterator[tuple[str, str]]:
    """Yield each weight and each node; the exporter's notes at nodes, which name lines of source code, are left out."""
    import onnx  # an optional dependency, there where the export was not skipped

    graph = onnx.load(str(file)).graph
    for weight in graph.initializer:
        yield weight.name, _plain_sha(weight)
    for i, node in enumerate(graph.node):
        yield f"node {i} {node.op_type}", _plain_sha(node)
    for end in (*graph.input, *graph.output):
        yield end.name, _plain_sha(end)


def _plain_sha(message: Any) -> str:
    message.ClearField("metadata_props")
    message.ClearField("doc_string")
    return _sha(message.SerializeToString(deterministic=True))


def normalised(value: Any, root: Path) -> Any:
    """Return the content of JSON without what differs by run.

    Replaced are times, speeds, memory, dates, versions and the machine (`VARYING`, by key), sizes of ONNX files, dates
    and the place of the runs inside of texts. Nothing else is: floats keep all digits, and keys stay where their values
    go.
    """
    if isinstance(value, Mapping):
        sizes_vary = any(str(value.get(key, "")).endswith(".onnx") for key in ("file", "File"))
        return {
            key: REPLACED
            if each is not None and (VARYING.fullmatch(key) or (sizes_vary and SIZES.fullmatch(key)))
            else normalised(each, root)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [normalised(each, root) for each in value]
    return _plain_text(value, root) if isinstance(value, str) else value


def normalised_lines(text: str, suffix: str, root: Path) -> list[str]:
    """Return the lines of a table, card or print without what differs by run: columns in `VARYING`, and as above."""
    if suffix == ".csv":
        rows = _without_columns(list(csv.reader(io.StringIO(text))))
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    else:
        lines = list(_lines(text, SEPARATORS.get(suffix, "\0")))
    return [_plain_line(line, root) for line in lines]


def _lines(text: str, separator: str) -> Iterator[str]:
    """Yield the lines, those in a row that hold the separator being a table with titles on top."""
    lines = (line for line in text.splitlines() if line != r"\midrule")  # between a table's titles and its rows
    for is_table, block in itertools.groupby(lines, lambda line: separator in line):
        if is_table:
            cells = [[cell.strip(" \\") for cell in line.split(separator)] for line in block]
            yield from (" | ".join(row) for row in _without_columns(cells))
        else:
            yield from block


def _without_columns(rows: list[list[str]]) -> list[list[str]]:
    """Replace cells that differ by run: below such a title, or, where a row has one number and its title, behind it."""
    if not rows:
        return []
    titles, *others = rows
    below = {i for i, title in enumerate(titles) if _varies(title)}
    place = titles.index("column") if "column" in titles else None
    return [
        titles,
        *([REPLACED if i in below or _is_behind(row, place, i) else c for i, c in enumerate(row)] for row in others),
    ]


def _is_behind(row: list[str], place: int | None, i: int) -> bool:
    return place is not None and i > place and _varies(row[place])


def _varies(title: str) -> bool:
    return bool(VARYING.fullmatch(title)) or title == "Size"


def _plain_line(line: str, root: Path) -> str:
    line = _plain_text(line, root)
    for pattern, instead in IN_LINES:
        line = pattern.sub(instead, line)
    return line


def _plain_text(text: str, root: Path) -> str:
    return DATE.sub("(date)", text.replace(str(root), "(work)"))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield key.of.keys[index] and its value as JSON, for every value that holds no others."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _flat(each, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value:
        for i, each in enumerate(value):
            yield from _flat(each, f"{name}[{i}]")
    else:
        yield name, json.dumps(value, ensure_ascii=False)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
