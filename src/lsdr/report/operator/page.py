"""Write what `inspect_operator` found as one HTML file that needs no other and no network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsdr.report.figures.lyapunov import lyapunov_plot
from lsdr.report.figures.operator import operator_plots
from lsdr.report.figures.operator_calibration import calibration_plot
from lsdr.report.figures.operator_density import density_plot
from lsdr.report.figures.power import power_plot
from lsdr.report.load import Method, Results, Run
from lsdr.report.numbers import plural
from lsdr.report.operator.artifacts import artifacts
from lsdr.report.operator.levels import levels_in
from lsdr.report.operator.rows import table
from lsdr.report.plain import mapping, mappings, sequence
from lsdr.report.render import render
from lsdr.runs import write_text

_TONES = {"error": "worse", "warning": "worse", "note": "neutral"}


def write_operator_page(found: Mapping[str, Any], path: Path) -> Path:
    """Write the page of one denoiser: the spectrum of its steps over noise levels.

    What looks wrong first, then eigenvalues, their density, gains, time scales, symmetry, calibration, the sampler's
    Lyapunov exponents, power spectra and artefacts of the samples, and the numbers in a table. Whatever is missing or
    not finite is left out. Without scripts everything but the plots works. Imports no torch.

    Args:
        found: What `lsdr inspect --operator --json` writes.
        path: The HTML file; replaced in one step.

    Returns:
        The file written.

    Example:
        >>> import tempfile
        >>> write_operator_page({"levels": [], "findings": []}, Path(tempfile.mkdtemp()) / "page.html").name
        'page.html'
    """
    write_text(path, render("operator", _content(mapping(found)), parts=("inspection",)))
    return path


def facts(found: Mapping[str, Any]) -> list[str]:
    """What was measured, and how, in short phrases."""
    shape = [str(size) for size in sequence(found.get("shape"))]
    images = found.get("images")
    told = [
        str(found.get("model") or ""),
        f"output read as {found['prediction']}" if found.get("prediction") else "",
        "×".join(shape),
        plural(images, "image") if isinstance(images, int) else "",
        plural(len(levels_in(found.get("levels"))), "noise level"),
        f"steps in the {found['frame']} frame" if found.get("frame") else "",
        str(found.get("estimator") or "").replace("_", " "),
    ]
    return [fact for fact in told if fact]


def _content(found: dict[str, Any]) -> dict[str, Any]:
    results = _as_run(found)
    last = (calibration_plot(results), lyapunov_plot(results))
    return {
        "title": Path(str(found.get("source") or "denoiser")).name,
        "source": str(found.get("source") or ""),
        "facts": facts(found),
        "why": str(found.get("why") or ""),
        "findings": [_finding(each) for each in mappings(found.get("findings"))],
        "plots": [*operator_plots(results), *(plot for plot in last if plot)],
        "density": density_plot(results),
        "power": power_plot(results),
        "artifacts": artifacts(found.get("artifacts")),
        "searched": isinstance(found.get("artifacts"), list),
        "columns": table(levels_in(found.get("levels"))),
    }


def _finding(finding: dict[str, Any]) -> dict[str, str]:
    severity = str(finding.get("severity") or "note")
    return {
        "severity": severity,
        "tone": _TONES.get(severity, "none"),
        "message": str(finding.get("message") or finding.get("kind") or ""),
        "kind": str(finding.get("kind") or ""),
    }


def _as_run(found: dict[str, Any]) -> Results:
    """The same values as a finished run has them, so that a report's plots can draw them."""
    curves = {
        "operator": found.get("levels"),
        "operator_frame": found.get("frame"),
        "lyapunov": found.get("lyapunov"),
        "power_spectrum": found.get("power_spectrum"),
    }
    folder = Path(str(found.get("source") or "."))
    run = Run("samples", None, folder, "finished", {}, {}, {}, {}, [], [], [], {}, curves, {})
    return Results(folder, True, {}, [Method("samples", "", [], [run])], "samples", {})
