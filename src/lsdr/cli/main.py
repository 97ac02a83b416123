"""The `lsdr` command: finds the command, hands its words to the argument parser, turns errors into sentences."""

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import metadata

import tyro

from lsdr.cli.compare import CompareDiffusion
from lsdr.cli.compare_gan import CompareGan
from lsdr.cli.compare_representation import CompareRepresentation
from lsdr.cli.demo import Demo
from lsdr.cli.inspect import Inspect
from lsdr.cli.reduce import Reduce
from lsdr.cli.report import Report
from lsdr.cli.train import TrainDiffusion
from lsdr.cli.train_gan import TrainGan
from lsdr.cli.train_representation import TrainRepresentation
from lsdr.cli.train_stable_diffusion import TrainStableDiffusion

Command = (
    Inspect
    | TrainDiffusion
    | TrainStableDiffusion
    | TrainGan
    | TrainRepresentation
    | CompareDiffusion
    | CompareGan
    | CompareRepresentation
    | Reduce
    | Report
    | Demo
)

COMMANDS: dict[str, type[Command]] = {
    "inspect": Inspect,
    "train diffusion": TrainDiffusion,
    "train stable-diffusion": TrainStableDiffusion,
    "train gan": TrainGan,
    "train representation": TrainRepresentation,
    "compare diffusion": CompareDiffusion,
    "compare gan": CompareGan,
    "compare representation": CompareRepresentation,
    "reduce": Reduce,
    "report": Report,
    "demo": Demo,
}

_HELP = """\
lsdr: the spectra of neural networks - look at them, watch them, control them, prove whether that helped

{commands}

Examples
  lsdr inspect model.safetensors
  lsdr demo
  lsdr train diffusion --data photos/ --size 32 --method decorrelation --out runs/mine
  lsdr train stable-diffusion --model sd15/ --data photos/ --method spectral_normalization --out runs/lora
  lsdr train gan --data grid --out runs/grid
  lsdr train representation --data digits --out runs/codes
  lsdr compare diffusion --data patches --methods baseline,decorrelation --seeds 5 --out runs/patches
  lsdr compare gan --data ring --methods baseline,packing,spectral_noise --seeds 10 --out runs/ring
  lsdr compare representation --data digits --methods baseline,sim_clr --seeds 5 --out runs/codes
  lsdr reduce houses.parquet --target price --html houses.html
  lsdr report runs/patches

`lsdr COMMAND --help` explains a command's options; `lsdr --version` names the version."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exit status: 0 done, 1 a run crashed, the one trained diverged or a checkpoint has what --fail-on names, 2 wrong
    use or bad input, 130 interrupted.

    Args:
        arguments: The words after `lsdr`; by default those of the process.
    """
    try:
        _main(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:  # whoever reads our output, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _main(words: Sequence[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        return
    if list(words) == ["--version"]:
        print(f"lsdr {metadata.version('lsdr')}")
        return
    name = _find(words)
    command: Command = tyro.cli(
        COMMANDS[name],
        prog=f"lsdr {name}",
        args=words[len(name.split()) :],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
    )
    try:
        sys.exit(command.run())
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        if os.environ.get("LSDR_DEBUG"):
            raise
        print(f"lsdr: {error}\n(LSDR_DEBUG=1 shows where this was found)", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("lsdr: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def help_text() -> str:
    """The help of `lsdr` alone."""
    lines = ["Commands"]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:<24}{(command.__doc__ or '').splitlines()[0]}")
    return _HELP.format(commands="\n".join(lines))


def _find(words: Sequence[str]) -> str:
    """The command that the first words name; with none, say which there are and exit."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name
    tasks = [name for name in COMMANDS if name.startswith(words[0] + " ")]
    if tasks:
        asked_for_help = any(word in ("-h", "--help") for word in words)
        print(f"lsdr {words[0]} needs a task: {', '.join(tasks)}", file=sys.stdout if asked_for_help else sys.stderr)
        sys.exit(0 if asked_for_help else 2)
    close = difflib.get_close_matches(" ".join(words[:2]), COMMANDS, n=1, cutoff=0.4)
    meant = f"; did you mean `lsdr {close[0]}`?" if close else ""
    print(f"lsdr: no command {words[0]!r}{meant}\n\n{help_text()}", file=sys.stderr)
    sys.exit(2)
