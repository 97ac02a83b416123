"""What every `lsdr compare` does: check, train every method on every seed, report, say what was found."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from lsdr import runs
from lsdr.cli.run_folder import print_left_out
from lsdr.experiments.method import Method
from lsdr.experiments.methods import resolve
from lsdr.experiments.task import Task


def run_comparison(
    config: Any,
    names: str,
    seeds: int,
    out: Path,
    *,
    task: Task,
    check: Callable[[Any, Sequence[Method]], None],
    engine: Literal["local", "ray"],
    jobs: int | None,
) -> int:
    """Compare, then report.

    Args:
        config: The task's configuration; its training's seed is the first of the seeds.
        names: Methods with commas between.
        seeds: How many seeds.
        out: Folder of the comparison.
        task: What is trained and measured.
        check: Raises where data, model and methods do not fit each other, before anything is trained.
        engine: As in `lsdr.experiments.compare.compare`.
        jobs: As there.

    Returns:
        The command's exit status: 1 if a run crashed.

    Raises:
        ValueError: If there are no seeds, or as `check` and `compare` do.
    """
    # Imported here and not above, so that help and wrong options answer at once.
    from lsdr.experiments.compare import compare
    from lsdr.report.report import write_report

    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    methods = [name.strip() for name in names.split(",") if name.strip()]
    check(config, [resolve(name, methods, task.name) for name in methods])
    first = config.training.seed
    try:
        summary = compare(config, methods, list(range(first, first + seeds)), out, task=task, engine=engine, jobs=jobs)
    except KeyboardInterrupt:
        print(f"report so far: {write_report(out)}")
        raise
    page = write_report(out)
    data = runs.read_json(out / "experiment.json")["data"]
    if data is not None:  # no run came so far as to describe it
        print_left_out(data)
    print(f"{_found(out)}\n\nreport: {page}")
    statuses = [seed["status"] for method in summary["methods"] for seed in method["seeds"]]
    return 1 if "crashed" in statuses else 0


def _found(directory: Path) -> str:
    """What a comparison found, for the terminal: the report's own words."""
    from lsdr.report.load import load
    from lsdr.report.verdicts import verdicts
    from lsdr.report.words import caution, findings

    results = load(directory)
    rows = verdicts(results)
    paragraphs = [
        f"{finding.method}: {' '.join(each.text for each in finding.sentences)}" for finding in findings(results, rows)
    ]
    return "\n\n".join(["", *paragraphs, caution(results, rows)]).rstrip()
