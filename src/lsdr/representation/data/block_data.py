"""Tables and texts in Parquet files too large for memory, as data to learn from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lsdr.data.problem import Problems
from lsdr.representation.data.block_order import lay_out
from lsdr.representation.data.blocks import BlockPart, split_blocks
from lsdr.representation.data.chunks import ChunkReader, Groups
from lsdr.representation.data.fields import TableFields, TextFields
from lsdr.representation.data.memory import show_row
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.data.tables import encode_table, find_label, learn_columns
from lsdr.representation.data.text_data import show_text
from lsdr.representation.data.texts import TextEncoder, read_tokenizer, train_tokenizer

# What columns hold is learned from so many rows, and a tokenizer from so many texts, spread over the row groups.
_ROWS_LEARNED_FROM = 2**18
_TEXTS_LEARNED_FROM = 2**14
_GROUPS_LEARNED_FROM = 32
_MOST_CLASSES = 10_000


@dataclass(frozen=True, eq=False)
class _Labels:
    """The values of a label column, sorted, as an Arrow array."""

    column: str
    values: Any

    def numbers(self, table: pa.Table) -> NDArray[np.int64]:
        found = pc.index_in(_plain(table.column(self.column)), value_set=self.values)
        return np.asarray(pc.fill_null(found, -1)).astype(np.int64)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(each) for each in self.values.to_pylist())


@dataclass(frozen=True, eq=False)
class _DecodeRows:
    fields: TableFields
    labels: _Labels | None

    def __call__(self, table: pa.Table, begin: int) -> dict[str, NDArray[Any]]:
        arrays = {name: value.numpy() for name, value in encode_table(table, self.fields).items()}
        arrays["categorical"] = arrays["categorical"].astype(np.int32)
        if self.labels is not None:
            arrays["label"] = self.labels.numbers(table)
        return {**arrays, "index": np.arange(begin, begin + table.num_rows)}


@dataclass(frozen=True, eq=False)
class _DecodeTexts:
    encoder: TextEncoder
    column: str
    labels: _Labels | None

    def __call__(self, table: pa.Table, begin: int) -> dict[str, NDArray[Any]]:
        texts = [text or "" for text in table.column(self.column).to_pylist()]
        # A text without a word is replaced by the next one that has some, so that batches keep their size.
        good = np.array([number for number, text in enumerate(texts) if text.strip()], dtype=np.int64)
        taken = np.arange(len(texts))
        if len(good):
            taken = good[np.searchsorted(good, taken) % len(good)]
        tokens = np.zeros((len(texts), self.encoder.fields.length), dtype=np.int32)
        tokens[good] = self.encoder.encode([texts[each] for each in good])
        arrays: dict[str, NDArray[Any]] = {"tokens": tokens[taken], "index": begin + taken}
        if self.labels is not None:
            arrays["label"] = self.labels.numbers(table)[taken]
        return arrays


def block_table(
    paths: Sequence[Path],
    title: str,
    *,
    label: str | None,
    drop: Sequence[str],
    limit: int | None,
    holdout: float | int,
) -> RepresentationData:
    """Rows of Parquet files that are read as they are needed: see `lsdr.representation.data.open.open_data`.

    Raises:
        ValueError: If the files do not fit each other, or there is nothing to learn from.
    """
    groups, schema = _open(paths, limit)
    problems = Problems()
    target = find_label(schema, label, drop, title)
    labels = None if target is None else _learn_labels(groups, target, problems, bool(label))
    if "no_classes" in problems.counts:
        target = None
    left = [name for name in schema.names if name != target and name not in drop]
    fields = learn_columns(_sample(groups, left, holdout, _ROWS_LEARNED_FROM), problems)
    columns = [*fields.numeric, *fields.categorical, *([] if labels is None else [labels.column])]
    row_bytes = 16 + 5.0 * len(fields.numeric) + 5.0 * len(fields.categorical)
    return _data(
        groups,
        title,
        fields,
        columns,
        row_bytes,
        _DecodeRows(fields, labels),
        holdout,
        labels,
        problems,
        partial(_show, groups, left),
    )


def block_texts(
    paths: Sequence[Path],
    title: str,
    *,
    column: str,
    label: str | None,
    limit: int | None,
    holdout: float | int,
    length: int,
    vocabulary: int,
    tokenizer: str | Path | None,
) -> RepresentationData:
    """Texts of Parquet files that are read as they are needed: see `lsdr.representation.data.open.open_data`.

    Raises:
        ValueError: If the files do not fit each other, or there is no text.
    """
    groups, schema = _open(paths, limit)
    problems = Problems()
    target = find_label(schema, label, (column,), title)
    labels = None if target is None else _learn_labels(groups, target, problems, bool(label))
    texts = [text for text in _sample(groups, [column], holdout, _TEXTS_LEARNED_FROM).column(0).to_pylist() if text]
    if not any(text.strip() for text in texts):
        raise ValueError(f"the column {column!r} of {title} holds no text in {len(texts)} rows looked at")
    fields = train_tokenizer(texts, vocabulary, length) if tokenizer is None else read_tokenizer(tokenizer, length)
    return _data(
        groups,
        title,
        fields,
        [column, *([] if labels is None else [labels.column])],
        16 + 4.0 * length,
        _DecodeTexts(TextEncoder(fields), column, labels),
        holdout,
        labels,
        problems,
        partial(_show_text, groups, column),
    )


def _data(
    groups: Groups,
    title: str,
    fields: TableFields | TextFields,
    columns: Sequence[str],
    row_bytes: float,
    decode: Callable[[pa.Table, int], dict[str, NDArray[Any]]],
    holdout: float | int,
    labels: _Labels | None,
    problems: Problems,
    show: Callable[[int], str],
) -> RepresentationData:
    layout = lay_out(groups.lengths, row_bytes, len(columns))
    train, heldout = split_blocks(groups, holdout, layout)
    kept = (layout.streams * layout.lanes + 2) * layout.mix
    parts = [BlockPart(part, ChunkReader(groups, columns, layout.chunk, decode, kept)) for part in (train, heldout)]
    return RepresentationData(
        modality="table" if isinstance(fields, TableFields) else "text",
        train=parts[0],
        heldout=parts[1],
        fields=fields,
        name=partial(name_row, groups),
        show=show,
        class_names=None if labels is None else labels.names,
        problems=problems.summary,
    )


def _open(paths: Sequence[Path], limit: int | None) -> tuple[Groups, Any]:
    groups = Groups([str(path) for path in paths], limit)
    schema = pq.read_schema(groups.paths[0])
    for path in groups.paths[1:]:
        absent = [name for name in schema.names if name not in pq.read_schema(path).names]
        if absent:
            raise ValueError(f"{path} has no column {absent[0]!r}, which {groups.paths[0]} has")
    return groups, schema


def _sample(groups: Groups, columns: Sequence[str], holdout: float | int, rows: int) -> pa.Table:
    """Training rows of up to 32 row groups, the same share of each."""
    total = int(groups.starts[-1])
    held = holdout if isinstance(holdout, float) else holdout / total
    count = min(_GROUPS_LEARNED_FROM, len(groups))
    each = -(-rows // count)
    tables = list[pa.Table]()
    for group in (number * len(groups) // count for number in range(count)):
        first = int(np.ceil(held * groups.lengths[group])) if groups.lengths[group] > 1 else 0
        tables.append(_rows(groups, group, columns, first, min(first + each, int(groups.lengths[group]))))
    return pa.concat_tables(tables, promote_options="permissive")


def _rows(groups: Groups, group: int, columns: Sequence[str], first: int, last: int) -> pa.Table:
    """Rows first ... last - 1 of a row group."""
    batches = list[Any]()
    rows = 0
    for batch in _batches(groups, group, columns):
        if rows + batch.num_rows > first:
            batches.append(batch.slice(max(0, first - rows), last - max(first, rows)))
        rows += batch.num_rows
        if rows >= last:
            break
    return pa.Table.from_batches(batches)


def _batches(groups: Groups, group: int, columns: Sequence[str]) -> Iterator[Any]:
    file, number = groups.places[group].tolist()
    with pq.ParquetFile(groups.paths[file], buffer_size=2**16) as opened:
        yield from opened.iter_batches(2**14, row_groups=[number], columns=list(columns), use_threads=False)


def _learn_labels(groups: Groups, column: str, problems: Problems, asked: bool) -> _Labels | None:
    """Every value of the label column, which is read once; as `labels_of`."""
    found: Any = None
    for group in range(len(groups)):
        for batch in _batches(groups, group, [column]):
            values = pc.unique(pc.drop_null(_plain(batch.column(0))))
            found = values if found is None else pc.unique(pa.concat_arrays([found, values.cast(found.type)]))
        if found is not None and len(found) > _MOST_CLASSES:
            said = f"{column!r} holds more than {_MOST_CLASSES} different values, which are no classes"
            if asked:
                raise ValueError(f'{said}; give another column as label, or label="" for none')
            problems.add("no_classes", column, f"{said}; it is a column like the others")
            return None
    if found is None or len(found) < 2:
        problems.add("one_class", column, f"the labels {column!r} tell no classes apart; they are not used")
        return None
    return _Labels(column, found.take(pc.array_sort_indices(found)))


def _plain(column: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return pc.cast(column, pa.string()) if pa.types.is_boolean(column.type) else column


def name_row(groups: Groups, index: int) -> str:
    """The file of a row, and its number in it."""
    group = int(groups.locate(np.array([index]))[0][0])
    file = int(groups.places[group, 0])
    first = int(np.flatnonzero(groups.places[:, 0] == file)[0])
    return f"{Path(groups.paths[file]).name}#{index - int(groups.starts[first])}"


def _show_text(groups: Groups, column: str, index: int) -> str:
    group, within = groups.locate(np.array([index]))
    rows = _rows(groups, int(group[0]), [column], int(within[0]), int(within[0]) + 1)
    return show_text([rows.column(0)[0].as_py() or ""], 0)


def _show(groups: Groups, columns: Sequence[str], index: int) -> str:
    group, within = groups.locate(np.array([index]))
    return show_row(_rows(groups, int(group[0]), columns, int(within[0]), int(within[0]) + 1), 0)
