"""Compare the speed of a decoder in PyTorch, ONNX Runtime and llama.cpp, with one text on one thread.

    npm i --ignore-scripts node-llama-cpp          # in a folder; it brings llama.cpp as a prebuilt library
    python benchmarks/decoder_speeds.py MODEL --node FOLDER -o benchmarks/results/decoder_speeds.json

The model is exported in each precision. Then all files take turns: in each round a fresh process of every file reads
the prompt and writes new tokens, once untimed and then --passes times. Tokens per second count the processor's time of
the process, and are those of the fastest pass of all rounds: other programs on the machine disturb this least. All
files read the same prompt; each continues it by its own tokens.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from demiglace.export.base import Artefact
from demiglace.export.measure import peak_memory

_NODE = """
import {getLlama, LlamaLogLevel} from "node-llama-cpp";
import fs from "node:fs";
const [file, work] = process.argv.slice(2);
const {prompt, new_tokens, passes} = JSON.parse(work);
const llama = await getLlama({build: "never", gpu: false, logLevel: LlamaLogLevel.error, maxThreads: 1});
const model = await llama.loadModel({modelPath: file});
const context = await model.createContext({contextSize: 256, batchSize: 256, threads: 1});
const sequence = context.getSequence();
const seconds = () => { const used = process.cpuUsage(); return 1e-6 * (used.user + used.system); };
const options = {temperature: 0};
const found = [];
for (let pass = 0; pass <= passes; pass++) {
  await sequence.clearHistory();
  const start = seconds();
  const next = async (tokens) => {
    const input = tokens.map((t, i) => i === tokens.length - 1 ? [t, {generateNext: {token: true, options}}] : t);
    return (await sequence.controlledEvaluate(input))[tokens.length - 1].next.token;
  };
  let token = await next(prompt);
  const middle = seconds();
  for (let i = 0; i < new_tokens; i++) token = await next([token]);
  found.push([middle - start, seconds() - middle]);
}
const peak = Number(fs.readFileSync("/proc/self/status", "utf8").match(/VmHWM:\\s+(\\d+)/)[1]) * 1024 / 1e6;
console.log(JSON.stringify({seconds: found.slice(1), peak_memory_mb: peak}));
process.exit(0);
"""


def measure_here(artefact: Artefact, work: dict) -> dict:
    """Return the seconds of prefill and decoding of each pass, and the peak memory, of this process."""
    decoder = artefact.open_decoder(threads=1)
    assert decoder is not None, artefact.format
    found = []
    for _ in range(1 + work["passes"]):
        start = time.process_time()
        token = int(decoder.prefill(work["prompt"]).argmax())
        middle = time.process_time()
        for _ in range(work["new_tokens"]):
            token = int(decoder.decode(token).argmax())
        found.append([middle - start, time.process_time() - middle])
    return {"seconds": found[1:], "peak_memory_mb": peak_memory()}


def measure(artefact: Artefact, work: dict, node: Path) -> dict:
    """Return what `measure_here` returns, of a fresh process; GGUF files are run by llama.cpp in Node."""
    if artefact.format == "gguf":
        script = node / "decoder_speeds.mjs"
        script.write_text(_NODE, "utf-8")
        command = ["node", str(script), artefact.path]
    else:
        command = [sys.executable, __file__, "--child", json.dumps(artefact.to_json())]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, json.dumps(work)], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{artefact.path}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def export_all(model_path: str, folder: Path, onnx: list[str], gguf: list[str]) -> tuple[dict[str, Artefact], list]:
    """Return the files by their names in the table, and the ids of a text."""
    from demiglace.export.base import exporter_for
    from demiglace.export.pytorch import checkpoint
    from demiglace.models.language_model import load_causal
    from demiglace.tasks.language_modelling import LANGUAGE_MODELLING

    model, tokenizer = load_causal(model_path, False)
    found = {"PyTorch fp32": checkpoint(model_path)}
    full = None
    for name, title, precisions in (("onnx", "ONNX Runtime", ["fp32", *onnx]), ("gguf", "llama.cpp", gguf)):
        exporter = exporter_for(name, language_model=True)
        for precision in precisions:
            found[f"{title} {precision}"] = exporter.write(
                model, tokenizer, LANGUAGE_MODELLING, folder, precision, full if name == "onnx" else None
            )
            full = full or found[f"{title} {precision}"]
    return found, tokenizer((Path(__file__).parent.parent / "README.md").read_text("utf-8")).input_ids


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure_here(Artefact.from_json(json.loads(sys.argv[2])), json.loads(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--name", help="of the model, in the results")
    parser.add_argument("--node", type=Path, required=True, help="folder with node_modules/node-llama-cpp")
    parser.add_argument("--onnx", nargs="+", default=["int8", "int4"])
    parser.add_argument("--gguf", nargs="+", default=["fp16", "q8_0", "q4_0"])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--files", type=Path, default=Path("runs/decoder-speeds"), help="folder of the exported files")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    from demiglace.runs.environment import machine, versions
    from demiglace.runs.files import write_json

    options.files.mkdir(parents=True, exist_ok=True)
    files, ids = export_all(options.model, options.files, options.onnx, options.gguf)
    prompt = [int(i) for i in np.resize(ids, options.prompt_tokens)]
    work = {"prompt": prompt, "new_tokens": options.new_tokens, "passes": options.passes}
    passes: dict[str, list] = {name: [] for name in files}
    memory = dict.fromkeys(files, 0.0)
    package = json.loads((options.node / "node_modules/node-llama-cpp/package.json").read_text())["version"]
    for _ in range(options.rounds):
        for name, artefact in files.items():
            made = measure(artefact, work, options.node.absolute())
            passes[name] += made["seconds"]
            memory[name] = max(memory[name], made["peak_memory_mb"])
            print(name, made, flush=True)
        fastest = {name: np.min(seconds, axis=0) for name, seconds in passes.items()}
        results = {
            name: {
                "bytes": files[name].size,
                "prefill_tokens_per_cpu_second": round(options.prompt_tokens / float(fastest[name][0]), 1),
                "decode_tokens_per_cpu_second": round(options.new_tokens / float(fastest[name][1]), 1),
                "peak_memory_mb": round(memory[name], 1),
                "seconds": [[round(s, 3) for s in seconds] for seconds in passes[name]],
            }
            for name in files
        }
        protocol = {key: getattr(options, key) for key in ("prompt_tokens", "new_tokens", "passes")}
        write_json(  # after each round: an interrupted run keeps what it measured
            options.output,
            {
                "model": options.name or Path(options.model).name,
                "date": time.strftime("%Y-%m-%d"),
                "machine": machine() | {"load": round(os.getloadavg()[0], 1)},
                "versions": versions() | {"node-llama-cpp": package},
                "protocol": protocol | {"threads": 1, "rounds": len(passes["PyTorch fp32"]) // options.passes},
                "results": results,
            },
        )


if __name__ == "__main__":
    main()
