"""Export a decoder in every format and record sizes, equality with PyTorch, speed and memory.

    python benchmarks/decoder_formats.py MODEL --name SmolLM2-135M-Instruct -o benchmarks/results/decoder_formats.json

MODEL is a causal language model. The numbers are those that `demiglace export` writes into its manifests. The load of
the machine before and after is recorded: speeds are those of a quiet machine only where it is near 0.
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
    *("tokens_per_second", "peak_memory_mb"),
)
_PROTOCOL = ("rows", "tokens", "threads", "prompt_tokens", "new_tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--name", help="of the model, in the results")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--onnx", nargs="*", default=["int8", "int4"], help="precisions besides fp32")
    parser.add_argument("--gguf", nargs="*", default=[], help="precisions besides fp16; none given: no GGUF")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    load, results, protocol = [round(os.getloadavg()[0], 1)], {}, {}
    with TemporaryDirectory() as folder:
        for to, precisions in (("onnx", options.onnx), ("gguf", options.gguf)):
            if to == "gguf" and not precisions:
                continue
            run = export(
                options.model,
                output=Path(folder) / to,
                to=to,
                quantize=tuple(precisions),
                rows=options.rows,
                repeats=options.repeats,
            )
            found = read_manifest(run)
            print(run.summary(), flush=True)
            results |= {a["name"]: {key: a[key] for key in _KEPT} for a in found["artefacts"]}
            protocol = {key: found[key] for key in _PROTOCOL}
    write_json(
        options.output,
        {
            "model": options.name or Path(options.model).name,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine() | {"load": [*load, round(os.getloadavg()[0], 1)]},
            "versions": versions(),
            "protocol": protocol | {"rounds": max(1, round(options.repeats / 20))},
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
