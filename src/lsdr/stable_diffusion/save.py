"""What a fine-tune leaves: LoRA files, a pipeline folder, or one checkpoint file, as other tools load them."""

import inspect
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lsdr import runs
from lsdr.layers.tuners import is_adapted
from lsdr.stable_diffusion.kohya_keys import kohya_metadata, kohya_state
from lsdr.stable_diffusion.ldm_keys import ldm_clip, ldm_open_clip, ldm_unet, ldm_vae
from lsdr.stable_diffusion.lora import Factors, factors_of, lora_state
from lsdr.stable_diffusion.pipeline import Family, Pipeline

DIFFUSERS_LORA = "pytorch_lora_weights.safetensors"
KOHYA_LORA = "lora_kohya.safetensors"

Prediction = Literal["epsilon", "v", "sample"]
_PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample"}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5", ".onnx", ".onnx_data")


def save_lora(
    network: nn.Module, folder: Path, family: Family, metadata: Mapping[str, Any] | None = None
) -> list[Path]:
    r"""Write a network's LoRA twice: as diffusers loads it, and as ComfyUI and AUTOMATIC1111 do.

    - pytorch_lora_weights.safetensors: "unet.<layer>.lora_A.weight" ("transformer." for Stable Diffusion 3 and Flux)
      with rank and alpha in its metadata, for `pipe.load_lora_weights(folder)`. Tools that do not read them (diffusers
      before 0.35) take the scale alpha / rank as 1: give them the other file where alpha is not the rank.
    - lora_kohya.safetensors: see `kohya_state`. Diffusers loads it too, but for Stable Diffusion 3. It is left out,
      with a warning, where a layer has no counterpart in that layout.

    Both hold float32 and appear whole or not at all.

    Args:
        network: A network after `add_lora`.
        folder: Where; made if it is not there.
        family: What the network is.
        metadata: Words to keep in both files' headers, written as strings.

    Returns:
        The files written.

    Raises:
        ValueError: If the network has no LoRA, or layers with different ranks or alphas.

    Example:
        >>> from diffusers import UNet2DConditionModel
        >>> from lsdr.stable_diffusion.lora import add_lora
        >>> network = UNet2DConditionModel(
        ...     block_out_channels=(8,), norm_num_groups=4, cross_attention_dim=8, layers_per_block=1,
        ...     down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        ... )
        >>> layers = add_lora(network, rank=2, targets=["mid_block*attn2.to_v"])
        >>> files = save_lora(network, Path(tempfile.mkdtemp()), "sd")
        >>> [file.name for file in files]
        ['pytorch_lora_weights.safetensors', 'lora_kohya.safetensors']
        >>> from safetensors import safe_open
        >>> print(*sorted(safe_open(files[1], "pt").keys()), sep="\n")
        lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v.alpha
        lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v.lora_down.weight
        lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v.lora_up.weight
    """
    folder = Path(folder)
    factors = factors_of(network)
    kinds = sorted({(each.rank, each.alpha) for each in factors.values()})
    if len(kinds) > 1:
        raise ValueError(f"layers have different (rank, alpha): {kinds[:4]}; these formats are written for one of each")
    words = {"format": "pt", **{key: str(value) for key, value in (metadata or {}).items()}}
    part = component(family)
    state = {f"{part}.{name}": tensor for name, tensor in lora_state(network).items()}
    settings = {"lora_adapter_metadata": _settings(part, factors)}
    written = [_write(folder / DIFFUSERS_LORA, state, words | settings)]
    try:
        kohya = kohya_state(network, family, factors)
    except ValueError as error:
        (folder / KOHYA_LORA).unlink(missing_ok=True)  # one of an earlier state would be taken for this one
        warnings.warn(f"{KOHYA_LORA} is not written: {error}", stacklevel=2)
        return written
    return [*written, _write(folder / KOHYA_LORA, kohya, words | kohya_metadata(network, family, factors))]


def save_full(
    pipeline: Pipeline,
    network: nn.Module,
    folder: Path,
    *,
    prediction: Prediction | None = None,
    zero_terminal_snr: bool = False,
) -> Path:
    """Write the whole pipeline with another network, in diffusers' folder layout.

    All else is copied from the pipeline's folder as it is there, less pickles; parts whose weights lie there as a
    variant alone ("model.fp16.safetensors") are written from memory under their plain names. The folder appears whole
    or not at all, and replaces a pipeline that was there.

    Args:
        pipeline: What was fine-tuned.
        network: The trained network, without adapters.
        folder: Where.
        prediction: What the network was trained to predict, if not what the scheduler said: the scheduler has to know.
        zero_terminal_snr: Whether it was trained with zero terminal SNR; sampling then has to use the rescaled schedule
            and to start at its last step ("trailing"; Lin et al. 2024, sections 3.3 and 3.4).

    Returns:
        The folder.

    Raises:
        ValueError: If the network has adapters, or the folder holds something else.
    """
    _refuse_adapters(network)
    folder = Path(folder)
    if folder.exists() and not (folder / "model_index.json").is_file() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something else than a pipeline; give an empty or a new folder")
    source = Path(pipeline.folder)
    index = json.loads((source / "model_index.json").read_text(encoding="utf-8"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        scheduler = _scheduler(pipeline.scheduler, prediction, zero_terminal_snr)
        index["scheduler"] = ["diffusers", type(scheduler).__name__]
        parts: dict[str, Any] = {component(pipeline.family): network, "scheduler": scheduler}
        memory = {"vae": pipeline.vae}
        names = ("text_encoder", "text_encoder_2", "text_encoder_3")
        memory |= dict(zip(names, pipeline.text_encoders, strict=False))
        for name, value in index.items():
            if not isinstance(value, list) or value[:1] in ([None], []) or name in parts:
                continue
            if _is_plain(source / name):
                _copy(source / name, unfinished / name)
            elif name in memory:
                parts[name] = memory[name]
            else:  # not needed for pictures: a safety checker of which only a pickle or a variant is there
                index[name] = [None, None]
        for name, part in parts.items():
            part.save_pretrained(unfinished / name)
        runs.write_json(unfinished / "model_index.json", index)
        unfinished.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def save_single_file(
    pipeline: Pipeline,
    network: nn.Module,
    file: Path,
    *,
    dtype: torch.dtype = torch.float16,
    prediction: Prediction | None = None,
    zero_terminal_snr: bool = False,
) -> Path:
    """Write UNet, autoencoder and text encoders as one safetensors file with the original checkpoints' keys.

    "model.diffusion_model.", "first_stage_model." and "cond_stage_model." (1.x, 2.x) or "conditioner.embedders." (XL),
    as ComfyUI, AUTOMATIC1111 and diffusers' `from_single_file` load them. The file holds no schedule. For XL the marks
    "v_pred" and "ztsnr" are written that ComfyUI reads; otherwise set v-prediction there by hand.

    Args:
        pipeline: What was fine-tuned, of family "sd" or "sdxl".
        network: The trained network, without adapters.
        file: Where, ending in .safetensors.
        dtype: torch.float16, bfloat16 or float32. Values beyond float16's 65504 are refused, not made infinite.
        prediction: As in `save_full`.
        zero_terminal_snr: As in `save_full`.

    Returns:
        The file.

    Raises:
        ValueError: If there is no such layout for the family, the network has adapters, or values do not fit the type.
    """
    file = Path(file)
    if pipeline.family not in ("sd", "sdxl"):
        raise ValueError(
            f"there is no single-file layout with text encoders for {pipeline.family!r}; only for 'sd' and 'sdxl': use "
            "save_full, whose folder diffusers and ComfyUI's diffusers loader read"
        )
    if file.suffix != ".safetensors":
        raise ValueError(f"{file} should end in .safetensors")
    _refuse_adapters(network)
    parts = {
        "model.diffusion_model.": ldm_unet(network.state_dict()),
        "first_stage_model.": ldm_vae(pipeline.vae.state_dict()),
    }
    encoders: tuple[Any, ...] = pipeline.text_encoders
    if pipeline.family == "sdxl":
        parts["conditioner.embedders.0.transformer."] = ldm_clip(encoders[0].state_dict())
        parts["conditioner.embedders.1.model."] = ldm_open_clip(encoders[1].state_dict())
    elif encoders[0].config.hidden_act == "gelu":  # OpenCLIP, Stable Diffusion 2.x; OpenAI's has quick_gelu
        parts["cond_stage_model.model."] = ldm_open_clip(encoders[0].state_dict())
    else:
        parts["cond_stage_model.transformer."] = ldm_clip(encoders[0].state_dict())
    state = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}
    state = {name: _cast(name, tensor, dtype) for name, tensor in state.items()}
    told = _PREDICTIONS[prediction] if prediction else pipeline.scheduler.config.get("prediction_type")
    if pipeline.family == "sdxl" and told == "v_prediction":
        state["v_pred"] = torch.tensor([])
        if zero_terminal_snr or pipeline.scheduler.config.get("rescale_betas_zero_snr"):
            state["ztsnr"] = torch.tensor([])
    return _write(file, state, {"format": "pt"})


def component(family: Family) -> str:
    """The folder of a pipeline that holds its network, which also begins the names of a LoRA's tensors."""
    return "unet" if family in ("sd", "sdxl") else "transformer"


def _settings(component: str, factors: Mapping[str, Factors]) -> str:
    """What diffusers keeps of peft's configuration, less what only one version of peft knows."""
    first = next(iter(factors.values()))
    alpha = int(first.alpha) if first.alpha == int(first.alpha) else first.alpha
    settings = {"r": first.rank, "lora_alpha": alpha, "target_modules": list(factors)}
    return json.dumps({f"{component}.{key}": value for key, value in settings.items()}, sort_keys=True)


def _write(file: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> Path:
    with runs.atomic(file) as temporary:
        save_file(state, temporary, metadata=metadata)
    return file


def _refuse_adapters(network: nn.Module) -> None:
    if any(is_adapted(module) for module in network.modules()):
        raise ValueError("the network has adapters: save them with save_lora, or merge them into the weights first")


def _is_plain(folder: Path) -> bool:
    """Whether a part of a pipeline can be copied: it has no weights, or safetensors under their plain names."""
    weights = [path.name for path in folder.iterdir() if path.suffix in (".safetensors", *_PICKLES)]
    return not weights or any(
        (folder / name).is_file()
        for stem in ("model.safetensors", "diffusion_pytorch_model.safetensors")
        for name in (stem, f"{stem}.index.json")
    )


def _copy(source: Path, target: Path) -> None:
    def unwanted(_: str, names: list[str]) -> list[str]:
        return [name for name in names if name.endswith(_PICKLES) or ".fp16." in name]

    shutil.copytree(source, target, ignore=unwanted)


def _scheduler(scheduler: Any, prediction: Prediction | None, zero_terminal_snr: bool) -> Any:
    """The pipeline's scheduler, told what the network was trained for; DDIM in place of one that cannot do it."""
    changes: dict[str, Any] = {} if prediction is None else {"prediction_type": _PREDICTIONS[prediction]}
    if zero_terminal_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        if "rescale_betas_zero_snr" not in inspect.signature(type(scheduler).__init__).parameters:
            from diffusers import DDIMScheduler

            known = inspect.signature(DDIMScheduler.__init__).parameters
            told = {key: value for key, value in scheduler.config.items() if key in known}
            # Latents are not within [-1, 1].
            return DDIMScheduler(**told | {"clip_sample": False} | changes)
    return type(scheduler).from_config(scheduler.config, **changes) if changes else scheduler


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().to("cpu")
    if not tensor.is_floating_point():
        return tensor.contiguous()
    cast = tensor.to(dtype).contiguous()
    if bool((cast.isinf() & tensor.isfinite()).any()):
        raise ValueError(f"{name} has values of up to {tensor.abs().max():.3g}, beyond {dtype}: write float32")
    return cast
