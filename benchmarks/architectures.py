"""What works with which architecture: `python benchmarks/architectures.py` writes the table of docs/models.md.

Each architecture is a tiny model of eight layers with random weights, made offline. It is truncated to four layers by
the default strategy, distilled for three steps, evaluated and exported to ONNX. A step works, or is refused with a
sentence; anything else ends the script. Results are in results/architectures.json. `--only TITLE` runs some again.
"""

import argparse
import dataclasses
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from demiglace.errors import UserError

LAYERS, KEPT = 8, 4
ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "benchmarks/results/architectures.json", ROOT / "docs/models.md"
BEGIN, END = "<!-- table: benchmarks/architectures.py -->", "<!-- end of the table -->"
STEPS = ("truncate", "distill", "evaluate", "export")
_WORDS = {"good": ["lovely", "warm", "bright", "helpful"], "bad": ["dull", "cold", "broken", "rude"]}
_SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
# whatever a config names them; those that an architecture does not know are left out
_SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
    "mask_token_id": 4,
    "sliding_window": 6,
    "local_attention": 8,
    "window_size": 6,
    "attention_chunk_size": 6,
    "num_experts": 2,
    "num_local_experts": 2,
    "n_routed_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "intermediate_size_mlp": 48,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "state_size": 8,
    "mamba_d_state": 8,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 300,
}


@dataclass(frozen=True)
class Architecture:
    """An architecture of the table."""

    title: str
    model_type: str  # of transformers
    values: Mapping[str, Any] = field(default_factory=dict)  # of its config, beside `_SIZES`
    export: bool = True  # False where torch needs many minutes to trace even this tiny model

    def config(self) -> PreTrainedConfig:
        """Return a tiny config."""
        kind = type(AutoConfig.for_model(self.model_type))
        renamed = {kind.attribute_map.get(name, name): value for name, value in (_SIZES | dict(self.values)).items()}
        known = {f.name for f in dataclasses.fields(kind)}
        config: PreTrainedConfig = kind(**{name: value for name, value in renamed.items() if name in known})
        config.id2label, config.label2id = {0: "bad", 1: "good"}, {"bad": 0, "good": 1}
        return config

    def is_classifier(self) -> bool:
        """Return whether transformers has a classifier of this architecture; the others are language models here."""
        return type(self.config()) in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    def model(self) -> PreTrainedModel:
        """Return a classifier, or else a language model, with random weights."""
        name = "AutoModelForSequenceClassification" if self.is_classifier() else "AutoModelForCausalLM"
        config, auto = self.config(), getattr(transformers, name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: PreTrainedModel = auto.from_config(config)
        return model.eval()


_DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16, "share_att_key": True}
USUAL = [  # those that most users have
    Architecture("BERT", "bert"),
    Architecture("RoBERTa", "roberta"),
    Architecture("XLM-R", "xlm-roberta"),
    Architecture("DistilBERT", "distilbert", {"hidden_dim": 48}),
    Architecture("MPNet", "mpnet"),
    Architecture("ELECTRA", "electra"),
    Architecture("DeBERTa-v2, v3", "deberta-v2", _DEBERTA),
    Architecture("ModernBERT", "modernbert"),
    Architecture("EuroBERT", "eurobert"),
    Architecture("NomicBERT", "nomic_bert"),
    Architecture("Longformer", "longformer", {"attention_window": [4, 8] * 4}),
    Architecture("GPT-2", "gpt2"),
    Architecture("OPT", "opt"),
    Architecture("GPT-NeoX, Pythia", "gpt_neox"),
    Architecture("Llama, SmolLM2", "llama"),
    Architecture("SmolLM3", "smollm3"),
    Architecture("Mistral", "mistral"),
    Architecture("Qwen2", "qwen2"),
    Architecture("Qwen3", "qwen3"),
    Architecture("Gemma 2", "gemma2"),
    Architecture("Gemma 3 (text)", "gemma3_text"),
    Architecture("Phi-3", "phi3"),
    Architecture("OLMo 2", "olmo2"),
    Architecture("Granite", "granite"),
    Architecture("Falcon", "falcon"),
    Architecture("BLOOM", "bloom"),
]
FURTHER = [  # with layers of several kinds, or with something that truncation cannot keep
    Architecture("GPT-2 with scores divided by the layer's number", "gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    Architecture("DiffLlama", "diffllama"),
    Architecture("GPT-Neo", "gpt_neo", {"attention_types": [[["global", "local"], LAYERS // 2]]}),
    Architecture("gpt-oss", "gpt_oss"),
    Architecture("Mixtral", "mixtral"),
    Architecture("DeepSeek-V3", "deepseek_v3", {"num_key_value_heads": 4, "first_k_dense_replace": 3}),
    Architecture("Llama 4 (text)", "llama4_text"),
    Architecture("Qwen3-Next", "qwen3_next", export=False),
    Architecture("Jamba", "jamba", {"use_mamba_kernels": False}),
    Architecture("Mamba", "mamba"),
    Architecture("Gemma 3n (text)", "gemma3n_text", {"num_kv_shared_layers": 2, "intermediate_size": [48] * LAYERS}),
    Architecture("ESM", "esm", {"position_embedding_type": "rotary"}),
    Architecture("SqueezeBERT", "squeezebert"),
    Architecture("ALBERT", "albert"),
]
ALL = {a.title: a for a in (*USUAL, *FURTHER)}


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer of fewer tokens than the models' vocabulary."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(_SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([text for text, _ in rows(64)], trainer)
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, core.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    )
    names = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token", "mask_token"), _SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=100, bos_token="[CLS]", eos_token="[SEP]", **names
    )


def rows(count: int) -> list[tuple[str, str]]:
    """Return texts and labels."""
    draw = random.Random(0)
    labels = [("bad", "good")[i % 2] for i in range(count)]
    return [(f"it was {draw.choice(_WORDS[label])} and number {i}", label) for i, label in enumerate(labels)]


@dataclass(frozen=True)
class Chain:
    """The steps of one architecture in a directory; each raises a `UserError` where it is refused."""

    architecture: Architecture
    directory: Path

    def prepare(self) -> None:
        """Write the model, and the rows."""
        self.architecture.model().save_pretrained(self.directory / "teacher")
        tokenizer().save_pretrained(self.directory / "teacher")
        for name, chosen in (("train", rows(10)[:6]), ("held-out", rows(10)[6:])):
            lines = [f"{text},{label}" for text, label in chosen]
            (self.directory / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n", "utf-8")
        (self.directory / "text.txt").write_text("\n".join(text for text, _ in rows(200)), "utf-8")

    def truncate(self) -> str:
        """Truncate the model; return the strategy and the kept layers."""
        from demiglace.commands.truncate import truncate
        from demiglace.runs.directory import read_manifest

        out = truncate(model=str(self.directory / "teacher"), output=self.directory / "truncated", layers=KEPT)
        manifest = read_manifest(out)
        return f"{manifest['strategy']}: {', '.join(map(str, manifest['keep']))}"

    def distill(self) -> str:
        """Distil the truncated model for three steps: a classifier by the default method, others by their logits."""
        from demiglace.commands.distill import distill

        teacher, output = str(self.directory / "teacher"), self.directory / "student"
        usual: dict[str, Any] = {"teacher": teacher, "layers": KEPT, "output": output, "batch_size": 2}
        if self.architecture.is_classifier():
            data, held_out = str(self.directory / "train.csv"), str(self.directory / "held-out.csv")
            distill(**usual, data=data, validation=held_out, max_length=24, epochs=1)
        else:
            corpus = (str(self.directory / "text.txt"),)
            distill(**usual, corpus=corpus, method="vanilla-kd", block_size=32, max_tokens=320, max_steps=3)
        return "yes"

    def evaluate(self) -> str:
        """Evaluate the student."""
        from demiglace.commands.evaluate import evaluate

        held_out, text = str(self.directory / "held-out.csv"), str(self.directory / "text.txt")
        given = {"data": (held_out,)} if self.architecture.is_classifier() else {"corpus": (text,)}
        evaluate(model=str(self.directory / "student"), output=self.directory / "evaluation", **given)
        return "yes"

    def export(self) -> str:
        """Write the student as ONNX, and compare its logits with the student's."""
        import numpy as np

        from demiglace.export.base import exporter_for
        from demiglace.models.labels import label_space_of
        from demiglace.models.language_model import load_causal
        from demiglace.models.loading import load_classifier, load_tokenizer, resolve_model
        from demiglace.tasks.language_modelling import LANGUAGE_MODELLING

        path = resolve_model(str(self.directory / "student"))
        texts = [text for text, _ in rows(4)]
        if self.architecture.is_classifier():
            exporter, task = exporter_for("onnx"), label_space_of(path).task
            model, text_tokenizer = load_classifier(path, None, attention="eager"), load_tokenizer(path)
            batch = text_tokenizer(texts, padding=True, return_tensors="pt")
        else:
            exporter, task = exporter_for("onnx", language_model=True), LANGUAGE_MODELLING
            model, text_tokenizer = load_causal(path, False)
            batch = {"input_ids": text_tokenizer(texts[0], return_tensors="pt").input_ids}
        artefact = exporter.write(model, text_tokenizer, task, self.directory)
        with torch.no_grad():
            expected = model(**batch).logits.numpy()
        got = artefact.open().logits({name: tensor.numpy() for name, tensor in batch.items()})
        if not np.allclose(expected, got, atol=1e-3):
            raise UserError("the exported model's logits differ from the student's")
        return "yes"


def run_chain(architecture: Architecture, steps: Sequence[str] = STEPS) -> dict[str, str]:
    """Return what each step gave, or the sentence that refused it; nothing can follow a student that is refused."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory:
        chain = Chain(architecture, Path(directory))
        chain.prepare()
        for step in steps:
            if step == "export" and not architecture.export:
                found[step] = "not measured"
                continue
            try:
                found[step] = getattr(chain, step)()
            except UserError as error:
                found[step] = "no: " + " ".join(str(error).replace(f"{directory}/", "").split())
                if step == "distill":
                    break
    return found


def page_table(results: Mapping[str, Mapping[str, str]]) -> str:
    """Return the table of the results in Markdown, with the sentences of the refusals below it."""
    notes: list[str] = []

    def cell(text: str | None) -> str:
        if text is None:
            return "–"
        if not text.startswith("no: "):
            return text
        reason = text.removeprefix("no: ")
        if reason not in notes:
            notes.append(reason)
        return f"no ({notes.index(reason) + 1})"

    lines = [
        f"| architecture | layers kept of {LAYERS} | distil | evaluate | export |",
        "|---|---|---|---|---|",
        *(
            f"| {title} | {' | '.join(cell(results[title].get(step)) for step in STEPS)} |"
            for title in ALL
            if title in results
        ),
        "",
        *(f"{number}. `{note}`" for number, note in enumerate(notes, 1)),
    ]
    return "\n".join(lines)


def with_table(page: str, results: Mapping[str, Mapping[str, str]]) -> str:
    """Return the page with the table of the results between its marks."""
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    return f"{page[:start]}\n\n{page_table(results)}\n\n{page[end:]}"


def main() -> None:
    """Run the architectures, and write the results and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(ALL), default=list(ALL))
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    for title in parser.parse_args().only:
        results[title] = run_chain(ALL[title])
        print(title, results[title], flush=True)
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), results), "utf-8")


if __name__ == "__main__":
    main()
