"""`demiglace generate`: a look at what a language model writes."""

import torch

from demiglace.config import command
from demiglace.console import say
from demiglace.data.corpus import end_of_text
from demiglace.errors import ConfigError, ModelError
from demiglace.models.language import is_masked, load_language_model
from demiglace.models.loading import quiet
from demiglace.models.shape import ModelShape
from demiglace.models.tokenizer import check_ids, load_text_tokenizer
from demiglace.stages.config import GenerateConfig


@command(GenerateConfig)
def generate(config: GenerateConfig) -> list[str]:
    """Go on with each prompt; prints and returns the texts, prompts included.

    Raises `ModelError` for a model that is no causal language model, and `ConfigError` for a prompt that leaves no
    room for a new token.
    """
    tokenizer = load_text_tokenizer(config.model)
    model = load_language_model(config.model, allow_pickle=config.allow_pickle)
    if is_masked(model.config):
        raise ModelError(f"{config.model} is a masked language model, which does not write text.")
    check_ids(model, tokenizer)
    end, limit = end_of_text(tokenizer), ModelShape.of(model).max_positions
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type] # its decorator
    drawn = {"do_sample": True, "temperature": config.temperature, "top_p": config.top_p, "top_k": 0}
    texts = []
    for prompt in config.prompt:
        ids = torch.tensor([[end, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]], device=model.device)
        room = config.new_tokens if limit is None else min(config.new_tokens, limit - ids.shape[1])
        if room < 1:
            raise ConfigError(f"the prompt {prompt[:40]!r}… has {ids.shape[1] - 1} tokens; the model takes {limit}.")
        torch.manual_seed(config.seed)
        with quiet():
            made = model.generate(  # type: ignore[operator]  # torch's stubs take it for a tensor
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=room,
                eos_token_id=end,
                pad_token_id=end,
                **(drawn if config.temperature > 0 else {"do_sample": False}),
            )
        texts.append(str(tokenizer.decode(made[0, 1:], skip_special_tokens=True)))
        say(texts[-1])
    return texts
