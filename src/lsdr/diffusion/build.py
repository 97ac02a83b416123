"""From options to a task: data, model, denoiser, checked against each other before anything is trained."""

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lsdr.data.images import ImageDataset
from lsdr.data.load import load_images
from lsdr.data.split import check_fits, split
from lsdr.data.subset import Subset, take
from lsdr.diffusion.config import DiffusionConfig
from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.denoiser import Denoiser
from lsdr.diffusion.edm import EDMDenoiser
from lsdr.diffusion.flow import FlowDenoiser
from lsdr.diffusion.models import MODELS, build_model, load_model
from lsdr.diffusion.task import DiffusionTask
from lsdr.diffusion.weighting import WEIGHTINGS
from lsdr.measures.feature_extractor import LEAST_IMAGES


@dataclass(frozen=True)
class Data:
    """Images to train on and images kept aside."""

    dataset: ImageDataset
    train: Subset
    heldout: Subset

    def describe(self, source: str) -> dict[str, object]:
        """The "data" entry of experiment.json."""
        return {
            "source": source,
            "count": len(self.train),
            "heldout": len(self.heldout),
            "shape": list(self.dataset.shape),
            "classes": self.dataset.classes,
            "problems": self.dataset.problem_summary(),
        }


def load_data(config: DiffusionConfig) -> Data:
    """Load and split the images.

    The split has a fixed seed: runs with different seeds are judged on the same held-out images.

    Raises:
        ValueError: If there are no images, too few for a batch, none to condition on, or they cannot be read.
    """
    dataset = load_images(
        config.data, size=config.size, channels=config.channels, on_bad=config.on_bad, limit=config.limit
    )
    check_fits(len(dataset), config.training.batch_size, config.holdout)
    if config.conditional and dataset.classes is None:
        raise ValueError(f"conditional training needs classes, and {config.data} has none; leave out --conditional")
    train, heldout = split(dataset, config.holdout, seed=0)
    if len(train) < LEAST_IMAGES:
        raise ValueError(
            f"{config.data} leaves {len(train)} images to train on; measuring needs at least {LEAST_IMAGES}, so give "
            "more images or a smaller --holdout"
        )
    return Data(dataset, Subset(dataset, train.tolist()), Subset(dataset, heldout.tolist()))


def build_task(config: DiffusionConfig, data: Data, device: torch.device) -> DiffusionTask:
    """Build the model and what surrounds it; initial weights are drawn from torch's global generator.

    Raises:
        ValueError: If model and data do not fit each other, or a folder holds no usable model.
    """
    classes = data.dataset.classes if config.conditional else None
    channels, height, width = data.dataset.shape
    if height != width:
        raise ValueError(f"images must be square, got {height}x{width}; give --size to crop them")
    if config.model in MODELS:
        model, scheduler = build_model(config.model, channels, height, classes), None
    elif not Path(config.model).exists():
        close = difflib.get_close_matches(config.model, MODELS, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"no preset and no folder {config.model!r}{meant} (presets: {', '.join(MODELS)})")
    else:
        model, scheduler = load_model(Path(config.model), channels=channels, size=height, classes=classes)
    if scheduler is None:
        denoiser = _denoiser(config)
    elif "FlowMatch" in type(scheduler).__name__:
        denoiser = FlowDenoiser
    else:
        denoiser = functools.partial(DDPMDenoiser.from_scheduler, scheduler=scheduler)
    weighting = config.weighting
    if weighting == "default":
        weighting = "edm" if config.denoiser == "edm" and scheduler is None else "uniform"
    return DiffusionTask(
        model=model,
        denoiser=denoiser,
        weight=WEIGHTINGS[weighting],
        dataset=data.train,
        heldout=take(data.heldout, config.measure.heldout_images, device),
        names=data.dataset.name,
        shape=data.dataset.shape,
        flip=config.flip,
        conditional=config.conditional,
    )


def _denoiser(config: DiffusionConfig) -> Callable[[nn.Module], Denoiser]:
    if config.denoiser == "edm":
        return EDMDenoiser
    if config.denoiser == "flow":
        return FlowDenoiser
    alphas = _linear_schedule(zero_terminal_snr=config.zero_terminal_snr)
    return lambda model: DDPMDenoiser(model, alphas, config.prediction)


def _linear_schedule(*, zero_terminal_snr: bool) -> torch.Tensor:
    """DDPM's schedule: 1000 steps, beta from 1e-4 to 0.02."""
    from diffusers import DDPMScheduler

    alphas: torch.Tensor = DDPMScheduler(rescale_betas_zero_snr=zero_terminal_snr).alphas_cumprod
    return alphas
