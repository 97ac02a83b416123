"""Tables and verdicts of docs/evidence/gan.md, by its rule, from the summaries of the runs alone."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from lsdr.experiments.bootstrap import paired_bootstrap, seeds_needed, wilson_interval
from lsdr.experiments.summary import PAIRS_NEEDED
from lsdr.gan.measures.perfect_sampler import perfect_mixture_sampler
from lsdr.gan.mixtures import MIXTURES
from lsdr.gan.published import published
from lsdr.runs import read_json

RESULTS = Path(__file__).parent / "results"
Seeds = dict[int, float]
"""A measure by seed."""


@dataclass(frozen=True)
class Measured:
    """Which way a measure is better, the least effect that matters, and where there is nothing left to improve."""

    title: str
    better: int
    least: float
    best: float | None = None


MEASURES = {
    "modes": Measured("modes", 1, 1.0),
    "reverse_kl_all": Measured("reverse KL, all", -1, 0.05),
    "reverse_kl": Measured("reverse KL", -1, 0.05),
    "high_quality": Measured("high quality", 1, 0.02),
    "precision": Measured("precision", 1, 0.02),
    "recall": Measured("recall", 1, 0.02),
    "density": Measured("density", 1, 0.02),
    "coverage": Measured("coverage", 1, 0.02),
    "fid": Measured("FID (own features)", -1, 0.02),
    "modes_lowest": Measured("fewest modes, second half", 1, 1.0),
    "overfitting": Measured("overfitting of D", -1, 0.02),
    "gradient_norm_real": Measured("gradient of D, real", -1, 0.02),
    "gradient_norm_fake": Measured("gradient of D, fake", -1, 0.02),
    "generator_sigma_max": Measured("largest sigma, G", -1, 0.02),
    "discriminator_sigma_max": Measured("largest sigma, D", -1, 0.02),
    "gradient_spikes": Measured("gradient spikes", -1, 0.0, 0.0),
    "diverged": Measured("diverged", -1, 0.1, 0.0),
}
ALL_MODES = {"grid": 25.0, "ring": 8.0, "stacked": 1000.0}
COVER = ("modes", "reverse_kl_all", "recall", "coverage")
REAL = ("not worse: high_quality", "not worse: precision")
TOGETHER = ("modes", "reverse_kl_all", "high_quality")
SUPPORTED, NOT_SUPPORTED, UNDECIDED, NO_ROOM = "supported", "not supported", "undecided", "nothing to improve"


def judge(arm: Seeds, base: Seeds, name: str, task: str) -> tuple[str, str]:
    """One measure of one arm against another on a task: the verdict, and the effect in words."""
    kept = name.removeprefix("not worse: ")
    measured = MEASURES[kept]
    pairs = sorted(seed for seed in arm.keys() & base.keys() if isfinite(arm[seed]) and isfinite(base[seed]))
    lost = sum(not isfinite(arm[seed]) and isfinite(base[seed]) for seed in arm.keys() & base.keys())
    if not pairs:
        return UNDECIDED, f"{kept}: no value"
    statistic: Callable[..., Any] = np.mean if kept == "diverged" else np.median
    differences = [measured.better * (arm[seed] - base[seed]) for seed in pairs]
    effect, (low, high) = float(statistic(differences)), paired_bootstrap(differences, statistic)
    middle = float(statistic([base[seed] for seed in pairs]))
    least = 0.5 * middle if kept == "gradient_spikes" else measured.least
    ends = sorted((measured.better * low, measured.better * high))
    shown = [measured.better * effect + 0.0, ends[0] + 0.0, ends[1] + 0.0]  # no -0
    words = "{} {:+.3g} [{:+.3g}, {:+.3g}] of {:.3g}".format(kept, *shown, middle)
    words += f", {lost} seeds without a value" if lost else ""
    best = ALL_MODES.get(task) if kept == "modes" else measured.best
    at_best = best is not None and all(found[seed] == best for found in (arm, base) for seed in pairs)
    if kept != name:
        verdict = SUPPORTED if low > -least and not lost else NOT_SUPPORTED if high < -least else UNDECIDED
    elif at_best and not lost:
        verdict = NO_ROOM
    elif low > 0 and effect >= least:
        verdict = UNDECIDED if lost else SUPPORTED
    else:
        verdict = NOT_SUPPORTED if high < least or high <= 0 else UNDECIDED
    if len(pairs) < PAIRS_NEEDED and verdict in (SUPPORTED, NOT_SUPPORTED):
        return UNDECIDED, words + f" ({len(pairs)} pairs: fewer than {PAIRS_NEEDED} decide nothing)"
    if verdict == UNDECIDED and not lost:
        needed = seeds_needed(differences) or ceil(len(pairs) * ((high - low) / 2 / least) ** 2 if least else 0)
        words += f" ({needed} seeds would tell)" if needed else ""
    return verdict, words


def together(verdicts: list[str]) -> str:
    """Supported if all are, not supported if one is not; what has nothing to improve does not vote."""
    voting = [each for each in verdicts if each != NO_ROOM]
    if not voting:
        return NO_ROOM
    if NOT_SUPPORTED in voting:
        return NOT_SUPPORTED
    return UNDECIDED if UNDECIDED in voting else SUPPORTED


def seeds_of(summary: dict[str, Any], arm: str, measure: str) -> Seeds:
    """A measure of an arm, whatever its number is; nan where a run has none."""
    method = next(each for each in summary["methods"] if each["name"].partition("@")[0] == arm)
    values = {run["seed"]: run["measures"].get(measure) for run in method["seeds"]}
    return {seed: float("nan") if value is None else value for seed, value in values.items()}


def better_of(summary: dict[str, Any], arms: tuple[str, ...], measure: str) -> Seeds:
    """The better of some arms, seed by seed."""
    sign = MEASURES[measure.removeprefix("not worse: ")].better
    each = [seeds_of(summary, arm, measure.removeprefix("not worse: ")) for arm in arms]
    return {seed: sign * float(np.nanmax([sign * one[seed] for one in each])) for seed in each[0]}


CLAIMS: tuple[tuple[str, str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("1.1", "in a GAN: training is more stable", "standardization", ("baseline",), ("diverged", "gradient_spikes")),
    ("1.4", "noise at the generator's input, in data space", "denoising", ("baseline",), COVER),
    ("1.4", "... in the latent", "latent_noise", ("baseline",), COVER),
    ("1.5", "outputs stay realistic: data space", "denoising", ("baseline",), REAL),
    ("1.5", "... latent", "latent_noise", ("baseline",), REAL),
    ("1.6", "together better than either", "standardization_noise", ("standardization", "denoising"), TOGETHER),
    ("beside 1.4", "noise at the discriminator's input", "adaptive_noise", ("baseline",), COVER),
    ("beside 1.5", "... outputs stay realistic", "adaptive_noise", ("baseline",), REAL),
    ("beside 1.6", "together", "spectral_noise", ("spectral_normalization", "adaptive_noise"), TOGETHER),
)


def verdicts(summary: dict[str, Any], task: str) -> list[str]:
    """Every claim's verdict on a task, and the other arms' against the baseline."""
    arms = [method["name"].partition("@")[0] for method in summary["methods"]]
    rows = []
    named = {arm for _, _, arm, _, _ in CLAIMS}
    others = [
        ("control" if arm in ("clip", "weight_decay") else "other", "", arm, ("baseline",), (*COVER, *REAL))
        for arm in arms
        if arm not in named and arm != "baseline"
    ]
    for number, words, arm, against, measures in (*CLAIMS, *others):
        if arm not in arms or not set(against) <= set(arms):
            continue
        judged = [
            judge(
                seeds_of(summary, arm, measure.removeprefix("not worse: ")),
                better_of(summary, against, measure),
                measure,
                task,
            )
            for measure in measures
        ]
        shown = "; ".join(f"{text} ({verdict})" for verdict, text in judged)
        rows.append(
            f"| {number} | {words} | {task} | `{arm}` | **{together([each for each, _ in judged])}** | {shown} |"
        )
    return rows


def arms_table(summary: dict[str, Any], perfect: dict[str, float]) -> str:
    """Every arm's median over seeds with the least and the most, and what a perfect sampler scores."""
    rows = ["| measure | " + " | ".join(f"`{method['name']}`" for method in summary["methods"]) + " | perfect |"]
    rows.append("|---" * (len(summary["methods"]) + 2) + "|")
    for name, measured in MEASURES.items():
        cells = []
        for method in summary["methods"]:
            values = [run["measures"].get(name) for run in method["seeds"]]
            found = [value for value in values if value is not None and isfinite(value)]
            lost = f" ({len(values) - len(found)} none)" if len(found) < len(values) else ""
            cell = f"{np.median(found):.3g} [{min(found):.3g}, {max(found):.3g}]" if found else "none"
            cells.append("" if not found and name in ("fid",) else cell + lost)
        if any(cell != "none" for cell in cells) and any(cells):
            best = f"{perfect[name]:.3g}" if name in perfect else ""
            rows.append(f"| {measured.title} | " + " | ".join(cells) + f" | {best} |")
    return "\n".join(rows)


def divergence_table(summary: dict[str, Any]) -> str:
    """How many runs of each arm diverged, with Wilson's interval."""
    rows = ["| arm | diverged | 95 % interval |", "|---|---|---|"]
    for method in summary["methods"]:
        values = [run["measures"].get("diverged") for run in method["seeds"]]
        hits, trials = sum(value != 0 for value in values), len(values)
        low, high = wilson_interval(hits, trials)
        rows.append(f"| `{method['name']}` | {hits} of {trials} | [{low:.2f}, {high:.2f}] |")
    return "\n".join(rows)


def goal_table(summary: dict[str, Any], task: str) -> str:
    """Seed by seed what the goal asks for."""
    rows = ["| seed | modes | high quality | reverse KL | reached |", "|---|---|---|---|---|"]
    reached = 0
    (method,) = summary["methods"]
    for run in method["seeds"]:
        modes, quality, kl = (run["measures"].get(name) for name in ("modes", "high_quality", "reverse_kl"))
        met = None not in (modes, quality, kl) and modes == ALL_MODES[task] and quality > 0.9 and kl < 0.05
        reached += met
        shown = " | ".join("none" if value is None else f"{value:.3g}" for value in (modes, quality, kl))
        rows.append(f"| {run['seed']} | {shown} | {'yes' if met else 'no'} |")
    return "\n".join([*rows, "", f"Reached by {reached} of {len(method['seeds'])} seeds."])


def published_tables(data: str) -> str:
    """What papers print, each table under its protocol."""
    parts = []
    for protocol in published(data):
        names = protocol.measures
        lines = [f"{protocol.title} ({protocol.citation}). {protocol.note}", ""]
        lines += ["| method | " + " | ".join(MEASURES[name].title for name in names) + " |"]
        lines.append("|---" * (len(names) + 1) + "|")
        for row in protocol.rows:
            cells = []
            for name in names:
                printed = row.values.get(name)
                error = "" if printed is None or printed.error is None else f" ± {printed.error:g}"
                cells.append("" if printed is None else f"{printed.value:g}{error}")
            lines.append(f"| {row.method} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def perfect_of(task: str, samples: int = 2500) -> dict[str, float]:
    """What a perfect sampler scores on the average."""
    if task not in MIXTURES:
        return {}
    found = perfect_mixture_sampler(MIXTURES[task], samples)
    return {"modes": found.modes.mean, "reverse_kl": found.reverse_kl.mean}


def write_tables(out: Path, *, quick: bool) -> None:
    """Keep every summary; write docs/evidence/gan-tables.md."""
    target = out if quick else RESULTS
    parts = [
        "# GANs: tables",
        "Written by `python docs/evidence/gan.py tables`; [the rule](gan.md).",
        "Each cell is the median over seeds with the least and the most. `perfect`: the mean of a perfect sampler.",
    ]
    judged = ["| claim | | task | arm | verdict | effects |", "|---|---|---|---|---|---|"]
    for folder in sorted(path.parent for path in out.glob("*/summary.json")):
        summary, experiment = read_json(folder / "summary.json"), read_json(folder / "experiment.json")
        kept = {key: experiment[key] for key in ("command", "methods", "seeds", "config", "data", "environment")}
        for key in ("command", "processes"):
            kept["environment"].pop(key, None)
        text = json.dumps({"experiment": kept, "summary": summary}, indent=1)
        (target / f"gan-{folder.name}.json").write_text(text + "\n")
        if folder.name.startswith("tune"):
            continue
        data = experiment["config"]["data"]
        task = data.partition("-")[0].partition(":")[0]
        parts.append(f"## {folder.name}\n\n{arms_table(summary, perfect_of(task))}")
        parts.append(f"Runs that diverged:\n\n{divergence_table(summary)}")
        if folder.name.startswith("goal"):
            parts.append(goal_table(summary, task))
            parts.append(f"What papers print, of other networks and budgets:\n\n{published_tables(data)}")
        else:
            judged += verdicts(summary, folder.name)
    parts.append("## Verdicts\n\n" + "\n".join(judged))
    ((out if quick else RESULTS.parent) / "gan-tables.md").write_text("\n\n".join(parts) + "\n")
