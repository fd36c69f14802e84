"""The static student of a teacher: its token vectors are made by the teacher, its linear layer is new.

The vectors are made as in Model2Vec (Tulkens and van Dongen 2024, github.com/MinishLab/model2vec): each token of the
vocabulary is run through the teacher, the states are reduced by PCA, and frequent tokens get a smaller weight. Training
then changes vectors and linear layer alike.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from demiglace.console import say
from demiglace.errors import ConfigError, ModelError
from demiglace.methods.base import Method
from demiglace.models.labels import label_names_of_config, set_labels, task_of_config
from demiglace.models.modes import evaluating
from demiglace.models.shape import ModelShape
from demiglace.models.static import StaticConfig, StaticForSequenceClassification, register
from demiglace.models.trimmed_tokenizer import trim_tokenizer
from demiglace.models.vocabulary import TrimmedVocabulary
from demiglace.tasks.base import RowTask

SIZE = 256  # usual width of the vectors
SIF = 1e-4  # a in the weight a / (a + p) of a token of probability p (Arora et al. 2017, equation 2), as in Model2Vec
_TOKENS = 4096  # of a forward pass of the teacher
_DEEP = ModelShape(  # of a student that every method can compare with its teacher
    architecture="BertForSequenceClassification",
    num_layers=12,
    hidden_size=768,
    num_heads=12,
    vocab_size=30522,
    num_labels=2,
    max_positions=512,
    parameters=1,
    embedding_parameters=0,
    head_parameters=0,
    attention_size=768,
    causal=False,
)


def check_static_student(task: RowTask) -> None:
    """Raise `ConfigError` if a static student cannot solve this kind of problem."""
    if task.auto_class != StaticForSequenceClassification.auto_class:
        raise ConfigError(
            f"--student static was given with rows for {task.name}: a static student classifies or scores texts. Give "
            "another student, such as --layers 3."
        )


def check_static_method(name: str, method: Method) -> None:
    """Raise `ConfigError` if a static student cannot learn by this method. name: of the method."""
    if method.augmentation is not None:
        raise ConfigError(
            f"method {name} rewrites text by the gradients of its student's inputs, and a static student has none; "
            "give --method vanilla-kd, pseudo-labels or none, or another method on logits alone."
        )
    needed = method.requests(_DEEP, _DEEP).student
    if needed.hidden or needed.attention:
        raise ConfigError(
            f"method {name} compares the layers of student and teacher, and a static student has none; give --method "
            "vanilla-kd, pseudo-labels or none, or another method on logits alone."
        )


def static_config(
    teacher: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, size: int | None = None, dropout: float | None = None
) -> StaticConfig:
    """Return the config of a teacher's static student, with the teacher's labels; `parameters` has its size.

    tokenizer: of the student; its vocabulary gives the rows of the table. size: width of the vectors; None for 256, or
    the teacher's width if that is less. Raises `ConfigError` for a wider one.
    """
    register()
    if size is not None and size > teacher.hidden_size:
        raise ConfigError(
            f"--embedding-size {size} was given, and the teacher's states have {teacher.hidden_size} dimensions; "
            f"give at most {teacher.hidden_size}."
        )
    config = StaticConfig(
        vocab_size=1 + max(tokenizer.get_vocab().values()),
        hidden_size=size or min(SIZE, teacher.hidden_size),
        dropout=dropout or 0.0,
        pad_token_id=tokenizer.pad_token_id,
    )
    set_labels(config, label_names_of_config(teacher), task_of_config(teacher))
    return config


def static_student(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    size: int | None = None,
    *,
    vocabulary: TrimmedVocabulary | None = None,
    dropout: float | None = None,
    seed: int = 0,
) -> StaticForSequenceClassification:
    """Return an untrained static student of a classifier or regressor: `token_vectors` and a new linear layer.

    tokenizer: the teacher's. size, dropout: as in `static_config`. vocabulary: the tokens that the student has; None
    for all. seed: of the linear layer. Raises `ConfigError` as `static_config` does, and `ModelError` as
    `token_vectors` does.
    """
    own = tokenizer if vocabulary is None else trim_tokenizer(tokenizer, vocabulary)
    config = static_config(teacher.config, own, size, dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = StaticForSequenceClassification(config)
    ids = range(config.vocab_size) if vocabulary is None else vocabulary.kept.tolist()
    vectors = token_vectors(teacher, tokenizer, ids, config.hidden_size)
    student.static.embeddings.weight.data.copy_(vectors)
    say(
        f"static student: {config.vocab_size:,} token vectors of {config.hidden_size} dimensions, made by the teacher; "
        f"{config.parameters:,} parameters."
    )
    return student.eval()


def token_vectors(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], size: int
) -> Tensor:
    """Return a vector for each of these token ids of the teacher, float32 [V, size].

    Each token is run through the teacher's body as a text of its own, with the special tokens of a text, and the states
    of the last layer are averaged over the text. PCA keeps `size` dimensions. Token i of the teacher has the weight
    a / (a + p), where p ∝ 1 / (i + 2) is its probability by Zipf's law: ids are ordered by frequency in WordPiece, BPE
    and Unigram vocabularies. At the end all vectors are scaled, so that their root mean square norm is 1.

    Raises `ModelError` if there are fewer tokens than dimensions.
    """
    if len(ids) < size:
        raise ModelError(
            f"{len(ids)} tokens cannot have vectors of {size} dimensions; give a smaller --embedding-size."
        )
    states = token_states(teacher, tokenizer, ids).double().numpy()
    vectors = PCA(size, svd_solver="covariance_eigh").fit_transform(states)
    vectors *= sif_weights(1 + max(*tokenizer.get_vocab().values(), *ids))[list(ids), None]
    return torch.from_numpy(vectors / np.sqrt(np.square(vectors).sum(1).mean())).float()


def sif_weights(count: int) -> np.ndarray:
    """Return the weights of tokens that are ordered by frequency, float64 [count]."""
    inverse = 1 / np.arange(2, count + 2)
    return SIF / (SIF + inverse / inverse.sum())


def token_states(teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> Tensor:
    """Return the mean of the teacher's last states of a text of each token alone, float32 [V, d]."""
    first, last = _around(tokenizer)
    texts = torch.tensor([[*first, i, *last] for i in ids])
    body: Any = teacher.base_model
    with torch.no_grad(), evaluating(teacher):
        parts = (part.to(teacher.device) for part in texts.split(max(1, _TOKENS // texts.shape[1])))
        means = [body(input_ids=p, attention_mask=torch.ones_like(p)).last_hidden_state.float().mean(1) for p in parts]
    return torch.cat(means).cpu()


def _around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before and after a text."""
    row = tokenizer("a", return_special_tokens_mask=True)
    text = [i for i, special in enumerate(row["special_tokens_mask"]) if not special]
    ids: list[int] = row["input_ids"]
    return (ids[: text[0]], ids[text[-1] + 1 :]) if text else ([], [])
