"""Write what was seen of a generator as one HTML file that needs no other and no network."""

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lsdr.report.figures.points import path_plot, point_plot
from lsdr.report.figures.shares import shares_plot
from lsdr.report.figures.style import COLOURS
from lsdr.report.images import Picture
from lsdr.report.inspection.figures import layer_plots
from lsdr.report.inspection.multiples import multiples
from lsdr.report.numbers import THIN, count, number, plural
from lsdr.report.plain import mapping, mappings, scalar, sequence, vector
from lsdr.report.render import render
from lsdr.runs import write_text

_TONES = {"error": "worse", "warning": "worse", "note": "neutral"}
_CAPTIONS = {
    "samples": ("Samples", "Grid of generated images."),
    "data": ("Real images, as many", "Grid of real images from the data."),
    "nearest": (
        "The samples nearest to a training image, each column’s training image in the lower half",
        "Samples, and under each the training image nearest to it.",
    ),
    "interpolation": ("A row is a path from one latent to another", "Rows of images along paths between latents."),
}


@dataclass(frozen=True)
class Measured:
    """One number of the samples, and what a perfect sampler or real examples kept aside get."""

    label: str
    value: str
    ideal: str
    hint: str


def write_gan_page(found: Mapping[str, Any], pictures: Mapping[str, Image.Image], path: Path) -> Path:
    """Write the page of one generator.

    The answer first, whether this is mode collapse; then what looks wrong, samples beside data, samples by mode, the
    training examples nearest to samples, paths between latents, the numbers, and both networks' layers. Whatever is
    missing is left out. Without scripts everything but the plots works. Imports no torch.

    Args:
        found: What `lsdr inspect --gan --json` writes.
        pictures: "samples", "data", "nearest", "interpolation", where there are any.
        path: The HTML file; replaced in one step.

    Returns:
        The file written.

    Example:
        >>> import tempfile
        >>> write_gan_page({"answer": "No.", "findings": []}, {}, Path(tempfile.mkdtemp()) / "page.html").name
        'page.html'
    """
    write_text(path, render("gan", _content(mapping(found), pictures), parts=("inspection",)))
    return path


def facts(found: Mapping[str, Any]) -> list[str]:
    """What was looked at, in short phrases."""
    samples, train, heldout = (scalar(found.get(name)) for name in ("samples", "train", "heldout"))
    told = [
        str(found.get("model") or ""),
        f"data: {found['data']}" if found.get("data") else "",
        _shape(sequence(found.get("shape"))),
        f"{count(samples)} samples" if math.isfinite(samples) else "",
        f"{count(train)} training examples" if math.isfinite(train) else "",
        f"{count(heldout)} kept aside" if math.isfinite(heldout) else "",
    ]
    return [fact for fact in told if fact]


def _shape(sizes: list[Any]) -> str:
    return f"{sizes[0]} coordinates" if len(sizes) == 1 else "×".join(str(size) for size in sizes)


def measured(found: Mapping[str, Any]) -> list[Measured]:
    """The numbers, row by row."""
    modes, fidelity, copies, path, judge = (
        mapping(found.get(name)) for name in ("modes", "fidelity", "memorisation", "interpolation", "overfitting")
    )
    perfect, real = mapping(modes.get("perfect")), mapping(fidelity.get("reference"))
    kinds = {"mode": "Modes", "class": "Classes", "cluster": "Clusters"}
    total = f" of {count(scalar(modes.get('total')))}" if modes else ""
    rows = [
        Measured(
            f"{kinds.get(str(modes.get('kind')), 'Modes')} with a sample",
            _whole(modes.get("captured"), total), _ideal(perfect, "modes", _whole), "one is enough",
        ),
        Measured(
            "Samples at a mode", _share(modes.get("high_quality")), _ideal(perfect, "high_quality", _share),
            "within three standard deviations of it",
        ),
        Measured(
            "Reverse KL", _plain(modes.get("reverse_kl")), _ideal(perfect, "reverse_kl", _plain),
            "how unevenly samples are spread over modes, against the data; 0 is as the data",
        ),
        Measured(
            "Width within modes", _share(modes.get("spread")), "100\u202f%" if modes.get("spread") is not None else "",
            "standard deviation of samples around their mode over the data’s",
        ),
        *(
            Measured(name.capitalize(), _fraction(fidelity.get(name), name), _fraction(real.get(name), name), hint)
            for name, hint in (
                ("precision", "samples that lie among the data"),
                ("recall", "data that lie among the samples"),
                ("density", "how many examples’ neighbourhoods a sample lies in, over the usual number"),
                ("coverage", "neighbourhoods of the data with a sample in them"),
            )
        ),
        Measured(
            "Copies of training examples", _share(copies.get("copies")), _share(copies.get("heldout_copies")),
            "much nearer to a training example than real ones kept aside",
        ),
        Measured(
            "Distance to the nearest training example", _plain(copies.get("distance")),
            _plain(copies.get("heldout_distance")), "median; beside it that of real examples kept aside",
        ),
        Measured(
            "Longest step of a latent path", _share(path.get("largest")), _even(path),
            "share of the path’s length; beside it that of an even path",
        ),
        Measured(
            "Overfitting of the discriminator", _plain(judge.get("ratio")), "0" if judge else "",
            "how far real examples kept aside lie from training ones on the way to samples, by its output",
        ),
    ]  # fmt: skip
    return [row for row in rows if row.value != "—"]


def _whole(value: object, after: str = "") -> str:
    return f"{number(float(round(scalar(value), 1)), 4)}{after}" if math.isfinite(scalar(value)) else "—"


def _share(value: object) -> str:
    share = 100 * scalar(value)
    return f"{number(share, 3).removesuffix('.00')}{THIN}%" if math.isfinite(share) else "—"


def _plain(value: object) -> str:
    return number(scalar(value))


def _fraction(value: object, name: str) -> str:
    return _plain(value) if name == "density" else _share(value)


def _even(path: dict[str, Any]) -> str:
    steps = scalar(path.get("steps"))
    return _share(1 / steps) if steps > 0 else ""


def _ideal(perfect: dict[str, Any], name: str, words: Any) -> str:
    about = mapping(perfect.get(name))
    text: str = words(about.get("mean"))
    return "" if text == "—" else text


def _content(found: dict[str, Any], pictures: Mapping[str, Image.Image]) -> dict[str, Any]:
    layers = [{**row, "kind": str(row.get("name")).partition(".")[0]} for row in mappings(found.get("layers"))]
    points = mapping(found.get("points"))
    plots = [_scatter(points, name) for name in ("samples", "data") if len(_rows(points.get(name)))]
    shown = {name: _picture(image, *_CAPTIONS[name]) for name, image in pictures.items() if name in _CAPTIONS}
    memorisation = mapping(found.get("memorisation"))
    modes = mapping(found.get("modes"))
    return {
        "title": Path(str(found.get("source") or "generator")).name,
        "source": str(found.get("source") or ""),
        "facts": facts(found),
        "answer": str(found.get("answer") or ""),
        "findings": [_finding(each) for each in mappings(found.get("findings"))],
        "scatters": plots,
        "pictures": [shown[name] for name in ("samples", "data") if name in shown],
        "shares": shares_plot(modes),
        "kind": {"class": "class", "cluster": "cluster"}.get(str(modes.get("kind")), "mode"),
        "nearest": shown.get("nearest"),
        "pairs": _pairs(memorisation),
        "interpolation": shown.get("interpolation"),
        "paths": path_plot([_rows(each) for each in sequence(points.get("paths"))], mapping(points.get("mixture"))),
        "rows": measured(found),
        "layers": layer_plots(layers),
        "multiples": multiples(layers),
        "counted": plural(len(layers), "layer"),
    }


def _scatter(points: dict[str, Any], name: str) -> Any:
    colour = COLOURS[0] if name == "samples" else "#6b7683"
    title = "Samples" if name == "samples" else "Data"
    return point_plot(_rows(points.get(name)), mapping(points.get("mixture")), title, f"points-{name}", colour, name)


def _rows(value: object) -> Any:
    rows = [vector(each) for each in sequence(value)]
    return np.stack(rows).astype(np.float32) if rows and len({len(row) for row in rows}) == 1 else np.empty((0, 2))


def _pairs(memorisation: dict[str, Any]) -> list[tuple[str, str]]:
    found = mappings(memorisation.get("nearest"))
    return [(str(each.get("train") or ""), number(scalar(each.get("distance")))) for each in found]


def _picture(image: Image.Image, caption: str, alt: str) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(uri, *image.size, caption, alt)


def _finding(finding: dict[str, Any]) -> dict[str, str]:
    severity = str(finding.get("severity") or "note")
    return {
        "severity": severity,
        "tone": _TONES.get(severity, "none"),
        "message": str(finding.get("message") or finding.get("kind") or ""),
        "kind": str(finding.get("kind") or ""),
    }
