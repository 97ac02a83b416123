"""What to train: the options of a diffusion run. Imports no torch, so that help text is instant."""

from dataclasses import dataclass, field
from typing import Literal

from lsdr.diffusion.measures.config import MeasureConfig
from lsdr.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Options of a diffusion run."""

    data: str = "patches"
    """A folder of images, a Parquet file or folder, a Hugging Face dataset (folder or hf:NAME), an .npz file, or one of
    the embedded sets: patches (16x16 RGB) and digits (8x8 grey)."""
    size: int | None = None
    """Side in pixels to which images are scaled and cropped; by default the data's own."""
    channels: int | None = None
    """1 for grey, 3 for RGB; by default the data's own."""
    limit: int | None = None
    """Use only the first so many images."""
    holdout: float = 0.1
    """Share of the images kept aside for held-out measures."""
    on_bad: Literal["skip", "refuse"] = "skip"
    """Files that cannot be read as images are left out, counted and named in the report; or refuse to start."""
    model: str = "unet-tiny"
    """A preset (unet-tiny, unet-small, unet-base, dit-tiny, dit-small, dit-base) or a diffusers folder."""
    denoiser: Literal["edm", "ddpm", "flow"] = "edm"
    """How the network's output becomes an estimate of the clean image: EDM preconditioning, a DDPM schedule, or flow
    matching. A diffusers pipeline folder with a scheduler decides this itself."""
    prediction: Literal["epsilon", "v", "sample"] = "epsilon"
    """What the network predicts under a DDPM schedule."""
    zero_terminal_snr: bool = False
    """Rescale the DDPM schedule so that its last step is pure noise; needs prediction v or sample."""
    weighting: Literal["default", "edm", "min_snr", "uniform"] = "default"
    """Weight of the loss over noise levels: edm, min_snr (gamma 5), uniform in what the network predicts; the default
    is edm for the EDM denoiser and uniform otherwise."""
    conditional: bool = False
    """Condition on the data's classes."""
    flip: bool = False
    """Mirror half of the training images at random."""
    lr_grid: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0)
    """Learning rates of the stability test, as multiples of the training's own."""
    lr_grid_steps: int = 0
    """Steps of each short run of the stability test; 0 leaves the test out."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How to train."""
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    """How much to measure when a run ends."""

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work, before anything is built."""
        if not 0 < self.holdout < 1:
            raise ValueError(f"holdout must be between 0 and 1, got {self.holdout}")
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")
        if self.lr_grid_steps < 0 or not all(multiple > 0 for multiple in self.lr_grid):
            raise ValueError(
                f"the stability test needs positive learning rates and a number of steps that is not negative, got "
                f"lr_grid={self.lr_grid}, lr_grid_steps={self.lr_grid_steps}"
            )
        if self.zero_terminal_snr and self.denoiser != "ddpm":
            raise ValueError(f"zero_terminal_snr belongs to denoiser=ddpm, got denoiser={self.denoiser}")
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError(
                "prediction=epsilon says nothing about the image where the signal is zero; with zero_terminal_snr use "
                "prediction=v or prediction=sample"
            )
