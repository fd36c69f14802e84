"""TRL's GKD trainer on a case of `language_sides.py`: off-policy, forward KL, the same models and rows."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl.experimental.gkd import GKDConfig, GKDTrainer

if TYPE_CHECKING:
    from language_sides import Case


def gkd(case: "Case", steps: int) -> Callable[[], list[float]]:
    """Trains, and returns the CPU-seconds of each step.

    λ = 0: no text of the student's own; β = 0: KL(teacher ‖ student), for which GKD knows no temperature. fp32 and no
    recomputing of activations, like the other sides. It predicts a row's tokens but the first: 1 of `block` fewer.
    """
    from language_sides import CLIP, LR

    teacher = case.teacher()
    clock = _Clock()
    arguments = GKDConfig(
        output_dir="unused",
        lmbda=0.0,
        beta=0.0,
        max_steps=steps,
        per_device_train_batch_size=case.rows,
        learning_rate=LR,
        max_grad_norm=CLIP,
        bf16=False,
        gradient_checkpointing=False,
        optim="adamw_torch_fused",
        use_cpu=True,
        save_strategy="no",
        logging_steps=steps,
        report_to=[],
        disable_tqdm=True,
    )
    rows = [case.blocks.corpus.read(i * case.block, (i + 1) * case.block).tolist() for i in case.blocks.numbers]
    trainer = GKDTrainer(
        case.student(teacher),
        teacher,
        arguments,
        data_collator=_collate,
        train_dataset=Dataset.from_dict({"input_ids": rows}),
        processing_class=_tokenizer(),
        callbacks=[clock],
    )

    def run() -> list[float]:
        trainer.train()
        return clock.seconds

    return run


def _collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([row["input_ids"] for row in rows])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def _tokenizer() -> PreTrainedTokenizerFast:
    """The trainer asks for one; nothing is tokenised with it."""
    core = Tokenizer(WordLevel({"<end>": 0}, unk_token="<end>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>")


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._last = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.process_time()
        self.seconds.append(now - self._last)
        self._last = now
