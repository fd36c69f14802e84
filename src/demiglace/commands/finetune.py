"""`demiglace finetune`: train a model on labelled rows, as a teacher or as a baseline without a teacher."""

from demiglace.config.command_options import FinetuneConfig
from demiglace.config.options import command
from demiglace.errors import ConfigError
from demiglace.given_objects import saved_objects
from demiglace.methods.registry import build_method
from demiglace.models.loading import check_tokenizer, fingerprint_model, load_classifier, load_tokenizer
from demiglace.models.shape import ModelShape
from demiglace.runs.result import Result, training_result
from demiglace.tasks.registry import row_task
from demiglace.training.datasets import choose_max_length, read_rows, splits_to_tokenize, tokenize_dataset
from demiglace.training.prepare import prepare_model
from demiglace.training.run import TrainingRun, check_training, open_shared, resolve_precision_and_attention, train


@command(FinetuneConfig, objects=saved_objects)
def finetune(config: FinetuneConfig) -> Result:
    """Train a model on labelled rows of texts.

    Returns the metrics and the run directory: model/ (best epoch), last/, log.jsonl, manifest.json. Raises `UserError`s
    before any training. An interrupted run resumes when the call is repeated.
    """
    if config.source.unlabelled:
        raise ConfigError(
            "--unlabelled was given, and fine-tuning needs labels; rows without labels are for `demiglace distill`."
        )
    if config.source.problem != "auto" and row_task(config.source.problem).separate_texts:
        raise ConfigError(
            f"--problem {config.source.problem} was given, and a sentence encoder is not fine-tuned on labels here; "
            "distil it from a sentence-transformers model with `demiglace distill --teacher MODEL`."
        )
    dataset = read_rows(config.source, config.location, config.model)
    check_training(config.training, dataset)
    inputs = {"model": fingerprint_model(config.model), "data": dataset.fingerprint}
    tokenizer = load_tokenizer(config.model)
    max_length, chosen = choose_max_length(config.source, dataset, tokenizer, config.model)
    inputs |= chosen
    run = open_shared(config.output, "finetune", config, inputs)
    if run is None:
        return training_result(config.output, config.push_to_hub)
    precision, attention = resolve_precision_and_attention(config.training, config.model)
    model = load_classifier(
        config.model,
        dataset.labels.names,
        task=dataset.labels.task,
        dropout=config.training.dropout,
        attention=attention,
        allow_pickle=config.allow_pickle,
        seed=config.training.seed,
    )
    prepare_model(model, config.training)
    check_tokenizer(model, tokenizer)
    splits = splits_to_tokenize(dataset, config.source)
    data = tokenize_dataset(dataset, splits, max_length, tokenizer, [model])
    method = build_method("none", {})
    training_run = TrainingRun(config.training, "none", method, model, tokenizer, data, precision, ModelShape.of(model))
    train(run, training_run)
    return training_result(config.output, config.push_to_hub)
