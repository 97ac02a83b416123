"""Curves of what codes are worth, beside raw inputs, principal components and an untrained encoder."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lsdr.report.figures.style import COLOURS, DATA, Curve, Key, Pen, Plot, add_curves, canvas, finish, keys_of, pens
from lsdr.report.load import Results
from lsdr.report.names import spelled
from lsdr.report.numbers import count
from lsdr.report.plain import mapping, vector
from lsdr.report.representation.files import CODES, REFERENCES, Facts, curve
from lsdr.report.thin import Array, middle

GREY, TAN = "#6b7683", "#a8874f"
REFERENCE_PENS = {
    "raw": Pen(DATA, "dot", "raw"),
    "pca": Pen(GREY, "dash", "pca"),
    "random": Pen(TAN, "dashdot", "random"),
}
Reader = Callable[[Facts, str], tuple[Array, Array]]
_SMALL = 220
_FIRST, _MOST = 32, 6  # directions and transformations that can be told apart in one plot


def label_plots(results: Results, every: dict[str, list[Facts]]) -> list[Plot]:
    """Accuracy against the number of labels."""
    probes = {
        "linear": ("Linear probe by number of labels", "A linear classifier on the frozen codes"),
        "knn": ("Nearest neighbours by number of labels", "The vote of the nearest labelled neighbours"),
    }
    found = []
    for probe, (title, what) in probes.items():

        def read(facts: Facts, kind: str, probe: str = probe) -> tuple[Array, Array]:
            labels, draws = facts.accuracies(probe, kind)
            return labels, np.array([each.mean() if len(each) else np.nan for each in draws])

        caption = f"{what}, right for what share of the held-out examples; means over draws of the labels."
        plot = _plot(
            results, every, read, f"labels-{probe}", title, ("labels", "held-out accuracy"), caption, log_x=True,
            level=_chance(every),
        )  # fmt: skip
        found += [plot] if plot else []
    return found


@dataclass(frozen=True)
class Small:
    """Small plots of the same lines, under one legend."""

    title: str
    keys: list[Key]
    plots: list[Plot]


def _together(title: str, plots: list[Plot]) -> list[Small]:
    """The plots under the legend of the one that has the most lines; none for none."""
    keys = max((plot.keys for plot in plots), key=len, default=[])
    plain = [replace(key, group="") for key in keys]  # a button would hide a line in one plot only
    return [Small(title, plain, [replace(plot, keys=[]) for plot in plots])] if plots else []


def invariance_plots(results: Results, every: dict[str, list[Facts]], values: str = "icc") -> list[Small]:
    """For each transformation what it leaves, against its strength; those that were trained with come first.

    Args:
        results: The runs.
        every: Their files.
        values: "icc", the share of variance kept, or "retrieval", how often an example is found again.
    """
    label = {"icc": "share of variance kept", "retrieval": "found again"}[values]
    found: dict[bool, list[Plot]] = {True: [], False: []}
    for place, name in enumerate(_names(every, "transformations")):

        def read(facts: Facts, kind: str, name: str = name) -> tuple[Array, Array]:
            return curve(facts.transformations().get(name, {}), "strengths", values, kind)

        plot = _plot(
            results, every, read, f"{values}-{place}", spelled(name), (_unit(every, name), label), "", height=_SMALL
        )
        if plot:
            found[_trained(every, name)].append(plot)
    titles = ("Trained with", "Not trained with") if found[True] else ("", "")
    return [*_together(titles[0], found[True]), *_together(titles[1], found[False])]


def _trained(every: dict[str, list[Facts]], name: str) -> bool:
    return any(facts.transformations().get(name, {}).get("trained") for runs in every.values() for facts in runs)


def _unit(every: dict[str, list[Facts]], name: str) -> str:
    abouts = [each for runs in every.values() for facts in runs if (each := facts.transformations().get(name))]
    return next((str(about["unit"]) for about in abouts if about.get("unit")), "strength")


def corruptions_plot(results: Results, every: dict[str, list[Facts]]) -> Plot | None:
    """Accuracy against the severity, in the mean over all corruptions."""
    caption = "Mean over all corruptions; the probe has seen clean examples only. 0 is clean, 5 the strongest."
    axes = ("severity", "held-out accuracy")
    return _plot(results, every, Facts.corrupted, "corruptions", "All corruptions", axes, caption)


def corruption_plots(results: Results, every: dict[str, list[Facts]]) -> list[Small]:
    """Accuracy against the severity of each corruption."""
    found = []
    for place, name in enumerate(_names(every, "corruptions")):

        def read(facts: Facts, kind: str, name: str = name) -> tuple[Array, Array]:
            return curve(facts.corruptions().get(name, {}), "severities", "accuracy", kind)

        axes = ("severity", "accuracy")
        plot = _plot(results, every, read, f"corruption-{place}", spelled(name), axes, "", height=_SMALL)
        found += [plot] if plot else []
    return _together("One by one", found)


def length_plot(results: Results, every: dict[str, list[Facts]]) -> Plot | None:
    """Accuracy against the number of dimensions that are kept of a code."""
    kinds = {CODES: "ordered", "pca": "pca", "random": "unordered"}

    def read(facts: Facts, kind: str) -> tuple[Array, Array]:
        return curve(mapping(facts.probes.get("length")), "dimensions", "accuracy", kinds.get(kind, ""))

    caption = (
        "Linear probe with all labels on the first so many dimensions: of the ordered codes, the ones that change "
        "least between views first, beside as many principal components of the inputs and as many of the encoder’s "
        "own dimensions in the order in which they come."
    )
    words = {"pca": "principal components of the inputs", "random": "dimensions in the encoder’s own order"}
    return _plot(
        results, every, read, "length", "Accuracy by code length", ("dimensions kept", "held-out accuracy"), caption,
        log_x=True, words=words,
    )  # fmt: skip


def _plot(
    results: Results,
    every: dict[str, list[Facts]],
    read: Reader,
    name: str,
    title: str,
    axes: tuple[str, str],
    caption: str,
    *,
    log_x: bool = False,
    height: int = 320,
    level: float = np.nan,
    words: dict[str, str] = REFERENCES,
) -> Plot | None:
    """The methods' curves over those of the references; nothing where no method has one."""
    found = {method: curves for method, runs in every.items() if (curves := _curves(runs, read, CODES))}
    if not found:
        return None
    figure, drawn = canvas(*axes, log_x=log_x), pens(results)
    hover = f"{axes[0]} %{{x:.4~g}}<br>%{{y:.1%}}"
    keys = []
    for kind, label in words.items():
        curves = [each for runs in every.values() for each in _curves(runs, read, kind)]
        x, y = middle([(each.x, each.y) for each in curves])
        if not len(x):
            continue
        pen = REFERENCE_PENS[kind]
        figure.add_scatter(
            x=x.astype(np.float32), y=y.astype(np.float32), mode="lines+markers", legendgroup=pen.group, name=label,
            line={"color": pen.colour, "width": 2, "dash": pen.dash}, marker={"color": pen.colour, "size": 4},
            hovertemplate=hover,
        )  # fmt: skip
        keys.append(Key(label, pen.colour, pen.dash, pen.group))
    for method, curves in found.items():
        add_curves(figure, curves, drawn[method], hover)
    own = keys_of(drawn, list(found))
    if np.isfinite(level):
        figure.add_hline(y=level, line={"color": GREY, "width": 1, "dash": "dot"})
        keys.append(Key("most common class", GREY, "dot", ""))
    figure.update_yaxes(tickformat=".0%")
    if log_x:  # lengths or numbers of labels: what was measured, and nothing between
        ticks = np.unique(np.concatenate([each.x for curves in found.values() for each in curves]))
        figure.update_xaxes(tickvals=ticks, ticktext=[count(tick) for tick in ticks])
    alt = f"{title}: {axes[1]} against {axes[0]} for {', '.join([*found, *(key.label for key in keys)])}."
    return finish(figure, name, title, caption, alt, [*own, *keys], height)


def _curves(runs: list[Facts], read: Reader, kind: str) -> list[Curve]:
    found = []
    for facts in runs:
        x, y = read(facts, kind)
        if np.isfinite(y).any():
            found.append(Curve(facts.run, x, y))
    return found


def _names(every: dict[str, list[Facts]], which: str) -> list[str]:
    """The transformations or corruptions that any run has, in the order of the first."""
    return list(dict.fromkeys(name for runs in every.values() for facts in runs for name in getattr(facts, which)()))


def _chance(every: dict[str, list[Facts]]) -> float:
    values = [facts.probes.get("chance") for runs in every.values() for facts in runs]
    return next((float(value) for value in values if isinstance(value, int | float)), np.nan)


def ignored_plot(results: Results, every: dict[str, list[Facts]]) -> Plot | None:
    """Of a lone run what each ordered direction ignores: a line for every transformation."""
    if not results.single:
        return None
    facts = next(iter(every.values()))[0]
    about = facts.transformations()
    names = [name for name in about if about[name].get("trained")] or list(about)
    lines = {name: vector(about[name].get("canonical"))[:_FIRST] for name in names[:_MOST]}
    lines = {name: values for name, values in lines.items() if np.isfinite(values).any()}
    if not lines:
        return None
    figure, keys = canvas("ordered direction", "share of variance kept"), []
    for place, (name, values) in enumerate(lines.items()):
        colour, dash = COLOURS[place % len(COLOURS)], ("solid", "dash", "dot")[place // len(COLOURS) % 3]
        figure.add_scatter(
            x=np.arange(1, len(values) + 1), y=values, mode="lines", legendgroup=f"t{place}", name=spelled(name),
            line={"color": colour, "width": 2, "dash": dash},
            hovertemplate="direction %{x}<br>%{y:.1%}",
        )  # fmt: skip
        keys.append(Key(spelled(name), colour, dash, f"t{place}"))
    figure.update_yaxes(tickformat=".0%")
    caption = (
        "For each direction of the ordered codes, the share of its variance that the strongest transformation of each "
        "kind leaves as it is: a low line names what that direction responds to."
    )
    alt = f"Variance kept by direction under {', '.join(lines)}."
    return finish(figure, "ignored", "What each direction ignores", caption, alt, keys)
