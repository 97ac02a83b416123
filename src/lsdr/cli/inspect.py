"""`lsdr inspect`."""

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

_TOP = 30


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Look at a checkpoint: every layer's spectrum with bounds, and what looks wrong.

    Reads a .safetensors file, a torch file (.pt, .pth, .ckpt, .bin; tensors only, no code is run), an index of shards,
    a diffusers or transformers folder, a LoRA, or a run of lsdr. Tensors are read one at a time, so files may be larger
    than memory. With --operator, looks instead at what a trained diffusion model does: the spectrum of the denoising
    step at every noise level, with time scales, calibration, and artefacts of its samples. With --gan, looks at what a
    generator makes and answers the question whether this is mode collapse: of a run, or of a folder of images that any
    generator made. Examples:

      lsdr inspect model.safetensors
      lsdr inspect tuned.safetensors --base model.safetensors
      lsdr inspect lora.safetensors --base path/to/model
      lsdr inspect model.safetensors --layers "*attn*" --top 0 --html model.html
      lsdr inspect model.safetensors --json - --fail-on error > model.json
      lsdr inspect runs/mine --operator --html operator.html
      lsdr inspect path/to/diffusers --operator --data photos/
      lsdr inspect --gan runs/mine --html gan.html
      lsdr inspect --gan generated/ --data photos/ --fail-on mode_collapse,memorises

    Exit status: 0 fine, 1 there is what --fail-on names, 2 the file cannot be read or the options are wrong.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Checkpoint: a file or a folder. With --operator a run of `lsdr train diffusion`, or a diffusers folder. With
    --gan a run of `lsdr train gan`, or a folder of generated images."""
    base: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The checkpoint that this one was made from, or that the LoRA is for: shows what changed (size, rank, principal
    angles, intruder dimensions)."""
    layers: Annotated[str, tyro.conf.arg(metavar="GLOB")] = "*"
    """Glob on layer names, such as "*attn1*" or "unet.mid_block.*"; * crosses dots."""
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE|-")] = None
    """Write everything as JSON into this file; - is standard output, and nothing else is written there."""
    csv: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write one row a layer into this CSV file."""
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write an interactive page into this file; it needs no other file and no network."""
    exact: bool = False
    """Square the weights in float64 instead of float32: resolves condition numbers up to 1e6 instead of 1e2, and takes
    about twice as long."""
    top: int = _TOP
    """Layers in the table: the most notable ones, in the model's order; 0 shows all."""
    fail_on: Annotated[str | None, tyro.conf.arg(metavar="error|warning|KIND")] = None
    """Exit with 1 on: error, warning (errors too), or kinds of findings, separated by commas: zero_layer, ..., or with
    --operator not_calibrated, grid_artifact, ..., or with --gan mode_collapse, memorises, ... (a wrong name lists them
    all)."""
    operator: bool = False
    """Look at the denoising step instead of the layers; a minute for a small network, see --images and --levels."""
    gan: bool = False
    """Look at a generator's samples beside its data: modes, copies, latent paths, layers; seconds to a minute."""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA")] = None
    """With --operator: the images to measure on, as `lsdr train diffusion --data` takes them; by default those that
    the run kept aside. A diffusers folder needs it. With --gan: the real images, for a folder of generated ones."""
    prediction: Annotated[str | None, tyro.conf.arg(metavar="epsilon|v|sample|edm|flow")] = None
    """With --operator: how to read the network's output, where the run or the folder's scheduler tells it wrong."""
    images: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """With --operator: on how many held-out images; 8 by default."""
    levels: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """With --operator: at how many noise levels; 8 by default."""
    samples: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """With --gan: how many samples to draw; 2500 by default, and at least ten for each class."""

    def run(self) -> int:
        """Inspect, show, write, judge."""
        from lsdr.report.numbers import plural

        self._check()
        limits = _limits(self.fail_on, _kinds(operator=self.operator, gan=self.gan))
        for option, written in (("json", self.json), ("csv", self.csv), ("html", self.html)):
            if written is not None and (option, written) != ("json", "-"):
                check_writable(option, Path(written))
        try:
            found = self._look()
        except KeyboardInterrupt:
            print("lsdr: interrupted", file=sys.stderr)
            return 130
        if self.json == "-":
            print(json.dumps(found, indent=1, allow_nan=False))
        else:
            self._show(found)
        for file in self._write(found):
            print(f"written: {file}", file=sys.stderr if self.json == "-" else sys.stdout)
        hits = [each for each in found["findings"] if each["severity"] in limits or each["kind"] in limits]
        if hits:
            print(f"lsdr: {plural(len(hits), 'finding')} of what --fail-on {self.fail_on} names", file=sys.stderr)
        return 1 if hits else 0

    def _look(self) -> dict[str, Any]:
        """Inspect what the options say."""
        return self._inspect_gan() if self.gan else self._inspect_operator() if self.operator else self._inspect()

    def _check(self) -> None:
        """Refuse options that the other kinds of inspection take, and numbers that make no sense."""
        if self.operator and self.gan:
            raise ValueError("--operator looks at diffusion models and --gan at generators; give one of them")
        layers = {"base": self.base is not None, "csv": self.csv is not None, "exact": self.exact}
        layers |= {"layers": self.layers != "*", "top": self.top != _TOP}
        names = ("data", "prediction", "images", "levels", "samples")
        others = {name: getattr(self, name) is not None for name in names}
        taken = {"--operator": names[:-1], "--gan": ("data", "samples")}
        kind = "--operator" if self.operator else "--gan" if self.gan else None
        wrong = [name for name, given in (layers if kind else {}).items() if given]
        if wrong:
            raise ValueError(f"{_options(wrong)} is for layers and does nothing with {kind}; leave it out")
        wrong = [name for name, given in others.items() if given and not (kind and name in taken[kind])]
        if wrong:
            needed = " or ".join(each for each in taken if all(name in taken[each] for name in wrong))
            what = {
                "--operator": "which looks at a diffusion model's denoising step",
                "--gan": "which looks at a generator",
            }
            raise ValueError(f"{_options(wrong)} needs {needed}{f', {what[needed]}' if needed in what else ''}")
        if self.top < 0:
            raise ValueError(f"--top must be 0 (all layers) or more, got {self.top}")
        for name, least, value in (
            ("images", 1, self.images),
            ("levels", 2, self.levels),
            ("samples", 20, self.samples),
        ):
            if value is not None and value < least:
                raise ValueError(f"--{name} must be {least} or more, got {value}")

    def _show(self, found: dict[str, Any]) -> None:
        if self.gan:
            from lsdr.cli.inspect_gan_view import show_gan

            show_gan(found)
        elif self.operator:
            from lsdr.cli.inspect_operator_view import show_operator

            show_operator(found)
        else:
            from lsdr.cli.inspect_view import show

            show(found, self.top)

    def _inspect_gan(self) -> dict[str, Any]:
        """Look at a generator, with a bar on a terminal; pictures are written as soon as they are there."""
        from lsdr.cli.inspect_bar import bar
        from lsdr.gan.inspect import inspect_gan

        with bar("loading the generator") as advance:
            seen = inspect_gan(self.file, data=self.data, samples=self.samples, progress=advance)
        if self.html is not None:
            from lsdr.report.gan.page import write_gan_page

            write_gan_page(seen.found, seen.pictures, self.html)
        return seen.found

    def _inspect_operator(self) -> dict[str, Any]:
        """Measure the denoising step, with a bar on a terminal."""
        from lsdr.cli.inspect_bar import bar
        from lsdr.diffusion.inspect_operator import inspect_operator

        _check_folder(self.file)
        try:
            with bar("loading the model") as advance:
                found = inspect_operator(
                    self.file,
                    data=self.data,
                    prediction=self.prediction,
                    images=8 if self.images is None else self.images,
                    levels=8 if self.levels is None else self.levels,
                    progress=advance,
                )
        except ValueError as error:
            raise ValueError(_as_options(str(error))) from error
        told = [{**each, "message": _as_options(each["message"])} for each in found["findings"]]
        return {**found, "findings": told}

    def _inspect(self) -> dict[str, Any]:
        """Inspect, with a bar on a terminal."""
        from lsdr.cli.inspect_bar import bar
        from lsdr.inspection.inspect import inspect

        with bar("reading headers") as advance:
            inspection = inspect(
                self.file,
                base=self.base,
                layers=self.layers,
                precision="float64" if self.exact else "float32",
                progress=lambda done, layers, bytes_done, bytes_all: advance(
                    "measuring",
                    bytes_done,
                    bytes_all,
                    f"{done}/{layers} layers, {bytes_done / 1e6:,.0f}/{bytes_all / 1e6:,.0f} MB",
                ),
            )
        return inspection.to_dict()

    def _write(self, found: dict[str, Any]) -> list[Path]:
        """Write the files asked for; returns which."""
        from lsdr.runs import write_json

        written = []
        if self.json is not None and self.json != "-":
            write_json(Path(self.json), found)
            written.append(Path(self.json))
        if self.csv is not None:
            from lsdr.cli.inspect_csv import write_csv

            write_csv(found["layers"], self.csv)
            written.append(self.csv)
        if self.html is not None and self.gan:
            written.append(self.html)  # with the pictures, as they were taken
        elif self.html is not None and self.operator:
            from lsdr.report.operator.page import write_operator_page

            written.append(write_operator_page(found, self.html))
        elif self.html is not None:
            from lsdr.report.inspection.page import write_inspection_page

            written.append(write_inspection_page(found, self.html))
        return written


def _check_folder(path: Path) -> None:
    """Refuse what is neither a run nor of diffusers in words about both; each reader knows only its own."""
    if path.is_file():
        raise ValueError(f"--operator takes a folder, and {path} is a file: give a run of lsdr or a diffusers folder")
    known = ("experiment.json", "job.json", "config.json", "model_index.json")
    if path.is_dir() and not any((path / name).is_file() for name in known):
        raise ValueError(
            f"{path} is no run of `lsdr train diffusion` (config.json, snapshots) and no diffusers folder (config.json "
            "or model_index.json)"
        )


def _as_options(message: str) -> str:
    """A message of the library, which names Python arguments, in the words of the command line.

    Example:
        >>> _as_options("pass images, as data=...; or Pass prediction='v'")
        'pass images, as --data DATA; or Pass --prediction v'
    """
    return re.sub(r"\bprediction=(?:'(\w+)')?", r"--prediction \1", message.replace("data=...", "--data DATA")).replace(
        "--prediction  ", "--prediction "
    )


def _options(names: list[str]) -> str:
    return ", ".join(f"--{name}" for name in names)


def _kinds(*, operator: bool, gan: bool) -> tuple[str, ...]:
    """Kinds of findings that there are."""
    if gan:
        from lsdr.gan.findings import KINDS as GAN_KINDS

        return GAN_KINDS
    if operator:
        from lsdr.diffusion.inspect_operator import KINDS as OPERATOR_KINDS

        return OPERATOR_KINDS
    from lsdr.inspection.findings.find import KINDS

    return KINDS


def check_writable(option: str, path: Path) -> None:
    """Refuse what cannot become a file before anything is measured."""
    if str(path) == "-":
        raise ValueError(f"--{option} takes a file; only --json - writes to standard output")
    if path.is_dir():
        raise ValueError(f"--{option} takes a file, and {path} is a folder")
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ValueError(f"--{option} {path} cannot be written: {nearest} is no folder that you may write to")


def _limits(words: str | None, kinds: tuple[str, ...]) -> set[str]:
    """The severities and kinds that --fail-on names."""
    if words is None:
        return set()
    severities = {"error": {"error"}, "warning": {"error", "warning"}}
    limits: set[str] = set()
    for word in (each.strip() for each in words.split(",")):
        if word not in severities and word not in kinds:
            raise ValueError(f"--fail-on takes {', '.join((*severities, *kinds))}; got {word!r}")
        limits |= severities.get(word, {word})
    return limits
