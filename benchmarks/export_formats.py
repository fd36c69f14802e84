"""Export a model in several formats and record sizes, equality with PyTorch, scores, speed and memory.

    python benchmarks/export_formats.py CLASSIFIER --formats onnx:int8,int4 openvino:int8-weights,int8 executorch:int8 \
        --data banking77 -o benchmarks/results/classifier_formats.json

The numbers are those that `demiglace export` writes into its manifests. The load of the machine before and after is
recorded: speeds are those of a quiet machine only where it is near 0.
"""

import argparse
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from demiglace import export
from demiglace.runs.directory import read_manifest
from demiglace.runs.environment import machine, versions
from demiglace.runs.files import write_json

_KEPT = (
    *("format", "precision", "bytes", "label_agreement", "continuations", "kl_divergence", "largest_logit_difference"),
    *("metrics", "latency_ms", "tokens_per_second", "peak_memory_mb"),
)
_PROTOCOL = ("rows", "tokens", "threads", "prompt_tokens", "new_tokens", "max_length", "scored_on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--formats", nargs="+", required=True, metavar="FORMAT:PRECISION,…")
    parser.add_argument("--data", help="rows of the check of a classifier")
    parser.add_argument("--name", help="of the model, in the results")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--score-rows", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    load, results, protocol = [round(os.getloadavg()[0], 1)], {}, {}
    with TemporaryDirectory() as folder:
        for name in options.formats:
            to, _, precisions = name.partition(":")
            run = export(
                options.model,
                output=Path(folder) / to,
                to=to,
                quantize=tuple(filter(None, precisions.split(","))),
                data=options.data,
                rows=options.rows,
                score_rows=options.score_rows,
                repeats=options.repeats,
            )
            found = read_manifest(run)
            print(run.summary(), flush=True)
            results |= {a["name"]: {key: a[key] for key in _KEPT if key in a} for a in found["artefacts"]}
            protocol = {key: found[key] for key in _PROTOCOL if key in found}
    write_json(
        options.output,
        {
            "model": options.name or Path(options.model).name,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine() | {"load": [*load, round(os.getloadavg()[0], 1)]},
            "versions": versions(),
            "protocol": protocol | {"repeats": options.repeats},
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
