"""`lsdr train representation`."""

import inspect
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lsdr import runs
from lsdr.cli.representation_options import refuse_contradictions
from lsdr.cli.representation_view import outcome
from lsdr.cli.run_folder import exit_status, print_left_out, run_in
from lsdr.experiments.fields import to_dict
from lsdr.experiments.method import Method
from lsdr.experiments.methods import resolve
from lsdr.representation.config import RepresentationConfig
from lsdr.representation.views.catalogue import DEFAULTS, TRANSFORMATIONS


@dataclass(frozen=True, kw_only=True)
class TrainRepresentation:
    """Learn codes of unlabelled images, texts or tables that stay the same when what must not matter changes.

    You name the transformations that must not matter (--views); two random versions of every example go through the
    encoder, and their codes shall agree while the codes of different examples stay apart. Labels, where there are any,
    are measured with and never learned from. The run ends with how good, invariant, robust and compact the codes are,
    beside raw inputs, their principal components and the encoder before training: what training has to beat.

    Writes into --out: metrics, checkpoints, encoder.json and encoder.safetensors (the averaged weights),
    ordered.safetensors (the rotation in which the first dimensions are the best), measures.json, the curves as JSON and
    report.html. Use the codes from scikit-learn with lsdr.RepresentationEncoder.load(OUT).transform(X).

      lsdr train representation --data digits --out runs/digits
      lsdr train representation --data photos/ --size 32 --views "crop,lighting:0.4,rotation:30,flip" --out runs/photos
      lsdr train representation --data notes/ --modality text --out runs/notes
      lsdr train representation --data customers.parquet --label churned --drop id --out runs/customers
    """

    out: Path = Path("runs/representation")
    """Folder of the run."""
    method: str = "options"
    """options (what the options say: by default VICReg), or a method that sets the objective itself: baseline (VICReg),
    barlow_twins, log_participation_ratio, spectral_contrastive, sigreg, sim_clr, layer_wise, trimmed, huber and the
    others of `lsdr compare representation`; NAME@NUMBER sets a method's number; package.module:function names a
    function of yours that returns a tuple of regularizers or a Method."""
    resume: bool = False
    """Go on from the newest checkpoint in --out; on a CPU the result is bitwise that of a run never interrupted."""
    config: RepresentationConfig = field(default_factory=RepresentationConfig)
    """What to learn from and how."""

    def run(self) -> int:
        """Train, measure, report."""
        method = resolve(self.method, task="representation")
        refuse_contradictions(self.config, [method])
        config = method.configure(self.config)
        options = {"method": method.name, **to_dict(config)}
        return run_in(self.out, options, partial(self._train, config, method), resume=self.resume)

    def _train(self, config: RepresentationConfig, method: Method) -> int:
        # torch is imported here and not above, so that help and wrong options answer at once.
        from accelerate import PartialState

        from lsdr.report.report import write_report
        from lsdr.representation.run import run

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


def _transformations() -> str:
    """What --views can name, line by line."""
    lines = ["", "Transformations for --views, with the strength that they have by default; more is stronger:", ""]
    for modality, words in (("image", "images"), ("text", "text"), ("table", "tables")):
        for name, kind in TRANSFORMATIONS[modality].items():
            lines.append(f"  {words:<8}{f'{name}:{kind.default:g}':<20}{kind.description}")
        lines.append(f"  {words:<8}{'default':<20}{DEFAULTS[modality]}")
    return "\n".join(lines)


# A docstring cannot be computed where it stands.
TrainRepresentation.__doc__ = f"{inspect.cleandoc(TrainRepresentation.__doc__ or '')}\n{_transformations()}"
