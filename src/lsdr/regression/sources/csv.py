"""CSV and its kin: cut between records, each piece parsed by whoever works on it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from lsdr.regression.plan import Plan
from lsdr.regression.sources.csv_pieces import COMPRESSED, piece_at, pieces
from lsdr.regression.sources.encoded import Encoded, Place
from lsdr.regression.sources.tables import NUMBER, encode, kind_of

_SAMPLE_BYTES = 2**20


@dataclass(frozen=True)
class Dialect:
    """How a file is written.

    Attributes:
        names: The columns, from the header.
        delimiter: What separates fields.
        decimal: The decimal point.
        body: Byte at which the records start.
    """

    names: tuple[str, ...]
    delimiter: str
    decimal: str
    body: int


@dataclass(frozen=True, eq=False)
class CsvFile:
    """A file, its dialect, and the kind of every column."""

    path: Path
    dialect: Dialect
    schema: dict[str, str]

    def parts(self, plan: Plan, _looking: bool) -> Iterator[tuple[int | None, Place, Any]]:
        """Rows (unknown), place and reader of every piece."""
        for start, data in pieces(self.path, self.dialect.body, delimiter=self.dialect.delimiter):
            place = Place(str(self.path), partial(_rows_before, self, start))
            held = data if self.path.suffix.lower() in COMPRESSED else None
            yield None, place, _Piece(self, start, len(data), held)


def open_csv(path: Path, like: CsvFile | None = None) -> CsvFile:
    """Read the header, and the kinds of the columns from the first records.

    Args:
        path: The file.
        like: A file whose kinds and decimal point hold for this one too.

    Raises:
        ValueError: If the file is empty, is not text, has no header or a name twice.
    """
    line, body = _header(path)
    delimiter = _delimiter(line, path)
    names = _fields(line, delimiter)
    names = tuple(name.strip() or f"Unnamed: {j}" for j, name in enumerate(names))
    if all(NUMBER.fullmatch(name) for name in names):
        raise ValueError(
            f"{path} seems to have no header: its first line is {line[:80]!r}, numbers only; put the names of the "
            "columns there"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has two columns named {twice[0]!r}: rename one of them")
    if like is not None:
        return CsvFile(path, Dialect(names, delimiter, like.dialect.decimal, body), like.schema)
    sample = next(pieces(path, body, _SAMPLE_BYTES, delimiter), (body, b""))[1]
    text = Dialect(names, delimiter, ".", body)
    words = _table(path, sample, text, dict.fromkeys(names, "text"), names, 0) if sample else None
    decimal = "." if words is None or delimiter == "," or not _comma(words) else ","
    dialect = Dialect(names, delimiter, decimal, body)
    schema = {name: "number" if words is None else _kind(words.column(name), decimal) for name in names}
    return CsvFile(path, dialect, schema)


@dataclass(frozen=True, eq=False)
class _Piece:
    file: CsvFile
    start: int
    size: int
    data: bytes | None

    def __call__(self, plan: Plan, place: Place) -> Iterator[tuple[Encoded, Place]]:
        data = piece_at(self.file.path, self.start, self.size) if self.data is None else self.data
        table = _table(self.file.path, data, self.file.dialect, _kinds(self.file, plan), plan.columns, place)
        yield encode(table, plan, place), place


def _kinds(file: CsvFile, plan: Plan) -> dict[str, str]:
    """How each column is parsed: labels as they are written, so that 007 is not 7."""
    kinds = {name: file.schema[name] for name in plan.columns}
    for name in (*plan.categorical, plan.clusters, plan.fold_column):
        if name is not None and kinds[name] == "number":
            kinds[name] = "text"
    return kinds


def _table(
    path: Path, data: bytes, dialect: Dialect, kinds: dict[str, str], columns: Sequence[str], place: Place | int
) -> pa.Table:
    types = {"number": pa.float64(), "boolean": pa.bool_()}
    bad: list[Any] = []

    def ragged(row: Any) -> str:
        bad.append(row)
        return "error"

    def read(types: dict[str, pa.DataType]) -> pa.Table:
        return arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=list(dialect.names), block_size=len(data) + 1
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=dialect.delimiter, newlines_in_values=True, invalid_row_handler=ragged
            ),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=list(columns),
                column_types=types,
                strings_can_be_null=True,
                decimal_point=dialect.decimal,
            ),
        )

    wanted = {name: types.get(kinds[name], pa.string()) for name in columns}
    try:
        return read(wanted)
    except (pa.ArrowException, OSError) as error:
        place = place if isinstance(place, Place) else Place(str(path), place)
        if bad:
            row = bad[0]
            raise ValueError(
                f"{place.row(row.number - 1)} has {row.actual_columns} fields instead of {row.expected_columns}: "
                f"{row.text[:80]!r}; give it as many as the header has names, with quotation marks around a field "
                f"that holds {dialect.delimiter!r}"
            ) from error
        raise ValueError(_unparsed(str(error), place, list(dialect.names), list(columns), read)) from error


def _unparsed(message: str, place: Place, names: list[str], columns: list[str], read: Any) -> str:
    found = re.search(
        r"CSV column #(\d+): Row #(\d+): CSV conversion error to (\w+): invalid value '(.*)'", message, re.S
    )
    if found is None:
        place_found = re.search(r"CSV column #(\d+): Row #(\d+):", message)
        where = (
            ""
            if place_found is None
            else (f", column {columns[int(place_found[1])]!r} in {place.row(int(place_found[2]) - 1)}")
        )
        return f"{place.name} cannot be read as CSV ({message.splitlines()[0]}{where}): it must be UTF-8 text"
    column, row = columns[int(found[1])], int(found[2]) - 1
    kind = "number" if found[3] == "double" else "true or false"
    return (
        f"column {column!r} holds no {kind} in {place.row(row)}: {found[4][:80]!r}; correct it, leave the field empty "
        "if it is missing, or name the column in `categorical` if it holds labels"
    )


def _rows_before(file: CsvFile, start: int) -> int:
    """Rows before a byte; only errors ask for it, so it is counted only then."""
    rows = 0
    for at, data in pieces(file.path, file.dialect.body, delimiter=file.dialect.delimiter):
        if at >= start:
            break
        name = file.dialect.names[0]
        rows += _table(file.path, data, file.dialect, {name: "text"}, [name], rows).num_rows
    return rows


def _header(path: Path) -> tuple[str, int]:
    _, first = next(pieces(path, 0, _SAMPLE_BYTES), (0, b""))
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path} is UTF-16 text: write it as UTF-8")
    mark = 3 if first.startswith(b"\xef\xbb\xbf") else 0
    blank = len(first) - len(first[mark:].lstrip(b"\r\n"))
    end = _line_end(first, blank)
    line = first[blank:end]
    if not line.strip():
        raise ValueError(f"{path} is empty: it needs a header with the names of the columns, and rows")
    if b"\0" in line:
        raise ValueError(f"{path} is not a CSV file: its first line holds zero bytes")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): convert it") from error
    body = end
    while body < len(first) and first[body : body + 1] in (b"\r", b"\n"):
        body += 1
    return text, body


def _line_end(data: bytes, start: int) -> int:
    """Where the header ends: a line break inside quotation marks belongs to a name."""
    marks, at = 0, start
    for found in re.finditer(rb"[\r\n]", data[start:]):
        marks += data.count(b'"', at, start + found.start())
        at = start + found.start()
        if marks % 2 == 0:
            return at
    return len(data)


def _delimiter(line: str, path: Path) -> str:
    outside = re.sub(r'"[^"]*"', "", line)
    if ".tsv" in path.suffixes or ".tab" in path.suffixes:
        return "\t"
    counts = {mark: outside.count(mark) for mark in (",", ";", "\t", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] else ","


def _fields(line: str, delimiter: str) -> tuple[str, ...]:
    options = arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    read = arrow_csv.ReadOptions(autogenerate_column_names=True)
    types = arrow_csv.ConvertOptions(column_types={f"f{j}": pa.string() for j in range(line.count(delimiter) + 1)})
    table = arrow_csv.read_csv(pa.BufferReader(line.encode() + b"\n"), read, options, types)
    return tuple(column[0].as_py() or "" for column in table.columns)


def _comma(words: pa.Table) -> bool:
    """Whether numbers are written 1,5: some column has such, and none has 1.5."""
    columns = [[word.strip() for word in column.to_pylist() if word] for column in words.columns]
    return _written(columns, ",") and not _written(columns, ".")


def _written(columns: list[list[str]], point: str) -> bool:
    number = re.compile(rf"[+-]?\d*{re.escape(point)}?\d*")
    return any(any(point in word for word in words) and all(map(number.fullmatch, words)) for words in columns)


def _kind(words: pa.ChunkedArray, decimal: str) -> str:
    """Kind of a column by its first values: one of numbers if most are numbers, whatever the others say."""
    values = [word.strip() for word in pc.drop_null(words).to_pylist()]
    if not values:
        return "number"
    numbers = sum(NUMBER.fullmatch(value) is not None for value in values)
    if 2 * numbers > len(values):
        return "number"
    if all(value.lower() in ("true", "false") for value in values):
        return "boolean"
    guess = (
        arrow_csv.read_csv(
            pa.BufferReader("\n".join(values[:1000]).encode()),
            arrow_csv.ReadOptions(column_names=["v"]),
            arrow_csv.ParseOptions(delimiter="\x01", quote_char=False),
        )
        .schema.field("v")
        .type
    )
    return "date" if kind_of(guess) == "date" else "text"
