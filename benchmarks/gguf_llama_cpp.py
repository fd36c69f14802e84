"""Compare exported GGUF files with llama.cpp itself: token ids, next tokens, probabilities.

    npm i --ignore-scripts node-llama-cpp          # in a folder; it brings llama.cpp as a prebuilt library
    python benchmarks/gguf_llama_cpp.py MODEL --node FOLDER -o benchmarks/results/gguf.json

MODEL is a causal language model, exported here in each precision. 20 prompts are tokenized and continued by llama.cpp
and by transformers. llama.cpp keeps keys and values in fp16 and rounds activations to 8 bits where weights are
quantised, so log-probabilities differ a little even for equal weights.
"""

import argparse
import json
import math
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from demiglace.export.gguf import GgufExporter
from demiglace.models.gguf import read_gguf
from demiglace.models.language_model import load_causal
from demiglace.runs.environment import machine, versions
from demiglace.runs.files import write_json
from demiglace.tasks.language_modelling import LANGUAGE_MODELLING

PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a",
    "Water boils at 100 degrees",
    "In 1969 the first man walked on",
    "My card hasn't arrived yet,",
    "def add(a, b):\n    return",
    "The quick brown fox jumps over",
    "2 + 2 =",
    "She opened the door and",
    "Das Wetter ist heute",
    "The café isn't open: 3.14 €!",
    "A list of fruits:\n- apple\n- ",
    "Newton's first law states that",
    "The president of the United States",
    "To be, or not to be, that is",
    'He said:   "I don\'t know"',
    "The recipe needs 250 g of flour, 3 eggs and",
    "Email: someone@example.com, phone: 555-0123,",
    "日本の首都は",
    "The results were surprising because",
)
_SCRIPT = """
import {getLlama, LlamaLogLevel} from "node-llama-cpp";
import fs from "node:fs";
const [file, prompts] = process.argv.slice(2);
const llama = await getLlama({build: "never", gpu: false, logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: file});
const context = await model.createContext({contextSize: 256, threads: 1});
const sequence = context.getSequence();
const found = [];
for (const [number, prompt] of JSON.parse(fs.readFileSync(prompts, "utf8")).entries()) {
  const tokens = model.tokenize(prompt);
  await sequence.clearHistory();
  const last = tokens.length - 1;
  const wanted = {token: true, probabilities: number < 4, options: {temperature: 0}};
  const input = tokens.map((t, i) => i === last ? [t, {generateNext: wanted}] : t);
  const {next} = (await sequence.controlledEvaluate(input))[last];
  found.push({tokens, next: next.token, probabilities: [...(next.probabilities ?? [])].slice(0, 20)});
}
console.log(JSON.stringify(found));
process.exit(0);
"""


def run_llama_cpp(file: Path, node: Path) -> list[dict]:
    """Return for each prompt its token ids and the next token, for the first four the 20 most likely ones."""
    with TemporaryDirectory(dir=node) as folder:
        (Path(folder) / "check.mjs").write_text(_SCRIPT, "utf-8")
        (Path(folder) / "prompts.json").write_text(json.dumps(PROMPTS), "utf-8")
        command = ["node", f"{folder}/check.mjs", str(file.absolute()), f"{folder}/prompts.json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def log_probabilities(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """Return those of the next token after these ids, float32 [V]."""
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)


def compare(file: Path, node: Path, original: torch.nn.Module, ids: list[list[int]]) -> dict:
    """Return how llama.cpp and PyTorch differ, for the weights of the file and for those of the original model."""
    weights = read_gguf(file)
    found = run_llama_cpp(file, node)
    largest, same, same_as_original, divergences = 0.0, 0, 0, []
    for row, prompt_ids in zip(found, ids, strict=True):
        expected, reference = (log_probabilities(model, prompt_ids) for model in (weights, original))
        largest = max([largest, *(abs(math.log(p) - float(expected[token])) for token, p in row["probabilities"])])
        same += row["next"] == int(expected.argmax())
        same_as_original += row["next"] == int(reference.argmax())
        divergences.append(float((reference.exp() * (reference - expected)).sum()))
    return {
        "megabytes": round(file.stat().st_size / 1e6, 1),
        "equal_token_ids": sum(row["tokens"] == prompt_ids for row, prompt_ids in zip(found, ids, strict=True)),
        "same_next_token_as_pytorch_with_these_weights": same,
        "same_next_token_as_the_original_model": same_as_original,
        "largest_difference_of_log_probabilities": round(largest, 5),
        "kl_from_the_original_model": round(sum(divergences) / len(divergences), 6),
        "prompts": len(ids),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--name", help="of the model, in the results")
    parser.add_argument("--node", type=Path, required=True, help="folder with node_modules/node-llama-cpp")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16", "q8_0", "q5_1", "q4_0"])
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    model, tokenizer = load_causal(options.model, False)
    ids = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    results = {}
    with TemporaryDirectory() as folder:
        for precision in options.precisions:
            made = GgufExporter().write(model, tokenizer, LANGUAGE_MODELLING, Path(folder), precision)
            results[precision] = compare(Path(made.path), options.node.absolute(), model, ids)
            print(precision, results[precision], flush=True)
            Path(made.path).unlink()
    package = json.loads((options.node / "node_modules/node-llama-cpp/package.json").read_text())["version"]
    write_json(
        options.output,
        {
            "model": options.name or Path(options.model).name,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": versions() | {"node-llama-cpp": package},
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
