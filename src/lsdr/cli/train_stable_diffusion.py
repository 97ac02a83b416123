"""`lsdr train stable-diffusion`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lsdr import runs
from lsdr.cli.run_folder import exit_status, print_left_out, run_in
from lsdr.experiments.fields import to_dict
from lsdr.experiments.method import Method
from lsdr.experiments.methods import resolve
from lsdr.stable_diffusion.config import StableDiffusionConfig

# What decides nothing about the weights, or only how much memory their training takes.
_MAY_CHANGE = (
    "cache",
    "gradient_checkpointing",
    "inspect",
    "lr_range_steps",
    "sanity",
    "single_file",
    "validation_guidance",
    "validation_prompts",
    "validation_steps",
)


@dataclass(frozen=True, kw_only=True)
class TrainStableDiffusion:
    """Fine-tune Stable Diffusion on captioned images, by LoRA or fully, and see what it did to the base.

    Checks data, VAE and network before the first step. Writes into --out: metrics, held-out loss by noise level, the
    LoRA's norms and intruder dimensions, rendered prompts, checkpoints, the weights for diffusers, ComfyUI and
    AUTOMATIC1111, inspection.html (every layer against the base) and report.html. Examples:

      lsdr train stable-diffusion --model sd15/ --data photos/ --precision bf16 --out runs/lora
      lsdr train stable-diffusion --model sdxl/ --data photos/ --resolution 1024 --max-norm 1 --out runs/capped
      lsdr train stable-diffusion --model sd15/ --data photos/ --tune full --lr 1e-5 --single-file --out runs/full
    """

    out: Path = Path("runs/stable-diffusion")
    """Folder of the run."""
    method: str = "baseline"
    """baseline, decorrelation, discriminator, decomposition_eigenvalues, spectral_normalization, spectral_penalty, and
    the others of `lsdr train diffusion`; NAME@WEIGHT sets the weight; package.module:function names a function of yours
    that returns a tuple of regularizers or a Method."""
    resume: bool = False
    """Go on from the newest checkpoint in --out; on a CPU the result is bitwise that of a run never interrupted."""
    config: StableDiffusionConfig
    """What to train and how."""

    def run(self) -> int:
        """Encode, check, train, save, compare, report."""
        method = resolve(self.method)
        config = method.configure(self.config)
        options = {"method": method.name, **to_dict(config)}
        train = partial(self._train, config, method)
        return run_in(self.out, options, train, resume=self.resume, may_change=_MAY_CHANGE)

    def _train(self, config: StableDiffusionConfig, method: Method) -> int:
        # torch is imported here and not above, so that help and wrong options answer at once.
        from accelerate import PartialState

        from lsdr.report.inspection.page import write_inspection_page
        from lsdr.report.report import write_report
        from lsdr.stable_diffusion.run import run

        outcome = run(config, on_latents(method.build()), self.out, show_progress=True, say=print)
        if PartialState().is_main_process:
            if outcome.over:
                print_left_out(runs.read_json(self.out / "data.json"))
            print(f"{outcome.status} at step {outcome.step}" + (f": {outcome.message}" if outcome.message else ""))
            if not outcome.over:
                print("to go on, repeat the command with --resume")
            if outcome.over and (self.out / "inspection.json").exists():
                write_inspection_page(runs.read_json(self.out / "inspection.json"), self.out / "inspection.html")
            if outcome.status != "disk_full":
                self._say_what_there_is(write_report(self.out))
        return exit_status(outcome.status)

    def _say_what_there_is(self, report: Path) -> None:
        for name, what in (
            ("pytorch_lora_weights.safetensors", "LoRA for diffusers"),
            ("lora_kohya.safetensors", "LoRA for ComfyUI and AUTOMATIC1111"),
            ("pipeline", "pipeline for diffusers"),
            ("model.safetensors", "checkpoint for ComfyUI and AUTOMATIC1111"),
            ("inspection.html", "what became of the base"),
        ):
            if (self.out / name).exists():
                print(f"{what}: {self.out / name}")
        print(f"report: {report}")


def on_latents(regularizers: Sequence[Any]) -> tuple[Any, ...]:
    """The regularizers for latents: those that tell pixels from latents are told."""
    return tuple(
        replace(each, domain="latents")
        if is_dataclass(each) and not isinstance(each, type) and "domain" in {field.name for field in fields(each)}
        else each
        for each in regularizers
    )
