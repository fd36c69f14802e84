"""Which rows have a key that came before: by this project's sorted arrays, and by Daft's own group-by and join.

Each side reads the same Parquet file of keys and places and writes the places of what is not first; a process of its
own each time, the start with the imports not counted. The keys are those of the lines of noisy_web's beginning, and as
many drawn ones as a part of some hundred MB has lines.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from corpora import texts, write

_START = """
import os, resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from demiglace.cleaning.rules.dedup import all_but_first, marks
from demiglace.cleaning.daft_executor import import_daft, start
daft = import_daft()
start("local", None)
source, output = sys.argv[1:]
def state():
    used, peak = resource.getrusage(resource.RUSAGE_SELF), Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return used.ru_utime + used.ru_stime, int(peak.split()[0]) / 1024
before = state()
"""
_END = """
after = state()
print(after[0] - before[0], after[1] - before[1], flush=True)
os._exit(0)  # Daft's threads may crash a process that ends by itself
"""
SIDES = {
    "sorted arrays": """
table = pq.read_table(source)
found = all_but_first(marks(table["key"].to_numpy(), table["place"].to_numpy()))
pq.write_table(pa.table({"place": np.sort(found.document)}), output + ".parquet")
""",
    "Daft, group-by and join": """
rows = daft.read_parquet(source)
first = rows.groupby("key").agg(daft.col("place").min().alias("first"))
found = rows.join(first, on="key").where(daft.col("place") != daft.col("first"))
found.select("place").sort("place").write_parquet(output)
""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=float, default=5)
    parser.add_argument("--drawn", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    draw = np.random.default_rng(0)
    sets = {
        f"lines of {args.mb:g} MB": line_keys(args.mb),
        "drawn": draw.integers(0, args.drawn // 2, args.drawn).astype(np.uint64),
    }
    results: dict = {"config": vars(args)}
    with tempfile.TemporaryDirectory() as folder:
        for name, keys in sets.items():
            file = Path(folder) / "keys.parquet"
            pq.write_table(pa.table({"key": keys, "place": np.arange(len(keys), dtype=np.uint64)}), file)
            results[name] = {"rows": len(keys)} | compare(keys, file, Path(folder), args.rounds)
            print(name, json.dumps(results[name]), flush=True)
    write("cleaning_grouping", results)


def line_keys(megabytes: float) -> np.ndarray:
    from demiglace.cleaning.rules.short_study import line_keys as keys_of
    from demiglace.cleaning.text_arrays import Texts

    found, size = [], 0
    for text in texts("noisy_web"):
        if (size := size + len(text.encode())) > megabytes * 1e6:
            break
        found.append(text)
    return keys_of(Texts(found))


def compare(keys: np.ndarray, file: Path, home: Path, rounds: int) -> dict:
    """CPU-seconds and MB of memory above rest of each side, medians; the sides take turns and find the same rows."""
    measured: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side, code in SIDES.items():
            output = home / f"{len(keys)}-{number}-{len(side)}"
            call = [sys.executable, "-c", _START + code + _END, str(file), str(output)]
            said = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
            measured[side].append([float(v) for v in said.split()[-2:]])
        places = [np.sort(pq.read_table(p)["place"].to_numpy()) for p in home.glob(f"{len(keys)}-{number}-*")]
        assert np.array_equal(*places), "the sides differ"
    names = ("CPU-seconds", "MB above rest")
    middle = {side: [round(median(v), 2) for v in zip(*rows, strict=True)] for side, rows in measured.items()}
    return {side: dict(zip(names, values, strict=True)) for side, values in middle.items()}


if __name__ == "__main__":
    main()
