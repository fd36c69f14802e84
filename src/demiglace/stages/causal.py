"""A causal language model to measure or to let write."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demiglace.errors import ModelError
from demiglace.models.language_model import is_masked, load_language_model
from demiglace.models.tokenizer import check_ids, load_text_tokenizer
from demiglace.training.run import processes


def load_causal(name: str, allow_pickle: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, in fp32 on its device, and its tokenizer. Raises `ModelError` for a masked language model."""
    tokenizer = load_text_tokenizer(name)
    model = load_language_model(name, allow_pickle=allow_pickle)
    if is_masked(model.config):
        raise ModelError(
            f"{name} is a masked language model, which fills gaps; text is written, and its perplexity measured, by "
            "causal ones."
        )
    check_ids(model, tokenizer)
    model.to(processes().device)  # type: ignore[arg-type] # its decorator
    return model, tokenizer
