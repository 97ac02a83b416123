"""The runs behind docs/evidence/gan.md: `python docs/evidence/gan.py STAGE...`, stages in the order of `STAGES` below.

Every stage is a handful of `lsdr compare gan` commands, which are printed; stopped and called again, it goes on.
`tables` copies the summaries into docs/evidence/results and writes docs/evidence/gan-tables.md.
"""

import argparse
import math
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gan_arms import NUMBERS, TUNED
from gan_tables import write_tables

from lsdr.runs import read_json, write_json

HERE = Path(__file__).parent
RATES = (3e-4, 1e-3, 3e-3)
MORE_RATES = (1e-4, 1e-2)
TUNING_SEED = 100
GOAL_SEED = 2000  # the defaults were found on others
# Batches that both tasks of points share, and what is not looked at while they train.
COMMON = ("--evaluate-every", "500", "--monitor-every", "1000", "--sample-every", "0", "--checkpoint-every", "2000")
STEPS = {"grid": 4000, "ring": 3000}
STACKED = ("baseline", "relativistic_r1_r2", "packing@2", "standardization", "denoising", "adaptive_noise")


@dataclass(frozen=True)
class Options:
    """Where to write, how many seeds, what to leave out."""

    out: Path
    seeds: int
    jobs: int
    quick: bool
    mnist: str


def compare(
    options: Options, name: str, data: str, methods: list[str], seeds: int, *more: str, steps: int | None = None
) -> Path:
    """Run one comparison and show its command; steps by default those of `lsdr train gan`."""
    out = options.out / name
    words = ["compare", "gan", "--out", str(out), "--data", data, "--methods", ",".join(methods), "--seeds", str(seeds)]
    steps = 4 if options.quick else steps
    words += ["--trackers", "--jobs", str(options.jobs), *more, *([] if steps is None else ["--steps", str(steps)])]
    print("$ PYTHONPATH=docs/evidence lsdr", shlex.join(words), flush=True)
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    lsdr = Path(sys.executable).with_name("lsdr")
    subprocess.run([lsdr, *words], check=True, env={**os.environ, "PYTHONPATH": path})
    return out


def tune(options: Options) -> None:
    """Five runs an arm on a seed of their own: three learning rates, then two more numbers, or rates."""
    found: dict[str, dict[tuple[float, float | None], float]] = {name: {} for name in NUMBERS}

    def run(rate: float, specs: dict[str, float | None], stage: str) -> None:
        methods = [f"gan_arms:{_spec(name, number)}" for name, number in specs.items()]
        seed = ("--seed", str(TUNING_SEED), "--lr", f"{rate:g}")
        folder = compare(options, f"tune-{stage}-{rate:g}", "grid", methods, 1, *seed, *COMMON, steps=STEPS["grid"])
        scores = scores_of(folder)
        for name, number in specs.items():
            found[name][rate, number] = scores[_spec(name, number)]

    middle = {name: number and number.values[1] for name, number in NUMBERS.items()}
    for rate in RATES:
        run(rate, dict.fromkeys(NUMBERS), "rates")
    for rate in MORE_RATES:
        run(rate, {name: None for name, number in NUMBERS.items() if number is None}, "rates")
    best = {name: min(scores, key=scores.__getitem__)[0] for name, scores in found.items()}
    for place in (0, 2):
        for rate in sorted(set(best.values())):
            specs = {
                name: number.values[place]
                for name, number in NUMBERS.items()
                if number is not None and best[name] == rate
            }
            if specs:
                run(rate, dict(specs), ("less", "", "more")[place])
    chosen = {}
    for name, scores in found.items():
        rate, number = min(scores, key=scores.__getitem__)
        chosen[name] = {
            "lr": rate,
            "number": middle[name] if number is None else number,
            "tried": [{"lr": a, "number": b or middle[name], "reverse_kl_all": c} for (a, b), c in scores.items()],
        }
    write_json(options.out / "tuned.json" if options.quick else TUNED, chosen)


def _spec(name: str, number: float | None) -> str:
    return name if number is None else f"{name}@{number:g}"


def scores_of(folder: Path) -> dict[str, float]:
    """Reverse KL over all samples by method of a tuning comparison; infinite where a run failed."""
    found = {}
    for method in read_json(folder / "summary.json")["methods"]:
        value = method["seeds"][0]["measures"].get("reverse_kl_all")
        found[method["name"]] = math.inf if value is None or math.isnan(value) else value
    return found


def tuned(names: tuple[str, ...]) -> list[str]:
    """How `lsdr compare gan` names arms as they were tuned."""
    return [f"gan_arms:tuned_arms.{name}" for name in names]


def points(options: Options, data: str) -> None:
    """All arms on a task of points."""
    compare(options, data, data, tuned(tuple(NUMBERS)), options.seeds, *COMMON, steps=STEPS[data])


def goal(options: Options) -> None:
    """What `lsdr train gan` does by default on the grid; the ring needs fewer steps."""
    for data, steps in (("grid", None), ("ring", 6000)):
        words = ("--seed", str(GOAL_SEED), *COMMON)
        compare(options, f"goal-{data}", data, ["options"], options.seeds, *words, steps=steps)


def stacked(options: Options) -> None:
    """Scikit-learn's digits stacked: 1000 classes at 8x8 pixels."""
    seeds = max(1, options.seeds // 3)
    size = ("--batch-size", "64", "--lr", "0.0005", "--examples", "20000", *COMMON)
    compare(options, "stacked", "stacked-digits", list(STACKED), seeds, *size, steps=2000)


def published(options: Options) -> None:
    """The published networks for stacked digits with MNIST's test images, at a reduced budget."""
    rates = ("--lr", "0.0001", "--discriminator-lr", "2", "--betas", "0.5", "0.99", "--lr-schedule", "constant")
    size = ("--model", "stacked-dcgan", "--batch-size", "128", "--examples", "50000", "--class-samples", "25600")
    more = (*size, *rates, "--evaluate-every", "500", "--checkpoint-every", "500")
    methods = ["baseline", "packing@2"]
    compare(options, "stacked-published", f"stacked:{options.mnist}", methods, 1, *more, steps=2000)


def pacgan(options: Options) -> None:
    """PacGAN's networks, batch and optimiser on the grid, at a fortieth of its iterations."""
    size = ("--model", "pacgan-toy", "--batch-size", "100", "--lr", "0.0001", "--betas", "0.8", "0.999")
    more = (*size, "--lr-schedule", "constant", "--warmup", "0", "--ema", "0", *COMMON)
    compare(options, "pacgan", "grid", ["baseline", "packing@2"], max(1, options.seeds // 3), *more, steps=10_000)


def tables(options: Options) -> None:
    """Keep every summary, and write tables and verdicts."""
    write_tables(options.out, quick=options.quick)


STAGES = {
    "tune": tune,
    "grid": lambda options: points(options, "grid"),
    "ring": lambda options: points(options, "ring"),
    "goal": goal,
    "stacked": stacked,
    "published": published,
    "pacgan": pacgan,
    "tables": tables,
}


def main() -> None:
    """Run the stages named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", choices=list(STAGES))
    parser.add_argument("--out", type=Path, default=Path("runs/evidence-gan"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--mnist", default="mnist", help="folder or idx file of MNIST's images, for `published`")
    parser.add_argument("--quick", action="store_true", help="to see that it runs: four steps")
    given = vars(parser.parse_args())
    stages, options = given.pop("stages"), Options(**given)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in stages:
        STAGES[name](options)


if __name__ == "__main__":
    main()
