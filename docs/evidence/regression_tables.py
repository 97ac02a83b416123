"""Judge the claims about the reduction by the rule of docs/evidence/regression.md, from the runs in results/ alone."""

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from lsdr.experiments.bootstrap import paired_bootstrap, wilson_interval
from lsdr.runs import read_json

RESULTS = Path(__file__).parent / "results"
RULES = ("one_se", "cv", "aic", "bic", "p_value")
# The least effect that matters, of the value without the reduction.
LEAST = {"cost": 0.25, "generalisation": 0.02, "housing": 0.10}
SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"


def verdict(values: list[float], least: float) -> tuple[str, str]:
    """Of relative changes that should be negative: the verdict, and median and interval in words."""
    median = float(np.median(values))
    low, high = paired_bootstrap(values)
    words = f"{100 * median:+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}], {len(values)}"
    if high < 0 and median <= -least:
        return SUPPORTED, words
    if low > -least:
        return NOT_SUPPORTED, words
    needed = ceil(len(values) * ((high - low) / 2 / least) ** 2)
    return UNDECIDED, f"{words} ({needed} would tell)"


def share(hits: int, trials: int) -> tuple[float, float, str]:
    """Wilson's interval of a share, and both in words."""
    low, high = wilson_interval(hits, trials)
    return low, high, f"{100 * hits / trials:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {trials}"


def tables() -> str:
    """All verdicts and what they rest on."""
    lines = ["| claim | part | verdict | effect, 95 % interval, number |", "|---|---|---|---|"]
    lines += [*_cost_rows(), *_generalisation_rows(), *_selection_rows(), *_housing_rows()]
    return "\n".join([*lines, "", *_arms_table()])


def _row(claim: str, part: str, judged: str, words: str) -> str:
    return f"| {claim} | {part} | {f'**{judged}**' if judged else ''} | {words} |"


def _cost_rows() -> list[str]:
    seeds = read_json(RESULTS / "regression-cost.json")["seeds"]
    lines = []
    for where in ("memory", "parquet"):
        half = [seed[f"{where} 50"] / seed[f"{where} 100"] - 1 for seed in seeds]
        judged, words = verdict(half, LEAST["cost"])
        lines.append(_row("6.1", f"half of 100 columns, {where}", judged, words))
        same = [seed[f"{where} 100 again"] / seed[f"{where} 100"] - 1 for seed in seeds]
        lines.append(_row("", f"control: the same, {where}", "", verdict(same, LEAST["cost"])[1]))
        tenth = [seed[f"{where} 10"] / seed[f"{where} 100"] - 1 for seed in seeds]
        lines.append(_row("", f"a tenth, {where}", "", verdict(tenth, LEAST["cost"])[1]))
    fits = np.median([seed["path"] / seed["one fit"] for seed in seeds])
    pays = np.median([seed["path"] / (seed["parquet 100"] - seed["parquet 50"]) for seed in seeds])
    words = f"{fits:.1f} fits of the full model; paid for after predicting the table {pays:.1f} times from Parquet"
    return [*lines, _row("", "the whole path with 5-fold errors", "", words)]


def _by_part(data_sets: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {
        "few true variables": [each for each in data_sets if each["scenario"]["truth"] == "three"],
        "all variables true": [each for each in data_sets if each["scenario"]["truth"] in ("equal", "falling")],
        "real": [each for each in data_sets if each["scenario"]["truth"] == "real"],
    }


def _medians(data_sets: list[dict[str, Any]], arm: str) -> list[float]:
    return [float(np.median(each["draws"][arm])) for each in data_sets]


def _generalisation_rows() -> list[str]:
    lines = []
    for part, data_sets in _by_part(read_json(RESULTS / "regression-generalisation.json")["data_sets"]).items():
        effects = _medians(data_sets, "one_se")
        judged, words = verdict(effects, LEAST["generalisation"])
        better = sum(effect < 0 for effect in effects)
        lines.append(_row("6.2", part, judged, f"{words}; better in {better} of {len(effects)}"))
    return lines


def _arms_table() -> list[str]:
    named = [*RULES, "ridge", "random variables", "all variables"]
    lines = [f"| change of held-out error | {' | '.join(named)} |", "|---" * (len(named) + 1) + "|"]
    for part, data_sets in _by_part(read_json(RESULTS / "regression-generalisation.json")["data_sets"]).items():
        cells = [verdict(_medians(data_sets, arm), LEAST["generalisation"])[1].split("],")[0] + "]" for arm in named]
        lines.append(f"| {part} | {' | '.join(cells)} |")
        if part == "real":
            continue
        for n in (60, 200, 1000):
            some = [each for each in data_sets if each["scenario"]["n"] == n]
            cells = [f"{100 * np.median(_medians(some, arm)):+.1f} %" for arm in named]
            lines.append(f"| ... n = {n} | {' | '.join(cells)} |")
    return lines


def _selection_rows() -> list[str]:
    lines = []
    for setting, rows in read_json(RESULTS / "regression-selection.json")["settings"].items():
        counted = {arm: [t > 1.96 for row in rows[arm] for t in row] for arm in ("selected", "split")}
        low, high, words = share(sum(counted["selected"]), len(counted["selected"]))
        _, control, split = share(sum(counted["split"]), len(counted["split"]))
        judged = SUPPORTED if low > 0.1 and control < 0.1 else NOT_SUPPORTED if high < 0.1 else UNDECIDED
        lines.append(_row("6.3", setting, judged, f"{words} above 1.96; split-sample {split}"))
        kept = share(sum(size > 0 for size in rows["default size"]), len(rows["selected"]))[2]
        lines.append(_row("", "care: the default rule keeps any noise", "", kept))
    return lines


def _housing_rows() -> list[str]:
    data_sets = read_json(RESULTS / "regression-generalisation.json")["data_sets"]
    falls, steps = (int(sum(sum(each["draws"][name]) for each in data_sets)) for name in ("falls in-sample", "steps"))
    lines = [_row("6.4", "in-sample", SUPPORTED if falls else NOT_SUPPORTED, f"{falls} falls in {steps} steps")]
    possible = []
    for n, rows in read_json(RESULTS / "regression-housing.json")["by_n"].items():
        ratios = np.array(rows["held-out"])
        low, _, words = share(int((ratios <= 0.9).sum()), len(ratios))
        possible.append(low > 0.01)
        variance = np.median(rows["residual variance"])
        middle = f"{100 * np.mean(ratios < 1):.0f} % fall; median {100 * (np.median(ratios) - 1):+.1f} %"
        note = f"{words} fall by a tenth, {middle}; residual variance {100 * (variance - 1):+.1f} %"
        lines.append(_row("", f"held-out, n = {n}", "", note))
        if n == "100":
            usual = verdict((ratios - 1).tolist(), LEAST["housing"])
    lines.append(_row("6.4", "held-out, possible", SUPPORTED if any(possible) else NOT_SUPPORTED, "see above"))
    lines.append(_row("6.4", "held-out, as a rule (n = 100)", *usual))
    return lines


if __name__ == "__main__":
    print(tables())
