"""From options to a task: pipeline, encoded data, network to train, denoiser, prompts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lsdr.data.buckets import fit_bucket
from lsdr.data.captions import load_captioned
from lsdr.data.decode import decode
from lsdr.data.problem import BadImageError
from lsdr.diffusion.weighting import WEIGHTINGS
from lsdr.monitor.overtraining import Overtraining
from lsdr.monitor.probe import Probe
from lsdr.probes.adapters import AdapterProbe
from lsdr.probes.attention import AttentionProbe
from lsdr.probes.tracked import TrackedWeightProbe
from lsdr.regularizers.adapter_normalization import AdapterNormalization
from lsdr.regularizers.regularizer import Regularizer
from lsdr.stable_diffusion.config import StableDiffusionConfig
from lsdr.stable_diffusion.encoded import EncodedDataset, encode_dataset, sizes_for
from lsdr.stable_diffusion.lora import add_lora
from lsdr.stable_diffusion.network import denoiser_of, network_conditioning
from lsdr.stable_diffusion.pipeline import Pipeline
from lsdr.stable_diffusion.task import StableDiffusionTask
from lsdr.stable_diffusion.text import encode_captions
from lsdr.stable_diffusion.validation import Prompts
from lsdr.training.order import stream_seed

_HELDOUT = 16
_BATCH = 4
_PICTURES = 8
_PROMPTS = 4


def encode(
    config: StableDiffusionConfig,
    pipeline: Pipeline,
    cache: Path,
    device: torch.device,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> EncodedDataset:
    """Encode the data on a device, or find it in the cache; afterwards VAE and text encoders are on the CPU again."""
    parts = [pipeline.vae, *(each for each in pipeline.text_encoders if each is not None)]
    try:
        for part in parts:
            part.to(device)
        return encode_dataset(
            pipeline,
            config.data,
            resolution=config.resolution,
            buckets=config.buckets,
            cache=cache,
            repeats=config.repeats,
            flip=config.flip,
            prior=config.prior,
            on_bad=config.on_bad,
            caption_column=config.caption_column,
            progress=progress,
        )
    finally:
        for part in parts:
            part.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()


def adapt(config: StableDiffusionConfig, network: nn.Module) -> None:
    """Make what is trained require a gradient: a LoRA with its seed's weights, or the whole network.

    Under a LoRA the frozen base is stored in bfloat16 where it is computed with in bfloat16: half the memory (of Flux
    24 GB instead of 48). What is trained is float32 always.
    """
    torch.manual_seed(stream_seed(config.training.seed, "initial weights"))
    if config.tune == "lora":
        add_lora(network, rank=config.rank, alpha=config.alpha, targets=config.targets or None)
        if config.training.precision == "bf16":
            for parameter in network.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(torch.bfloat16)
    else:
        network.requires_grad_(True)


def build_task(
    config: StableDiffusionConfig, pipeline: Pipeline, dataset: EncodedDataset, device: torch.device
) -> StableDiffusionTask:
    """Put together what is trained; the pipeline's network is adapted in place and moved to the device.

    Args:
        config: What to train and how.
        pipeline: A pipeline as it was loaded.
        dataset: Its encoded data, whole.
        device: Where to train.

    Returns:
        The task.

    Raises:
        ValueError: If the options do not fit the pipeline or the data.
    """
    train, heldout = dataset.split(config.holdout, seed=0)
    denoiser = denoiser_of(pipeline, prediction=config.prediction, zero_terminal_snr=config.zero_terminal_snr)
    denoiser(pipeline.network)  # so that options that do not fit its schedule are refused now
    adapt(config, pipeline.network)
    if config.gradient_checkpointing:
        _checkpoint_gradients(pipeline.network)
    pipeline.network.to(device)
    return StableDiffusionTask(
        model=pipeline.network,
        denoiser=denoiser,
        weight=WEIGHTINGS["uniform" if config.weighting == "default" else config.weighting],
        family=pipeline.family,
        dataset=train,
        names=train.name,
        largest=train.largest,
        channels=train.latent_channels,
        heldout=fixed_batches(train if heldout is None else heldout, device),
        unseen=heldout is not None,
        empty={name: value.to(device) for name, value in dataset.empty.items()},
        vae=pipeline.vae,
        prompts=_prompts(config, pipeline, dataset, device),
        offset_noise=config.offset_noise,
        caption_dropout=config.caption_dropout,
        prior_weight=config.prior_weight,
        shift=flow_shift(pipeline),
        watch=watch(config),
        warn=Overtraining(),
    )


def flow_shift(pipeline: Pipeline) -> float:
    """How far the scheduler shifts a flow's noise levels; 1 for others, and where it depends on the resolution."""
    config = pipeline.scheduler.config
    if pipeline.family not in ("sd3", "flux") or getattr(config, "use_dynamic_shifting", False):
        return 1.0
    return max(1.0, float(getattr(config, "shift", 1.0) or 1.0))


def watch(config: StableDiffusionConfig) -> Callable[[nn.Module], Mapping[str, Probe]]:
    """The probes of a run: the LoRA's changes or the weights, and attention."""
    first: tuple[str, Callable[[], Probe]] = (
        ("lora", AdapterProbe) if config.tune == "lora" else ("weights", TrackedWeightProbe)
    )
    return lambda model: {first[0]: first[1](), "attention": AttentionProbe()}


def constraints(config: StableDiffusionConfig) -> tuple[Regularizer, ...]:
    """The hard bound on the LoRA that the options ask for."""
    if not config.max_norm:
        return ()
    return (AdapterNormalization(bound=config.max_norm, norm=config.max_norm_kind),)


def fixed_batches(dataset: EncodedDataset, device: torch.device, count: int = _HELDOUT) -> list[dict[str, Tensor]]:
    """At most `count` pictures as batches of one shape, the same ones every time, on the device.

    They are drawn evenly from the data and not from its beginning, which may be sorted.
    """
    firsts: dict[str, int] = {}
    for index in range(len(dataset)):
        firsts.setdefault(dataset.name(index), index)
    known = list(firsts.values())
    chosen = {known[place * len(known) // min(count, len(known))] for place in range(min(count, len(known)))}
    batches = []
    for group in dataset.groups:
        members = [index for index in group if index in chosen]
        for first in range(0, len(members), _BATCH):
            batch = dataset.__getitems__(members[first : first + _BATCH])
            batches.append({name: value.to(device) for name, value in batch.items()})
    return batches


def pictures(config: StableDiffusionConfig, pipeline: Pipeline) -> list[Tensor]:
    """A few of the data's pictures as squares in [-1, 1], one a batch; those that cannot be read are left out."""
    (size,) = sizes_for(pipeline, config.resolution, False) if not config.buckets else [_square(config, pipeline)]
    images = load_captioned(config.data, caption_column=config.caption_column)
    found: list[Tensor] = []
    for place in range(len(images)):
        try:
            pixels, _ = fit_bucket(decode(images.read(place)), size)
        except BadImageError:
            continue
        found.append(torch.from_numpy(pixels).float()[None] / 127.5 - 1)
        if len(found) == _PICTURES:
            break
    return found


def _square(config: StableDiffusionConfig, pipeline: Pipeline) -> tuple[int, int]:
    """The bucket nearest to a square."""
    sizes = sizes_for(pipeline, config.resolution, True)
    return min(sizes, key=lambda size: (abs(size[0] - size[1]), -size[0]))


def _prompts(
    config: StableDiffusionConfig, pipeline: Pipeline, dataset: EncodedDataset, device: torch.device
) -> Prompts:
    """The validation prompts, or the first captions of the data, encoded."""
    texts = (
        config.validation_prompts
        or tuple(dict.fromkeys(dataset.caption(index) for index in range(len(dataset))))[:_PROMPTS]
    )
    embeddings = encode_captions(pipeline, list(texts))
    height, width = _square(config, pipeline) if config.buckets else (config.resolution, config.resolution)
    ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32, device=device)
    vae: Any = pipeline.vae
    down = 2 ** (len(vae.config.block_out_channels) - 1)

    # A distilled Flux takes the strength of guidance as an input, and is called once.
    distilled = bool(getattr(pipeline.network.config, "guidance_embeds", False))

    def conditioning(parts: Mapping[str, Tensor], count: int) -> dict[str, Any]:
        on_device = {name: parts[name].to(device) for name in dataset.empty}
        time_ids = ids.expand(count, -1) if pipeline.family == "sdxl" else None
        found: dict[str, Any] = network_conditioning(pipeline.family, on_device, time_ids)
        if distilled:
            found["guidance"] = torch.full((count,), config.validation_guidance, device=device)
        return found

    return Prompts(
        texts=tuple(texts),
        conditioning=conditioning(embeddings, len(texts)),
        unconditional=conditioning(dataset.empty, 1),
        shape=(dataset.latent_channels, height // down, width // down),
        guidance=1.0 if distilled else config.validation_guidance,
        steps=config.validation_steps,
        shift=flow_shift(pipeline),
    )


def _checkpoint_gradients(network: nn.Module) -> None:
    enable: Any = getattr(network, "enable_gradient_checkpointing", None)
    if enable is None or not getattr(network, "_supports_gradient_checkpointing", False):
        raise ValueError(
            f"{type(network).__name__} does not support gradient checkpointing; give --no-gradient-checkpointing"
        )
    enable()
