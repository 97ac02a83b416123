"""From options to a task: data, views, encoder, checked against each other before anything is trained."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lsdr.representation.config import RepresentationConfig
from lsdr.representation.contaminated import Contaminated
from lsdr.representation.data.fields import Fields, ImageFields, TableFields, TextFields
from lsdr.representation.data.open import open_data
from lsdr.representation.data.representation_data import RepresentationData, examples
from lsdr.representation.encoder import Encoder
from lsdr.representation.models.images import ConvBackbone
from lsdr.representation.models.presets import PRESETS, find_preset
from lsdr.representation.models.projector import projector
from lsdr.representation.models.tables import TableBackbone
from lsdr.representation.models.text import TransformerBackbone, read_transformer
from lsdr.representation.objective import objective_value
from lsdr.representation.task import RepresentationTask
from lsdr.representation.views.open import open_views

_LEAST = 20  # training examples that measures need
_WATCHED = 500  # training and held-out examples that are looked at as training goes on
_SIDE = 32  # pixels that the first convolution of a larger image leaves of its smaller side, at least


def load(config: RepresentationConfig) -> RepresentationData:
    """Load and split the examples.

    The split has a fixed seed: runs with different seeds learn from the same examples and are judged on the same
    held-out ones.

    Raises:
        ValueError: If there are too few examples, or they cannot be read.
    """
    data = open_data(
        config.data,
        modality=config.modality,
        size=config.size,
        channels=config.channels,
        limit=config.limit,
        holdout=config.holdout,
        label=config.label,
        text=config.text,
        drop=config.drop,
        length=config.length,
        vocabulary=config.vocabulary,
        tokenizer=config.tokenizer,
        on_bad=config.on_bad,
        seed=0,
    )
    seen, unseen = _length(data.train), _length(data.heldout)
    if seen < _LEAST or unseen < 2:
        raise ValueError(
            f"{config.data} leaves {seen} examples to train on and {unseen} held out; measuring needs {_LEAST} and 2, "
            "so give more examples or another --holdout"
        )
    return data


def fitted(config: RepresentationConfig, data: RepresentationData) -> RepresentationConfig:
    """The configuration with a batch no larger than the training examples are many; it warns where that changes it.

    Raises:
        ValueError: If there are more micro-batches than examples.
    """
    count, batch = _length(data.train), config.training.batch_size
    if batch <= count:
        return config
    warnings.warn(
        f"batches of {count}, not {batch}: {config.data} has no more training examples", RuntimeWarning, stacklevel=3
    )
    return replace(config, training=replace(config.training, batch_size=count))


def build_encoder(config: RepresentationConfig, fields: Fields, *, dropout: float = 0.0) -> Encoder:
    """Build the encoder; initial weights are drawn from torch's global generator.

    Args:
        config: Model, code and projector.
        fields: What the data look like.
        dropout: Of a transformer: the strength of the view "dropout".

    Returns:
        The encoder in training mode.

    Raises:
        ValueError: If there is no such model, or it is not for such data.
    """
    backbone = _backbone(config, fields, dropout)
    code: int = backbone.width  # type: ignore[assignment]
    return Encoder(backbone, projector(code, 2 * code if config.projector is None else config.projector), fields)


def build_task(config: RepresentationConfig, data: RepresentationData, device: torch.device) -> RepresentationTask:
    """Build the encoder and what surrounds it; initial weights are drawn from torch's global generator.

    Raises:
        ValueError: If model, views and data do not fit each other.
    """
    view = open_views(config.views, data)
    count = min(_WATCHED, _length(data.train), _length(data.heldout))  # as many: an objective depends on the number
    seen, seen_labels, _ = examples(data.train, data.fields, count, device)
    unseen, unseen_labels, _ = examples(data.heldout, data.fields, count, device)
    dataset: Any = data.train
    return RepresentationTask(
        model=build_encoder(config, data.fields, dropout=view.dropout),
        config=config,
        dataset=Contaminated(dataset, config.contaminate, data.fields) if config.contaminate else dataset,
        view=view,
        seen=seen,
        unseen=unseen,
        names=data.name,
        objective=objective_value(config),
        seen_labels=seen_labels,
        unseen_labels=unseen_labels,
    )


def _backbone(config: RepresentationConfig, fields: Fields, dropout: float) -> nn.Module:
    if isinstance(fields, TextFields):
        return _transformer(config, fields, dropout)
    preset = find_preset(config.model, "image" if isinstance(fields, ImageFields) else "table")
    code = config.code or preset.code
    if isinstance(fields, TableFields):
        return TableBackbone(len(fields.numeric), fields.cardinalities, code=code, **preset.options)
    channels, height, width = fields.shape
    patch = 1
    while min(height, width) // (2 * patch) >= _SIDE:
        patch *= 2
    return ConvBackbone(channels, fields.mean, fields.deviation, code=code, patch=patch, **preset.options)


def _transformer(config: RepresentationConfig, fields: TextFields, dropout: float) -> TransformerBackbone:
    if config.model not in PRESETS and config.model != "auto" and Path(config.model).is_dir():
        if config.code is not None:
            raise ValueError(f"the codes of a transformer from disk have its own width; leave out code={config.code}")
        return read_transformer(config.model, fields.vocabulary, fields.length, fields.padding, dropout)
    preset = find_preset(config.model, "text")
    code, heads = config.code or preset.code, preset.options["heads"]
    if code % heads:
        raise ValueError(f"code={code} cannot be cut into the {heads} heads of {config.model}; use a multiple of them")
    settings = {
        "model_type": "bert",
        "vocab_size": fields.vocabulary,
        "hidden_size": code,
        "intermediate_size": 4 * code,
        "num_hidden_layers": preset.options["layers"],
        "num_attention_heads": heads,
        "max_position_embeddings": fields.length,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "pad_token_id": fields.padding,
    }
    return TransformerBackbone(settings, fields.padding)


def _length(dataset: Any) -> int:
    return len(dataset)
