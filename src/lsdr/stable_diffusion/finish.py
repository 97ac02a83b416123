"""What is left to do once a fine-tune has been trained: weights in every format, measures, the base compared."""

from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from lsdr import runs
from lsdr.diffusion.measures.learning_rate import median_step_seconds
from lsdr.inspection.inspect import inspect
from lsdr.stable_diffusion.build import adapt
from lsdr.stable_diffusion.config import StableDiffusionConfig
from lsdr.stable_diffusion.pipeline import Pipeline, load_pipeline
from lsdr.stable_diffusion.save import DIFFUSERS_LORA, component, save_full, save_lora, save_single_file
from lsdr.stable_diffusion.task import StableDiffusionTask
from lsdr.training.loop import Outcome
from lsdr.training.trained import load_trained_state


def finish(
    config: StableDiffusionConfig,
    pipeline: Pipeline,
    task: StableDiffusionTask,
    directory: Path,
    outcome: Outcome,
    device: torch.device,
) -> None:
    """Save the averaged weights, measure them, compare them with the base.

    A diverged run has measures of its training only.

    Args:
        config: What was trained.
        pipeline: Its pipeline.
        task: The task; its network makes room for the final one.
        directory: The run's folder.
        outcome: How training ended.
        device: Where to measure.
    """
    measures = _of_training(directory, outcome)
    final = directory / "snapshots" / "final"
    if final.exists():
        task.model.to("cpu")
        # Training has wrapped and hooked its model; what is saved and measured is a model as it was loaded.
        network = load_pipeline(config.model).network
        adapt(config, network)
        load_trained_state(network, load_file(final / "ema.safetensors"))
        network.requires_grad_(False).eval()
        saved = _save(config, pipeline, network, directory, outcome)  # before any measure may fail
        network.to(device)
        measures |= task.evaluate(network)
        base = runs.read_json(directory / "base.json") if (directory / "base.json").exists() else {}
        measures |= {f"base_{name}": value for name, value in base.items()}
        image = task.picture(network)
        if image is not None:
            with runs.atomic(directory / "samples" / "final.png") as path:
                image.save(path, format="png")
        if config.inspect:
            _inspect(config, pipeline, saved, directory)
    runs.write_json(directory / "measures.json", measures)


def _save(
    config: StableDiffusionConfig, pipeline: Pipeline, network: nn.Module, directory: Path, outcome: Outcome
) -> Path:
    """Write the weights in every format asked for; returns what there is to inspect."""
    if config.tune == "lora":
        words = {"lsdr_version": metadata.version("lsdr"), "lsdr_steps": outcome.step, "lsdr_base": config.model.name}
        save_lora(network, directory, pipeline.family, words | _schedule(config, pipeline))
        return directory / DIFFUSERS_LORA
    told = {"prediction": config.prediction, "zero_terminal_snr": config.zero_terminal_snr}
    folder = save_full(pipeline, network, directory / "pipeline", **told)  # type: ignore[arg-type]
    if config.single_file:
        save_single_file(pipeline, network, directory / "model.safetensors", **told)  # type: ignore[arg-type]
    return folder / component(pipeline.family)


def _schedule(config: StableDiffusionConfig, pipeline: Pipeline) -> dict[str, str]:
    """What a LoRA was trained to predict, in the words other tools keep it in: the file has no scheduler to say it.

    Source: the ModelSpec standard ("modelspec.prediction_type") and kohya's `train_network.py` (the others).
    """
    if pipeline.family not in ("sd", "sdxl"):
        return {}
    told = config.prediction or pipeline.scheduler.config.get("prediction_type", "epsilon").removesuffix("_prediction")
    zero = config.zero_terminal_snr or bool(pipeline.scheduler.config.get("rescale_betas_zero_snr"))
    return {
        "modelspec.prediction_type": told,
        "ss_v_parameterization": str(told == "v"),
        "ss_zero_terminal_snr": str(zero),
        "ss_noise_offset": str(config.offset_noise),
    }


def _inspect(config: StableDiffusionConfig, pipeline: Pipeline, saved: Path, directory: Path) -> None:
    """What the fine-tune did to each layer of the base."""
    base = config.model if config.tune == "lora" else config.model / component(pipeline.family)
    runs.write_json(directory / "inspection.json", inspect(saved, base=base).to_dict())


def _of_training(directory: Path, outcome: Outcome) -> dict[str, float | None]:
    records = runs.read_records(directory / "metrics.jsonl")
    measures: dict[str, float | None] = {"diverged": float(outcome.status != "finished")}
    if records:
        measures |= {
            "gradient_spikes": float(records[-1]["spikes"]),
            "step_seconds": median_step_seconds([record["step_seconds"] for record in records]),
            "memory_mb": records[-1]["memory_mb"],
        }
    return measures
