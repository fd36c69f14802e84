"""`demiglace pretrain`: a language model on text."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.config.command_options import PretrainConfig
from demiglace.config.options import command
from demiglace.errors import ConfigError
from demiglace.given_objects import saved_objects
from demiglace.methods.registry import build_method
from demiglace.models.files import fingerprint_config, fingerprint_model, fingerprint_tokenizer
from demiglace.models.from_config import check_model_choice, model_config
from demiglace.models.language_model import (
    load_language_model,
    new_language_model,
)
from demiglace.models.shape import ModelShape
from demiglace.models.tokenizer import check_ids, load_text_tokenizer
from demiglace.runs.result import Result, training_result
from demiglace.training.lm_datasets import (
    block_size,
    check_training,
    corpus_inputs,
    make_blocks,
    masking_of,
)
from demiglace.training.prepare import prepare_model
from demiglace.training.run import TrainingRun, open_shared, resolve_precision_and_attention, train


@command(PretrainConfig, objects=saved_objects)
def pretrain(config: PretrainConfig) -> Result:
    """Train a causal or masked language model on the blocks of a corpus.

    Returns the metrics and the run directory: model/ (best epoch), last/, log.jsonl, manifest.json. Raises `UserError`s
    before any training. An interrupted run resumes when the call is repeated.
    """
    check_model_choice(config)
    check_training(config.training)
    if config.training.lora_rank is not None and not config.model:
        raise ConfigError(
            f"--lora-rank {config.training.lora_rank} adapts the weights of a trained model, and --architecture has "
            "new ones; give --model, or leave --lora-rank out."
        )
    inputs = corpus_inputs(config.text)
    if config.model:
        inputs["model"] = fingerprint_model(config.model)
    tokenizer = load_text_tokenizer(config.model or config.tokenizer or str(config.architecture))
    if config.tokenizer:
        inputs["tokenizer"] = fingerprint_tokenizer(config.tokenizer)
    if config.architecture and Path(config.architecture).is_dir():
        inputs["config of"] = fingerprint_config(config.architecture)
    run = open_shared(config.output, "pretrain", config, inputs)
    if run is None:
        return training_result(config.output, config.push_to_hub)
    model, precision = _model(config, tokenizer)
    prepare_model(model, config.training)
    check_ids(model, tokenizer)
    size = block_size(config.text.block_size, [ModelShape.of(model)])
    masking = masking_of(model.config, tokenizer, config.mlm_probability, config.training.seed)
    data = make_blocks(config.text, size, tokenizer, masking, run.path)
    method = build_method("none", {})
    train(run, TrainingRun(config.training, "none", method, model, tokenizer, data, precision, ModelShape.of(model)))
    return training_result(config.output, config.push_to_hub)


def _model(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, str]:
    """The model in training, and the precision to train it in."""
    training, made = config.training, model_config(config, tokenizer)
    precision, attention = resolve_precision_and_attention(training, made)
    if not config.model:
        return new_language_model(made, str(config.architecture), attention=attention, seed=training.seed), precision
    model = load_language_model(
        config.model,
        dropout=training.dropout,
        attention=attention,
        allow_pickle=config.allow_pickle,
        seed=training.seed,
    )
    return model, precision
