"""Read damaged and hostile files by the hundred thousand: does each end in a result or in a sentence?

    python benchmarks/fuzz.py --inputs 100000 [--targets rows yaml] [--seed 1]

Each input is a good file of a few hundred bytes to which some mutations were applied: bits, slices and tokens of bytes,
values and keys of JSON. It is read as demiglace reads it. Anything but a result or a `UserError` is a finding, and so
are more than 2 s of processor time and a gigabyte of memory. Findings are counted by the line of demiglace that they
come from, with the first input. The counts go to results/fuzz.json.
"""

import argparse
import base64
import copy
import gzip
import io
import json
import logging
import os
import random
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import zstandard
from kit import write
from safetensors.torch import save
from transformers import BertConfig, GPT2Config

from demiglace.cleaning.registry import load_rules
from demiglace.compare.grid import parse_grid
from demiglace.config.data import DataConfig, DataLocation, ReadConfig
from demiglace.config.options import read_yaml
from demiglace.config.yaml_file import load_yaml
from demiglace.console import LOGGER
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.rows.readers import read_table
from demiglace.data.rows.suites import read_suite
from demiglace.data.text.readers import read_documents
from demiglace.errors import UserError
from demiglace.methods.from_yaml import read_method
from demiglace.models.files import check_weights, load_config
from demiglace.results.load import read_comparison
from demiglace.runs.directory import read_manifest, stage_of, write_manifest
from demiglace.training.checkpoint import load_checkpoint, save_checkpoint

SECONDS, GIGABYTE = 2.0, 1 << 30
RECIPES = Path(__file__).parent.parent / "recipes"

# ---- mutations

TOKENS = (
    *(b'"', b"'", b",", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"[", b"]", b"{", b"}", b":", b"- ", b"#", b"&a", b"*a"),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", "😀".encode(), b"\\u0000", b"\\ud800", b"NaN", b"-Infinity"),
    *(b"null", b"true", b"-1", b"0", b"1e999", b"9" * 400, b"[" * 60, b"<<: ", b"!!python/object:os.system ", b"../"),
    *(b"WARC/1.0\r\n", b"Content-Length: 99999999999\r\n", b"text,label\n", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"~"),
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        -(2**63),
        10**30,
        0.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "0",
        "gelu",
    ),
    *(
        "../../x",
        "a\0b",
        "\ud800",
        "é" * 300,
        [],
        [1, "a", None],
        [[[]]],
        {},
        {"a": 1},
        {"0": "x", "y": []},
        "auto",
        1e308,
    ),
)


def mutate_bytes(content: bytes, draw: random.Random) -> bytes:
    """Apply one to six mutations of bytes."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 6)):
        at, length = draw.randrange(len(data) + 1), draw.choice((1, 1, 2, 8, 64))
        kind = draw.randrange(7)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at:at] = draw.choice(TOKENS)
        elif kind == 2:
            data[at : at + length] = draw.choice(TOKENS)
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length] * draw.choice((1, 2, 20))
        elif kind == 5:
            data[at:at] = draw.randbytes(length)
        elif draw.random() < 0.2:
            del data[at:]
    return bytes(data)


def mutate_json(content: Any, draw: random.Random) -> bytes:
    """Replace, remove, rename or add one to three values of a JSON object, at any depth."""
    value = copy.deepcopy(content)
    for _ in range(draw.randint(1, 3)):
        places = list(_places(value))
        parent, key = draw.choice(places) if places else (value, None)
        kind = draw.randrange(4)
        if key is None or kind == 0:
            parent = parent if isinstance(parent, dict) else value
            parent[draw.choice(("x", "", "model_type", "num_labels", "text_config", "é"))] = copy.deepcopy(
                draw.choice(VALUES)
            )
        elif kind == 1:
            parent[key] = copy.deepcopy(draw.choice(VALUES))
        elif kind == 2:
            parent[key] = copy.deepcopy(draw.choice([p[k] for p, k in places]))
        else:
            del parent[key]
    return json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield container and key of every value below a value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


# ---- targets: a function that makes an input and returns what reads it

Read = Callable[[], object]


def rows(folder: Path) -> Callable[[random.Random], tuple[bytes, Read]]:
    """Rows of all kinds, by the reader alone, and one in ten with columns, labels and checks."""
    table = [
        ("a good film", "yes"),
        ("a bad film, it was", "no"),
        ('"quoted"', "yes"),
        ("é 😀", "no"),
        ("so so", "yes"),
    ]
    table += [(f"row {i}", "no" if i % 2 else "yes") for i in range(8)]
    plain = {
        ".csv": "text,label\n" + "".join('"{}",{}\n'.format(t.replace('"', '""'), x) for t, x in table),
        ".tsv": "text\tlabel\n" + "".join(f"{t}\t{x}\n" for t, x in table),
        ".jsonl": "".join(json.dumps({"text": t, "label": x}) + "\n" for t, x in table),
        ".json": json.dumps([{"text": t, "label": x} for t, x in table], indent=1),
        ".conll": "EU B-ORG\nrejects O\n\nPeter B-PER\nBlackburn I-PER\n\n",
    }
    seeds = {kind: text.encode() for kind, text in plain.items()}
    seeds |= {".csv.gz": gzip.compress(seeds[".csv"]), ".csv.zst": zstandard.compress(seeds[".csv"])}
    seeds[".parquet"] = parquet([t for t, _ in table], [x for _, x in table])
    weights = [10 if kind in plain else 3 for kind in seeds]

    def make(draw: random.Random) -> tuple[bytes, Read]:
        kind = draw.choices(list(seeds), weights)[0]
        content, file = mutate_bytes(seeds[kind], draw), folder / f"rows{kind}"
        file.write_bytes(content)
        if draw.random() < 0.1:
            config = DataConfig(data=str(file), on_bad_rows=draw.choice(("drop", "error")), max_rows=4)
            return content, lambda: load_dataset(config, DataLocation())
        return content, lambda: read_table(file)

    return make


def parquet(texts: list[str], labels: list[str]) -> bytes:
    """Return a Parquet file with the metadata that `datasets` writes."""
    features = {"text": {"_type": "Value"}, "label": [{"names": ["no", "yes"], "_type": "ClassLabel"}]}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "label": labels}).replace_schema_metadata(metadata), buffer)
    return buffer.getvalue()


def documents(folder: Path) -> Callable[[random.Random], tuple[bytes, Read]]:
    """Documents of all kinds; HTML rarely, which takes the most time."""
    page = b"<html><body><p>" + b"The old captain mended a bridge. " * 4 + b"</p></body></html>"
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page
    warc = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.org/x\r\nContent-Type: application/http\r\n"
    wet = b"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: 5\r\n\r\nWhole\r\n\r\n"
    seeds = {
        ".txt": b"one line\n\nanother paragraph\nof two lines\r\n" * 3,
        ".jsonl": b'{"text": "one", "url": "http://a.org/b"}\n{"text": "two"}\n' * 3,
        ".wet": wet * 2,
        ".html": page,
        ".warc": warc + b"Content-Length: %d\r\n\r\n" % len(http) + http + b"\r\n\r\n",
    }
    seeds |= {".txt.gz": gzip.compress(seeds[".txt"]), ".jsonl.zst": zstandard.compress(seeds[".jsonl"])}
    seeds |= {".wet.gz": gzip.compress(wet) * 2, ".parquet": parquet(["one", "two"], ["a", "b"])}
    weights = [1 if kind in (".html", ".warc") else 20 for kind in seeds]

    def make(draw: random.Random) -> tuple[bytes, Read]:
        kind = draw.choices(list(seeds), weights)[0]
        content, file = mutate_bytes(seeds[kind], draw), folder / f"documents{kind}"
        file.write_bytes(content)
        config = ReadConfig(unit=draw.choice(("document", "line", "paragraph")))
        return content, lambda: list(read_documents(str(file), config))

    return make


def yaml(folder: Path) -> Callable[[random.Random], tuple[bytes, Read]]:
    """YAML of comparisons, methods, rules and suites, as bytes and as values."""
    file = folder / "x.yaml"
    method = (RECIPES / "methods" / "rail-reverse.yaml").read_bytes()
    grid = b"tasks: {sst2: {max_rows: 10}}\nteacher: {model: x, epochs: 2}\n"
    grid += b"students: {half: {layers: 2}}\nmethods: {none: {}}\n"
    rules = b"rules:\n- repair\n- {rule: language, languages: [en, de], min_probability: 0.5}\n- near-duplicates\n"
    suite = b"own: {data: mnli, label_map: {a: b}, text_columns: [x]}\nother: file.csv\n"
    seeds: dict[Callable[[], object], bytes] = {
        lambda: parse_grid(read_yaml(file)): grid,
        lambda: read_method(str(file)): method,
        lambda: load_rules(str(file)): rules,
        lambda: read_suite(file): suite,
    }
    values = {read: load_bytes(content, folder) for read, content in seeds.items()}

    def make(draw: random.Random) -> tuple[bytes, Read]:
        read = draw.choice(list(seeds))
        content = mutate_bytes(seeds[read], draw) if draw.random() < 0.5 else mutate_json(values[read], draw)
        file.write_bytes(content)
        return content, read

    return make


def load_bytes(content: bytes, folder: Path) -> Any:
    """Return the value in a YAML text."""
    (folder / "seed.yaml").write_bytes(content)
    return load_yaml(folder / "seed.yaml")


def safetensors(folder: Path) -> Callable[[random.Random], tuple[bytes, Read]]:
    """Checkpoints, and weights of a model; half of the mutations are in the header."""
    file, weights = folder / "last.safetensors", folder / "model.safetensors"
    tensors = {"a": torch.ones(2, 3), "b": torch.arange(4)}
    save_checkpoint(file, tensors, {"step": 7, "epoch": 1})
    checkpoint, model = file.read_bytes(), save(tensors, {"format": "pt"})

    def make(draw: random.Random) -> tuple[bytes, Read]:
        seed, target = draw.choice(((checkpoint, file), (model, weights)))
        size = int.from_bytes(seed[:8], "little")
        if draw.random() < 0.5:
            header = mutate_json(json.loads(seed[8 : 8 + size]), draw)
            content = len(header).to_bytes(8, "little") + header + seed[8 + size :]
        else:
            content = mutate_bytes(seed, draw)
        target.write_bytes(content)
        return content, (lambda: load_checkpoint(file)) if target == file else (lambda: check_weights(folder, False))

    return make


def configs(folder: Path) -> Callable[[random.Random], tuple[bytes, Read]]:
    """config.json of model directories."""
    seeds = [BertConfig(id2label={0: "no", 1: "yes"}).to_dict(), GPT2Config().to_dict()]

    def make(draw: random.Random) -> tuple[bytes, Read]:
        seed = draw.choice(seeds)
        content = mutate_json(seed, draw) if draw.random() < 0.9 else mutate_bytes(json.dumps(seed).encode(), draw)
        (folder / "config.json").write_bytes(content)
        return content, lambda: load_config(str(folder))

    return make


def manifests(folder: Path) -> Callable[[random.Random], tuple[bytes, Read]]:
    """Manifests, as bytes, and as values with a checksum that fits them."""
    run = folder / "run"
    run.mkdir()
    (run / "table.csv").write_text("x")
    files = {"table.csv": {"bytes": 1, "modified": (run / "table.csv").stat().st_mtime_ns, "sha256": "0" * 64}}
    identity = {"format": 1, "stage": "finetune", "config": {"lr": 0.1}, "inputs": {"data": "x"}}
    seed = write_manifest(run, identity | {"versions": {"torch": "2"}, "metrics": {"a": 0.5}, "files": files})
    plain = {key: value for key, value in seed.items() if key != "checksum"}

    def make(draw: random.Random) -> tuple[bytes, Read]:
        is_value = draw.random() < 0.5
        content = mutate_json(plain, draw) if is_value else mutate_bytes(json.dumps(seed).encode(), draw)
        for name in ("manifest.json", "run.json"):
            (run / name).write_bytes(content)
        return content, lambda: (stage_of(run), read_manifest(run))

    return make


def comparisons(folder: Path) -> Callable[[random.Random], tuple[bytes, Read]]:
    """summary.json of a comparison, as values."""
    (folder / "results.json").write_text('{"records": [], "config": {}}')
    seed = json.loads((Path(__file__).parent / "results" / "decoders-tasks" / "summary.json").read_text())
    small = {key: value[:2] if isinstance(value, list) else value for key, value in seed.items()}

    def make(draw: random.Random) -> tuple[bytes, Read]:
        content = mutate_json(small, draw)
        (folder / "summary.json").write_bytes(content)
        return content, lambda: read_comparison(folder, "title")

    return make


TARGETS: dict[str, tuple[Callable[[Path], Callable[[random.Random], tuple[bytes, Read]]], float]] = {
    "rows": (rows, 1.0),  # and the share of --inputs: fewer where an input takes milliseconds
    "documents": (documents, 1.0),
    "safetensors": (safetensors, 1.0),
    "manifests": (manifests, 1.0),
    "yaml": (yaml, 0.2),
    "configs": (configs, 0.1),
    "comparisons": (comparisons, 0.05),
}

# ---- the loop


class HangError(Exception):
    """An input took too long."""


def fuzz(name: str, inputs: int, seed: int) -> dict[str, Any]:
    """Read so many inputs of a target; return the counts and the findings."""
    findings: dict[str, dict[str, Any]] = {}
    refused, begun = 0, time.process_time()
    draw = random.Random(f"{seed}/{name}")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as home:
        make = TARGETS[name][0](Path(home))
        for _ in range(inputs):
            content, read = make(draw)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            finding = ""
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
            try:
                read()
            except UserError:
                refused += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                finding = _where(error)
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024 > GIGABYTE:
                finding = "a gigabyte"
            if finding:
                first = {"count": 0, "input": base64.b64encode(content[:3000]).decode()}
                findings.setdefault(finding, first)["count"] += 1
    seconds = round(time.process_time() - begun, 1)
    return {"inputs": inputs, "refused": refused, "cpu_seconds": seconds, "findings": findings}


def _where(error: BaseException) -> str:
    """Return the kind of an error, and the last line of demiglace that it came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/demiglace/" in f.filename]
    line = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return (
        f"{type(error).__name__} at {line}: {str(error)[:120]!r}"
        if len(str(error)) < 120
        else f"{type(error).__name__} at {line}"
    )


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="of each target; fewer of the slow ones")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(given)
    os.environ["HF_HUB_OFFLINE"] = "1"
    LOGGER.setLevel(logging.CRITICAL)
    signal.signal(signal.SIGVTALRM, _hang)
    results = {}
    for name in args.targets:
        results[name] = fuzz(name, max(1, int(args.inputs * TARGETS[name][1])), args.seed)
        write("fuzz", vars(args), results)
    raise SystemExit(any(found["findings"] for found in results.values()))


def _hang(*_: object) -> None:
    raise HangError


if __name__ == "__main__":
    main()
