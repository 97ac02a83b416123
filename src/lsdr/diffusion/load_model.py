"""Read a network, and its scheduler where there is one, from a diffusers folder on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from lsdr.runs import read_json

_PARTS = ("unet", "transformer")


def load_model(
    folder: str | Path, *, channels: int | None = None, size: int | None = None, classes: int | None = None
) -> tuple[nn.Module, Any]:
    """Read a UNet2DModel or a DiTTransformer2DModel as diffusers saves it.

    The folder is a model's (config.json and weights) or a pipeline's (model_index.json, unet/ or transformer/, and
    scheduler/). Nothing is downloaded, nothing is unpickled: weights must be safetensors, and every weight of the
    network must be there, none too many. Given channels and size, the network is checked to suit the data.

    Args:
        folder: The folder.
        channels: Channels of the images it must take; None: not checked, nor are size and classes.
        size: Height and width of the images.
        classes: Number of classes, or None for an unconditional network.

    Returns:
        The network in float32 and training mode, and the diffusers scheduler or None.

    Raises:
        ValueError: If the folder is none of these, weights are missing, unreadable or of another network, or the
            network does not suit the data. The message names the file.

    Example:
        >>> import tempfile
        >>> from lsdr.diffusion.models import build_model
        >>> folder = tempfile.mkdtemp()
        >>> build_model("unet-tiny", channels=3, size=8).save_pretrained(folder)
        >>> model, scheduler = load_model(folder)
        >>> scheduler is None
        True
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; give a diffusers model or pipeline folder")
    part = _model_folder(folder)
    config = _read_config(part / "config.json")
    model = _read_network(part, config)
    if channels is not None:
        _check_suits(part, config, channels, size, classes)
    return without_label_dropout(model).train(), _load_scheduler(folder)


def without_label_dropout(model: nn.Module) -> nn.Module:
    """Switch off the label dropout of a diffusers DiT, in place.

    diffusers drops 10 % of the labels in training, drawn independently in every block, so that a network of 12 blocks
    almost never sees the whole of "no label"; a forward pass is random and two of them on the same input differ, which
    spoils paired comparisons and finite differences. The rate is not saved in the folder, so it is set on loading too.
    """
    for module in model.modules():
        if hasattr(module, "dropout_prob") and hasattr(module, "embedding_table"):
            module.dropout_prob = 0.0  # type: ignore[assignment]
    return model


def _model_folder(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} holds neither config.json (a model) nor model_index.json (a pipeline) of diffusers")
    for part in _PARTS:
        if (folder / part / "config.json").is_file():
            return folder / part
    raise ValueError(f"the pipeline {folder} has no unet/config.json and no transformer/config.json")


def _read_config(file: Path) -> Mapping[str, Any]:
    config = read_json(file)
    if not isinstance(config, dict):
        raise ValueError(f"{file} is not the config.json of a diffusers model: expected an object")
    return config


def _network_class(part: Path, config: Mapping[str, Any]) -> Any:
    from diffusers import DiTTransformer2DModel, UNet2DModel

    name = config.get("_class_name")
    if name == "UNet2DModel":
        return UNet2DModel
    # The published DiT-XL/2 was saved under the name of its former class.
    if name == "DiTTransformer2DModel" or (name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero"):
        return DiTTransformer2DModel
    raise ValueError(f"{part / 'config.json'} is of class {name!r}; expected UNet2DModel or DiTTransformer2DModel")


def _read_network(part: Path, config: Mapping[str, Any]) -> nn.Module:
    kind = _network_class(part, config)
    if not any(part.glob("*.safetensors")):
        pickled = sorted(file.name for file in part.glob("*.bin"))
        advice = f": {pickled[0]} is a pickle and is not read, save it as safetensors" if pickled else ""
        raise ValueError(f"{part} holds no weights (*.safetensors){advice}")
    try:
        model, found = kind.from_pretrained(
            part,
            local_files_only=True,
            use_safetensors=True,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,  # with it, weights that are missing stay on the meta device and fail much later
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ValueError(
            f"the weights in {part} cannot be read as a {kind.__name__} (truncated, or of another network?): {error}"
        ) from error
    # diffusers only warns of these, and trains on with random weights in their place
    missing, unknown = list(found["missing_keys"]), list(found["unexpected_keys"])
    if missing or unknown:
        raise ValueError(
            f"the weights in {part} are not those of its config.json: {len(missing)} missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}"
        )
    return model  # type: ignore[no-any-return]


def _check_suits(part: Path, config: Mapping[str, Any], channels: int, size: int | None, classes: int | None) -> None:
    wanted = config.get("in_channels")
    if wanted != channels:
        raise ValueError(f"the network in {part} takes {wanted} channels, the images have {channels}")
    given = config.get("out_channels") or wanted
    if given not in (channels, 2 * channels):
        raise ValueError(f"the network in {part} returns {given} channels for {channels}; expected as many, or twice")
    sides = config.get("sample_size")
    if size is not None and sides is not None and any(side != size for side in _pair(sides)):
        raise ValueError(f"the network in {part} is for size {sides}, the images have {size}; resize them to it")
    levels = len(config.get("block_out_channels") or [0])
    if size is not None and size % 2 ** (levels - 1):
        raise ValueError(f"the network in {part} needs a size that is a multiple of {2 ** (levels - 1)}, got {size}")
    dit = "block_out_channels" not in config
    trained = config.get("num_embeds_ada_norm") if dit else config.get("num_class_embeds")
    if trained != classes and not (dit and trained == 1 and classes is None):  # a DiT's single class is no class
        raise ValueError(
            f"the network in {part} has {trained or 'no'} classes, the data {classes or 'none'}; "
            "train conditionally with the same classes, or start from another network"
        )


def _pair(sides: int | list[int]) -> list[int]:
    return [sides, sides] if isinstance(sides, int) else list(sides)


def _load_scheduler(folder: Path) -> Any:
    """The scheduler of a pipeline folder; None where there is none."""
    part = folder / "scheduler"
    return read_scheduler(part) if (part / "scheduler_config.json").is_file() else None


def read_scheduler(part: Path) -> Any:
    """A scheduler of diffusers from its folder; its class is named in the file and comes from nowhere else.

    Raises:
        ValueError: If the file names no scheduler of diffusers.
    """
    import diffusers

    file = part / "scheduler_config.json"
    name = str(_read_config(file).get("_class_name"))
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise ValueError(f"{file} is of class {name!r}, which is no scheduler of diffusers")
    return kind.from_pretrained(part, local_files_only=True)  # type: ignore[attr-defined]
