"""What to fine-tune: the options of a Stable Diffusion run. Imports no torch, so that help text is instant."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lsdr.training.config import TrainingConfig

# Far beyond what these networks draw; without an end a slip of the finger would count buckets for hours.
_LARGEST = 16384


def _training() -> TrainingConfig:
    """Fine-tuning moves weights that are good already: fewer examples a step, smaller steps, clipped."""
    return TrainingConfig(
        steps=1000,
        batch_size=4,
        lr=1e-4,
        warmup=100,
        betas=(0.9, 0.999),
        weight_decay=1e-2,
        clip=1.0,
        ema=0.99,
        sample_every=250,
        monitor_every=25,
    )


@dataclass(frozen=True, kw_only=True)
class StableDiffusionConfig:
    """Options of a fine-tuning run."""

    model: Path
    """A pipeline folder in diffusers' layout (model_index.json, unet or transformer, vae, text encoders, tokenizers,
    scheduler): Stable Diffusion 1.x, 2.x, XL, 3, or Flux."""
    data: str
    """Captioned images: a folder with a .txt beside each image or with metadata.jsonl or metadata.csv, a Parquet file
    or folder, or a saved Hugging Face dataset."""
    caption_column: str | None = None
    """The column that holds the captions, where the data has several that might; by default text or caption."""
    on_bad: Literal["skip", "refuse"] = "skip"
    """Images that cannot be read and images without a caption are left out, counted and named; or refuse to start."""
    resolution: int = 512
    """Pixels: images are scaled to an area of at most resolution x resolution."""
    buckets: bool = True
    """Keep aspect ratios: images of similar shape train together. Otherwise all are cropped to squares."""
    flip: bool = False
    """Train on mirrored images too."""
    repeats: int = 1
    """How often an epoch sees each image; prior images are seen once."""
    holdout: float = 0.1
    """Share of the images kept aside for the held-out loss; 0 trains on all of them."""
    tune: Literal["lora", "full"] = "lora"
    """Train a low-rank change (LoRA) of the network, or all of its weights."""
    rank: int = 16
    """Rank of the LoRA."""
    alpha: float | None = None
    """The LoRA's change is scaled by alpha / rank; by default alpha is the rank."""
    targets: tuple[str, ...] = ()
    """Endings of the names of the layers that the LoRA changes; by default the attention's projections."""
    max_norm: float = 0.0
    """After every step the norm of each layer's LoRA change is held at this or below; 0 for no limit."""
    max_norm_kind: Literal["spectral", "frobenius"] = "spectral"
    """Which norm --max-norm means: the largest singular value, or the Frobenius norm (kohya's scale_weight_norms)."""
    weighting: Literal["default", "min_snr", "uniform"] = "default"
    """Weight of the loss over noise levels: min_snr (gamma 5), or uniform in what the network predicts, the default."""
    prediction: Literal["epsilon", "v", "sample"] | None = None
    """What the network predicts; by default what the folder's scheduler says."""
    zero_terminal_snr: bool = False
    """Rescale the schedule so that its last step is pure noise; for networks that predict v or sample."""
    offset_noise: float = 0.0
    """Strength of a noise that is constant over each latent channel, added to the noise; 0.05 to 0.1 where wanted."""
    caption_dropout: float = 0.1
    """Share of the examples that are trained with the empty caption, which guidance needs."""
    prior: str | None = None
    """Captioned images of the class as the base model sees it (prior preservation), read like --data."""
    prior_weight: float = 1.0
    """Weight of the prior images' loss."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass: about a fifth slower, and much less memory."""
    validation_prompts: tuple[str, ...] = ()
    """Prompts rendered as training goes on (--sample-every); by default the first captions of the data."""
    validation_guidance: float = 5.0
    """Strength of classifier-free guidance when rendering; 1 is none."""
    validation_steps: int = 20
    """Sampler steps when rendering."""
    cache: Path | None = None
    """Folder for encoded images and captions, which other runs may share; by default cache/ in --out."""
    single_file: bool = False
    """With --tune full, also write one safetensors file as ComfyUI and AUTOMATIC1111 load it (SD 1.x, 2.x, XL)."""
    lr_range_steps: int = 0
    """Steps of a learning-rate range test before training, on a copy; 0 for none."""
    inspect: bool = True
    """When done, compare every layer with the base (inspection.html); minutes for a full fine-tune of real size."""
    sanity: Literal["refuse", "warn"] = "refuse"
    """What to do if the checks before the first step find that training cannot work: stop, or only say so."""
    training: TrainingConfig = field(default_factory=_training)
    """How to train."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work, before anything is read."""
        for name, least in (("resolution", 16), ("repeats", 1), ("rank", 1), ("validation_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.resolution > _LARGEST:
            raise ValueError(f"resolution is in pixels and at most {_LARGEST}, got {self.resolution}")
        for name in ("offset_noise", "prior_weight", "max_norm", "validation_guidance", "lr_range_steps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("holdout", "caption_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share and must be in [0, 1), got {getattr(self, name)}")
        if 0 < self.lr_range_steps < 10:
            raise ValueError(f"a learning-rate range test needs at least 10 steps, got {self.lr_range_steps}")
        if self.alpha is not None and not self.alpha > 0:
            raise ValueError(f"alpha must be positive, got {self.alpha}; leave it out for alpha = rank")
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError(
                "prediction=epsilon says nothing about the image where the signal is zero; with zero_terminal_snr the "
                "network must predict v or sample"
            )
        if self.tune == "full":
            given = [name for name in ("alpha", "targets", "max_norm") if getattr(self, name)]
            if given:
                raise ValueError(f"{', '.join(given)} belongs to tune=lora, got tune=full; leave it out")
        elif self.single_file:
            raise ValueError(
                "single_file belongs to tune=full; a LoRA is always written in the other tools' layout too"
            )
