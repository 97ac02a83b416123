"""The runs behind docs/evidence/representation.md: `python docs/evidence/representation.py STAGE...`.

Stages in the order of `STAGES` below. Most are a handful of `lsdr compare representation` commands, which are printed;
`study` and `detection` train here. Stopped and called again, all go on. `verdicts` copies the summaries into
docs/evidence/results and writes docs/evidence/representation-tables.md.
"""

import argparse
import math
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import representation_detection
import representation_study
from representation_arms import FEWER_VIEWS, OURS, OUTLIERS, PUBLISHED, TUNED, VIEWS
from representation_tables import write_tables

from lsdr.runs import read_json, write_json

HERE = Path(__file__).parent
RATES = (1e-3, 3e-3, 1e-2)
TUNING_SEED = 100
# What is not looked at while an arm trains, and what no claim here needs.
COMMON = ("--evaluate-every", "1000000", "--monitor-every", "0", "--sample-every", "0", "--checkpoint-every", "1000000")
LITTLE = ("--no-transformations", "--no-corruptions", "--no-layers", "--no-references")
BATCHES = ("--holdout", "0.3", "--steps", "400", "--batch-size", "64", *COMMON)
DIGITS = ("--views", VIEWS, *BATCHES)
# Of 32x32 pixels and 5000 examples the probes alone take minutes: raw features are as many as pixels.
SMALLER = ("--size", "16", "--train-examples", "2000", "--view-examples", "200")
IMAGES = ("--views", f"{VIEWS},flip", "--limit", "20000", "--steps", "200", "--batch-size", "64", *SMALLER)


@dataclass(frozen=True)
class Options:
    """Where to write, how many seeds, what to leave out."""

    out: Path
    seeds: int
    jobs: int
    quick: bool
    cifar: str

    @property
    def tuned(self) -> Path:
        """Where the chosen rates are kept."""
        return self.out / "tuned.json" if self.quick else TUNED


def compare(options: Options, name: str, data: str, methods: list[str], seeds: int, *more: str) -> Path:
    """Run one comparison and show its command."""
    out = options.out / name
    words = ["compare", "representation", "--out", str(out), "--data", data, "--methods", ",".join(methods)]
    words += ["--seeds", str(seeds), "--trackers", "--jobs", str(options.jobs), *more]
    if options.quick:
        words += ["--steps", "4", "--train-examples", "200", "--heldout-examples", "100", "--view-examples", "50"]
    print("$ PYTHONPATH=docs/evidence lsdr", shlex.join(words), flush=True)
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    lsdr = Path(sys.executable).with_name("lsdr")
    subprocess.run([lsdr, *words], check=True, env={**os.environ, "PYTHONPATH": path})
    return out


def tune(options: Options) -> None:
    """Every arm at three learning rates, on a seed of its own."""
    scores: dict[str, dict[str, float]] = {name: {} for name in (*OURS, *PUBLISHED)}
    methods = [*OURS, *(f"representation_arms:{name}" for name in PUBLISHED)]
    for rate in RATES:
        more = (*DIGITS, *LITTLE, "--seed", str(TUNING_SEED), "--lr", f"{rate:g}")
        for name, score in scores_of(compare(options, f"tune-{rate:g}", "digits", methods, 1, *more)).items():
            scores[name][f"{rate:g}"] = score
    chosen = {name: {"lr": float(max(tried, key=tried.__getitem__)), "tried": tried} for name, tried in scores.items()}
    write_json(options.tuned, chosen)


def scores_of(folder: Path) -> dict[str, float]:
    """Accuracy at a tenth of the labels by method of a tuning comparison; minus infinity where a run failed."""
    found = {}
    for method in read_json(folder / "summary.json")["methods"]:
        value = method["seeds"][0]["measures"].get("linear_probe.10")
        found[method["name"]] = -math.inf if value is None or math.isnan(value) else value
    return found


def tuned(options: Options, names: tuple[str, ...]) -> list[str]:
    """How `lsdr compare representation` names arms as they were tuned."""
    return [f"representation_arms:{'' if options.quick else 'tuned_arms.'}{name}" for name in names]


def digits(options: Options) -> None:
    """The baseline on digits, and with fewer views."""
    compare(options, "digits", "digits", tuned(options, ("baseline",)), options.seeds, *DIGITS)
    compare(options, "views", "digits", tuned(options, FEWER_VIEWS), options.seeds, *BATCHES)


def arms(options: Options) -> None:
    """The other objectives on digits."""
    compare(options, "arms", "digits", tuned(options, (*OURS[1:], *PUBLISHED)), options.seeds, *DIGITS, *LITTLE)


def outliers(options: Options) -> None:
    """The baseline with outliers, and with robust moments."""
    compare(options, "outliers", "digits", tuned(options, OUTLIERS), options.seeds, *DIGITS, *LITTLE)


def cifar10(options: Options) -> None:
    """CIFAR-10 from a Parquet file of its training images."""
    compare(options, "cifar10", options.cifar, tuned(options, ("baseline",)), options.seeds, *IMAGES, *COMMON)
    published = tuned(options, ("published_vicreg",))
    compare(options, "cifar10-arms", options.cifar, published, options.seeds, *IMAGES, *COMMON, *LITTLE)


def tables(options: Options) -> None:
    """Scikit-learn's tables, with everything but the batch as `lsdr train representation` has it."""
    for data in ("breast-cancer", "wine"):
        compare(options, data, data, ["baseline"], options.seeds, "--holdout", "0.5", "--batch-size", "64", *COMMON)


def texts(options: Options) -> None:
    """Paragraphs of SciPy's docstrings, at the rate that `lsdr train representation` has."""
    size = ("--length", "32", "--steps", "200", "--batch-size", "64")
    compare(options, "scipy-docs", "scipy-docs", ["baseline"], options.seeds, *size, *COMMON)


def study(options: Options) -> None:
    """What a comparison of arms cannot ask: less data, less time, wrong labels."""
    rate = read_json(options.tuned)["baseline"]["lr"]
    representation_study.run(options.out, seeds=options.seeds, rate=rate, quick=options.quick)


def detection(options: Options) -> None:
    """Digits in clutter, found by a linear head on frozen dense features."""
    representation_detection.run(options.out, seeds=options.seeds, quick=options.quick)


def verdicts(options: Options) -> None:
    """Keep every summary, and write tables and verdicts."""
    write_tables(options.out, quick=options.quick)


STAGES = {
    "tune": tune,
    "digits": digits,
    "arms": arms,
    "outliers": outliers,
    "cifar10": cifar10,
    "tables": tables,
    "texts": texts,
    "study": study,
    "detection": detection,
    "verdicts": verdicts,
}


def main() -> None:
    """Run the stages named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", choices=list(STAGES))
    parser.add_argument("--out", type=Path, default=Path("runs/evidence-representation"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cifar", default="cifar10-train.parquet", help="Parquet file of CIFAR-10's training images")
    parser.add_argument("--quick", action="store_true", help="to see that it runs: a few steps, nothing is kept")
    given = vars(parser.parse_args())
    stages, options = given.pop("stages"), Options(**given)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in stages:
        STAGES[name](options)


if __name__ == "__main__":
    main()
