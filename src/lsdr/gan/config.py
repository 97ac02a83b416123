"""What to train: the options of a GAN run. Imports no torch, so that help text is instant."""

import math
from dataclasses import dataclass, field
from typing import Literal

from lsdr.gan.measures.config import GanMeasureConfig
from lsdr.training.config import TrainingConfig


def _training() -> TrainingConfig:
    return TrainingConfig(
        steps=39_000,
        batch_size=128,
        lr=7e-4,
        lr_schedule="flat_cosine",
        warmup=100,
        betas=(0.0, 0.99),
        ema=0.999,
        log_every=50,
        evaluate_every=500,
        sample_every=2000,
        monitor_every=200,
        checkpoint_every=1000,
    )


@dataclass(frozen=True, kw_only=True)
class GanConfig:
    """Options of a GAN run."""

    data: str = "ring"
    """Points: ring (8 modes) or grid (25 modes). Images: stacked-digits or stacked:SOURCE (three random digits as the
    colours of one picture, 1000 modes), digits, patches, a folder of images, a Parquet file or folder, a Hugging Face
    dataset (folder or hf:NAME), an .npz or an idx file."""
    examples: int = 100_000
    """Points, or stacked pictures, that are drawn to train on."""
    size: int | None = None
    """Side in pixels to which images are scaled and cropped; by default the data's own."""
    channels: int | None = None
    """1 for grey, 3 for RGB; by default the data's own."""
    limit: int | None = None
    """Use only the first so many images."""
    holdout: float = 0.1
    """Share of the examples kept aside for held-out measures."""
    on_bad: Literal["skip", "refuse"] = "skip"
    """Files that cannot be read as images are left out, counted and named in the report; or refuse to start."""
    flip: bool = False
    """Mirror half of the training images at random."""
    model: str = "auto"
    """Both players by the name of a preset (mlp, residual-mlp, dcgan, resnet-tiny, r3gan-tiny, ...); auto chooses by
    the data's shape."""
    latent: int | None = None
    """Dimensions of the generator's latent; by default the preset's."""
    normalization: str = "default"
    """Normalisation in the generator: default (the preset's own), none, standardize (subtract the layer's mean, divide
    by its standard deviation), batch, magnitude_preserving, fixup; what the preset offers."""
    discriminator_normalization: str = "default"
    """The same in the discriminator."""
    loss: Literal["non_saturating", "hinge", "relativistic"] = "relativistic"
    """What the players play for; relativistic compares each real example with a generated one (RpGAN)."""
    r1: float | None = None
    """Weight gamma of the penalty gamma/2 |grad D|^2 on real examples; 0 for none; by default 0.01 for points, which
    are played with unit variance, and 0.05 for images."""
    r2: float | None = None
    """The same on generated examples."""
    lazy: int = 1
    """Penalise the gradient in one of so many steps, drawn at random, with as many times the weight: cheaper, and
    without the guarantee of convergence."""
    packing: int = 1
    """Examples that the discriminator judges together (PacGAN): 1 for one by one."""
    consistency: float = 0.0
    """Weight of the discriminator's squared change when its input is shifted and mirrored, or, where it is a point,
    moved by the weakest noise."""
    mode_seeking: float = 0.0
    """Weight of the mode-seeking term: the generator's outputs should differ where its latents do."""
    discriminator_noise: bool = True
    """Show the discriminator noisy examples, real and generated alike, and tell it how noisy they are."""
    generator_noise: Literal["none", "data", "latent"] = "none"
    """Noise at the generator's input: data (the generator takes noise off a diffused example in several steps), or
    latent (the latent is mixed with noise of the same levels, keeping its distribution)."""
    denoising_steps: int = 4
    """Steps in which the generator takes the noise off, with generator_noise=data."""
    noise_strength: float | None = 1.0
    """Examples get noise from the weakest up to this place between weakest (0) and strongest (1), evenly in its
    logarithm; None lets a controller find the place as the training goes, from how well the discriminator knows the
    examples."""
    noise_smallest: float = 0.005
    """Weakest noise: standard deviation over the data's; for sharp modes well below theirs."""
    noise_largest: float = 2.0
    """Strongest noise: standard deviation over the data's; where it is above 1 all modes overlap."""
    noise_clean: float = 0.0
    """Share of examples that are left without noise."""
    noise_target: float = 0.6
    """With noise_strength=None: the overfitting signal, from -1 to 1, above which the controller makes the noise
    stronger and below which weaker."""
    noise_images: int = 100_000
    """With noise_strength=None: examples over which the controller goes from no noise to the strongest."""
    discriminator_lr: float = 1.0
    """The discriminator's learning rate, as a multiple of the generator's."""
    training: TrainingConfig = field(default_factory=_training)
    """How to train."""
    measure: GanMeasureConfig = field(default_factory=GanMeasureConfig)
    """How much to measure when a run ends."""

    def gammas(self, *, points: bool) -> tuple[float, float]:
        """The weights of the gradient penalties on real and on generated examples of a kind."""
        # Points: less lets the modes' shares drift, more blurs them. Images: R3GAN's for 32 pixels.
        default = 0.01 if points else 0.05
        return default if self.r1 is None else self.r1, default if self.r2 is None else self.r2

    @property
    def adaptive(self) -> bool:
        """Whether there is noise with levels that a controller can move."""
        return self.discriminator_noise or self.generator_noise == "latent"

    @property
    def denoising(self) -> bool:
        """Whether the generator works from noisy examples."""
        return self.generator_noise == "data"

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work, before anything is built."""
        self._check_numbers()
        if self.training.compile:
            raise ValueError(
                "compile differentiates once, and a gradient penalty's gradient is a second derivative: train a GAN "
                "without compile"
            )
        if self.denoising and (self.discriminator_noise or self.packing > 1 or self.consistency):
            raise ValueError(
                "with generator_noise=data the discriminator judges noisy examples step by step already: "
                "switch off discriminator_noise (--no-discriminator-noise), packing and consistency, or choose another "
                "generator_noise"
            )
        batch, parts = self.training.batch_size, self.packing * self.training.accumulate
        if self.packing > 1 and batch % parts:
            raise ValueError(
                f"batch_size={batch} cannot be cut into packs of {self.packing} x {self.training.accumulate} "
                f"micro-batches; use batch_size={-(-batch // parts) * parts}"
            )

    def _check_numbers(self) -> None:
        if not 0 < self.holdout < 1:
            raise ValueError(f"holdout must be between 0 and 1, got {self.holdout}")
        for name in ("examples", "lazy", "packing", "denoising_steps", "noise_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("size", "limit", "latent"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("r1", "r2", "consistency", "mode_seeking"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if not self.discriminator_lr > 0:
            raise ValueError(f"discriminator_lr must be positive, got {self.discriminator_lr}")
        if not 0 < self.noise_smallest <= self.noise_largest:
            raise ValueError(
                "noise_smallest must be positive and not above noise_largest, got "
                f"{self.noise_smallest} and {self.noise_largest}"
            )
        if self.noise_strength is not None and not 0 <= self.noise_strength <= 1:
            raise ValueError(f"noise_strength must be in [0, 1], got {self.noise_strength}")
        if not 0 <= self.noise_clean < 1:
            raise ValueError(f"noise_clean must be in [0, 1), got {self.noise_clean}")
        if not -1 < self.noise_target < 1:
            raise ValueError(f"noise_target must be between -1 and 1, got {self.noise_target}")
