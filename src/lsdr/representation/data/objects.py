"""Data in memory that a program holds: frames, arrays and lists of texts; and new rows of the same kind."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsdr.regression.sources.frames import table_of
from lsdr.representation.data.array_images import ArrayImages
from lsdr.representation.data.fields import Fields, ImageFields, TextFields
from lsdr.representation.data.memory import table_data
from lsdr.representation.data.raw_images import raw_images
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.data.tables import encode_table
from lsdr.representation.data.text_data import text_data
from lsdr.representation.data.texts import encode_texts

_TITLE = "the data"


def object_data(
    source: Any,
    *,
    modality: Literal["auto", "image", "text", "table"] = "auto",
    label: str | None = None,
    text: str | None = None,
    drop: Sequence[str] = (),
    channels: int | None = None,
    size: int | None = None,
    limit: int | None = None,
    holdout: float | int = 0.1,
    length: int = 64,
    vocabulary: int = 4096,
    tokenizer: str | Path | None = None,
    on_bad: Literal["skip", "refuse"] = "skip",
    seed: int = 0,
) -> RepresentationData:
    """What is in memory as data to learn from: see `lsdr.representation.data.open.open_data`.

    Raises:
        TypeError: If it is no frame, array or list of texts.
        ValueError: If it holds nothing to learn from.
    """
    found = _recognised(source, text)
    kind = "image" if isinstance(found, np.ndarray) else "table" if isinstance(found, pa.Table) else "text"
    if modality not in ("auto", kind):
        raise ValueError(f"{_TITLE} are {kind}s, not {modality}s: leave modality out")
    if isinstance(found, np.ndarray):
        images = ArrayImages(found, "image", channels)
        return raw_images(images, _TITLE, size=size, limit=limit, holdout=holdout, on_bad=on_bad, seed=seed)
    if isinstance(found, pa.Table):
        return table_data(found, "row", label=label, drop=drop, limit=limit, holdout=holdout, seed=seed)
    return text_data(
        found,
        _TITLE,
        name=partial(_name, "text"),
        limit=limit,
        holdout=holdout,
        length=length,
        vocabulary=vocabulary,
        tokenizer=tokenizer,
        seed=seed,
    )


def rows_in_memory(source: Any, fields: Fields) -> dict[str, Tensor]:
    """New examples as a raw batch, by what is known of the data that was learned from.

    Args:
        source: A frame, array or list of texts, as `lsdr.representation.data.open.open_data` takes it. Columns of
            frames are found by name, those of arrays by place.
        fields: Of the data that was learned from.

    Returns:
        What a part of that data would give, without "index" and "label"; levels that were not there then count as
        missing.

    Raises:
        TypeError: If it is no frame, array or list of texts.
        ValueError: If it does not fit the fields.

    Example:
        >>> from lsdr.representation.data.open import open_data
        >>> data = open_data({"a": [1.0, 2.0, 3.0], "b": ["x", "y", "x"]}, holdout=0)
        >>> rows_in_memory({"a": [None], "b": ["z"]}, data.fields)
        {'numeric': tensor([[0.]]), 'categorical': tensor([[0]]), 'missing': tensor([[True, True]])}
    """
    found = _recognised(source, None)
    if isinstance(fields, ImageFields):
        if not isinstance(found, np.ndarray):
            raise ValueError(f"expected an array of images of shape {fields.shape}, got {_described(found)}")
        images = ArrayImages(found, _TITLE, fields.shape[0])
        pixels = [images.read(number) for number in range(len(images))]
        wrong = next((each.shape for each in pixels if each.shape != fields.shape), None)
        if wrong is not None:
            raise ValueError(f"expected images of shape {fields.shape}, as in training, got {wrong}")
        stacked = np.stack(pixels) if pixels else np.zeros((0, *fields.shape), dtype=np.uint8)
        if stacked.dtype.kind == "f":
            if not np.isfinite(stacked).all():
                raise ValueError("the images hold NaN or infinity; leave those out")
            return {"image": torch.from_numpy(stacked.astype(np.float32))}
        return {"image": torch.from_numpy(stacked if stacked.dtype == np.uint8 else stacked.astype(np.int32))}
    if isinstance(fields, TextFields):
        if isinstance(found, np.ndarray | pa.Table):
            raise ValueError(f"expected a list of texts, got {_described(found)}")
        return {"tokens": torch.from_numpy(encode_texts(found, fields))}
    if not isinstance(found, pa.Table):
        raise ValueError(f"expected a table, got {_described(found)}")
    return encode_table(found, fields)


def _recognised(source: Any, text: str | None) -> NDArray[Any] | pa.Table | list[str]:
    """Images as an array of three or four axes, tables as Arrow tables, texts as a list."""
    module = type(source).__module__.partition(".")[0]
    if isinstance(source, Mapping | pa.Table | pa.RecordBatch) or hasattr(source, "columns"):
        table = table_of(dict(source) if isinstance(source, Mapping) else source, _TITLE)
        if text is None:
            return table
        if text not in table.column_names:
            raise ValueError(f"{_TITLE} have no column {text!r}; the columns are {', '.join(table.column_names)}")
        return [each or "" for each in table.column(text).to_pylist()]
    if module == "torch" and hasattr(source, "numpy"):
        source = source.detach().cpu().numpy()
    if isinstance(source, str | bytes) or not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise TypeError(
            f"cannot learn from a {type(source).__name__}: give a path, a frame, an array, or a list of texts"
        )
    values = source.to_list() if module in ("pandas", "polars") and hasattr(source, "to_list") else source
    if not isinstance(values, np.ndarray) or values.dtype.kind in "OUS":
        flat = list(values)
        if flat and all(each is None or isinstance(each, str) or _is_nan(each) for each in flat):
            return [each if isinstance(each, str) else "" for each in flat]
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{_TITLE} have rows of different lengths: {error}") from error
    if array.ndim in (3, 4):
        return array
    if array.ndim != 2 or array.dtype.kind not in "biufOUS":
        raise ValueError(
            f"{_TITLE} have shape {array.shape} and hold {array.dtype}: expected (n, p) for a table, (n, H, W), "
            "(n, C, H, W) or (n, H, W, C) for images, or texts"
        )
    return table_of({f"x{column}": array[:, column] for column in range(array.shape[1])}, _TITLE)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _described(found: Any) -> str:
    if isinstance(found, np.ndarray):
        return f"an array of shape {found.shape}"
    return "a table" if isinstance(found, pa.Table) else "texts"


def _name(what: str, index: int) -> str:
    return f"{what} {index}"
