"""Training of a representation over its steps: the objective, its terms, and what the codes were like meanwhile."""

import numpy as np

from lsdr.report.figures.panels import Line, Panel, panel_plot
from lsdr.report.figures.style import COLOURS, Curve, Key, Plot, add_curves, canvas, finish, gather, keys_of, pens
from lsdr.report.load import Results, Run
from lsdr.report.names import spelled
from lsdr.report.plain import columns, records
from lsdr.report.thin import Array, thin

_PANELS = (
    Panel(
        "objective", "Objective", "objective",
        "Of the averaged weights on training and on held-out examples, under the same views; lower is better. A gap "
        "that grows means that the encoder learns its examples by heart.",
        (Line("heldout_objective", "held out", evaluated=True),
         Line("train_objective", "training", "dot", evaluated=True)),
    ),
    Panel(
        "knn", "Nearest neighbours while training", "held-out accuracy",
        "Share of held-out examples whose nearest neighbours among the codes have their label. Labels are only "
        "measured with.",
        (Line("knn", "accuracy", evaluated=True),),
    ),
    Panel(
        "invariance", "Agreement of views", "share of variance kept",
        "Share of the codes’ variance that two views of an example have in common (intraclass correlation).",
        (Line("invariance", "agreement", evaluated=True),),
    ),
    Panel(
        "directions", "Directions in use", "directions",
        "Effective number of directions over which the codes’ variance is spread; a fall towards 1 is a collapse.",
        (Line("effective_rank", "effective rank", evaluated=True),
         Line("participation_ratio", "participation ratio", "dot", evaluated=True)),
    ),
    Panel(
        "spread", "Spread of the codes", "standard deviation",
        "Mean standard deviation of the codes’ dimensions; zero is a collapse.",
        (Line("code_std", "standard deviation", evaluated=True),), log=True,
    ),
    Panel(
        "gradient", "Gradient norm", "largest gradient norm",
        "Norm of the whole gradient before clipping, the largest since the record before: no peak is lost.",
        (Line("grad_norm_max", "gradient norm"),), log=True,
    ),
)  # fmt: skip


def objective_plots(results: Results) -> list[Plot]:
    """What was minimised, its terms one by one, and the panels over the steps."""
    panels = [panel_plot(results, panel, "codes") for panel in _PANELS]
    return [plot for plot in (_minimised(results), *_terms(results), *panels) if plot]


def _minimised(results: Results) -> Plot | None:
    def read(run: Run) -> tuple[Array, Array]:
        parts = [np.nan_to_num(run.metrics[name]) for name in ("loss", "penalty")]
        return run.metrics["step"], sum(parts, np.zeros(len(run.metrics["step"])))

    found = {method.name: curves for method in results.methods if (curves := gather(method, read))}
    if not found:
        return None
    figure, drawn = canvas("training step", "objective"), pens(results)
    for method, curves in found.items():
        add_curves(figure, curves, drawn[method], "step %{x}<br>objective %{y:.4~g}", ends=True)
    caption = "All terms together, weighted, on training batches. Objectives of different methods do not compare."
    alt = f"Training objective against training step for {', '.join(found)}."
    return finish(figure, "minimised", "What is minimised", caption, alt, keys_of(drawn, list(found)))


def _terms(results: Results) -> list[Plot | None]:
    """Of a lone run all terms in one plot; of a comparison a plot for each, with the methods that have it."""
    if results.single:
        return [_terms_of(results.runs[0])]
    every = {run.name: terms(run) for run in results.runs}
    names = list(dict.fromkeys(name for found in every.values() for name in found))
    return [_term(results, name, place, every) for place, name in enumerate(names)]


def terms(run: Run) -> dict[str, tuple[Array, Array]]:
    """The objective's terms by name, such as "invariance", without their weights; of several layers their mean.

    Records name them "<regularizer>/<layer>/<term>".
    """
    path = run.directory / "metrics.jsonl"
    first = next(iter(records(path, [])), {})
    names = [name for name in first if name.count("/") >= 2]
    found = columns(path, ("step", *names), [])
    parts: dict[str, list[Array]] = {}
    for name in names:
        _, *layer, term = name.split("/")
        label = term if "projector" in layer else f"{term}, layer by layer"
        parts.setdefault(label, []).append(found[name])
    return {label: (found["step"], np.mean(each, axis=0)) for label, each in parts.items()}


def _terms_of(run: Run) -> Plot | None:
    found = {name: pair for name, pair in terms(run).items() if np.isfinite(pair[1]).any()}
    if not found:
        return None
    positive = all((y[np.isfinite(y)] > 0).all() for _, y in found.values())
    figure, keys = canvas("training step", "term", log_y=positive), []
    for place, (name, pair) in enumerate(found.items()):
        x, y = thin(*pair)
        colour, dash = COLOURS[place % len(COLOURS)], ("solid", "dash")[place // len(COLOURS) % 2]
        figure.add_scatter(
            x=x, y=y, mode="lines", line={"color": colour, "width": 2, "dash": dash}, legendgroup=f"term{place}",
            name=spelled(name), hovertemplate="step %{x}<br>%{y:.4~g}",
        )  # fmt: skip
        keys.append(Key(spelled(name), colour, dash, f"term{place}"))
    alt = f"Terms of the objective against training step: {', '.join(found)}."
    caption = "Each without its weight, on training batches."
    return finish(figure, "terms", "Terms of the objective", caption, alt, keys)


def _term(results: Results, name: str, place: int, every: dict[str, dict[str, tuple[Array, Array]]]) -> Plot | None:
    found: dict[str, list[Curve]] = {}
    for method in results.methods:
        curves = [Curve(run, *every[run.name][name]) for run in method.runs if name in every[run.name]]
        if curves:
            found[method.name] = curves
    positive = all((c.y[np.isfinite(c.y)] > 0).all() for curves in found.values() for c in curves)
    figure, drawn = canvas("training step", "term", log_y=positive), pens(results)
    for arm, curves in found.items():
        add_curves(figure, curves, drawn[arm], "step %{x}<br>%{y:.4~g}", ends=True)
    caption = "A term of the objective without its weight, on training batches."
    alt = f"{spelled(name)} against training step for {', '.join(found)}."
    return finish(figure, f"term-{place}", f"Term: {spelled(name)}", caption, alt, keys_of(drawn, list(found)))
