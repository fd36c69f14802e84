"""Loading models: safetensors only, no remote code, no missing weight, and none of transformers' messages.

This module also exports the other functions that lead from a user's `--model` to a model and its tokenizer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from transformers import (
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from demiglace.console import notice, say
from demiglace.errors import ModelError
from demiglace.labels import Match, match_by_order, match_names
from demiglace.models.files import (
    check_weights,
    fingerprint_model,
    load_config,
    load_error,
    resolve_model,
)
from demiglace.models.labels import (
    adopt_labels,
    describe,
    label_names_of,
    label_names_of_config,
    set_labels,
    task_of_config,
    task_of_labels,
)
from demiglace.models.library import LOAD_ERRORS, silence_transformers
from demiglace.models.paths import hub_address
from demiglace.models.sentence_encoder import SentenceEncoder, describe_modules, load_dense
from demiglace.models.sentence_modules import (
    embedding_width,
    module_directory,
    read_modules,
    settings_files,
    with_width,
)
from demiglace.models.tokenizer import check_same_vocabulary, check_tokenizer, load_tokenizer
from demiglace.models.truncate import truncate_config
from demiglace.runs.files import apply_umask
from demiglace.tasks.base import RowTask
from demiglace.tasks.sentence_embedding import SENTENCE_EMBEDDING

__all__ = [
    "check_same_vocabulary",
    "check_tokenizer",
    "fingerprint_model",
    "label_names_of",
    "largest_dropout",
    "load_as_saved",
    "load_classifier",
    "load_config",
    "load_sentence_encoder",
    "load_tokenizer",
    "load_whole",
    "resolve_model",
    "save_model",
    "set_dropout",
]


def load_classifier(
    model: str | Path,
    label_names: Sequence[str] | None,
    *,
    task: RowTask | None = None,
    dropout: float | None = None,
    attention: str = "sdpa",
    allow_pickle: bool = False,
    seed: int = 0,
) -> PreTrainedModel:
    """Load a model with the head of a kind of problem on rows, in fp32 and eval mode.

    label_names: class names in the order of their ids, empty for numbers (one output), or None to keep the
    checkpoint's own head and labels (the modules of a sentence-transformers model). A head of the same kind for the
    same labels, or for as many unnamed ones (LABEL_0, …), is kept and put into the order of `label_names`; any other is
    replaced by a new one drawn from `seed`. Both are printed. task: the kind; None for classification with names and
    regression without. dropout: set every dropout probability of the config, or leave them. attention: "sdpa" (if the
    architecture has it), "eager", ….

    Raises `ModelError` for what `resolve_model` refuses, an architecture without such a head, weights that are
    truncated, pickled (unless `allow_pickle`) or missing, and with `label_names=None` a checkpoint without a head.
    """
    path = resolve_model(model)
    if label_names is None and module_directory(path) is not None:
        return load_sentence_encoder(path, dropout=dropout, attention=attention, allow_pickle=allow_pickle)
    config = load_config(path)
    own, own_task = label_names_of_config(config), task_of_config(config)
    prepare_config(config, path, label_names, dropout, task)
    kind = task_of_config(config)
    with seeded(seed):
        loaded, missing = _load(auto_class(kind), path, config, torch.float32, attention, allow_pickle)
    in_encoder = loaded.base_model_prefix + "."
    _check_complete(path, [k for k in missing if k.startswith(in_encoder) and "pooler" not in k])
    if label_names is None:
        if missing:
            raise ModelError(f"{path} has no trained classification head; fine-tune it on a task first.")
        return loaded
    match = _same_labels(own, label_names) if kind.name == own_task.name else None
    if match is None or any(not key.startswith(in_encoder) for key in missing):
        _renew_head(loaded, seed)
        notice("new head", f"The classification head is new: the model has none for {describe(label_names)}.")
        return loaded
    if line := match.line(label_names, own):
        say(f"{path}: {line}")
    adopt_labels(loaded, label_names, match, kind)
    return loaded


def load_sentence_encoder(
    model: str | Path,
    *,
    like: SentenceEncoder | None = None,
    dropout: float | None = None,
    attention: str = "sdpa",
    allow_pickle: bool = False,
    seed: int = 0,
) -> SentenceEncoder:
    """Load a sentence-transformers model in fp32 and eval mode.

    like: the model whose pooling and normalization an encoder without modules gets. Embeddings of another width than
    those of `like` get a dense layer to that width, drawn from `seed`. Both are printed. Raises `ModelError` as
    `load_classifier` does, and for modules that demiglace does not have.
    """
    path = resolve_model(model)
    directory, config = module_directory(path), load_config(path)
    if directory is not None:
        modules, settings = read_modules(directory), settings_files(directory)
    elif like is not None:
        modules, settings = [m for m in like.config.sentence_modules if m["kind"] != "Dense"], {}
        notice("pooling", f"{path} has no pooling; it gets the teacher's: {', '.join(like.poolings)}.")
    else:
        raise ModelError(
            f"{path} is no sentence-transformers model: it has no modules.json; give a directory that "
            "SentenceTransformer.save wrote."
        )
    if prompt := settings.get("config_sentence_transformers.json", {}).get("default_prompt_name"):
        notice(
            "prompt",
            f"warning: {path} has a default prompt ({prompt}), which is not added to texts; put it into the data.",
        )
    if dropout is not None:
        set_dropout(config, dropout)
    encoder, missing = _load(AutoModel, path, config, torch.float32, attention, allow_pickle)
    _check_complete(path, [k for k in missing if "pooler" not in k])
    width = embedding_width(modules, config.hidden_size)
    if like is not None and width != like.output_width:
        modules = with_width(modules, width, like.output_width)
        notice(
            "new dense layer",
            f"{path}: a new dense layer from {width} to {like.output_width} gives embeddings the teacher's width.",
        )
    describe_modules(config, modules, settings, SENTENCE_EMBEDDING.name)
    with seeded(seed):
        loaded = SentenceEncoder(config, encoder)
    if directory is not None:
        load_dense(loaded, directory, allow_pickle=allow_pickle)
    return loaded.eval()


def auto_class(task: RowTask) -> Any:
    """Return the class of transformers that loads models of this kind."""
    return getattr(transformers, task.auto_class)


def _same_labels(own: Sequence[str], wanted: Sequence[str]) -> Match | None:
    """Return the match of a checkpoint's labels with the wanted ones; None if it was trained for others."""
    if len(own) != len(wanted):
        return None
    return match_names(wanted, own) or match_by_order(wanted, own)


def prepare_config(
    config: PreTrainedConfig,
    path: str,
    label_names: Sequence[str] | None,
    dropout: float | None,
    task: RowTask | None = None,
) -> None:
    """Set labels, dropout and padding of a config, as `load_classifier` describes them.

    Raises `ModelError` for an architecture without a head of this kind.
    """
    kind = task or (task_of_config(config) if label_names is None else task_of_labels(label_names))
    if type(config) not in auto_class(kind)._model_mapping:
        raise ModelError(
            f"{path} is a {config.model_type} model, and transformers has no {kind.auto_class} for it; take a model of "
            "another architecture, such as BERT, RoBERTa or GPT-2."
        )
    if label_names is not None:
        set_labels(config, label_names, task)
    if dropout is not None:
        set_dropout(config, dropout)
    if config.pad_token_id is None:  # decoders find the last token of a row by it
        config.pad_token_id = load_tokenizer(path).pad_token_id


def unfreeze_padding_embedding(model: PreTrainedModel) -> None:
    """Let the padding token's embedding receive a gradient.

    Decoders pad with the end-of-text token, which also separates the texts of a pair and the documents of a corpus;
    transformers would freeze it. As padding it is masked, so its gradient is zero there.
    """
    table: Any = model.get_input_embeddings()
    table.padding_idx = None


def set_dropout(config: PreTrainedConfig, probability: float) -> None:
    """Set every dropout probability of a config.

    A value of None stays: it means "the same as another one" (BERT's classifier_dropout).
    """
    for name in _dropouts(config):
        setattr(config, name, probability)


def largest_dropout(config: PreTrainedConfig) -> float:
    """Return the largest dropout probability of a config, 0 if it has none."""
    return float(max(_dropouts(config).values(), default=0.0))


def _dropouts(config: PreTrainedConfig) -> dict[str, float]:
    """Return the dropout probabilities of a config: architectures name them with "dropout", or ending in "pdrop"."""
    return {
        name: value
        for name, value in config.to_dict().items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        if "dropout" in name or name.endswith("pdrop")
    }


def _renew_head(model: PreTrainedModel, seed: int) -> None:
    """Replace all weights outside the encoder by those of a new model of this seed."""
    with seeded(seed):
        fresh = type(model)(truncate_config(model.config, (0,)))
    head = {k: v for k, v in fresh.state_dict().items() if not k.startswith(model.base_model_prefix + ".")}
    model.load_state_dict(head, strict=False)


def load_as_saved(model: str | Path, *, allow_pickle: bool = False) -> PreTrainedModel:
    """Load a model as it was saved, with its number format and head.

    Its class is the one that its config names (a classifier, a language model, …), else the bare encoder. Raises
    `ModelError` as `load_classifier` does.
    """
    path = resolve_model(model)
    config = load_config(path)
    with seeded(0):
        loaded, missing = _load(_saved_class(config), path, config, "auto", "sdpa", allow_pickle)
    _check_complete(path, [k for k in missing if "pooler" not in k])
    return loaded


def load_whole(
    model_class: Any,
    path: str,
    config: PreTrainedConfig | None = None,
    *,
    attention: str = "sdpa",
    allow_pickle: bool = False,
    new_head: bool = False,
) -> tuple[PreTrainedModel, bool]:
    """Return a model of a class of transformers, in float32, and whether its head is new, which only `new_head` allows.

    Raises `ModelError` if the checkpoint lacks any other weight.
    """
    config = config or load_config(path)
    loaded, missing = _load(model_class, path, config, torch.float32, attention, allow_pickle)
    head = [k for k in missing if not k.startswith(loaded.base_model_prefix + ".")]
    _check_complete(path, [k for k in missing if "pooler" not in k and not (new_head and k in head)])
    return loaded, bool(head)


def _saved_class(config: PreTrainedConfig) -> Any:
    named = getattr(transformers, (config.architectures or [""])[0], None)
    return named if isinstance(named, type) and issubclass(named, PreTrainedModel) else AutoModel


def _load(
    model_class: Any,
    path: str,
    config: PreTrainedConfig,
    dtype: torch.dtype | str,
    attention: str,
    allow_pickle: bool,
) -> tuple[PreTrainedModel, list[str]]:
    """Return the model and the names of the weights that the checkpoint lacks or has in another shape."""
    if Path(path).is_dir():
        check_weights(Path(path), allow_pickle)
    try:
        with silence_transformers():
            loaded, info = model_class.from_pretrained(
                **hub_address(path),
                config=config,
                dtype=dtype,
                # None is transformers' own choice: sdpa, or eager for architectures that lack it (DeBERTa)
                attn_implementation=None if attention == "sdpa" else attention,
                use_safetensors=None if allow_pickle else True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except UnpicklingError as error:
        # torch's message advises to switch its protection off
        raise ModelError(f"{path}: its pickle file is damaged or holds more than tensors; it is not read.") from error
    except LOAD_ERRORS as error:
        raise load_error(path, error) from error
    _check_finite(path, loaded)
    unfreeze_padding_embedding(loaded)
    _report_unused(path, loaded, sorted(info["unexpected_keys"]))
    return loaded, sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})


def _check_finite(path: str, model: PreTrainedModel) -> None:
    """Raise `ModelError` for weights that are not numbers, as a training that diverged leaves them."""
    damaged = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if damaged:
        raise ModelError(
            f"{path} holds NaN or infinite values in {len(damaged):,} of its weights ({_first_of(damaged)}). Its "
            "training diverged, or the file is damaged: take an earlier checkpoint, or copy it again."
        )


def _report_unused(path: str, model: PreTrainedModel, unexpected: Sequence[str]) -> None:
    """Warn of weights of the checkpoint that the model has no place for, except poolers and heads of other tasks."""
    unexpected = [name for name in unexpected if not name.endswith(_CONSTANTS)]
    prefix = f"{model.base_model_prefix}."
    children = {f"{prefix}{name}." for name, _ in model.base_model.named_children()}
    unused = [
        name
        for name in unexpected
        # a bare encoder's checkpoint names its weights without the prefix
        if (name if name.startswith(prefix) else prefix + name).startswith(tuple(children)) and "pooler" not in name
    ]
    if unused:
        notice(
            "unused weights",
            f"warning: {path} holds {len(unused)} weights for which its config.json has no place "
            f"({_first_of(unused)}); they are not used. Check the config's number of layers, and that config and "
            "weights are of the same model.",
            weights=len(unused),
        )


_CONSTANTS = ("position_ids", "inv_freq", "masked_bias")  # that older versions of transformers saved


def _first_of(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (", …" if len(names) > 2 else "")


def _check_complete(path: str, missing: list[str]) -> None:
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ModelError(f"{path} lacks {len(missing)} of the weights that its config.json requires: {shown}")


def save_model(model: PreTrainedModel, path: Path) -> None:
    """Write a model to a directory as safetensors and config.json."""
    with silence_transformers():
        model.save_pretrained(path)
    apply_umask(path)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block, and restore the global random state after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
