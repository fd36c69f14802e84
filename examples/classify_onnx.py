"""Classify texts with an exported student. Needs onnxruntime, tokenizers and numpy: no torch, no demiglace.

python examples/classify_onnx.py runs/onnx "I lost my card" "When does my top-up arrive?"
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

MAX_LENGTH = 128  # tokens; as in training
DEFAULT_LABELS = {"0": "LABEL_0", "1": "LABEL_1"}  # Hugging Face leaves these out of config.json


class Classifier:
    """A model of an export directory: int8 if it was written, else fp32."""

    def __init__(self, directory: str | Path) -> None:
        directory = Path(directory)
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        self.labels = config.get("id2label", DEFAULT_LABELS)
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_LENGTH)
        self.tokenizer.enable_padding(pad_id=config["pad_token_id"])
        small = directory / "onnx" / "model_quantized.onnx"
        self.session = InferenceSession(small if small.exists() else directory / "onnx" / "model.onnx")

    def __call__(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """Return the most probable label of each text and its probability."""
        rows = self.tokenizer.encode_batch(list(texts))
        encoded = {
            "input_ids": [row.ids for row in rows],
            "attention_mask": [row.attention_mask for row in rows],
            "token_type_ids": [row.type_ids for row in rows],
        }
        inputs = {i.name: np.array(encoded[i.name], dtype=np.int64) for i in self.session.get_inputs()}
        (logits,) = self.session.run(["logits"], inputs)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        return [(self.labels[str(row.argmax())], float(row.max())) for row in probabilities]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="output directory of `demiglace export`")
    parser.add_argument("texts", nargs="+")
    args = parser.parse_args()
    for text, (label, probability) in zip(args.texts, Classifier(args.directory)(args.texts), strict=True):
        print(f"{probability:6.1%}  {label}  {text}")


if __name__ == "__main__":
    main()
