"""Write an inspection as one HTML file that needs no other and no network."""

from pathlib import Path
from typing import Any

from lsdr.report.inspection.figures import base_plots, layer_plots
from lsdr.report.inspection.multiples import multiples
from lsdr.report.inspection.rows import table
from lsdr.report.numbers import count, duration, plural
from lsdr.report.plain import mapping
from lsdr.report.render import render
from lsdr.runs import write_text

_TONES = {"error": "worse", "warning": "worse", "info": "neutral"}


def write_inspection_page(inspection: dict[str, Any], path: Path) -> Path:
    """Write the page of one inspection.

    The findings first, then every statistic over depth, each layer's spectrum in small, and a table that can be
    searched and sorted. Without scripts everything but the plots and the searching works. Imports no torch.

    Args:
        inspection: What `lsdr inspect --json` writes.
        path: The HTML file; replaced in one step.

    Returns:
        The file written.

    Example:
        >>> import tempfile
        >>> page = Path(tempfile.mkdtemp()) / "page.html"
        >>> write_inspection_page({"layers": [], "findings": [], "file": {"path": "a.safetensors"}}, page).name
        'page.html'
    """
    write_text(path, render("inspection", _content(inspection), parts=("inspection",)))
    return path


def _content(inspection: dict[str, Any]) -> dict[str, Any]:
    layers: list[dict[str, Any]] = inspection["layers"]
    about = mapping(inspection.get("file"))
    return {
        "title": Path(str(about.get("path", "checkpoint"))).name,
        "facts": _facts(inspection, about),
        "notes": [str(note) for note in about.get("notes", [])],
        "findings": [_finding(each) for each in inspection["findings"]],
        "plots": layer_plots(layers),
        "base_plots": base_plots(layers),
        "multiples": multiples(layers),
        "rows": table(layers),
        "heads": [layer for layer in layers if layer.get("heads")],
        "skipped": inspection.get("skipped", []),
        "environment": mapping(inspection.get("environment")),
    }


def _facts(inspection: dict[str, Any], about: dict[str, Any]) -> list[str]:
    facts = [str(about["format"])] if about.get("format") else []
    facts.append(plural(len(inspection["layers"]), "layer"))
    if about.get("parameters"):
        facts.append(f"{count(about['parameters'])} parameters")
    dtypes = mapping(about.get("dtypes"))
    if dtypes:
        facts.append(", ".join(f"{name}" for name in dtypes))
    if about.get("base"):
        facts.append(f"against {Path(str(about['base'])).name}")
    if inspection.get("seconds") is not None:
        facts.append(f"inspected in {duration(inspection['seconds'])}")
    return facts


def _finding(finding: dict[str, Any]) -> dict[str, Any]:
    evidence = mapping(finding.get("evidence"))
    rate = finding.get("false_positive_rate")
    return {
        **finding,
        "tone": _TONES.get(str(finding.get("severity")), "none"),
        "evidence": [(str(name).replace("_", " "), value) for name, value in evidence.items()],
        "rate": rate,
        "page": finding.get("page", ""),
    }
