"""What transformers.js 4.3 does with an exported model, for its card: a snippet, and what it cannot do."""

from typing import NamedTuple

# model types of its text-classification and token-classification, from the maps of its models/registry.js
_ENCODERS = {
    *("bert", "camembert", "convbert", "deberta", "deberta-v2", "distilbert", "electra", "esm", "eurobert"),
    *("modernbert", "mpnet", "neobert", "roberta", "roformer", "xlm", "xlm-roberta"),
}
_CLASSIFIERS = _ENCODERS | {"albert", "mobilebert", "squeezebert"}
_DTYPES = {"fp32": "fp32", "fp16": "fp16", "int8": "q8", "int4": "q4"}  # precision -> its name


class Usage(NamedTuple):
    """How to call a model from JavaScript."""

    pipeline: str  # name of the pipeline; empty: call tokenizer and model
    model: str  # the Auto class of the model; empty if there is none
    dtype: str  # which file
    limit: str  # a sentence; empty without one


def usage(task: str, model_type: str, precisions: list[str], pairs: bool) -> Usage:
    """Return how transformers.js runs an exported model.

    task: name of the kind of problem; precisions: of the files, in the order of the export.
    """
    dtype = _DTYPES["int8" if "int8" in precisions else precisions[0]]
    if task == "sentence-embedding":
        limit = "The pipeline feature-extraction does not read this model's output, so call tokenizer and model."
        return Usage("", "AutoModel", dtype, limit)
    words = task == "token-classification"
    if model_type not in (_ENCODERS if words else _CLASSIFIERS):
        limit = f"transformers.js has no classifier of the type {model_type}; run the file with onnxruntime-web."
        return Usage("", "", dtype, limit)
    if words:
        return Usage("token-classification", "", dtype, "The pipeline gives a label to each token, not to each word.")
    if task == "regression":
        limit = "The pipeline text-classification would return 1 for every text, so call tokenizer and model."
        return Usage("", "AutoModelForSequenceClassification", dtype, limit)
    if pairs:
        limit = "The pipeline text-classification takes no pairs of texts, so call tokenizer and model."
        return Usage("", "AutoModelForSequenceClassification", dtype, limit)
    return Usage("text-classification", "", dtype, "")
