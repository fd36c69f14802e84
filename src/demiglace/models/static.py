"""A static model: the mean of its tokens' vectors and a linear layer.

It has no other layers, so a text costs one look-up for each token. The order of the tokens has no effect.

transformers does not know the architecture. `register` makes its Auto classes load it in this process; elsewhere a
static model runs from its exported ONNX file.
"""

from typing import cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from demiglace.models.pooling import pool


class StaticConfig(PreTrainedConfig):
    """The sizes of a static model."""

    model_type = "demiglace-static"

    vocab_size: int = 30522  # rows of the table
    hidden_size: int = 256  # width of the vectors
    num_hidden_layers: int = 0
    type_vocab_size: int = 1  # both texts of a pair are read as one
    dropout: float = 0.0  # of the mean vector, in training
    pad_token_id: int | None = 0
    loaded_by: str = (
        "demiglace (demiglace.models.static.register), not by transformers alone"  # for readers of the file
    )

    @property
    def parameters(self) -> int:
        """Return the number of parameters of a classifier or regressor: V·d + d·C + C."""
        outputs = self.num_labels or 0
        return self.vocab_size * self.hidden_size + (self.hidden_size + 1) * outputs


class StaticPreTrainedModel(PreTrainedModel):
    """What all static models share."""

    config_class = StaticConfig
    base_model_prefix = "static"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True  # it has none


class StaticModel(StaticPreTrainedModel):
    """The table of token vectors."""

    def __init__(self, config: StaticConfig):
        """Make a table of random vectors."""
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> BaseModelOutput:
        """Return the tokens' vectors as `last_hidden_state`, [B, L, d]. Mask and segment ids have no effect."""
        return BaseModelOutput(last_hidden_state=self.embeddings(input_ids))

    def get_input_embeddings(self) -> nn.Module:
        """Return the table."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the table."""
        self.embeddings = cast(nn.Embedding, value)


class StaticForSequenceClassification(StaticPreTrainedModel):
    """A classifier or regressor: a linear layer on the mean of the tokens' vectors."""

    auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: StaticConfig):
        """Make a model of random weights, with `config.num_labels` outputs."""
        super().__init__(config)
        self.static = StaticModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels or 0)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Return `logits` [B, C] of rows [B, L]; a row without tokens has the logits of a zero vector.

        token_type_ids: ignored, since a teacher's tokenizer may return them.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mean = pool(self.static(input_ids).last_hidden_state, mask, "mean")
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(mean)))


def register() -> None:
    """Make transformers' AutoConfig, AutoModel and AutoModelForSequenceClassification load static models."""
    AutoConfig.register(StaticConfig.model_type, StaticConfig, exist_ok=True)
    AutoModel.register(StaticConfig, StaticModel, exist_ok=True)
    AutoModelForSequenceClassification.register(StaticConfig, StaticForSequenceClassification, exist_ok=True)
