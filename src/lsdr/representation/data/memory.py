"""Data that fits into memory, from a table in hand."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from lsdr.data.problem import Problems
from lsdr.representation.data.parts import Part, split_rows
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.data.tables import Labels, encode_table, find_label, labels_of, learn_columns

TABLES = ("breast-cancer", "wine", "digits-table")
_SHOWN = 12


def table_data(
    table: pa.Table,
    title: str,
    *,
    label: str | None = None,
    drop: Sequence[str] = (),
    limit: int | None = None,
    holdout: float | int = 0.1,
    seed: int = 0,
    class_names: tuple[str, ...] | None = None,
) -> RepresentationData:
    """A table in memory as data to learn from: see `lsdr.representation.data.open.open_data`.

    Args:
        table: All rows.
        title: What to call it.
        label: As in `find_label`.
        drop: Columns to leave out.
        limit: Use only so many rows, spread evenly.
        holdout: As in `split_rows`.
        seed: What decides which rows are held out.
        class_names: Names of the classes 0, 1, ... of an integer label.

    Raises:
        ValueError: If there are no rows, or nothing to learn from.
    """
    if limit is not None and limit < table.num_rows:
        table = table.take(pa.array(np.arange(limit) * table.num_rows // limit))
    if table.num_rows == 0:
        raise ValueError(f"{title} has no rows")
    problems = Problems()
    target = find_label(table.schema, label, drop, title)
    labels = None if target is None else labels_of(table.column(target), problems, target, bool(label))
    if labels is not None and class_names is not None:
        labels = Labels(labels.numbers, class_names)
    if "no_classes" in problems.counts:
        target = None
    table = table.drop_columns(sorted({*drop, *([] if target is None else [target])}))
    train, heldout = split_rows(table.num_rows, holdout, seed)
    fields = learn_columns(table.take(pa.array(train)), problems)
    tensors = encode_table(table, fields)
    if labels is not None:
        tensors["label"] = torch.from_numpy(labels.numbers)
    return RepresentationData(
        modality="table",
        train=Part(tensors, torch.from_numpy(train)),
        heldout=Part(tensors, torch.from_numpy(heldout)),
        fields=fields,
        name=partial(row_name, title),
        show=partial(show_row, table),
        class_names=None if labels is None else labels.names,
        problems=problems.summary,
    )


def row_name(title: str, index: int) -> str:
    """What to call a row: the file's name and the number.

    Example:
        >>> row_name("data/flowers.csv", 7)
        'flowers.csv#7'
    """
    return f"{title.rpartition('/')[2]}#{index}"


def show_row(table: pa.Table, index: int) -> str:
    """The first cells of a row, in one line.

    Example:
        >>> show_row(pa.table({"a": [0.5, 1.0], "b": ["x", None]}), 1)
        'a=1, b='
    """
    row: dict[str, Any] = table.slice(index, 1).select(table.column_names[:_SHOWN]).to_pylist()[0]
    cells = (
        f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value) for value in row.values()
    )
    return ", ".join(f"{name}={cell}" for name, cell in zip(row, cells, strict=True))


def embedded_table(name: str) -> tuple[pa.Table, tuple[str, ...]]:
    """A table that comes with scikit-learn, its classes as the column "target", and their names.

    Example:
        >>> table, names = embedded_table("wine")
        >>> table.num_rows, len(table.column_names), names
        (178, 14, ('class_0', 'class_1', 'class_2'))
    """
    bunch = {"breast-cancer": load_breast_cancer, "wine": load_wine, "digits-table": load_digits}[name]()
    columns = {str(each): bunch.data[:, j] for j, each in enumerate(bunch.feature_names)}
    return pa.table({**columns, "target": bunch.target}), tuple(str(each) for each in bunch.target_names)
