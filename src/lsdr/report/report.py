"""The report: one HTML file made from a run directory's files alone."""

import json
from pathlib import Path
from typing import Any

from lsdr.report import failures, sanity, tables, words
from lsdr.report.figures.adapter import adapter_plots
from lsdr.report.figures.game import game_plots
from lsdr.report.figures.layers import eigenvalue_plots, layer_names, layer_plots
from lsdr.report.figures.losses import loss_plots
from lsdr.report.figures.lr_range import lr_range_plot
from lsdr.report.figures.measures import effects_plot, seed_plots
from lsdr.report.figures.objective import objective_plots
from lsdr.report.figures.operator import operator_plots
from lsdr.report.figures.operator_calibration import calibration_plot
from lsdr.report.figures.operator_density import density_plot
from lsdr.report.figures.power import power_plot
from lsdr.report.figures.stability import lr_plot
from lsdr.report.figures.style import pens
from lsdr.report.figures.watched import watched_plots
from lsdr.report.gan.sections import gan_sections
from lsdr.report.inspected import inspected
from lsdr.report.load import Results, load
from lsdr.report.operator.artifacts import artifacts_by_method
from lsdr.report.overtraining import overtraining
from lsdr.report.render import render
from lsdr.report.representation.sections import representation_sections
from lsdr.report.samples import final_samples, progress
from lsdr.report.verdicts import by_method, verdicts
from lsdr.runs import write_text

_LOSSES = {"gan": game_plots, "representation": objective_plots}
_SENSITIVITY = ("sensitivity", "lyapunov", "diversity_variance", "nearest_neighbour")


def write_report(directory: Path) -> Path:
    """Write report.html into a run directory, from the files in it.

    The page needs no other file and no network, and works without scripts but for its plots. A run that diverged,
    crashed or has not finished is shown as that; missing and broken files are named at the end. Takes seconds; imports
    no torch.

    Args:
        directory: An experiment (METHOD/seed=K folders, experiment.json) or a single run (metrics.jsonl inside).

    Returns:
        The file written.

    Raises:
        ValueError: If the directory is neither.

    Example:
        >>> import tempfile
        >>> from lsdr.runs import append_record
        >>> run = Path(tempfile.mkdtemp())
        >>> append_record(run / "metrics.jsonl", {"step": 1, "loss": 0.5})
        >>> write_report(run).name
        'report.html'
    """
    results = load(directory)
    page = directory / "report.html"
    write_text(page, render("report", _content(results)))
    return page


def _content(results: Results) -> dict[str, Any]:
    found = verdicts(results)
    notes = list(results.notes)
    shown_events, more_events = failures.events(results)
    checks = sanity.checks(results, notes)
    power = power_plot(results)
    effects = effects_plot(results, found)
    content = {
        "results": results,
        "pens": pens(results),
        "title": words.title(results),
        "facts": words.facts(results),
        "caution": words.caution(results, found),
        "findings": words.findings(results, found),
        "overtraining": overtraining(results),
        "inspected": inspected(results, notes),
        "checks": checks,
        "checked": sanity.tally(checks),
        "comparisons_note": words.comparisons_note(results, found),
        "primary": words.in_sentence(results.label(results.primary)),
        "overview": tables.overview(results, found),
        "groups": [(flag, group) for flag in (False, True) if (group := by_method(found, equal_time=flag))],
        "effects": effects,
        "medians": tables.medians(results),
        "losses": _LOSSES.get(results.task, loss_plots)(results),
        "gan": gan_sections(results, notes) if results.task == "gan" else None,
        "representation": representation_sections(results, notes) if results.task == "representation" else None,
        "rates": [plot for plot in (lr_plot(results), lr_range_plot(results)) if plot],
        "stability": tables.stability(results),
        "samples": final_samples(results, notes),
        "progress": progress(results, notes),
        "power": power,
        "artifacts": artifacts_by_method(results),
        "operator": [plot for plot in (*operator_plots(results), calibration_plot(results)) if plot],
        "density": density_plot(results),
        "weights": layer_plots(results, "weights"),
        "watched": [*adapter_plots(results), *watched_plots(results)],
        "layers": {kind: layer_names(results, kind) for kind in ("weights", "features")},
        "features": [*layer_plots(results, "features"), *eigenvalue_plots(results)],
        "sensitivity": seed_plots(results, _SENSITIVITY),
        "failures": failures.failures(results),
        "events": shown_events,
        "more_events": more_events,
        "images": tables.images_in_words(results),
        "problems": tables.problems(results),
        "environment": tables.environment(results),
        "command": _command(results),
        "config": _config(results),
        "described": tables.described(results, found),
    }
    return {**content, "notes": notes}  # after the pictures, which may add some


def _command(results: Results) -> str:
    stamp = results.record.get("environment")
    command = results.record.get("command") or (stamp.get("command") if isinstance(stamp, dict) else "")
    return " ".join(str(part) for part in command) if isinstance(command, list) else str(command or "")


def _config(results: Results) -> str:
    config = results.record.get("config")
    return json.dumps(config, indent=2, ensure_ascii=False) if config else ""
