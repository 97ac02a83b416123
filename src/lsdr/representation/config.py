"""What to learn from, and how: the options of a representation run. Imports no torch, so that help text is instant."""

from dataclasses import dataclass, field
from typing import Literal

from lsdr.representation.measures.config import RepresentationMeasureConfig
from lsdr.training.config import TrainingConfig


def _training() -> TrainingConfig:
    return TrainingConfig(
        steps=400,
        batch_size=256,
        lr=1e-3,
        lr_schedule="cosine",
        warmup=20,
        weight_decay=1e-4,
        ema=0.99,
        log_every=20,
        evaluate_every=100,
        sample_every=100,
        monitor_every=100,
        checkpoint_every=200,
    )


@dataclass(frozen=True, kw_only=True)
class RepresentationConfig:
    """Options of a representation run."""

    data: str = "digits"
    """Images: digits, patches, a folder of images, a Parquet file or folder, a Hugging Face dataset (folder or
    hf:NAME), an .npz, .npy or idx file. Text: a folder of .txt files, a table with a text column, scipy-docs. Tables:
    a CSV, Parquet or Arrow file, breast-cancer, wine, digits-table."""
    modality: Literal["auto", "image", "text", "table"] = "auto"
    """What the data are; auto finds out."""
    label: str | None = None
    """Column with the labels, by default one called like one; "" for none. They are measured with, never learned
    from."""
    text: str | None = None
    """Column with the text; by default the only one that there is."""
    drop: tuple[str, ...] = ()
    """Columns of a table to leave out."""
    size: int | None = None
    """Side in pixels to which images are scaled and cropped; by default the data's own."""
    channels: int | None = None
    """1 for grey, 3 for RGB; by default the data's own."""
    limit: int | None = None
    """Use only the first so many examples."""
    holdout: float = 0.1
    """Share of the examples kept aside for held-out measures."""
    on_bad: Literal["skip", "refuse"] = "skip"
    """Examples that cannot be read are left out, counted and named in the report; or refuse to start."""
    length: int = 64
    """Tokens of a text that are read."""
    vocabulary: int = 4096
    """Tokens that a tokenizer trained on the data may have."""
    tokenizer: str | None = None
    """Folder or file of a tokenizer to use instead of one trained on the data."""
    views: str = "default"
    """Transformations that must not matter, with their strengths, as in rotation:30,scale:0.5,blur for images,
    token_dropout:0.1,dropout:0.1 for text, marginal:0.3 for tables; default for the modality's own."""
    model: str = "auto"
    """The backbone by the name of a preset (conv-tiny, transformer-tiny, mlp, ...), or, for text, a folder with a
    transformer on disk; auto chooses by the modality."""
    code: int | None = None
    """Dimensions of the codes; by default the preset's."""
    projector: int | None = None
    """Width of the projector between the codes and what the objective sees; 0 for none; by default twice the codes'
    width."""
    objective: Literal[
        "vicreg", "barlow_twins", "log_participation_ratio", "spectral_contrastive", "sigreg", "sim_clr"
    ] = "vicreg"
    """What makes two views of an example agree and examples differ."""
    weight: float = 1.0
    """Weight of the objective."""
    robust: Literal["none", "trimmed", "huber"] = "none"
    """Statistics that outliers among the rows cannot move: trimmed, Huber's, or none."""
    contaminate: float = 0.0
    """Share of the training rows to be replaced by outliers, for experiments; measures are of the clean rows."""
    training: TrainingConfig = field(default_factory=_training)
    """How to train."""
    measure: RepresentationMeasureConfig = field(default_factory=RepresentationMeasureConfig)
    """How much to measure when a run ends."""

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work, before anything is built."""
        if not 0 < self.holdout < 1:
            raise ValueError(f"holdout must be between 0 and 1, got {self.holdout}")
        if not 0 <= self.contaminate < 1:
            raise ValueError(f"contaminate must be in [0, 1), got {self.contaminate}")
        for name in ("size", "channels", "limit", "code", "length", "vocabulary"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.projector is not None and self.projector < 0:
            raise ValueError(f"projector must not be negative, got {self.projector}; 0 means none")
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight must be finite and not negative, got {self.weight}")
        if self.training.batch_size < 2:
            raise ValueError(
                f"the objective compares examples: batch_size must be at least 2, got {self.training.batch_size}"
            )
        if self.objective == "sim_clr":
            if self.training.accumulate > 1:
                raise ValueError(
                    "sim_clr compares every example of a batch with every other and cannot be cut into micro-batches: "
                    f"use accumulate=1 (got {self.training.accumulate}), or an objective of moments, such as vicreg"
                )
            if self.robust != "none":
                raise ValueError(f"sim_clr has no statistics to make robust, got robust={self.robust}; leave it out")
