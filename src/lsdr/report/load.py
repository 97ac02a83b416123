"""Read a run directory into plain values; whatever is missing or broken becomes a note, never a traceback."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lsdr.report import names
from lsdr.report.plain import columns, mapping, mappings, read_object, records, scalar, sequence
from lsdr.report.thin import Array

_METRICS = ("step", "loss", "penalty", "grad_norm", "grad_norm_max", "seconds", "step_seconds", "memory_mb", "spikes")
_EVALUATIONS = ("step", "seconds", "heldout_loss")
# What the players of a game record beside these; other runs have none of it.
_GAME_METRICS = (
    "discriminator/loss", "generator/loss", "discriminator/grad_norm", "generator/grad_norm", "logits/real",
    "logits/fake", "r1", "r2", "noise/level", "noise/signal",
)  # fmt: skip
_GAME_EVALUATIONS = (
    "modes", "high_quality", "reverse_kl", "precision", "recall", "density", "coverage", "logits_train",
    "logits_heldout", "logits_fake",
)  # fmt: skip
_REPRESENTATION_EVALUATIONS = (
    "heldout_objective", "train_objective", "invariance", "effective_rank", "participation_ratio", "code_std", "knn",
)  # fmt: skip
_EVALUATED = (*_EVALUATIONS, *_GAME_EVALUATIONS, *_REPRESENTATION_EVALUATIONS)
# Options that no other task has.
_OF_TASK = {"gan": {"packing", "discriminator_noise"}, "representation": {"views", "projector"}}
_PRIMARY = {"gan": ("reverse_kl_all", "reverse_kl", "fid"), "representation": ("linear_probe.1", "lidar")}


@dataclass(frozen=True)
class Run:
    """One training run: a method with one seed."""

    method: str
    seed: int | None
    directory: Path
    state: str
    status: dict[str, Any]
    config: dict[str, Any]
    metrics: dict[str, Array]
    evaluations: dict[str, Array]
    events: list[dict[str, Any]]
    spectra: list[dict[str, Any]]
    monitored: list[dict[str, Any]]
    measures: dict[str, float]
    curves: dict[str, Any]
    lr_range: dict[str, Any]

    @property
    def name(self) -> str:
        """The run in words."""
        return self.method if self.seed is None else f"{self.method}, seed {self.seed}"

    @property
    def steps(self) -> float:
        """The steps planned; a run may go on beyond them to reach the baseline's wall-clock. Infinite if unknown."""
        steps = scalar(self.status.get("steps"))
        return steps if math.isfinite(steps) else math.inf


@dataclass(frozen=True)
class Method:
    """One arm of a comparison and its runs."""

    name: str
    description: str
    regularizers: list[str]
    runs: list[Run]


@dataclass(frozen=True)
class Results:
    """Everything a report shows."""

    directory: Path
    single: bool
    record: dict[str, Any]
    methods: list[Method]
    baseline: str
    summary: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """All runs, method by method."""
        return [run for method in self.methods for run in method.runs]

    @property
    def task(self) -> str:
        """What was trained: "diffusion", "gan", "representation" or another task."""
        return str(self.record.get("task") or "diffusion")

    @property
    def primary(self) -> str:
        """The measure that decides, named before the runs: a task's first of those that any run has."""
        names = _PRIMARY.get(self.task, ("heldout_loss",))
        measured = {name for run in self.runs for name in run.measures}
        return next((name for name in names if name in measured), names[0])

    @property
    def seeds(self) -> int:
        """The number of seeds planned or, where more were run, run."""
        return max([len(method.runs) for method in self.methods], default=0)

    def label(self, measure: str) -> str:
        """A measure's name in words."""
        label = self.about(measure).get("label")
        return str(label) if label else names.spelled(plain_name(measure))

    def about(self, measure: str) -> dict[str, Any]:
        """What experiment.json says about a measure: label, unit, better, description."""
        return mapping(mapping(self.record.get("measures")).get(plain_name(measure)))


def plain_name(measure: str) -> str:
    """A measure's name without the mark of equal wall-clock.

    Example:
        >>> plain_name("heldout_loss@equal_time")
        'heldout_loss'
    """
    return measure.removesuffix("@equal_time")


def load(directory: Path) -> Results:
    """Read an experiment directory, or a single run's (one with metrics.jsonl or status.json directly inside).

    Raises:
        ValueError: If the directory holds neither.
    """
    notes: list[str] = []
    experiment = directory / "experiment.json"
    if not directory.is_dir():
        raise ValueError(f"expected a run directory, but {directory} is not a folder; give the folder a run wrote into")
    if not experiment.exists() and ((directory / "metrics.jsonl").exists() or (directory / "status.json").exists()):
        run = _load_run(directory, *_who(directory), notes)
        method = Method(run.method, "", [], [run])
        return Results(directory, True, _single_record(run, notes), [method], method.name, {}, notes)
    record = read_object(experiment, notes)
    methods = _load_methods(directory, record, notes)
    if not methods and not experiment.exists():
        raise ValueError(
            f"{directory} holds no experiment.json, no metrics.jsonl and no METHOD/seed=K folders; "
            "give the folder that `lsdr compare` or `lsdr train` wrote into"
        )
    summary = read_object(directory / "summary.json", notes)
    named = [str(item["against"]) for item in mappings(summary.get("comparisons")) if item.get("against")]
    known = [method.name for method in methods]
    baseline = next(iter(named), "baseline" if "baseline" in known or not known else known[0])
    return Results(directory, False, record, methods, baseline, summary, notes)


def _load_methods(directory: Path, record: dict[str, Any], notes: list[str]) -> list[Method]:
    described = {str(item.get("name")): item for item in mappings(record.get("methods"))}
    found = sorted({path.parent.name for path in directory.glob("*/seed=*") if path.is_dir()} - described.keys())
    planned = [seed for seed in sequence(record.get("seeds")) if isinstance(seed, int)]
    methods = []
    for name in [*described, *found]:
        folder = directory / name
        if not folder.resolve().is_relative_to(directory.resolve()):
            notes.append(f"The method {name!r} lies outside the experiment's folder and is left out.")
            continue
        seeds = dict.fromkeys(planned) | dict.fromkeys(sorted(_seeds(folder)))
        runs = [_load_run(folder / f"seed={seed}", name, seed, notes) for seed in seeds]
        about = described.get(name, {})
        regularizers = [str(item) for item in sequence(about.get("regularizers"))]
        methods.append(Method(name, str(about.get("description") or ""), regularizers, runs))
    return methods


def _seeds(folder: Path) -> list[int]:
    numbers = [path.name.removeprefix("seed=") for path in folder.glob("seed=*") if path.is_dir()]
    return [int(number) for number in numbers if number.isdecimal()]


def _load_run(folder: Path, method: str, seed: int | None, notes: list[str]) -> Run:
    status = read_object(folder / "status.json", notes)
    measures = read_object(folder / "measures.json", notes)
    curves = read_object(folder / "curves.json", notes)
    lr_range = read_object(folder / "lr_range.json", notes)
    return Run(
        method=method,
        seed=seed,
        directory=folder,
        state=str(status.get("status") or ("no status" if folder.exists() else "not started")),
        status=status,
        config=_config(folder, notes),
        metrics=columns(folder / "metrics.jsonl", (*_METRICS, *_GAME_METRICS), notes),
        evaluations=columns(folder / "evaluations.jsonl", _EVALUATED, notes),
        events=list(records(folder / "events.jsonl", notes)),
        spectra=list(records(folder / "spectra.jsonl", notes)),
        monitored=list(records(folder / "monitor.jsonl", notes)),
        measures={name: number for name, value in measures.items() if np.isfinite(number := scalar(value))},
        curves=curves,
        lr_range=lr_range,
    )


def _config(folder: Path, notes: list[str]) -> dict[str, Any]:
    """What was trained: as a lone run wrote it down, or as a comparison gave it to its run."""
    return read_object(folder / "config.json", notes) or mapping(read_object(folder / "job.json", notes).get("config"))


def _who(directory: Path) -> tuple[str, int | None]:
    """A lone run's method and seed: from its configuration, else from its folder's name."""
    config = read_object(directory / "config.json", [])
    folder = directory.resolve()
    named = folder.name.startswith("seed=")
    method = config.get("method") or config.get("name") or (folder.parent.name if named else folder.name)
    training = mapping(config.get("training"))
    seed = str(training.get("seed", config.get("seed", folder.name.removeprefix("seed=") if named else "")))
    return str(method), int(seed) if seed.isdecimal() else None


def _single_record(run: Run, notes: list[str]) -> dict[str, Any]:
    """What a lone run's files know of what experiment.json holds for a comparison."""
    environment = read_object(run.directory / "environment.json", notes)
    task = next((task for task, options in _OF_TASK.items() if run.config.keys() >= options), "diffusion")
    return {
        "task": task,
        "command": environment.get("command"),
        "environment": environment,
        "data": read_object(run.directory / "data.json", notes),
        "config": run.config,
        "measures": names.described(run.measures, task),
    }
