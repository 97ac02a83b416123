"""Share of the samples at each mode, class or cluster beside the data's."""

from typing import Any

import numpy as np

from lsdr.report.figures.style import COLOURS, DATA, Key, Plot, canvas, finish, safe
from lsdr.report.numbers import count
from lsdr.report.plain import sequence, vector

_MOST_BARS = 60
_NAMED = 12


def shares_plot(modes: dict[str, Any]) -> Plot | None:
    """Bars of the samples' shares over the data's.

    Args:
        modes: "counts" of samples, "expected" shares of the data, "kind" and "names".
    """
    counts, expected = vector(modes.get("counts")), vector(modes.get("expected"))
    if not len(counts) or len(counts) != len(expected) or not np.isfinite(counts.sum() + expected.sum()):
        return None
    kind, share = str(modes.get("kind") or "mode"), counts / max(counts.sum(), 1)
    many = len(counts) > _MOST_BARS
    place = np.arange(1, len(counts) + 1)
    names = [safe(each) for each in sequence(modes.get("names"))]
    figure = canvas(f"{kind}, by rank" if many else kind, "share", log_y=many)
    if many:  # by rank the two are comparable only as wholes, but a thousand bars are none
        share, expected = (np.where(each > 0, each, np.nan) for each in (np.sort(share)[::-1], np.sort(expected)[::-1]))
        figure.add_scatter(
            x=place, y=share, mode="lines", line={"color": COLOURS[0], "width": 2}, legendgroup="made",
            name="samples", hovertemplate="rank %{x}<br>share %{y:.4~g}",
        )  # fmt: skip
    else:
        figure.add_bar(
            x=place, y=share, marker={"color": COLOURS[0]}, legendgroup="made", name="samples",
            text=names if len(names) == len(counts) else None, textposition="none",
            hovertemplate="%{text}<br>share %{y:.4~g}",
        )  # fmt: skip
    figure.add_scatter(
        x=place, y=expected, mode="lines" if many else "markers", legendgroup="data", name="data",
        line={"color": DATA, "width": 2, "dash": "dot"},
        marker={"color": DATA, "symbol": "line-ew-open", "size": 14, "line": {"color": DATA, "width": 2}},
        hovertemplate="data<br>share %{y:.4~g}",
    )  # fmt: skip
    if not many and len(names) == len(counts) and len(counts) <= _NAMED and kind != "cluster":
        figure.update_xaxes(tickvals=place, ticktext=names)
    if not many:
        figure.update_yaxes(rangemode="tozero")
    keys = [Key("samples", COLOURS[0], "solid", "made"), Key("data", DATA, "dot", "data")]
    empty = int((counts == 0).sum())
    caption = f"{count(counts.sum())} samples; {count(empty)} of {count(len(counts))} have none."
    if kind == "cluster":
        caption += " Clusters are those of the data’s features by k-means, the largest first."
    alt = f"Share of the samples at each of {len(counts)}, beside the data's."
    plural = f"{kind}es" if kind.endswith("s") else f"{kind}s"
    return finish(figure, "shares", f"Samples over {plural}", caption, alt, keys, 340)
