"""A transformer for texts, of the package transformers."""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn


class TransformerBackbone(nn.Module):
    r"""A transformer whose last hidden states, averaged over an example's own tokens, are the code.

    .. math:: h = \textstyle\sum_l m_l f_l(x) / \sum_l m_l, \quad m_l = [x_l \ne \text{padding}]

    Padding changes nothing; an empty text has the code of its first padding token.

    Args:
        transformer: The configuration of a model of transformers, as its `to_dict()` gives it, with "model_type".
        padding: Number of the token that fills up.
        module: The model itself, where it has been read already; otherwise it is made with initial weights.

    Raises:
        ValueError: If transformers is not there, or knows no such model.
    """

    def __init__(self, transformer: Mapping[str, Any], padding: int = 0, module: nn.Module | None = None) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"transformer": dict(transformer), "padding": padding}
        self.padding = padding
        model: Any = _build(transformer) if module is None else module
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # nothing would train it
        self.transformer = model
        self.width = int(model.config.hidden_size)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The transformer's layers' names, in order."""
        count: Any = self.transformer.config.num_hidden_layers
        lists = [
            (name, module)
            for name, module in self.transformer.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == count
        ]
        return tuple(f"transformer.{name}.{k}" for name, module in lists[:1] for k in range(len(module)))

    def own_tokens(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Which tokens are an example's own, bool (n, L); of an empty text the first."""
        mask = inputs["tokens"] != self.padding
        # Attention to nothing at all is not a number.
        return torch.cat([mask[:, :1] | ~mask.any(1, keepdim=True), mask[:, 1:]], 1)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Codes, shape (n, F).

        Args:
            inputs: "tokens", int64, shape (n, L).
        """
        tokens, mask = inputs["tokens"], self.own_tokens(inputs)
        hidden: Tensor = self.transformer(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        weights = mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weights).sum(1) / weights.sum(1)


def read_transformer(folder: str, vocabulary: int, length: int, padding: int, dropout: float) -> TransformerBackbone:
    """A transformer from a folder that transformers has written; nothing is downloaded or unpickled.

    Args:
        folder: With config.json and safetensors.
        vocabulary: Tokens that it has to know.
        length: Tokens of an example, which it has to take.
        padding: Number of the token that fills up.
        dropout: Probability of dropout in training.

    Raises:
        ValueError: If it cannot be read, or does not suit the tokens.
    """
    _import()
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
            if hasattr(config, name):
                setattr(config, name, dropout)
        module, found = AutoModel.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no transformer that can be read: {error}") from error
    # transformers only warns of these, and trains on with random weights in their place
    missing = [name for name in found["missing_keys"] if not name.startswith("pooler.")]
    if missing:
        raise ValueError(f"the weights in {folder} are not those of its config.json: missing {missing[:3]}")
    module, config = module.float(), module.config
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{folder} is an encoder with a decoder; give an encoder alone (BERT, RoBERTa, ...)")
    if config.vocab_size < vocabulary:
        raise ValueError(
            f"the transformer in {folder} knows {config.vocab_size} tokens and the tokenizer makes {vocabulary}: give "
            "the tokenizer that belongs to it"
        )
    longest = getattr(config, "max_position_embeddings", length)
    if longest < length:
        raise ValueError(f"the transformer in {folder} takes {longest} tokens, not {length}; give --length {longest}")
    settings = {**config.to_diff_dict(), "model_type": config.model_type}
    return TransformerBackbone(settings, padding, module)


def _build(settings: Mapping[str, Any]) -> nn.Module:
    _import()
    from transformers import AutoConfig, AutoModel

    options = dict(settings)
    kind = options.pop("model_type", None)
    if kind is None:
        raise ValueError("the transformer's configuration has no model_type: it is not one of transformers")
    module: nn.Module = AutoModel.from_config(AutoConfig.for_model(kind, **options))
    return module


def _import() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ValueError("text needs the package transformers: pip install 'lsdr[text]'") from error
