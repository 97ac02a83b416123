"""Read one part of a pipeline folder: a network with all of its weights, a tokenizer."""

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lsdr.runs import read_json

_UNREADABLE = (OSError, RuntimeError, ValueError, TypeError, KeyError, ImportError, AttributeError, SafetensorError)


def read_config(file: Path) -> Mapping[str, Any]:
    """A part's configuration.

    Raises:
        ValueError: If the file is missing or holds no JSON object.
    """
    if not file.is_file():
        raise ValueError(f"{file} is missing; give a whole pipeline folder as diffusers saves it")
    config = read_json(file)
    if not isinstance(config, dict):
        raise ValueError(f"{file} does not hold an object; expected what diffusers writes there")
    return config


def config_of(network: nn.Module) -> Any:
    """The configuration that a model of diffusers or transformers carries."""
    return network.config


def read_network(part: Path, kind: Any, *, extra_keys: bool = False) -> nn.Module:
    """A model of diffusers or transformers with the weights of its folder, in float32.

    Safetensors only, whole or in shards. Where there is no full-precision file, the one of a variant is taken
    (`model.fp16.safetensors`) and cast up.

    Args:
        part: The folder: config.json and weights.
        kind: The class.
        extra_keys: Whether the file may hold weights that the model has no place for.

    Returns:
        The model.

    Raises:
        ValueError: If weights are missing, pickled, truncated, or those of another network.
    """
    read_config(part / "config.json")
    variant = _variant(part)
    _check_readable(part)
    given: dict[str, Any] = {"low_cpu_mem_usage": False} if kind.__module__.startswith("diffusers.") else {}
    try:
        with _quiet():
            # without low_cpu_mem_usage=False diffusers leaves missing weights on the meta device: it fails much later
            model, found = kind.from_pretrained(
                part, local_files_only=True, use_safetensors=True, variant=variant, output_loading_info=True, **given
            )
    except _UNREADABLE as error:
        raise ValueError(
            f"the weights in {part} cannot be read as a {kind.__name__} (of another network than its config.json?): "
            f"{error}"
        ) from error
    # The libraries only warn of these, and go on with random weights in their place.
    missing, unknown = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    misshapen = [str(each) for each in found.get("mismatched_keys", ())]
    if missing or misshapen or (unknown and not extra_keys):
        raise ValueError(
            f"the weights in {part} are not those of its config.json: {len(missing)} missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}, {len(misshapen)} of another shape {misshapen[:3]}; "
            "copy the whole folder again"
        )
    with _quiet():
        network: nn.Module = model.to(torch.float32)
    return network


def read_tokenizer(part: Path, kind: Any) -> Any:
    """A tokenizer of transformers.

    Raises:
        ValueError: If its files are missing or unreadable.
    """
    if not part.is_dir():
        raise ValueError(f"{part} is missing; give a whole pipeline folder as diffusers saves it")
    try:
        with _quiet():
            return kind.from_pretrained(part, local_files_only=True)
    except Exception as error:  # the Rust library beneath raises bare exceptions
        raise ValueError(f"{part} cannot be read as a {kind.__name__}: {error}") from error


def _variant(part: Path) -> str | None:
    """Which files to take: None for those without a variant in their name, which are full precision."""
    names = sorted(file.name for file in part.iterdir())
    found = set()
    for name in names:
        match = re.fullmatch(r"(?:diffusion_pytorch_model|model)(?:\.(\w+))?\.safetensors", name)
        match = match or re.fullmatch(r"(?:diffusion_pytorch_model|model)\.safetensors\.index(?:\.(\w+))?\.json", name)
        if match:
            found.add(match.group(1))
    if not found:
        pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5"))]
        advice = f": {pickled[0]} may be a pickle and is not read, save it as safetensors" if pickled else ""
        raise ValueError(f"{part} holds no weights (*.safetensors){advice}")
    for variant in (None, "fp16", "bf16"):
        if variant in found:
            return variant
    raise ValueError(f"{part} holds weights of the variants {sorted(map(str, found))}; expected none, fp16 or bf16")


def _check_readable(part: Path) -> None:
    """A file cut short is named before anything is built of it."""
    for file in sorted(part.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file} is no whole safetensors file (truncated?): {error}; copy it again") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and reports of diffusers and transformers: what they say is checked and raised here."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    levels = of_diffusers.get_verbosity(), of_transformers.get_verbosity()
    bars = of_transformers.is_progress_bar_enabled()
    of_diffusers.set_verbosity(logging.CRITICAL)
    of_transformers.set_verbosity(logging.CRITICAL)
    of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        of_diffusers.set_verbosity(levels[0])
        of_transformers.set_verbosity(levels[1])
        if bars:
            of_transformers.enable_progress_bar()
