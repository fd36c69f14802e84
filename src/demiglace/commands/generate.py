"""`demiglace generate`: text by a language model."""

import torch

from demiglace.config.command_options import GenerateConfig
from demiglace.config.options import command
from demiglace.data.text.text_bounds import text_bounds
from demiglace.errors import ConfigError
from demiglace.given_objects import saved_objects
from demiglace.models.language_model import load_causal
from demiglace.models.library import silence_transformers
from demiglace.models.shape import ModelShape
from demiglace.runs.result import Result


@command(GenerateConfig, objects=saved_objects)
def generate(config: GenerateConfig) -> Result:
    """Continue each prompt and return the texts (`metrics["texts"]`), prompts included.

    Raises `ModelError` for a model that is no causal language model, and `ConfigError` for a prompt that leaves no
    room for a new token.
    """
    model, tokenizer = load_causal(config.model, config.allow_pickle)
    bounds, limit = text_bounds(tokenizer, config.add_bos), ModelShape.of(model).max_positions
    end = bounds.end
    first = end if bounds.begin is None else bounds.begin  # without a beginning token, as after another document
    drawn = {"do_sample": True, "temperature": config.temperature, "top_p": config.top_p, "top_k": 0}
    texts = []
    for prompt in config.prompt:
        ids = torch.tensor([[first, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]], device=model.device)
        room = config.new_tokens if limit is None else min(config.new_tokens, limit - ids.shape[1])
        if room < 1:
            raise ConfigError(f"the prompt {prompt[:40]!r}… has {ids.shape[1] - 1} tokens; the model takes {limit}.")
        torch.manual_seed(config.seed)
        with silence_transformers():
            made = model.generate(  # type: ignore[operator]  # torch's stubs take it for a tensor
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=room,
                eos_token_id=end,
                pad_token_id=end,
                **(drawn if config.temperature > 0 else {"do_sample": False}),
            )
        texts.append(str(tokenizer.decode(made[0, 1:], skip_special_tokens=True)))
    return Result(None, {"texts": texts}, text="\n".join(texts))
