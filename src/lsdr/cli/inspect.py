"""`lsdr inspect`."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Look at a checkpoint: every layer's spectrum with bounds, and what looks wrong.

    Reads a .safetensors file, a torch file (.pt, .pth, .ckpt, .bin; tensors only, no code is run), an index of shards,
    a diffusers or transformers folder, a LoRA, or a run of lsdr. Tensors are read one at a time, so files may be larger
    than memory. Examples:

      lsdr inspect model.safetensors
      lsdr inspect tuned.safetensors --base model.safetensors
      lsdr inspect lora.safetensors --base path/to/model
      lsdr inspect model.safetensors --layers "*attn*" --top 0 --html model.html
      lsdr inspect model.safetensors --json - --fail-on error > model.json

    Exit status: 0 fine, 1 there is what --fail-on names, 2 the file cannot be read or the options are wrong.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Checkpoint: a file or a folder."""
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
    top: int = 30
    """Layers in the table: the most notable ones, in the model's order; 0 shows all."""
    fail_on: Annotated[str | None, tyro.conf.arg(metavar="error|warning|KIND")] = None
    """Exit with 1 on: error, warning (errors too), or kinds of findings (zero_layer, ...), separated by commas."""

    def run(self) -> int:
        """Inspect, show, write, judge."""
        from lsdr.inspection.findings.find import KINDS
        from lsdr.report.numbers import plural

        limits = _limits(self.fail_on, KINDS)
        if self.top < 0:
            raise ValueError(f"--top must be 0 (all layers) or more, got {self.top}")
        for option, written in (("json", self.json), ("csv", self.csv), ("html", self.html)):
            if written is not None and (option, written) != ("json", "-"):
                _check_writable(option, Path(written))
        try:
            found = self._inspect()
        except KeyboardInterrupt:
            print("lsdr: interrupted", file=sys.stderr)
            return 130
        if self.json == "-":
            print(json.dumps(found, indent=1, allow_nan=False))
        else:
            from lsdr.cli.inspect_view import show

            show(found, self.top)
        for file in self._write(found):
            print(f"written: {file}", file=sys.stderr if self.json == "-" else sys.stdout)
        hits = [each for each in found["findings"] if each["severity"] in limits or each["kind"] in limits]
        if hits:
            print(f"lsdr: {plural(len(hits), 'finding')} of what --fail-on {self.fail_on} names", file=sys.stderr)
        return 1 if hits else 0

    def _inspect(self) -> dict[str, Any]:
        """Inspect, with a bar on a terminal."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from lsdr.inspection.inspect import inspect

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[layers]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("reading headers", total=None, layers="")

            def advance(done: int, layers: int, bytes_done: int, bytes_all: int) -> None:
                text = f"{done}/{layers} layers, {bytes_done / 1e6:,.0f}/{bytes_all / 1e6:,.0f} MB"
                bar.update(task, description="measuring", total=bytes_all, completed=bytes_done, layers=text)

            inspection = inspect(
                self.file,
                base=self.base,
                layers=self.layers,
                precision="float64" if self.exact else "float32",
                progress=advance,
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
        if self.html is not None:
            from lsdr.report.inspection.page import write_inspection_page

            written.append(write_inspection_page(found, self.html))
        return written


def _check_writable(option: str, path: Path) -> None:
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
