"""Compare a decoder in PyTorch, ONNX Runtime and llama.cpp: speed with one text on one thread, memory, size, quality.

    npm i --ignore-scripts node-llama-cpp          # in a folder; it brings llama.cpp as a prebuilt library
    python benchmarks/decoder_formats.py MODEL --node FOLDER -o benchmarks/results/decoder_formats.json

The model is exported in each precision. Then all files take turns: in each round a fresh process of every file reads
the prompt and writes new tokens, once untimed and then --passes times. Tokens per second count the processor's time of
the process, and are those of the fastest pass of all rounds: other programs on the machine disturb this least. All
files read the same prompt; each writes its most likely tokens. ONNX files are also compared with PyTorch on the first
64 tokens of --rows texts, as `demiglace export` does; for GGUF files see gguf_llama_cpp.py.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
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
        script = node / "decoder_formats.mjs"
        script.write_text(_NODE, "utf-8")
        command = ["node", str(script), artefact.path]
    else:
        command = [sys.executable, __file__, "--child", json.dumps(artefact.to_json())]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, json.dumps(work)], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{artefact.path}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def export_all(options: argparse.Namespace) -> tuple[dict[str, Artefact], dict[str, dict], list[int]]:
    """Return the files by their names in the table, how the ONNX files differ from PyTorch, and ids of a prompt."""
    from demiglace.commands.export_lm import _batches, _logits, _texts
    from demiglace.config.command_options import ExportConfig
    from demiglace.export.base import exporter_for
    from demiglace.export.parity import compare_tokens
    from demiglace.export.pytorch import TorchRunner, checkpoint
    from demiglace.models.language_model import load_causal
    from demiglace.tasks.language_modelling import LANGUAGE_MODELLING

    model, tokenizer = load_causal(options.model, False)
    texts = _texts(ExportConfig(model=options.model, output=options.files, rows=options.rows))
    batches = _batches(texts, model, tokenizer)
    reference = _logits(TorchRunner(model), batches)
    files, quality, full = {"PyTorch fp32": checkpoint(options.model)}, {}, None
    for name, title, precisions in (
        ("onnx", "ONNX Runtime", ["fp32", *options.onnx]),
        ("gguf", "llama.cpp", options.gguf),
    ):
        for choice in precisions:
            precision, _, bits = choice.partition("/")
            exporter = exporter_for(name, embedding_bits=int(bits) if bits else None, language_model=True)
            given = full if name == "onnx" else None
            home = options.files / f"{name}-{choice.replace('/', '-')}"
            home.mkdir(exist_ok=True)
            artefact = exporter.write(model, tokenizer, LANGUAGE_MODELLING, home, precision, given)
            full = full or artefact
            files[f"{title} {choice}"] = artefact
            if name == "onnx":
                quality[f"{title} {choice}"] = asdict(compare_tokens(reference, _logits(artefact.open(), batches)))
                print(choice, artefact.size, quality[f"{title} {choice}"], flush=True)
    prompt = np.concatenate([batch["input_ids"][0] for batch in batches])
    return files, quality, np.resize(prompt, options.prompt_tokens).tolist()


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure_here(Artefact.from_json(json.loads(sys.argv[2])), json.loads(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--name", help="of the model, in the results")
    parser.add_argument("--node", type=Path, required=True, help="folder with node_modules/node-llama-cpp")
    parser.add_argument("--onnx", nargs="+", default=["int8", "int4"], help="precisions; int4/4: with tables of 4 bits")
    parser.add_argument("--gguf", nargs="+", default=["fp16", "q8_0", "q4_0"])
    parser.add_argument("--rows", type=int, default=32, help="texts on which the ONNX files are compared with PyTorch")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--files", type=Path, default=Path("runs/decoder-formats"), help="folder of the exported files")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    from demiglace.runs.environment import machine, versions
    from demiglace.runs.files import write_json

    options.files.mkdir(parents=True, exist_ok=True)
    files, quality, prompt = export_all(options)
    work = {"prompt": prompt, "new_tokens": options.new_tokens, "passes": options.passes}
    passes: dict[str, list] = {name: [] for name in files}
    memory = dict.fromkeys(files, 0.0)
    package = json.loads((options.node / "node_modules/node-llama-cpp/package.json").read_text())["version"]
    for _ in range(options.rounds):
        for name, artefact in files.items():
            measured = measure(artefact, work, options.node.absolute())
            passes[name] += measured["seconds"]
            memory[name] = max(memory[name], measured["peak_memory_mb"])
            print(name, measured, flush=True)
        fastest = {name: np.min(seconds, axis=0) for name, seconds in passes.items()}
        results = {
            name: {
                "bytes": files[name].size,
                "prefill_tokens_per_cpu_second": round(options.prompt_tokens / float(fastest[name][0]), 1),
                "decode_tokens_per_cpu_second": round(options.new_tokens / float(fastest[name][1]), 1),
                "peak_memory_mb": round(memory[name], 1),
                **quality.get(name, {}),
                "seconds": [[round(s, 3) for s in seconds] for seconds in passes[name]],
            }
            for name in files
        }
        protocol = {key: getattr(options, key) for key in ("prompt_tokens", "new_tokens", "passes", "rows")}
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
