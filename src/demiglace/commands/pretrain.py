"""`demiglace pretrain`: a language model on text."""

from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.commands import PretrainConfig
from demiglace.config.options import command
from demiglace.errors import ConfigError
from demiglace.methods.registry import build_method
from demiglace.models.files import fingerprint_config, fingerprint_model, fingerprint_tokenizer
from demiglace.models.language_model import (
    language_config,
    load_language_model,
    new_language_config,
    new_language_model,
)
from demiglace.models.shape import ModelShape
from demiglace.models.tokenizer import check_ids, load_text_tokenizer
from demiglace.training.lm_datasets import (
    USUAL_BLOCK,
    block_size,
    check_training,
    corpus_inputs,
    make_blocks,
    masking_of,
)
from demiglace.training.optimiser import freeze
from demiglace.training.run import Job, numeric_choices, open_shared, train

_SIZES = ("hidden_size", "num_layers", "num_heads", "intermediate_size")


@command(PretrainConfig)
def pretrain(config: PretrainConfig) -> Path:
    """Train a causal or masked language model on the blocks of a corpus.

    Returns the run directory: model/ (best epoch), last/, log.jsonl, manifest.json. Raises `UserError`s before any
    training; interrupted, the same call goes on.
    """
    check_model_choice(config)
    check_training(config.training)
    inputs = corpus_inputs(config.text)
    if config.model:
        inputs["model"] = fingerprint_model(config.model)
    tokenizer = load_text_tokenizer(config.model or config.tokenizer or str(config.config_of))
    if config.tokenizer:
        inputs["tokenizer"] = fingerprint_tokenizer(config.tokenizer)
    if config.config_of and Path(config.config_of).is_dir():
        inputs["config of"] = fingerprint_config(config.config_of)
    run = open_shared(config.output, "pretrain", config, inputs)
    if run is None:
        return config.output
    model, precision = _model(config, tokenizer)
    freeze(model, config.training.freeze)
    check_ids(model, tokenizer)
    size = block_size(config.text.block_size, [ModelShape.of(model)])
    masking = masking_of(model.config, tokenizer, config.masked_share, config.training.seed)
    material = make_blocks(config.text, size, tokenizer, masking, run.path)
    method = build_method("none", {})
    train(run, Job(config.training, "none", method, model, tokenizer, material, precision, ModelShape.of(model)))
    return config.output


def check_model_choice(config: PretrainConfig) -> None:
    """Raise `ConfigError` unless a model is to be gone on with or to be made anew, with what either needs."""
    if bool(config.model) == bool(config.config_of):
        given = "both were given" if config.model else "neither was given"
        raise ConfigError(f"the model is either --model, to go on from, or --config-of, to begin anew; {given}.")
    sizes = [f"--{name.replace('_', '-')}" for name in _SIZES if getattr(config, name) is not None]
    if config.model and (sizes or config.tokenizer):
        more = ["--tokenizer"] if config.tokenizer else []
        raise ConfigError(f"{', '.join(sizes + more)}: only for a new model (--config-of); --model has its own.")
    if config.config_of and not config.tokenizer and not Path(config.config_of).is_dir():
        raise ConfigError(
            f"--config-of {config.config_of} is a kind of model and brings no tokenizer; give --tokenizer DIRECTORY, "
            "such as one of `demiglace tokenizer train`."
        )


def model_config(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The config of the model in training. Raises `ConfigError` and `ModelError` where there can be none."""
    if config.model:
        return language_config(config.model, config.training.dropout)
    sizes = {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
    }
    positions = config.text.block_size or USUAL_BLOCK
    return new_language_config(
        str(config.config_of), tokenizer, sizes, positions=positions, dropout=config.training.dropout
    )


def _model(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, str]:
    """The model in training, and the precision to train it in."""
    training, made = config.training, model_config(config, tokenizer)
    precision, attention = numeric_choices(training, made)
    if not config.model:
        return new_language_model(made, str(config.config_of), attention=attention, seed=training.seed), precision
    model = load_language_model(
        config.model,
        dropout=training.dropout,
        attention=attention,
        allow_pickle=config.allow_pickle,
        seed=training.seed,
    )
    return model, precision
