"""Published results beside ours: one table a protocol, never mixed."""

import math
from dataclasses import dataclass

from lsdr.gan.published import Printed, Protocol, published
from lsdr.report.gan.coverage import modes_of_run, perfect_cell, shown, spread_cell
from lsdr.report.load import Results
from lsdr.report.numbers import count, plural
from lsdr.report.plain import mapping, scalar


@dataclass(frozen=True)
class Row:
    """One method, published or ours."""

    name: str
    ours: bool
    cells: list[str]


@dataclass(frozen=True)
class Table:
    """One protocol of one paper."""

    title: str
    caption: str
    columns: list[str]
    rows: list[Row]
    note: str


def published_tables(results: Results) -> list[Table]:
    """A table for each protocol on the same data, ours under what was printed."""
    source = str(mapping(results.record.get("data")).get("source") or "")
    return [_table(results, protocol) for protocol in published(source)]


def _table(results: Results, protocol: Protocol) -> Table:
    names = protocol.measures
    rows = [Row(row.method, False, [_printed(name, row.values.get(name)) for name in names]) for row in protocol.rows]
    rows.append(Row("Perfect sampler, as many samples as ours", False, [perfect_cell(results, name) for name in names]))
    for method in results.methods:
        cells = [_ours(*spread_cell(name, method.runs)) for name in names]
        if set(cells) != {"—"}:
            rows.append(Row(method.name, True, cells))
    drawn = [f"{count(protocol.samples)} samples"] if protocol.samples else []
    drawn += [plural(protocol.runs, "run")] if protocol.runs else []
    caption = protocol.citation + (f" ({', '.join(drawn)} a row)" if drawn else "")
    return Table(protocol.title, caption, [results.label(name) for name in names], rows, _note(results, protocol))


def _ours(value: str, spread: str) -> str:
    return f"{value} ({spread})" if spread else value


def _printed(name: str, value: Printed | None) -> str:
    if value is None:
        return "—"
    return shown(name, value.value) + ("" if value.error is None else f" ± {shown(name, value.error)}")


def _note(results: Results, protocol: Protocol) -> str:
    drawn = [scalar(modes_of_run(run).get("samples")) for run in results.runs]
    drawn = [samples for samples in drawn if math.isfinite(samples)]
    if not drawn:
        return protocol.note
    runs = "of one run" if len(drawn) == 1 else f"a run, medians over {plural(results.seeds, 'seed')}"
    return f"{protocol.note} Ours: {count(max(drawn))} samples {runs}.".lstrip()
