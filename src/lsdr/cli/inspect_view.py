"""An inspection on the terminal."""

import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lsdr.inspection.findings.peers import standings
from lsdr.report.numbers import count, duration, plural

_WIDTH = 100
_NAME = 30
_OF_A_KIND = 5
_STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}
Column = tuple[str, Callable[[dict[str, Any]], str]]


def show(inspection: dict[str, Any], top: int) -> None:
    """Print the headline, the findings, a table of layers and where to look further.

    Args:
        inspection: What `Inspection.to_dict` returns.
        top: Layers in the table, the most notable ones; 0 for all.
    """
    width = min(shutil.get_terminal_size((_WIDTH, 24)).columns, _WIDTH) if sys.stdout.isatty() else _WIDTH
    console = Console(width=width, highlight=False)
    _headline(console, inspection)
    _findings(console, inspection["findings"])
    _table(console, inspection, top)
    _further(console, inspection, top)


def _headline(console: Console, inspection: dict[str, Any]) -> None:
    about = inspection["file"]
    facts = [about["format"], f"{count(about['parameters'])} parameters", plural(len(inspection["layers"]), "layer")]
    facts += [", ".join(f"{name} x {number}" for name, number in about["dtypes"].items())]
    facts += [f"{len(about['files'])} files"] if len(about["files"]) > 1 else []
    facts += [duration(inspection["seconds"])]
    console.print(Text(safe(about["path"]), style="bold"))
    console.print(Text(" · ".join(fact for fact in facts if fact)))
    if about.get("base"):
        console.print(Text(f"against {safe(about['base'])}"))
    for note in about["notes"]:
        console.print(Text(f"note: {safe(note)}", style="dim"))
    console.print()


def _findings(console: Console, findings: list[dict[str, Any]]) -> None:
    if not findings:
        console.print(Text("Nothing looks wrong.", style="green"))
        console.print()
        return
    severities = Counter(each["severity"] for each in findings)
    console.print(Text("Findings: " + ", ".join(plural(number, name) for name, number in severities.items())))
    shown: Counter[str] = Counter()
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    of_kind = Counter(each["kind"] for each in findings)
    for each in findings:
        shown[each["kind"]] += 1
        if shown[each["kind"]] > _OF_A_KIND:
            continue
        text = Text(safe(each["text"]))
        if shown[each["kind"]] == min(_OF_A_KIND, of_kind[each["kind"]]):
            more = of_kind[each["kind"]] - _OF_A_KIND
            text.append(f"\n(and {more} more of this kind)" if more > 0 else "", style="dim")
            text.append("\n" + _rate(each), style="dim")
        grid.add_row(Text(f"  {each['severity']}", style=_STYLES[each["severity"]]), text)
    console.print(grid)
    console.print()


def _rate(finding: dict[str, Any]) -> str:
    rate = finding["false_positive_rate"]
    said = f"[{finding['kind']}]"
    if not rate:
        return said
    alarms = round(rate["per_model"] * rate["models"])
    trained = f"{rate['trained_models']} trained, 95% bound among those {rate['trained_upper']:.1%}"
    return f"{said} said of {alarms} of {rate['models']} clean models ({trained})"


def _table(console: Console, inspection: dict[str, Any], top: int) -> None:
    layers = inspection["layers"]
    if not layers:
        console.print("No layer with a spectrum.")
        return
    noted = Counter(each["layer"] for each in inspection["findings"])
    chosen = _notable(layers, noted, top)
    columns = _fitting(_columns(layers), chosen, console.width)
    if len(chosen) < len(layers):
        console.print(Text(f"The {len(chosen)} most notable of {len(layers)} layers, by depth (--top 0 shows all)"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("layer", overflow="fold", min_width=_NAME)
    table.add_column("shape", no_wrap=True)
    for name, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    block = None
    for layer in chosen:
        if layer["block"] != block:
            block = layer["block"]
            if block != layer["name"]:
                table.add_row(Text("\n".join(_broken(safe(block), _NAME)), style="bold"))
        name = layer["name"].removeprefix(f"{block}.")
        indent = "" if block == layer["name"] else "  "
        style = "yellow" if noted[layer["name"]] else ""
        lines = _broken(safe(name), _NAME - 4)
        cells = [Text(read(layer)) for _, read in columns]
        table.add_row(Text(indent + "\n    ".join(lines), style=style), "x".join(map(str, layer["shape"])), *cells)
    console.print(table)


def _notable(layers: list[dict[str, Any]], noted: Counter[str], top: int) -> list[dict[str, Any]]:
    """The layers to show, in order: those with findings, then those that differ most from their peers."""
    if not top or len(layers) <= top:
        return layers
    measured = [layer if layer["sigma_max"] is not None else {**layer, "sigma_max": 0.0} for layer in layers]
    scores = [0.0] * len(layers)
    for statistic in ("sigma_over_target", "sigma_max", "stable_rank"):
        for place, at in enumerate(standings(measured, [layer[statistic] for layer in measured])):
            scores[place] = max(scores[place], abs(at.deviations) if at else 0.0)
    if any(layer.get("delta") for layer in layers):
        scores = [(layer.get("delta") or {}).get("relative") or 0.0 for layer in layers]
    order = sorted(range(len(layers)), key=lambda place: (-noted[layers[place]["name"]], -scores[place]))
    return [layers[place] for place in sorted(order[:top])]


def _columns(layers: list[dict[str, Any]]) -> list[Column]:
    """What is told of each layer: of adapters, against a base, or alone."""
    if any(layer.get("adapter") for layer in layers):
        return [
            ("rank", lambda layer: _number(layer["adapter"]["rank"])),
            ("used", _plain("effective_rank")),
            ("σ max", _plain("sigma_max")),
            ("key norm", lambda layer: _number(layer["adapter"]["key_norm"])),
            ("σ/base", lambda layer: _number(layer["adapter"].get("sigma_over_base"))),
        ]
    columns: list[Column] = [("σ max", _plain("sigma_max"))]
    if any(layer.get("delta") for layer in layers):
        for name, key in (("Δ/base", "relative"), ("Δ rank", "rank"), ("intruders", "intruder_dimensions")):
            columns.append((name, _within("delta", key)))
        return [*columns, ("least cos", _least_cosine)]
    columns += [("σ/target", _plain("sigma_over_target")), ("stable", _plain("stable_rank"))]
    columns += [("eff.", _plain("effective_rank")), ("α", _within("power_law_exponent", "exponent"))]
    if any(layer.get("ema") for layer in layers):
        return [*columns, ("EMA", _within("ema", "relative"))]
    return [*columns, ("> noise", _plain("marchenko_pastur_outliers"))]


def _fitting(columns: list[Column], layers: list[dict[str, Any]], width: int) -> list[Column]:
    """The first of the columns, as many as a terminal has room for beside names and shapes, and one at least."""
    left = width - _NAME - 2 - max(len("shape"), *(len("x".join(map(str, layer["shape"]))) for layer in layers))
    fitting: list[Column] = []
    for name, read in columns:
        left -= max(len(name), *(len(read(layer)) for layer in layers)) + 2
        if left < 0 and fitting:
            break
        fitting.append((name, read))
    return fitting


def _plain(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda layer: _number(layer.get(name))


def _within(outer: str, name: str) -> Callable[[dict[str, Any]], str]:
    return lambda layer: _number((layer.get(outer) or {}).get(name))


def _least_cosine(layer: dict[str, Any]) -> str:
    cosines = (layer.get("delta") or {}).get("principal_angles")
    return _number(min(cosines)) if cosines else "-"


def _broken(name: str, width: int) -> list[str]:
    """A name in lines of at most this width, broken at its dots where it has them, else at its underscores."""
    lines = [""]
    for part in re.split(r"(?<=\.)" if "." in name else r"(?<=_)", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return lines


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _further(console: Console, inspection: dict[str, Any], top: int) -> None:
    console.print()
    if any("convolution_upper" in layer for layer in inspection["layers"]):
        console.print(
            Text(
                "σ max of a convolution is that of its flattened kernel; the file does not say the stride, so the "
                "convolution's own norm is bracketed (convolution_lower, convolution_upper in --json).",
                style="dim",
            )
        )
    skipped = Counter(each["reason"] for each in inspection["skipped"])
    if skipped:
        told = "; ".join(f"{number} ({reason})" for reason, number in skipped.most_common(3))
        console.print(Text(f"not measured: {told}", style="dim"))
    console.print(Text("more: --html FILE plots everything, --json FILE has all numbers and bounds", style="dim"))


def safe(text: object) -> str:
    """Text of a file's making without what a terminal would obey."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in str(text))
