"""`lsdr train gan`."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lsdr import runs
from lsdr.cli.gan_options import refuse_contradictions
from lsdr.cli.gan_view import outcome
from lsdr.cli.run_folder import exit_status, print_left_out, run_in
from lsdr.experiments.fields import to_dict
from lsdr.experiments.method import Method
from lsdr.experiments.methods import resolve
from lsdr.gan.config import GanConfig


@dataclass(frozen=True, kw_only=True)
class TrainGan:
    """Train a GAN on points or images, and see whether it is stable and how many modes it covers.

    Writes into --out: metrics of both players, modes captured and quality as training goes on, layer spectra, sample
    grids, checkpoints, model.safetensors (both players), generator.safetensors (the averaged generator),
    samples.safetensors, measures.json and report.html.

      lsdr train gan --data ring --steps 3000 --out runs/ring
      lsdr train gan --data grid --method baseline --out runs/plain
      lsdr train gan --data photos/ --size 32 --method spectral_noise --out runs/photos
    """

    out: Path = Path("runs/gan")
    """Folder of the run."""
    method: str = "options"
    """options (what the options say: by default relativistic pairing with R1, R2 and noise at the discriminator), or a
    method that sets losses, penalties, noise and normalization itself: baseline (the plain GAN), gan_r1_r2,
    relativistic_r1_r2, packing, adaptive_noise, denoising, spectral_normalization, spectral_noise, standardization and
    the others of `lsdr compare gan`; NAME@NUMBER sets a method's number; package.module:function names a function of
    yours that returns a tuple of regularizers or a Method."""
    resume: bool = False
    """Go on from the newest checkpoint in --out; on a CPU the result is bitwise that of a run never interrupted."""
    config: GanConfig = field(default_factory=GanConfig)
    """What to train and how."""

    def run(self) -> int:
        """Train, measure, report."""
        method = resolve(self.method, task="gan")
        refuse_contradictions(self.config, [method])
        config = method.configure(self.config)
        options = {"method": method.name, **to_dict(config)}
        return run_in(self.out, options, partial(self._train, config, method), resume=self.resume)

    def _train(self, config: GanConfig, method: Method) -> int:
        # torch is imported here and not above, so that help and wrong options answer at once.
        from accelerate import PartialState

        from lsdr.gan.run import run
        from lsdr.report.report import write_report

        ended = run(config, method.build(), self.out, show_progress=True)
        if PartialState().is_main_process:
            if ended.over:
                print_left_out(runs.read_json(self.out / "data.json"))
            print(f"{ended.status} at step {ended.step}" + (f": {ended.message}" if ended.message else ""))
            if ended.over:
                print(f"\n{outcome(self.out)}\n")
            else:
                print("to go on, repeat the command with --resume")
            print(f"report: {write_report(self.out)}")
        return exit_status(ended.status)
