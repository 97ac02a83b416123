"""One fine-tune: from a pipeline folder and captioned pictures to weights and what became of the base."""

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.progress import track

from lsdr import runs
from lsdr.data.grid import image_grid
from lsdr.regularizers.regularizer import Regularizer
from lsdr.stable_diffusion.build import build_task, constraints, encode, fixed_batches, pictures
from lsdr.stable_diffusion.config import StableDiffusionConfig
from lsdr.stable_diffusion.encoded import EncodedDataset
from lsdr.stable_diffusion.finish import finish
from lsdr.stable_diffusion.lr_range import lr_range
from lsdr.stable_diffusion.network_sanity import check_attention, check_network
from lsdr.stable_diffusion.pipeline import Pipeline, load_pipeline
from lsdr.stable_diffusion.sanity import (
    Check,
    SanityError,
    check_data,
    check_heldout,
    check_latents,
    check_vae,
    conclude,
)
from lsdr.stable_diffusion.task import StableDiffusionTask
from lsdr.training import checkpoint
from lsdr.training.exhausted import is_disk_full, is_out_of_memory, memory_advice
from lsdr.training.loop import Outcome, train
from lsdr.training.progress import training_bar
from lsdr.training.stepper import build_accelerator

_MARKS = {"ok": "ok     ", "warning": "WARNING", "refused": "REFUSED"}


def run(
    config: StableDiffusionConfig,
    regularizers: Sequence[Regularizer],
    directory: Path,
    *,
    show_progress: bool = False,
    say: Callable[[str], None] = lambda words: None,
) -> Outcome:
    """Encode, check, train, save, compare with the base; go on from whatever of this is in `directory` already.

    Writes, beside what `lsdr.training.loop.train` writes: sanity.json, data.json, data.png, samples/step-000000.png
    (the base) and samples/final.png, measures.json, inspection.json and inspection.html (every layer
    against the base), and the averaged weights: of a LoRA pytorch_lora_weights.safetensors (diffusers) and
    lora_kohya.safetensors (ComfyUI, AUTOMATIC1111) where the family has that layout, else pipeline/ (diffusers) and,
    if asked for, model.safetensors (ComfyUI, AUTOMATIC1111).

    Args:
        config: What to train and how.
        regularizers: The method; empty for plain training.
        directory: The run's folder.
        show_progress: Whether to draw bars.
        say: Called with each finding of the checks before the first step.

    Returns:
        How the run ended; status.json says the same. Memory or disk used up is an outcome, at any moment.

    Raises:
        SanityError: If the checks before the first step refuse; status.json says "refused".
        ValueError: If the pipeline, the data or the options cannot be used; any other exception too is recorded as
            "crashed" and raised again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    accelerator = build_accelerator(
        config.training, log_with=list(config.training.trackers) or None, project_dir=directory
    )
    main, said = accelerator.is_main_process, ""
    try:
        outcome = _run(config, regularizers, directory, accelerator, show=show_progress and main, say=say)
    except Exception as error:
        if isinstance(error, SanityError):
            _record(directory, "refused", str(error), main=main)
            raise
        exhausted = is_out_of_memory(error) or is_disk_full(error)
        if not exhausted or accelerator.num_processes > 1:
            if main:
                runs.write_text(directory / "crash.txt", traceback.format_exc())
            _record(directory, "crashed", f"{type(error).__name__}: {error}", main=main)
            raise
        said = str(error).strip().split("\n")[0] or type(error).__name__
        status = "disk_full" if is_disk_full(error) else "out_of_memory"
    else:
        if main:
            (directory / "crash.txt").unlink(missing_ok=True)  # of an earlier try
        _record(directory, outcome.status, outcome.message, main=main)
        return outcome
    # Out here, since the exception holds on to what filled the memory.
    if status == "out_of_memory":
        said = f"out of memory: {said.removesuffix('.')}. To need less, {memory_advice(config.training)}"
    taken = checkpoint.checkpoints(directory / "checkpoints")
    step = checkpoint.step_of(taken[-1]) if taken else 0
    return _exhausted(
        directory, Outcome(status, step, f"{said}. The same command with --resume goes on from step {step}")
    )


def _run(
    config: StableDiffusionConfig,
    regularizers: Sequence[Regularizer],
    directory: Path,
    accelerator: Accelerator,
    *,
    show: bool,
    say: Callable[[str], None],
) -> Outcome:
    device, resumed = accelerator.device, bool(checkpoint.checkpoints(directory / "checkpoints"))
    if config.lr_range_steps and not resumed and accelerator.num_processes > 1:  # the others would wait in it for ever
        raise ValueError(
            f"the learning-rate range test runs in one process, and there are {accelerator.num_processes}; run it by "
            "itself with --steps 1 and another --out, then train without --lr-range-steps"
        )
    pipeline = load_pipeline(config.model)
    with accelerator.main_process_first():  # the others find the cache filled
        dataset = encode(config, pipeline, config.cache or directory / "cache", device, _encoding(show=show))
    if resumed:
        _refuse_other_data(dataset, directory)
    if accelerator.is_main_process:
        _describe(config, pipeline, dataset, directory)
    task = build_task(config, pipeline, dataset, device)
    regularizers = (*regularizers, *constraints(config))
    if not resumed and accelerator.is_main_process:
        _look_first(config, pipeline, dataset, task, regularizers, directory, say)
    accelerator.wait_for_everyone()
    if (directory / "base.json").exists():
        task.on_monitored(runs.read_json(directory / "base.json"), 0)  # what later losses are compared with
    with training_bar(config.training.steps, show=show) as on_step:
        outcome = train(task, config.training, directory, accelerator, regularizers=regularizers, on_step=on_step)
    if accelerator.is_main_process and outcome.over:
        finish(config, pipeline, task, directory, outcome, device)
    return outcome


def _look_first(
    config: StableDiffusionConfig,
    pipeline: Pipeline,
    dataset: EncodedDataset,
    task: StableDiffusionTask,
    regularizers: Sequence[Regularizer],
    directory: Path,
    say: Callable[[str], None],
) -> None:
    """All that is done before the first step and leaves no trace in the training: checks, base pictures, rates."""
    checks = look(config, pipeline, dataset, task)
    for check in checks:
        say(f"{_MARKS[check.verdict]} {check.check}: {check.message}")
    conclude(checks, directory, refuse=config.sanity == "refuse")
    runs.write_json(directory / "base.json", task.evaluate(task.model))
    image = task.picture(task.model)
    if image is not None and config.training.sample_every:
        with runs.atomic(directory / "samples" / "step-000000.png") as path:
            image.save(path, format="png")
    if config.lr_range_steps:
        found = lr_range(task, config.training, regularizers, config.lr_range_steps)
        runs.write_json(directory / "lr_range.json", asdict(found))
        say(f"learning rate: {found.message}")


def look(
    config: StableDiffusionConfig, pipeline: Pipeline, dataset: EncodedDataset, task: StableDiffusionTask
) -> list[Check]:
    """Everything that is checked before the first step.

    Args:
        config: What is about to be trained.
        pipeline: The pipeline.
        dataset: Its encoded data, whole.
        task: What is trained, before its first step.

    Returns:
        The checks.
    """
    device = next(iter(task.empty.values())).device
    batches = [(batch["mean"], task.conditioning(batch)) for batch in fixed_batches(dataset, device)]
    denoiser = task.denoiser(task.model)
    network = check_network(denoiser, batches)
    factor = getattr(pipeline.vae.config, "scaling_factor", None)
    latents = check_latents([mean for mean, _ in batches], scaling_factor=factor, working=network.verdict == "ok")
    checks = [*check_data(dataset.problem_summary(), dataset.pictures), *check_heldout(task.unseen), *latents]
    found = pictures(config, pipeline)
    if found:
        try:
            checks.append(check_vae(pipeline.vae.to(device), [picture.to(device) for picture in found]))
        finally:
            pipeline.vae.to("cpu")
    checks.append(network)
    if "explained_share" in network.evidence:  # else it does not run at all
        checks.append(check_attention(task.model, denoiser, batches, config.training.precision))
    return checks


def _refuse_other_data(dataset: EncodedDataset, directory: Path) -> None:
    """Stop a resumed run whose data has changed: what is held out is drawn from all of it, and would be drawn anew."""
    path = directory / "data.json"
    known = runs.read_json(path).get("digest") if path.exists() else None
    if known is not None and known != dataset.digest:
        raise ValueError(
            "the images or captions are not those that this run began with: pictures that it was trained on would be "
            "held out now; give it the data as it was, or start a run in another --out"
        )


def _describe(config: StableDiffusionConfig, pipeline: Pipeline, dataset: EncodedDataset, directory: Path) -> None:
    """Write down what is trained on."""
    train, heldout = dataset.split(config.holdout, seed=0)
    runs.write_json(
        directory / "data.json",
        {
            "source": config.data,
            "count": train.pictures,
            "heldout": 0 if heldout is None else len(heldout),
            "shape": [3, config.resolution, config.resolution],
            "classes": None,
            "problems": dataset.problem_summary(),
            "digest": dataset.digest,
            "family": pipeline.family,
            "buckets": [[*_shape(dataset, group), len(group)] for group in dataset.groups],
        },
    )
    found = pictures(config, pipeline)
    if found:
        with runs.atomic(directory / "data.png") as path:
            image_grid(torch.cat(found), columns=4, least_side=1).save(path, format="png")


def _shape(dataset: EncodedDataset, group: Sequence[int]) -> list[int]:
    """Height and width of a group's latents."""
    return list(dataset.__getitems__(group[:1])["mean"].shape[-2:])


def _record(directory: Path, status: str, message: str, *, main: bool) -> None:
    if main:
        runs.record_status(directory, status, message)


def _exhausted(directory: Path, outcome: Outcome) -> Outcome:
    """Write down that memory or disk ran out, where the disk still takes that much."""
    try:
        runs.record_status(directory, outcome.status, outcome.message)
    except OSError as error:
        if not is_disk_full(error):
            raise
    return outcome


def _encoding(*, show: bool) -> Callable[[Sequence[int]], Iterable[int]]:
    """What to wrap the images' numbers in while they are encoded."""
    return (lambda numbers: track(numbers, description="encoding images")) if show else iter
