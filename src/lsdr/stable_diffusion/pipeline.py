"""Read a Stable Diffusion pipeline from a diffusers folder and see that its parts go together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from lsdr.diffusion.load_model import read_scheduler
from lsdr.stable_diffusion.parts import config_of, read_config, read_network, read_tokenizer

Family = Literal["sd", "sdxl", "sd3", "flux"]

# For each family: the text encoders' and tokenizers' folders and classes, in the order in which the network takes them.
_CLIP, _PROJECTED, _T5 = "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"
_TEXT: Mapping[Family, tuple[tuple[str, str, str], ...]] = {
    "sd": (("text_encoder", "tokenizer", _CLIP),),
    "sdxl": (("text_encoder", "tokenizer", _CLIP), ("text_encoder_2", "tokenizer_2", _PROJECTED)),
    "sd3": (
        ("text_encoder", "tokenizer", _PROJECTED),
        ("text_encoder_2", "tokenizer_2", _PROJECTED),
        ("text_encoder_3", "tokenizer_3", _T5),
    ),
    "flux": (("text_encoder", "tokenizer", _CLIP), ("text_encoder_2", "tokenizer_2", _T5)),
}
_TOKENIZERS = {_T5: ("T5Tokenizer", "T5TokenizerFast")}
_CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")


@dataclass(frozen=True, eq=False)
class Pipeline:
    """The parts of a text-to-image pipeline."""

    family: Family
    """sd (1.x and 2.x), sdxl, sd3 (3 and 3.5) or flux."""
    folder: Path
    """Where it was read from."""
    network: nn.Module
    """The UNet or transformer, float32, in training mode; the part that is fine-tuned."""
    vae: nn.Module
    """The autoencoder, float32, frozen, in evaluation mode."""
    text_encoders: tuple[nn.Module, ...]
    """Float32, frozen, in evaluation mode. SD3 has two where its folder comes without the T5."""
    tokenizers: tuple[Any, ...]
    """One for each text encoder."""
    scheduler: Any
    """The diffusers scheduler; of it only the table of noise levels and the kind of prediction are used."""


def load_pipeline(folder: str | Path) -> Pipeline:
    """Read a pipeline of Stable Diffusion 1.x, 2.x, XL, 3, 3.5 or Flux as diffusers saves it.

    The folder holds model_index.json, unet/ or transformer/, vae/, text_encoder/ and tokenizer/ (and their _2 and _3)
    and scheduler/. Nothing is downloaded and nothing is unpickled: weights must be safetensors, in full precision or
    as a variant (fp16, cast up), in one file or in shards, and every weight must be there. Classes are those of
    diffusers and transformers that these families have; code in the folder is never run.

    Args:
        folder: The folder.

    Returns:
        The pipeline on the CPU. Memory: 4 bytes a weight (SD 1.5: 4.3 GB, SDXL: 14 GB, Flux: 68 GB).

    Raises:
        ValueError: If a part is missing, unreadable, of an unknown class, or does not go with the others. The message
            names the folder or file and says what was expected.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; give a diffusers pipeline folder (model_index.json, unet/, vae/, ...)")
    if not (folder / "model_index.json").is_file():
        single = sorted(file.name for file in folder.glob("*.safetensors"))
        advice = (
            f"; {single[0]} alone is no pipeline folder, convert it with diffusers' from_single_file" if single else ""
        )
        raise ValueError(f"{folder} has no model_index.json and so is no pipeline folder of diffusers{advice}")
    index = read_config(folder / "model_index.json")
    family, part, kind = _network_kind(folder)
    import diffusers
    import transformers

    _check_class(folder, index, "vae", "diffusers", ("AutoencoderKL",))
    texts = _texts(folder, family, index)
    read_config(folder / "scheduler" / "scheduler_config.json")  # which says if it is missing
    scheduler = read_scheduler(folder / "scheduler")
    tokenizers = tuple(read_tokenizer(folder / name, getattr(transformers, known)) for _, name, _, known in texts)
    encoders = tuple(
        read_network(folder / name, getattr(transformers, known), extra_keys=True) for name, _, known, _ in texts
    )
    vae = read_network(folder / "vae", diffusers.AutoencoderKL)
    network = read_network(part, kind)
    for frozen in (vae, *encoders):
        frozen.requires_grad_(False).eval()
    pipeline = Pipeline(family, folder, network.train(), vae, encoders, tokenizers, scheduler)
    _check_latents(pipeline)
    _check_text(pipeline)
    return pipeline


def _network_kind(folder: Path) -> tuple[Family, Path, Any]:
    """The family, the network's folder and its class."""
    import diffusers

    part = next((folder / name for name in ("unet", "transformer") if (folder / name).is_dir()), None)
    if part is None:
        raise ValueError(f"the pipeline {folder} has no unet/ and no transformer/")
    config = read_config(part / "config.json")
    name = config.get("_class_name")
    if name == "SD3Transformer2DModel":
        return "sd3", part, diffusers.SD3Transformer2DModel
    if name == "FluxTransformer2DModel":
        return "flux", part, diffusers.FluxTransformer2DModel
    if name != "UNet2DConditionModel":
        raise ValueError(
            f"{part / 'config.json'} is of class {name!r}; expected UNet2DConditionModel (Stable Diffusion 1.x, 2.x, "
            "XL), SD3Transformer2DModel or FluxTransformer2DModel. For networks without text use lsdr train diffusion"
        )
    addition = config.get("addition_embed_type")
    other = [key for key in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type") if config.get(key)]
    if other or addition not in (None, "text_time"):
        raise ValueError(
            f"the UNet in {part} is conditioned on more than text ({', '.join(other) or addition}: an upscaler, "
            "unCLIP or adapter?); only the text-to-image UNets of Stable Diffusion 1.x, 2.x and XL can be trained"
        )
    return ("sd" if addition is None else "sdxl"), part, diffusers.UNet2DConditionModel


def _texts(folder: Path, family: Family, index: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Folder of the text encoder, of the tokenizer, class of the text encoder, of the tokenizer."""
    found = []
    for encoder, tokenizer, kind in _TEXT[family]:
        if encoder == "text_encoder_3" and (index.get(encoder) or [None])[0] is None:
            continue  # SD3 without its T5: diffusers, too, takes zeros in its place
        if family == "sdxl" and (index.get(encoder) or [None])[0] is None:
            raise ValueError(f"{folder} has no {encoder}: is it the SDXL refiner? Train the base model instead")
        _check_class(folder, index, encoder, "transformers", (kind,))
        known = _TOKENIZERS.get(kind, _CLIP_TOKENIZERS)
        found.append((encoder, tokenizer, kind, _check_class(folder, index, tokenizer, "transformers", known)))
    return found


def _check_class(folder: Path, index: Mapping[str, Any], part: str, library: str, known: tuple[str, ...]) -> str:
    entry = index.get(part)
    if not isinstance(entry, list) or len(entry) != 2:
        raise ValueError(f"{folder / 'model_index.json'} names no {part}; expected {library}'s {known[0]}")
    if entry[0] != library or entry[1] not in known:
        raise ValueError(
            f"{folder / 'model_index.json'}: {part} is {entry[0]}'s {entry[1]}; expected {library}'s "
            f"{' or '.join(known)}. Other classes, and code in the folder, are not loaded"
        )
    return str(entry[1])


def _check_latents(pipeline: Pipeline) -> None:
    network, folder = config_of(pipeline.network), pipeline.folder
    latents = config_of(pipeline.vae).latent_channels
    packing = 4 if pipeline.family == "flux" else 1  # Flux takes squares of 2 x 2 latents as one token
    wanted, taken = packing * latents, network.in_channels
    if pipeline.family in ("sd", "sdxl") and taken == 2 * latents + 1:
        raise ValueError(
            f"the UNet in {folder} takes {taken} channels: it is an inpainting UNet (latents, mask and masked "
            f"latents), which cannot be trained on whole images; use the text-to-image model, which takes {wanted}"
        )
    if taken != wanted:
        raise ValueError(
            f"the network in {folder} takes {taken} channels and its VAE makes latents of {latents}"
            f"{' (4 times as many once packed)' if packing > 1 else ''}: expected {wanted}. The VAE is of another "
            "model, or the network takes a picture beside the latents (inpainting, depth, control), which is not "
            "trained here"
        )
    given = getattr(network, "out_channels", None) or taken
    if given not in (wanted, 2 * wanted):
        raise ValueError(
            f"the network in {folder} returns {given} channels for latents of {latents}; expected {wanted}"
        )


def _check_text(pipeline: Pipeline) -> None:
    """That the text encoders' widths are what the network takes, and that no token is out of their vocabulary."""
    network, folder = config_of(pipeline.network), pipeline.folder
    encoders = [config_of(encoder) for encoder in pipeline.text_encoders]
    for (name, *_), encoder, tokenizer in zip(_TEXT[pipeline.family], encoders, pipeline.tokenizers, strict=False):
        if len(tokenizer) > encoder.vocab_size:
            raise ValueError(
                f"{folder}: the tokenizer of {name} has {len(tokenizer)} tokens and the encoder knows "
                f"{encoder.vocab_size}; take both from the same model"
            )
    widths = [encoder.hidden_size for encoder in encoders]
    if pipeline.family == "sd":
        _agree(folder, "text encoder", sum(widths), "the UNet's cross_attention_dim", network.cross_attention_dim)
    if pipeline.family == "sdxl":
        _agree(folder, "two text encoders", sum(widths), "the UNet's cross_attention_dim", network.cross_attention_dim)
        extra = encoders[1].projection_dim + 6 * network.addition_time_embed_dim
        taken = network.projection_class_embeddings_input_dim
        what = "pooled text with six sizes"
        _agree(folder, what, extra, "the UNet's projection_class_embeddings_input_dim", taken)
    if pipeline.family == "sd3":
        if len(widths) == 3:
            _agree(folder, "T5", widths[2], "the transformer's joint_attention_dim", network.joint_attention_dim)
        if widths[0] + widths[1] > network.joint_attention_dim:
            _agree(folder, "two CLIPs", sum(widths[:2]), "joint_attention_dim or less", network.joint_attention_dim)
        pooled = sum(encoder.projection_dim for encoder in encoders[:2])
        _agree(folder, "pooled text", pooled, "the transformer's pooled_projection_dim", network.pooled_projection_dim)
    if pipeline.family == "flux":
        _agree(folder, "T5", widths[1], "the transformer's joint_attention_dim", network.joint_attention_dim)
        _agree(folder, "CLIP", widths[0], "the transformer's pooled_projection_dim", network.pooled_projection_dim)


def _agree(folder: Path, text: str, width: int, what: str, wanted: Any) -> None:
    if width != wanted:
        raise ValueError(
            f"{folder}: the {text} gives vectors of {width} and {what} is {wanted}; text encoder and network are of "
            "different models"
        )
