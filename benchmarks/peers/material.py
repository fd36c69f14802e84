"""What all contenders of a race share: the same rows, tokenized once, and the same weights, saved once."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, PreTrainedModel

from demiglace.config.data import DataConfig, DataLocation
from demiglace.data.batching import collate, epoch_steps
from demiglace.data.rows.dataset import load_dataset
from demiglace.data.tokenize import TokenizedSplit, tokenize
from demiglace.models.loading import load_classifier, save_model
from demiglace.models.shape import ModelShape
from demiglace.models.truncate import truncate_model

DATA = Path(os.environ.get("DEMIGLACE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MAX_LENGTH = 128
_DRAWN = 4096  # rows from which those of a race are chosen


@dataclass(frozen=True)
class Race:
    """One race: a task, the shapes of teacher and student, and how long they train. Padding to 128 tokens costs the
    same for every row, so its contenders get by with `padded_rows` of the rows."""

    task: str
    width: int
    rows: int
    padded_rows: int
    teacher_layers: int = 12
    student_layers: int = 6
    epochs: int = 3
    batch_size: int = 16
    lr: float = 1e-4
    clip: float = 1.0
    temperature: float = 2.0
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.task}_{self.teacher_layers}x{self.width}"


@dataclass(frozen=True)
class Material:
    """A race made ready in a directory: examples.npz, teacher/ and student/."""

    race: Race
    directory: Path

    def examples(self, rows: int) -> TokenizedSplit:
        """The first rows; they are shuffled, so any number of them has the lengths of the task."""
        with np.load(self.directory / "examples.npz") as saved:
            arrays = {name: saved[name] for name in saved.files}
        end = arrays["offsets"][rows]
        return TokenizedSplit(
            ids=arrays["ids"][:end],
            offsets=arrays["offsets"][: rows + 1],
            type_ids=arrays["type_ids"][:end],
            labels=arrays["labels"][:rows],
            pad_id=0,
            pad_left=False,
        )

    def teacher(self) -> PreTrainedModel:
        return load_classifier(self.directory / "teacher", None).eval().requires_grad_(False)

    def student(self) -> PreTrainedModel:
        return load_classifier(self.directory / "student", None).train()


def prepare(race: Race, directory: Path) -> Material:
    """Draw and tokenize the rows, draw and save the weights; not again where they are there already."""
    material = Material(race, directory)
    if not (directory / "examples.npz").exists():
        directory.mkdir(parents=True, exist_ok=True)
        _save_models(race, directory)
        _save_rows(_like_the_task(race), directory / "examples.npz")
    return material


def _save_models(race: Race, directory: Path) -> None:
    """BERT of random weights without dropout, and its student of every other layer."""
    torch.manual_seed(race.seed)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=race.width,
        num_hidden_layers=race.teacher_layers,
        num_attention_heads=max(1, race.width // 64),
        intermediate_size=4 * race.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=2,
    )
    teacher = BertForSequenceClassification(config)
    save_model(teacher, directory / "teacher")
    kept = range(0, race.teacher_layers, race.teacher_layers // race.student_layers)
    save_model(truncate_model(teacher, tuple(kept)), directory / "student")


def _like_the_task(race: Race) -> TokenizedSplit:
    """Rows of which the lengths are those of the task: every so-manieth of many rows sorted by length, shuffled."""
    drawn = max(_DRAWN, race.rows)
    dataset = load_dataset(DataConfig(data=race.task, max_rows=drawn), DataLocation(DATA))
    tokenizer = BertTokenizer(str(DATA / "tokenizers" / "bert-base-uncased" / "vocab.txt"))
    examples = tokenize(dataset.splits["train"], tokenizer, MAX_LENGTH)
    places = (np.arange(race.rows) + 0.5) * len(examples) / race.rows
    rows = np.argsort(examples.lengths, kind="stable")[places.astype(int)]
    return _take(examples, np.random.default_rng(race.seed).permutation(rows))


def _take(examples: TokenizedSplit, rows: np.ndarray) -> TokenizedSplit:
    places = np.concatenate([np.arange(examples.offsets[r], examples.offsets[r + 1]) for r in rows])
    assert examples.type_ids is not None
    return replace(
        examples,
        ids=examples.ids[places],
        offsets=np.concatenate([[0], np.cumsum(examples.lengths[rows])]),
        type_ids=examples.type_ids[places],
        labels=examples.labels[rows],
    )


def _save_rows(examples: TokenizedSplit, file: Path) -> None:
    draft = file.with_suffix(".part.npz")
    arrays = {name: getattr(examples, name) for name in ("ids", "offsets", "type_ids", "labels")}
    np.savez(draft, **arrays)
    draft.replace(file)


def model_inputs(examples: TokenizedSplit, rows: np.ndarray, width: int | None) -> dict[str, torch.Tensor]:
    """What BERT's forward takes, labels too; padded to `width` tokens, or to the longest of the rows."""
    batch = collate(examples, rows)
    extra = 0 if width is None else width - batch.input_ids.shape[1]
    padded = {name: torch.nn.functional.pad(tensor, (0, extra)) for name, tensor in batch.inputs.items()}
    return padded | {"labels": batch.labels}


def padding(examples: TokenizedSplit, race: Race) -> dict[str, float]:
    """Tokens computed for each real one: in random batches padded to their longest row, in batches of like length."""
    random = np.random.default_rng(race.seed).permutation(len(examples))
    plans = {
        "random": [random[i : i + race.batch_size] for i in range(0, len(random), race.batch_size)],
        "like lengths": epoch_steps(examples.lengths, race.batch_size, race.seed, 0),
    }
    padded = {name: sum(len(rows) * examples.lengths[rows].max() for rows in plan) for name, plan in plans.items()}
    return {name: float(tokens / examples.lengths.sum()) for name, tokens in padded.items()}


def arithmetic_ratio(race: Race, examples: TokenizedSplit, teacher: ModelShape, student: ModelShape) -> float:
    """Compute the FLOPs of an online teacher and random batches, over those of a cache and batches of similar length.

    (2 T + 6 S) · p_random / (2 T / epochs + 6 S · p_like): T and S the weights that every token is multiplied with,
    2 operations forward and 4 backward, p the padding. Arithmetic alone; optimizer, attention and memory come on top.
    """
    share = padding(examples, race)
    weights = {name: m.parameters - m.embedding_parameters for name, m in (("T", teacher), ("S", student))}
    online = (2 * weights["T"] + 6 * weights["S"]) * share["random"]
    return online / (2 * weights["T"] / race.epochs + 6 * weights["S"] * share["like lengths"])
