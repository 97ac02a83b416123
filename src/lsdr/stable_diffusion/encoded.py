"""Encode captioned images once: latents and embeddings go to a cache on disk that notices every change."""

import functools
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from lsdr.data.buckets import bucket_sizes, fit_bucket, nearest_bucket
from lsdr.data.captions import CaptionedImages, load_captioned
from lsdr.data.decode import decode
from lsdr.data.problem import HARMLESS, BadImageError, Problems
from lsdr.runs import read_json
from lsdr.stable_diffusion.cache import module_digest, part_key, read_part, tokenizer_digest, write_part
from lsdr.stable_diffusion.encoded_dataset import EncodedDataset, Example
from lsdr.stable_diffusion.latents import encode_pixels
from lsdr.stable_diffusion.parts import config_of
from lsdr.stable_diffusion.pipeline import Pipeline
from lsdr.stable_diffusion.text import encode_captions, lost_tokens

__all__ = ["EncodedDataset", "Example", "encode_dataset", "sizes_for"]

Progress = Callable[[Sequence[int]], Iterable[int]]
_LARGEST_STEP = 64


def encode_dataset(
    pipeline: Pipeline,
    source: str | Path,
    *,
    resolution: int,
    buckets: bool,
    cache: Path,
    repeats: int = 1,
    flip: bool = False,
    prior: str | Path | None = None,
    on_bad: Literal["skip", "refuse"] = "skip",
    caption_column: str | None = None,
    progress: Progress = iter,
) -> EncodedDataset:
    """Encode captioned images with a pipeline's VAE and text encoders, or find them encoded in the cache.

    Every image is scaled until it just covers the nearest of `sizes_for`, its centre is cut out and its posterior
    (mean and standard deviation, so that training can draw from it) kept; images are never enlarged. The cache holds
    one file for each image (two with `flip`) and one for each caption. A file's name is a digest of all that decides
    its content - the image's bytes, the sizes it may be cut to, the VAE's weights and configuration; the caption, the
    text encoders' weights and configurations and the tokenizers - and it holds a checksum: after a change of any of
    them only what changed is encoded; a damaged or cut file is made again; after a kill it goes on where it was.
    Images are encoded one at a time, so that the result does not depend on which others are beside them.

    Cost, where nothing is cached: one pass of the VAE's encoder an image and of the text encoders a caption; otherwise
    reading and hashing. Disk, in float32: latents 8 c h w / 64 bytes (Stable Diffusion 1.5 at 512: 131 kB; SD3 at
    1024: 2 MB), a caption 236 kB in Stable Diffusion 1.5, some 5 MB where there is a T5 encoder.

    Args:
        pipeline: Whose VAE and text encoders to use, on the device on which they are.
        source: As `lsdr.data.captions.load_captioned` takes it.
        resolution: Images are scaled to an area of at most resolution x resolution pixels.
        buckets: Keep to the images' aspect ratios, else cut squares.
        cache: The folder of the cache; several data sets and runs may share one.
        repeats: How often an epoch sees each image.
        flip: Have every image mirrored too, as an example of its own.
        prior: Captioned images of the class as the base model sees it; they are not repeated.
        on_bad: Images that cannot be used and images with no or an empty caption: ``"skip"`` leaves them out and
            counts them; ``"refuse"`` looks at all of them before anything is encoded and raises if there are any. A
            caption that is longer than the text encoders read is used, and counted as ``long_caption``.
        caption_column: As `load_captioned` takes it, for both sources.
        progress: Wraps the sequence of images' numbers, to show how far it is.

    Returns:
        The data set.

    Raises:
        ValueError: If a source cannot be used, more than half of one is bad, nothing is left to train on, bad ones are
            refused, or the VAE or a text encoder gives NaN.
        OSError: If the cache cannot be written.
    """
    if on_bad not in ("skip", "refuse"):
        raise ValueError(f'on_bad={on_bad!r} must be "skip" or "refuse"')
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    encoder = _Encoder(pipeline, sizes_for(pipeline, resolution, buckets), cache, flip)
    sources = [load_captioned(source, caption_column=caption_column)]
    if prior is not None:
        sources.append(load_captioned(prior, caption_column=caption_column))
    everything = [(images, index) for images in sources for index in range(len(images))]
    problems = Problems()
    for images in sources:
        problems.listed += images.problems.listed
        for kind, count in images.problems.counts.items():
            problems.counts[kind] = problems.counts.get(kind, 0) + count
    if on_bad == "refuse":
        _refuse(everything, encoder, problems)
    examples: list[Example] = []
    rows: list[int] = []
    used = dict.fromkeys(sources, 0)
    for number in progress(range(len(everything))):
        images, index = everything[number]
        try:
            made = encoder.examples(images, index, is_prior=images is not sources[0])
        except BadImageError as error:
            problems.add(error.kind, images.name(index), error.message)
            continue
        lost = encoder.lost_tokens(made[0].caption)
        if lost:
            problems.add("long_caption", images.name(index), f"the last {lost} tokens of its caption are cut off")
        used[images] += 1
        for _ in range(repeats if images is sources[0] else 1):
            rows.extend(range(len(examples), len(examples) + len(made)))
        examples.extend(made)
    for images in sources:
        # What is left would not be what the user meant to train on.
        if 2 * used[images] < len(images) or not used[images]:
            raise ValueError(
                f"only {used[images]} of the {len(images)} images of {images.title} can be used ({_listed(problems)}); "
                f"every image needs a caption: a .txt beside it or a row in metadata.jsonl"
            )
    return EncodedDataset(examples, rows, cache, encoder.empty(), problems)


def sizes_for(pipeline: Pipeline, resolution: int, buckets: bool) -> list[tuple[int, int]]:
    """The sizes of image that a pipeline is trained on at a resolution.

    Their sides are multiples of a step: the smallest that the VAE and the network can halve as often as they do (64
    for Stable Diffusion 1.x, 32 for SDXL, 16 for SD3 and Flux), or with buckets a multiple of it of about an eighth
    of the resolution, at most 64.

    Args:
        pipeline: The pipeline.
        resolution: Pixels.
        buckets: Several aspect ratios, up to 2:1, else one square.

    Returns:
        (height, width) of each, pixels.

    Raises:
        ValueError: If the network cannot be trained at this resolution.
    """
    least = 2 ** (len(config_of(pipeline.vae).block_out_channels) - 1) * _network_step(pipeline)
    if resolution < least or (not buckets and resolution % least):
        nearest = max(least, round(resolution / least) * least)
        raise ValueError(
            f"resolution={resolution}: this network takes multiples of {least} pixels; choose resolution={nearest}"
        )
    if not buckets:
        return [(resolution, resolution)]
    return bucket_sizes(resolution, least * max(1, min(_LARGEST_STEP, resolution // 8) // least))


class _Encoder:
    """One pipeline's VAE and text encoders over one cache."""

    def __init__(self, pipeline: Pipeline, sizes: list[tuple[int, int]], cache: Path, flip: bool) -> None:
        self._pipeline, self._sizes, self._cache = pipeline, sizes, cache
        self._sides = (False, True) if flip else (False,)
        self._vae = module_digest(pipeline.vae)
        self._text = part_key(
            pipeline.family,
            *(module_digest(each) for each in pipeline.text_encoders),
            *(tokenizer_digest(each) for each in pipeline.tokenizers),
            # By these the network decides how long and how wide its embeddings are.
            *(
                str(getattr(config_of(pipeline.network), name, ""))
                for name in ("guidance_embeds", "joint_attention_dim")
            ),
        )
        # Captions repeat; what was found good or written once is not read again.
        self._known_text = functools.cache(self._encode_text)

    def check(self, images: CaptionedImages, index: int) -> None:
        """Raise a BadImageError if the image or its caption cannot be used."""
        _caption(images, index)
        raw = images.read(index)
        if any(read_part(self._cache, self._latents_key(raw, mirrored)) is None for mirrored in self._sides):
            self._pixels(raw)

    def examples(self, images: CaptionedImages, index: int, *, is_prior: bool) -> list[Example]:
        """Encode an image and its caption; raise a BadImageError if they cannot be used."""
        caption = _caption(images, index)
        raw = images.read(index)
        made = []
        for mirrored in self._sides:
            key = self._latents_key(raw, mirrored)
            found = read_part(self._cache, key)
            tensors, notes = self._encode_image(raw, mirrored, key, images.name(index)) if found is None else found
            channels, height, width = tensors["mean"].shape
            made.append(
                Example(
                    name=images.name(index),
                    caption=caption,
                    image=part_key(raw),
                    latents=key,
                    text=self._known_text(caption),
                    shape=(channels, height, width),
                    time_ids=tuple(notes["time_ids"]) if self._pipeline.family == "sdxl" else (),
                    mirrored=mirrored,
                    prior=is_prior,
                )
            )
        return made

    def lost_tokens(self, caption: str) -> int:
        """How many tokens of a caption no text encoder reads."""
        return lost_tokens(self._pipeline, [caption])[0]

    def empty(self) -> dict[str, Tensor]:
        """Embeddings of the empty caption, one row each; zeros where the pipeline's guidance uses zeros."""
        found = read_part(self._cache, self._known_text(""))
        assert found is not None  # written or checked the moment before
        zeros = self._pipeline.family == "sdxl" and _forces_zeros(Path(self._pipeline.folder))
        return {name: (tensor * 0 if zeros else tensor)[None] for name, tensor in found[0].items()}

    def _latents_key(self, raw: bytes, mirrored: bool) -> str:
        # The list of sizes, and not the one taken: a cached image need not be decoded.
        return part_key("latents", raw, self._vae, json.dumps(self._sizes), str(mirrored))

    def _pixels(self, raw: bytes) -> tuple[UInt8[NDArray[np.uint8], "3 h w"], tuple[int, int], tuple[int, int]]:
        """The cut image, the original's (height, width) and the corner of the cut."""
        # In full size: a JPEG decoded at a fraction of it would not tell how large the original is.
        image = decode(raw)
        pixels, corner = fit_bucket(image, nearest_bucket(image.height, image.width, self._sizes))
        return pixels, (image.height, image.width), corner

    def _encode_image(
        self, raw: bytes, mirrored: bool, key: str, name: str
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        pixels, original, (top, left) = self._pixels(raw)
        height, width = pixels.shape[1:]
        if mirrored:
            # The corner stays: a centre is as far from one edge as from the other.
            pixels = pixels[:, :, ::-1].copy()
        scaled = torch.from_numpy(pixels)[None].to(next(self._pipeline.vae.parameters()).device) / 127.5 - 1
        mean, std = encode_pixels(self._pipeline.vae, scaled)
        tensors = {"mean": mean[0].float(), "std": std[0].float()}
        _check_finite(tensors, f"the VAE gives NaN or infinity for {name}", "use a VAE whose weights are intact")
        notes = {"time_ids": [*original, top, left, height, width], "name": name}
        write_part(self._cache, key, tensors, notes)
        return tensors, notes

    def _encode_text(self, caption: str) -> str:
        """Encode a caption unless the cache has it; its key."""
        key = part_key("text", caption, self._text)
        if read_part(self._cache, key) is None:
            with warnings.catch_warnings():
                # A caption that is cut off is counted among the problems.
                warnings.filterwarnings("ignore", "1 of 1 captions are longer")
                embeddings = encode_captions(self._pipeline, [caption])
            tensors = {name: tensor[0].float() for name, tensor in embeddings.items()}
            _check_finite(
                tensors,
                f"the text encoders give NaN or infinity for the caption {caption!r:.80}",
                "use text encoders whose weights are intact",
            )
            write_part(self._cache, key, tensors, {"caption": caption})
        return key


def _caption(images: CaptionedImages, index: int) -> str:
    caption = images.caption(index)
    if caption is None:
        raise BadImageError("no_caption", "there is no caption for it")
    if not caption:
        raise BadImageError("empty_caption", "its caption is empty")
    return caption


def _refuse(everything: Sequence[tuple[CaptionedImages, int]], encoder: _Encoder, problems: Problems) -> None:
    """Look at everything before anything is encoded; raise if something cannot be used."""
    for images, index in everything:
        try:
            encoder.check(images, index)
        except BadImageError as error:
            problems.add(error.kind, images.name(index), error.message)
    if any(kind not in HARMLESS for kind in problems.counts):
        raise ValueError(
            f"the data holds what cannot be used ({_listed(problems)}); repair or remove it, or leave it out with "
            f'on_bad="skip" (--on-bad skip)'
        )


def _check_finite(tensors: dict[str, Tensor], what: str, advice: str) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError(f"{what}; {advice}")


def _network_step(pipeline: Pipeline) -> int:
    """By what the sides of the latents must be divisible."""
    config = config_of(pipeline.network)
    # SD3 cuts latents into patches of 2 x 2, Flux packs as many into a token.
    return 2 if pipeline.family in ("sd3", "flux") else 2 ** (len(config.block_out_channels) - 1)


def _forces_zeros(folder: Path) -> bool:
    """Whether guidance takes zeros for the empty caption, as SDXL was trained to know it (diffusers' default)."""
    index = folder / "model_index.json"
    return bool(read_json(index).get("force_zeros_for_empty_prompt", True)) if index.exists() else True


def _listed(problems: Problems) -> str:
    return "; ".join(f"{each['count']} {each['kind']}: {', '.join(each['examples'])}" for each in problems.summary())
