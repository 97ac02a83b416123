"""How often each term was kept at each size on random halves of the data."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lsdr.report.figures.style import COLOURS, Plot, canvas, faint, finish, safe
from lsdr.report.numbers import plural
from lsdr.report.regression.error import SIZE, mark_chosen
from lsdr.report.regression.steps import frequencies

_TERMS, _SIZES = 40, 160


def stability_plot(found: Mapping[str, Any]) -> Plot | None:
    """A field of shares: terms down, the steadiest first, sizes to the right."""
    sizes, terms, shares = frequencies(found)
    kept = np.nan_to_num(shares).sum(axis=0) if len(terms) else np.empty(0)
    if not kept.any():
        return None
    order = np.argsort(-kept, kind="stable")[:_TERMS]
    across = np.argsort(sizes, kind="stable")
    if len(across) > _SIZES:
        across = across[np.unique(np.linspace(0, len(across) - 1, _SIZES).round().astype(int))]
    figure = canvas(SIZE, "")
    gap = 1 if len(across) <= 30 else 0  # where cells are narrow a gap would be all there is
    figure.add_heatmap(
        x=sizes[across], y=np.arange(len(order)), customdata=[[safe(terms[place])] * len(across) for place in order],
        z=np.round(shares[np.ix_(across, order)].T, 3).astype(np.float32), zmin=0, zmax=1,
        colorscale=[[0, faint(COLOURS[0]).replace("0.22", "0")], [1, COLOURS[0]]], xgap=gap, ygap=1,
        colorbar={"thickness": 10, "tickformat": ".0%", "outlinewidth": 0, "len": 1, "tickvals": [0, 0.5, 1]},
        hovertemplate="%{customdata}, %{x} terms<br>kept in %{z:.0%}<extra></extra>",
    )  # fmt: skip
    names = [safe(_short(terms[place])) for place in order]
    figure.update_yaxes(
        range=[len(order) - 0.5, -0.5], tickvals=list(range(len(order))), ticktext=names, showgrid=False
    )
    if len(sizes) <= 17:
        figure.update_xaxes(dtick=1 if len(sizes) <= 7 else 2)
    keys = mark_chosen(figure, found)
    caption = (
        "In which share of random half-samples a term is among those left at each size. Terms that are kept whichever "
        "half is drawn are a safer choice than those that depend on it."
    )
    if len(terms) > len(order):
        caption += f" The {plural(len(order), 'term')} kept most often, of {len(terms)}."
    alt = f"Selection frequencies of {', '.join(terms[place] for place in order[:12])} by size."
    return finish(figure, "stability", "Selection frequencies", caption, alt, keys, 110 + 20 * len(order))


def _short(name: str) -> str:
    """A name that leaves room for the plot on a phone."""
    return name if len(name) <= 18 else f"{name[:8]}…{name[-9:]}"
