"""A trained denoiser and images to measure it on, from a run's folder or a diffusers folder."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from lsdr.data.load import load_images
from lsdr.data.split import split
from lsdr.data.subset import Images, Subset, take
from lsdr.diffusion.build import Data, build_task
from lsdr.diffusion.config import DiffusionConfig
from lsdr.diffusion.ddpm import DDPMDenoiser
from lsdr.diffusion.denoiser import Denoiser
from lsdr.diffusion.flow import FlowDenoiser
from lsdr.diffusion.load_model import load_model
from lsdr.diffusion.measures.prediction_check import read_as
from lsdr.runs import read_json

Weights = Literal["average", "final"]
_IMAGES = 512  # for the covariance and the power spectrum of the data


@dataclass(frozen=True)
class Source:
    """What is inspected."""

    denoiser: Denoiser | None
    """None if nothing says how the network's output is to be read."""
    network: nn.Module
    name: str
    """What the network is, in words."""
    heldout: Images
    """Images that the model has not seen, if that is known."""
    data: Images
    """Images that stand for the data."""
    seen: bool
    """Whether `heldout` may hold images that the model was trained on."""
    alphas_cumprod: torch.Tensor | None
    """The schedule's table, where there is one."""
    conditional: bool
    sampler_steps: int


def open_source(
    source: Path,
    *,
    data: str | None,
    images: int,
    weights: Weights,
    prediction: str | None,
    device: torch.device,
) -> Source:
    """Read what `inspect_operator` measures.

    Args:
        source: A run's folder, as `lsdr train diffusion` and `lsdr compare diffusion` write it, or a diffusers folder.
        data: Images, as `load_images` takes them; None for the run's own.
        images: How many held-out images are wanted.
        weights: Averaged ones or those of the last step; a diffusers folder has one kind only.
        prediction: How to read the network, if not as the run or the scheduler says.
        device: Where to put model and images.

    Returns:
        The denoiser, in evaluation mode, and images.

    Raises:
        ValueError: If the folder is neither, lacks weights or data, or model and data do not fit each other.
    """
    if not source.exists():
        raise ValueError(f"no folder {source}; give a run of lsdr or a diffusers folder")
    if (source / "experiment.json").is_file():
        runs = sorted(str(each.relative_to(source)) for each in source.glob("*/seed=*") if each.is_dir())
        named = f", such as {source / runs[0]}" if runs else ""
        raise ValueError(f"{source} is a comparison of several runs; name one of them{named}")
    values = _run_config(source)
    if values is None:
        return _diffusers(source, data, images, prediction, device)
    return _run(source, values, data, images, weights, prediction, device)


def _run_config(folder: Path) -> Mapping[str, Any] | None:
    """The options of a run; None if the folder is no run's."""
    for file, inside in (("job.json", True), ("config.json", False)):
        if (folder / file).is_file():
            values = read_json(folder / file)
            values = values.get("config") if inside and isinstance(values, dict) else values
            # A model folder of diffusers has a config.json too.
            if isinstance(values, dict) and {"data", "model", "denoiser"} <= values.keys():
                return values
    return None


def _run(
    folder: Path,
    values: Mapping[str, Any],
    data: str | None,
    images: int,
    weights: Weights,
    prediction: str | None,
    device: torch.device,
) -> Source:
    # What concerns training is of no use here, and may be that of another version.
    known = {field.name for field in fields(DiffusionConfig)} - {"training", "measure", "lr_grid"}
    config = DiffusionConfig(**{name: value for name, value in values.items() if name in known})
    own = data is None or data == config.data
    recorded = read_json(folder / "data.json") if (folder / "data.json").is_file() else {}
    shape = recorded.get("shape") or [config.channels, None, config.size]
    try:
        dataset = load_images(
            config.data if data is None else data,
            size=config.size if own else shape[2],
            channels=config.channels if own else shape[0],
            limit=config.limit if own else None,
        )
    except (ValueError, OSError) as error:
        if data is not None:
            raise
        raise ValueError(f"the images that {folder} was trained on cannot be read ({error}); pass data=...") from error
    train, heldout = (
        (Subset(dataset, part.tolist()) for part in split(dataset, config.holdout, seed=0))
        if own
        else (Subset(dataset, range(len(dataset))),) * 2
    )
    if config.conditional and dataset.classes != recorded.get("classes", dataset.classes):
        raise ValueError(
            f"the model in {folder} is conditioned on {recorded['classes']} classes, and {data} has "
            f"{dataset.classes or 'none'}; pass data with the same classes"
        )
    task = build_task(config, Data(dataset, train, heldout), device)
    file = _weights(folder, weights)
    try:
        task.model.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"the weights in {file} are not those of {config.model} ({error})") from error
    model = task.model.to(device).eval()
    denoiser = task.denoiser(model)
    table = getattr(denoiser, "alphas_cumprod", None)
    steps = (values.get("measure") or {}).get("sampler_steps", 12)
    return Source(
        denoiser=denoiser if prediction is None else read_as(prediction, model, table),
        network=model,
        name=f"{config.model}, {weights} weights",
        heldout=take(heldout, images, device),
        data=take(train, _IMAGES, device),
        seen=False,
        alphas_cumprod=table,
        conditional=config.conditional,
        sampler_steps=int(steps),
    )


def _weights(folder: Path, weights: Weights) -> Path:
    """The file of a run's weights: of its end, or of its newest checkpoint."""
    name = {"average": "ema.safetensors", "final": "model.safetensors"}[weights]
    newest = sorted((folder / "checkpoints").glob(f"step-*/{name}"))[-1:]
    for file in [folder / "snapshots" / "final" / name, *newest]:
        if file.is_file():
            return file
    raise ValueError(f"{folder} holds no {name}, neither of its end nor in a checkpoint; has the run come that far?")


def _diffusers(folder: Path, data: str | None, images: int, prediction: str | None, device: torch.device) -> Source:
    model, scheduler = load_model(folder)
    if data is None:
        raise ValueError(f"{folder} does not say what it was trained on; pass images, as data=...")
    config: Any = model.config
    channels, size = config.in_channels, config.sample_size
    if channels not in (1, 3):
        raise ValueError(
            f"the network in {folder} takes {channels} channels: latents of an autoencoder, it seems; only networks on "
            "pixels (1 or 3 channels) can be inspected"
        )
    dataset = load_images(data, size=size if isinstance(size, int) or size is None else size[0], channels=channels)
    classes = _classes(config)
    if classes is not None and dataset.classes != classes:
        raise ValueError(
            f"the network in {folder} is conditioned on {classes} classes, and {data} has "
            f"{dataset.classes or 'none'}; pass data with the same classes"
        )
    model = model.to(device).eval()
    table = getattr(scheduler, "alphas_cumprod", None)
    denoiser: Denoiser | None = None
    if prediction is not None:
        denoiser = read_as(prediction, model, table)
    elif scheduler is not None and "FlowMatch" in type(scheduler).__name__:
        denoiser = FlowDenoiser(model)
    elif scheduler is not None:
        denoiser = DDPMDenoiser.from_scheduler(model, scheduler)
    subset = Subset(dataset, range(len(dataset)))
    return Source(
        denoiser=denoiser,
        network=model,
        name=type(model).__name__,
        heldout=take(subset, images, device),
        data=take(subset, _IMAGES, device),
        seen=True,
        alphas_cumprod=table,
        conditional=classes is not None,
        sampler_steps=12,
    )


def _classes(config: Any) -> int | None:
    """How many classes a diffusers network is conditioned on; a DiT's single class is no class."""
    count = getattr(config, "num_class_embeds", None) or getattr(config, "num_embeds_ada_norm", None)
    return None if count in (None, 1) else int(count)
