"""Tables and verdicts of docs/evidence/representation.md, by its rule, from what the runs left alone."""

import json
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from representation_arms import VIEWS
from representation_rule import SUPPORTED, Question, Seeds, judge, together

from lsdr.runs import read_json

RESULTS = Path(__file__).parent / "results"
REFERENCES = ("raw", "pca", "random")
IMAGES, TABLES, TEXTS = ("digits", "cifar10"), ("breast-cancer", "wine"), ("scipy-docs",)
PROBES = ("linear_probe.1", "linear_probe.10", "linear_probe")
BASES = {"views": "digits", "arms": "digits", "outliers": "digits", "cifar10-arms": "cifar10"}
"""Where the baseline of a comparison ran that has none."""
SHOWN = {
    "linear_probe.1": "probe, 1 %",
    "linear_probe.10": "probe, 10 %",
    "linear_probe": "probe, all",
    "knn": "kNN, all",
    "retrieval": "retrieval",
    "corruption": "corrupted",
    "corruption_drop": "drop by corruption",
    "invariance": "ICC of views",
    "overfitting_gap": "overfitting gap",
    "rank_me": "RankMe",
    "participation_ratio": "participation ratio",
    "lidar": "LiDAR",
    "step_seconds": "s a step",
}
LENGTH = 8
"""Dimensions of a short code."""
TRANSFORMATIONS = ("lighting", "rotation", "scale")


def seeds_of(kept: dict[str, Any], arm: str, measure: str) -> Seeds:
    """A measure of an arm; nan where a run has none."""
    method = next(each for each in kept["summary"]["methods"] if each["name"] == arm)
    return {run["seed"]: _number(run["measures"].get(measure)) for run in method["seeds"]}


def best_reference(kept: dict[str, Any], measure: str) -> Seeds:
    """The best reference's, seed by seed."""
    found = [seeds_of(kept, "baseline", f"{measure}@{reference}") for reference in REFERENCES]
    return _best(found)


def reference_drop(kept: dict[str, Any]) -> Seeds:
    """The drop by corruption of the reference that is best on clean examples."""
    drops = {}
    for seed in seeds_of(kept, "baseline", "linear_probe"):
        clean = {each: seeds_of(kept, "baseline", f"linear_probe@{each}")[seed] for each in REFERENCES}
        best = max(REFERENCES, key=lambda each: -1.0 if np.isnan(clean[each]) else clean[each])
        drops[seed] = seeds_of(kept, "baseline", f"corruption_drop@{best}")[seed]
    return drops


def invariance(kept: dict[str, Any], transformation: str, kind: str, of: str, arm: str = "baseline") -> Seeds:
    """ICC or view retrieval under a transformation, mean over the strengths up to the one that is trained with."""
    trained = {name: float(strength or 0) for name, _, strength in (each.partition(":") for each in VIEWS.split(","))}
    found = {}
    for seed, curves in kept["curves"][arm].items():
        sweep = curves["invariance"]["transformations"][transformation]
        within = [place for place, each in enumerate(sweep["strengths"]) if abs(each) <= trained[transformation]]
        values = [_number(sweep[kind][of][place]) for place in within]
        found[int(seed)] = float(np.mean(values)) if values else float("nan")
    return found


def short(kept: dict[str, Any], of: str) -> Seeds:
    """Accuracy of the first few dimensions."""
    found = {}
    for seed, curves in kept["curves"]["baseline"].items():
        length = curves["probes"]["length"]
        found[int(seed)] = _number(length["accuracy"][of][length["dimensions"].index(LENGTH)])
    return found


def _best(found: list[Seeds]) -> Seeds:
    with np.errstate(all="ignore"):
        return {seed: max((one[seed] for one in found if isfinite(one[seed])), default=np.nan) for seed in found[0]}


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def questions(kept: dict[str, dict[str, Any]], study: dict[str, Seeds], found: dict[str, Seeds]) -> list[Any]:
    """Every (claim, part, task, arm, questions) that the runs can answer.

    Args:
        kept: What comparisons left, by name.
        study: What the study left, by value.
        found: What detection left, by value.
    """
    asked: list[Any] = []
    for task in (each for each in IMAGES if each in kept):
        own = kept[task]
        corrupted = [
            Question("corruption", seeds_of(own, "baseline", "corruption"), best_reference(own, "corruption")),
            Question("corruption_drop", seeds_of(own, "baseline", "corruption_drop"), reference_drop(own), -1),
        ]
        asked.append(("7.1", "robust to noise", task, "baseline", corrupted))
    if {"digits", "outliers"} <= kept.keys():
        clean = seeds_of(kept["digits"], "baseline", "linear_probe.10")
        shares = [
            Question(
                f"{share} %", seeds_of(kept["outliers"], f"contaminated_{share}", "linear_probe.10"), clean, 1, True
            )
            for share in (1, 5, 10)
        ]
        asked.append(("7.1", "robust to outliers", "digits", "contaminated", shares))
        plain = seeds_of(kept["outliers"], "contaminated_10", "linear_probe.10")
        for arm in ("trimmed_10", "huber_10"):
            robust = [Question("10 %", seeds_of(kept["outliers"], arm, "linear_probe.10"), plain)]
            asked.append(("beside 7.1", "robust moments against plain ones", "digits", arm, robust))
    for task in (each for each in (*IMAGES, *TABLES, *TEXTS) if each in kept):
        probes = [
            Question(each, seeds_of(kept[task], "baseline", each), best_reference(kept[task], each)) for each in PROBES
        ]
        asked.append(("7.2", "generalises better", task, "baseline", probes))
    for task in (each for each in IMAGES if each in kept):
        for name in TRANSFORMATIONS:
            parts = []
            for kind in ("icc", "retrieval"):
                references = _best([invariance(kept[task], name, kind, each) for each in REFERENCES])
                parts.append(Question(kind, invariance(kept[task], name, kind, "codes"), references))
            asked.append(("7.3", f"invariant to {name}", task, "baseline", parts))
    if study:
        same_time = [Question("all labels", study["codes.100"], study["supervised.seconds"])]
        asked.append(("7.4", "less training time", "digits", "study", same_time))
        less = [Question(f"{n} %", study[f"codes.{n}"], study[f"supervised.{n}"]) for n in (1, 10)]
        asked.append(("7.4", "less data", "digits", "study", less))
    for task in (each for each in IMAGES if each in kept):
        compact = [Question(f"{LENGTH} dimensions", short(kept[task], "ordered"), short(kept[task], "pca"))]
        asked.append(("7.4", "more compact", task, "baseline", compact))
    for task in (each for each in (*IMAGES, *TEXTS) if each in kept):
        probe = [
            Question(
                "linear_probe",
                seeds_of(kept[task], "baseline", "linear_probe"),
                best_reference(kept[task], "linear_probe"),
            )
        ]
        if task in TEXTS and study:
            probe.append(
                Question("against TF-IDF", seeds_of(kept[task], "baseline", "linear_probe"), study["tfidf.100"])
            )
        asked.append(("7.5", "language" if task in TEXTS else "classification", task, "baseline", probe))
    if found:
        heads = [Question(f"against {each}", found["codes"], found[each]) for each in ("raw", "random")]
        asked.append(("7.5", "detection", "detection", "dense features", heads))
    return asked + _drawbacks(study)


def _drawbacks(study: dict[str, Seeds]) -> list[Any]:
    if not study:
        return []
    few, all_rows = study["rows.tenth"], study["rows.all"]
    asked: list[Any] = [
        ("7.6", "needs much data", "digits", "study", [Question("a tenth of the rows", few, all_rows, -1)])
    ]
    wrong = []
    for share in (20, 40):
        codes = {seed: study["codes.100"][seed] - value for seed, value in study[f"codes.wrong{share}"].items()}
        raw = {seed: study["raw.100"][seed] - value for seed, value in study[f"raw.wrong{share}"].items()}
        wrong.append(Question(f"lost with {share} % wrong labels", codes, raw, bounded=False))
    asked.append(("7.8", "overfits wrong labels", "digits", "study", wrong))
    noisy = [
        Question("accuracy", study["noisy.100"], study["codes.100"], -1),
        Question("gap of ICC", study["noisy.gap"], study["codes.gap"], bounded=False),
    ]
    asked.append(("7.8", "overfits noisy inputs", "digits", "study", noisy))
    return asked


def verdict_tables(asked: list[Any]) -> tuple[str, str]:
    """Every part with its effects, and every claim with its verdict."""
    rows = ["| claim | | task | arm | verdict | effects |", "|---|---|---|---|---|---|"]
    parts: dict[str, list[str]] = {}
    for claim, words, task, arm, several in asked:
        judged = [judge(each) for each in several]
        verdict = together(each for each, _ in judged)
        shown = "; ".join(f"{text} ({each})" for each, text in judged)
        rows.append(f"| {claim} | {words} | {task} | `{arm}` | **{verdict}** | {shown} |")
        parts.setdefault(claim, []).append(verdict)
    claims = ["| claim | verdict | parts |", "|---|---|---|"]
    for claim in ("7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "7.7", "7.8"):
        verdicts = parts.get(claim, [])
        counted = ", ".join(f"{verdicts.count(each)} {each}" for each in sorted(set(verdicts)))
        claims.append(f"| {claim} | **{together(verdicts)}** | {counted} |")
    return "\n".join(rows), "\n".join(claims)


def arms_table(kept: dict[str, Any]) -> str:
    """Every arm's median over seeds with the least and the most, and the references of the first."""
    methods = kept["summary"]["methods"]
    columns = [(each["name"], each, "") for each in methods]
    found_references = {name.partition("@")[2] for run in methods[0]["seeds"] for name in run["measures"]}
    columns += [(each, methods[0], f"@{each}") for each in REFERENCES if each in found_references]
    rows = [
        "| measure | " + " | ".join(f"`{name}`" for name, _, _ in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for measure, title in SHOWN.items():
        cells = []
        for _, method, suffix in columns:
            values = [_number(run["measures"].get(measure + suffix)) for run in method["seeds"]]
            found = [value for value in values if isfinite(value)]
            lost = f" ({len(values) - len(found)} none)" if 0 < len(found) < len(values) else ""
            cells.append(f"{np.median(found):.3g} [{min(found):.3g}, {max(found):.3g}]{lost}" if found else "")
        if any(cells):
            rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def against_baseline(kept: dict[str, Any], base: dict[str, Any]) -> str:
    """Every other arm's probes against VICReg's, seed by seed."""
    if [each["name"] for each in kept["summary"]["methods"]] == ["baseline"]:
        return ""
    rows = ["| against VICReg | " + " | ".join(SHOWN[each] for each in PROBES) + " |", "|---|---|---|---|"]
    for method in kept["summary"]["methods"]:
        name = method["name"]
        if name != "baseline":
            cells = []
            for each in PROBES:
                verdict, words = judge(Question("", seeds_of(kept, name, each), seeds_of(base, "baseline", each)))
                cells.append(words.strip() + (" **+**" if verdict == SUPPORTED else ""))
            rows.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def invariance_table(kept: dict[str, Any]) -> str:
    """ICC under each transformation by what is trained with and by reference, the mean over strengths as judged."""
    arms = {arm: "codes" for arm, runs in kept["curves"].items() if any("invariance" in run for run in runs.values())}
    columns = [(arm, "codes", arm) for arm in arms] + [("baseline", each, each) for each in REFERENCES]
    rows = [
        "| ICC, mean as judged | " + " | ".join(f"`{title}`" for _, _, title in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in TRANSFORMATIONS:
        medians = [np.median(list(invariance(kept, name, "icc", of, arm).values())) for arm, of, _ in columns]
        rows.append(f"| {name} | " + " | ".join(f"{each:.3f}" for each in medians) + " |")
    return "\n".join(rows)


def study_table(study: dict[str, Seeds]) -> str:
    """Every value of a study over seeds."""
    rows = ["| value | median | least | most |", "|---|---|---|---|"]
    for name, seeds in study.items():
        found = [value for value in seeds.values() if isfinite(value)]
        cells = [f"{each:.4g}" for each in (np.median(found), min(found), max(found))] if found else ["", "", ""]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def collect(folder: Path) -> dict[str, Any]:
    """What is kept of a comparison: its configuration, its summary, and the curves that verdicts need."""
    experiment = read_json(folder / "experiment.json")
    about = {key: experiment[key] for key in ("command", "methods", "seeds", "config", "data", "environment")}
    for key in ("command", "processes"):
        about["environment"].pop(key, None)
    curves: dict[str, dict[str, Any]] = {}
    for run in sorted(folder.glob("*/seed=*")):
        curves.setdefault(run.parent.name, {})[run.name.removeprefix("seed=")] = _curves(run)
    # The summary's comparisons are each with the first arm: here arms are compared by the rule above.
    summary = {"methods": read_json(folder / "summary.json")["methods"]}
    return {"experiment": about, "summary": summary, "curves": curves}


def _curves(run: Path) -> dict[str, Any]:
    """Of a run's curves what verdicts and tables need."""
    found: dict[str, Any] = {}
    if (run / "invariance.json").exists():
        sweeps = read_json(run / "invariance.json")["transformations"]
        kept = {
            name: {key: sweeps[name][key] for key in ("strengths", "icc", "retrieval")}
            for name in TRANSFORMATIONS
            if name in sweeps
        }
        found["invariance"] = {"transformations": kept}
    if (run / "probes.json").exists():
        found["probes"] = {"length": read_json(run / "probes.json")["length"]}
    return found


def by_seed(path: Path) -> dict[str, Seeds]:
    """What a study left, value by value; nothing where it was not run."""
    if not path.exists():
        return {}
    seeds = {int(seed): values for seed, values in read_json(path)["seeds"].items()}
    names = list(dict.fromkeys(name for values in seeds.values() for name in values))
    return {name: {seed: _number(values.get(name)) for seed, values in seeds.items()} for name in names}


def write_tables(out: Path, *, quick: bool) -> None:
    """Keep what the runs left; write docs/evidence/representation-tables.md."""
    target = out if quick else RESULTS
    for folder in sorted(path.parent for path in out.glob("*/summary.json")):
        kept = collect(folder)
        source = kept["experiment"]["config"].get("data", "")
        # Where files lay on the machine says nothing about the runs.
        text = json.dumps(kept, indent=1).replace(str(out), "runs/evidence-representation")
        text = text.replace(source, Path(source).name) if "/" in source else text
        (target / f"representation-{folder.name}.json").write_text(text + "\n")
    for name in ("study", "detection"):
        if (out / f"{name}.json").exists():
            (target / f"representation-{name}.json").write_text((out / f"{name}.json").read_text())
    (target if quick else RESULTS.parent).joinpath("representation-tables.md").write_text(tables(target))


def tables(folder: Path) -> str:
    """All tables, from what is kept in a folder."""
    kept = {
        path.stem.removeprefix("representation-"): read_json(path)
        for path in sorted(folder.glob("representation-*.json"))
        if not path.stem.endswith(("tuned", "study", "detection")) and "-tune-" not in path.stem
    }
    study, found = (by_seed(folder / f"representation-{name}.json") for name in ("study", "detection"))
    parts, claims = verdict_tables(questions(kept, study, found))
    lines = [
        "# Representations: tables",
        "Written by `python docs/evidence/representation.py verdicts`; [the rule](representation.md).",
        f"## Verdicts\n\n{claims}\n\n{parts}",
        "Cells below are the median over seeds with the least and the most; the references are those of the first arm.",
    ]
    for name, each in kept.items():
        lines.append(f"## {name}\n\n{arms_table(each)}")
        base = BASES.get(name, name)
        if base in kept and base in IMAGES:
            lines.append(against_baseline(each, kept[base]))
        if name in IMAGES:
            viewed = kept["views"]["curves"] if name == "digits" and "views" in kept else {}
            lines.append(invariance_table({"curves": {**each["curves"], **viewed}}))
    for name, values in (("study", study), ("detection", found)):
        if values:
            lines.append(f"## {name}\n\n{study_table(values)}")
    return "\n\n".join(line for line in lines if line) + "\n"
