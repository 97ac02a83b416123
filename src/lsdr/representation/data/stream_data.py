"""Streams of images, texts or rows of tables, as data to learn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lsdr.data.decode import decode, fit
from lsdr.data.folder import IMAGE_SUFFIXES
from lsdr.data.labels import LABEL_COLUMNS
from lsdr.data.problem import BadImageError, Problems
from lsdr.representation.data.fields import Fields, Modality, TableFields
from lsdr.representation.data.files import decode_text
from lsdr.representation.data.images import learn_channels, show_nothing
from lsdr.representation.data.parts import Part
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.data.stream import Keys, Row, RowSource, StreamPart
from lsdr.representation.data.tables import encode_table, learn_columns
from lsdr.representation.data.texts import TextEncoder, read_tokenizer, train_tokenizer

TEXT_COLUMNS = ("text", "txt", "sentence", "content", "document", "caption", "description", "body")
# What a stream holds is learned from so many of its rows; a fraction to hold out is one of the first 10,000.
_LEARNED_FROM = {"image": 512, "text": 4096, "table": 4096}
_HELD_OUT_OF = 10_000
_WINDOW = 1024
_BUDGET = 256 * 2**20


@runtime_checkable
class Streamed(RowSource, Protocol):
    """A source of rows, and what it says of itself."""

    title: str
    streams: int
    lanes: int
    count: int | None


@dataclass(frozen=True)
class _Labels:
    key: str
    numbers: dict[str, int]

    def of(self, rows: Sequence[Row]) -> Tensor:
        found = [self.numbers.get(_word(row.get(self.key)), -1) for row in rows]
        return torch.tensor(found, dtype=torch.int64)


@dataclass(frozen=True)
class _Batches:
    """From rows to a batch: a row that cannot be used is replaced by the next of the window that can."""

    encode: Callable[[Sequence[Row]], tuple[dict[str, Tensor], list[int]]]
    """Tensors, and which rows they are of."""
    labels: _Labels | None

    def __call__(self, rows: Sequence[Row], index: Tensor) -> dict[str, Tensor]:
        tensors, good = self.encode(rows)
        if not good:
            raise ValueError(f"{len(rows)} rows in a row cannot be used; check that this is the data you mean")
        place = torch.searchsorted(torch.tensor(good), torch.arange(len(rows))) % len(good)
        if self.labels is not None:
            tensors = {**tensors, "label": self.labels.of([rows[each] for each in good])}
        return {**{name: value[place] for name, value in tensors.items()}, "index": index[torch.tensor(good)[place]]}


@dataclass(frozen=True)
class _Images:
    key: str
    size: int | None
    shape: tuple[int, int, int]

    def __call__(self, rows: Sequence[Row]) -> tuple[dict[str, Tensor], list[int]]:
        found, good = list[np.ndarray](), list[int]()
        for number, row in enumerate(rows):
            try:
                pixels = fit(decode(_bytes(row.get(self.key)), self.size), self.size, self.shape[0])
            except BadImageError:
                continue
            if pixels.shape == self.shape:
                found.append(pixels)
                good.append(number)
        return {"image": torch.from_numpy(np.stack(found))} if found else {}, good


@dataclass(frozen=True)
class _Texts:
    key: str
    encoder: TextEncoder

    def __call__(self, rows: Sequence[Row]) -> tuple[dict[str, Tensor], list[int]]:
        texts = [_text(row.get(self.key)) for row in rows]
        good = [number for number, text in enumerate(texts) if text.strip()]
        return {"tokens": torch.from_numpy(self.encoder.encode([texts[each] for each in good]))}, good


@dataclass(frozen=True)
class _Rows:
    fields: TableFields

    def __call__(self, rows: Sequence[Row]) -> tuple[dict[str, Tensor], list[int]]:
        names = (*self.fields.numeric, *self.fields.categorical)
        return encode_table(_table(rows, names), self.fields), list(range(len(rows)))


def stream_data(
    source: Streamed,
    modality: Modality,
    keys: Keys,
    *,
    drop: Sequence[str] = (),
    size: int | None = None,
    channels: int | None = None,
    holdout: float | int = 0.1,
    length: int = 64,
    vocabulary: int = 4096,
    tokenizer: str | Path | None = None,
) -> RepresentationData:
    """A stream as data to learn from: see `lsdr.representation.data.open.open_data`.

    Raises:
        ValueError: If there is nothing in it to learn from.
    """
    parts, problems = source.parts, Problems()
    held = holdout if isinstance(holdout, int) else round(holdout * min(source.count or _HELD_OUT_OF, _HELD_OUT_OF))
    each, looked = -(-held // parts), -(-_LEARNED_FROM[modality] // parts)
    read = [list(islice(source.rows(part, 0), each + looked)) for part in range(parts)]
    ended = [rows for rows in read if len(rows) < each + looked]
    if isinstance(holdout, float):  # of a part that is at its end already, the fraction is known
        each = min([each, *(round(holdout * len(rows)) for rows in ended)])
    aside = [row for rows in read for row in rows[:each]]
    numbers = [row * parts + part for part, rows in enumerate(read) for row in range(-each, len(rows[:each]) - each)]
    seen = [row for rows in read for row in rows[each:]]
    if not seen:
        raise ValueError(f"{source.title} holds {len(aside)} rows, of which none is left to train on; hold fewer out")
    labels = _learn_labels([*aside, *seen], keys, problems)
    fields, encode, window = _learn(
        source.title, modality, keys, seen, drop, size, channels, length, vocabulary, tokenizer, problems
    )
    batches = _Batches(encode, labels)
    # Where a part is shorter than a window, a window is a pass through it.
    window = min([window, *(max(1, len(rows) - each) for rows in ended)])
    known = max(1, source.count - each * parts) if source.count else len(seen)
    train = StreamPart(source, source.streams, source.lanes, window, each, batches, known)
    heldout = _held(batches, aside, numbers, train, fields)
    return RepresentationData(
        modality=modality,
        train=train,
        heldout=heldout,
        fields=fields,
        name=partial(_name, source, each),
        show=show_nothing if modality == "image" else partial(_show, source, each, keys.value),
        class_names=None if labels is None else tuple(keys.names or labels.numbers),
        problems=problems.summary,
    )


def find_keys(row: Row, modality: str, label: str | None, text: str | None, title: str) -> tuple[Modality, Keys]:
    """Which entry of a stream's rows is which, by name and content.

    Raises:
        ValueError: If what was asked for is not there.
    """
    for name in (label, text):
        if name and name not in row:
            raise ValueError(f"{title} has no column {name!r}; its columns are {', '.join(map(str, row))}")
    by_name = {str(name).lower(): str(name) for name in row if not str(name).startswith("__")}
    labels = ("cls", *LABEL_COLUMNS)
    found = label if label is not None else next((by_name[name] for name in labels if name in by_name), None)
    picture = next((name for name in row if _is_image(name, row[name])), None)
    words = text or next((by_name[name] for name in TEXT_COLUMNS if name in by_name), None)
    if modality == "image" or (modality == "auto" and picture is not None and text is None):
        if picture is None:
            raise ValueError(f"{title} holds no images in its first row; its columns are {', '.join(map(str, row))}")
        return "image", Keys(picture, found or None)
    if modality == "text" or (modality == "auto" and words is not None):
        if words is None:
            raise ValueError(f"{title} has no column named {', '.join(TEXT_COLUMNS)}; name the one of texts as text")
        return "text", Keys(words, found or None)
    return "table", Keys(None, found or None)


def _learn(
    title: str,
    modality: Modality,
    keys: Keys,
    seen: Sequence[Row],
    drop: Sequence[str],
    size: int | None,
    channels: int | None,
    length: int,
    vocabulary: int,
    tokenizer: str | Path | None,
    problems: Problems,
) -> tuple[Fields, Callable[[Sequence[Row]], tuple[dict[str, Tensor], list[int]]], int]:
    """What the rows hold, how they are encoded, and how many may be in a window."""
    if modality == "text":
        assert keys.value is not None
        texts = [text for row in seen if (text := _text(row.get(keys.value))).strip()]
        if not texts:
            raise ValueError(f"{title}: {keys.value!r} holds no text in {len(seen)} rows looked at")
        fields = train_tokenizer(texts, vocabulary, length) if tokenizer is None else read_tokenizer(tokenizer, length)
        return fields, _Texts(keys.value, TextEncoder(fields)), _WINDOW
    if modality == "table":
        names = [name for name in seen[0] if not str(name).startswith("__") and name != keys.label and name not in drop]
        columns = learn_columns(_table(seen, names), problems)
        return columns, _Rows(columns), _WINDOW
    assert keys.value is not None
    images = _Images(keys.value, size, _shape(title, keys.value, seen, size, channels, problems))
    looked = _One(images(seen)[0]["image"])
    window = int(np.clip(_BUDGET // (16 * np.prod(images.shape)), 16, _WINDOW))
    return learn_channels(looked, images.shape, 0.0, 255.0), images, window


@dataclass(frozen=True)
class _One:
    """Images in hand, read like a part."""

    images: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Tensor]:
        return {"image": self.images[torch.tensor(positions)]}


def _shape(
    title: str, key: str, seen: Sequence[Row], size: int | None, channels: int | None, problems: Problems
) -> tuple[int, int, int]:
    sizes, grey = set[tuple[int, int]](), True
    for number, row in enumerate(seen):
        try:
            image = decode(_bytes(row.get(key)), size)
        except BadImageError as error:
            problems.add(error.kind, f"{title}, row {number}", error.message)
            continue
        sizes.add(image.size)
        grey = grey and image.mode == "L"
    if not sizes:
        raise ValueError(f"{title} holds no image that can be read in {len(seen)} rows looked at")
    shorter = min(min(each) for each in sizes)
    depth = channels or (1 if grey else 3)
    if size is not None:
        if size > max(min(each) for each in sizes):
            raise ValueError(f"the images of {title} are smaller than {size}x{size}; choose size={shorter} or less")
        return depth, size, size
    if len(sizes) > 1:
        raise ValueError(
            f"the images of {title} differ in size; choose one for all of them, for example size={shorter} (--size "
            f"{shorter})"
        )
    width, height = next(iter(sizes))
    return depth, height, width


def _held(batches: _Batches, aside: Sequence[Row], numbers: Sequence[int], train: StreamPart, fields: Fields) -> Part:
    """The held-out rows, in memory; their numbers are negative, since they come before the rows to train on."""
    if not aside:
        none = train.__getitems__([0])
        return Part({name: value[:0] for name, value in none.items() if name != "index"}, torch.zeros(0).long())
    tensors, good = batches.encode(aside)
    if batches.labels is not None and good:
        tensors["label"] = batches.labels.of([aside[each] for each in good])
    return _Numbered(tensors, torch.tensor([numbers[each] for each in good], dtype=torch.int64))


class _Numbered(Part):
    """Rows in memory that are called by other numbers than their places."""

    def __init__(self, tensors: dict[str, Tensor], numbers: Tensor) -> None:
        super().__init__(tensors, torch.arange(len(numbers)))
        self.numbers = numbers

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Tensor]:
        batch = super().__getitems__(positions)
        return {**batch, "index": self.numbers[batch["index"]]}


def _learn_labels(rows: Sequence[Row], keys: Keys, problems: Problems) -> _Labels | None:
    if keys.label is None:
        return None
    if keys.names is not None:
        return _Labels(keys.label, {str(number): number for number in range(len(keys.names))})
    words = {_word(row.get(keys.label)) for row in rows} - {""}
    if len(words) < 2:
        problems.add("one_class", keys.label, f"the labels {keys.label!r} tell no classes apart; they are not used")
        return None
    if 2 * len(words) > len(rows):
        raise ValueError(
            f"the labels {keys.label!r} are {len(words)} different values in {len(rows)} rows, which are no classes; "
            'give another one as label, or label="" for none'
        )
    ordered = sorted(words, key=lambda word: (0, int(word), "") if word.lstrip("-").isdigit() else (1, 0, word))
    return _Labels(keys.label, {word: number for number, word in enumerate(ordered)})


def _table(rows: Sequence[Row], names: Sequence[str]) -> pa.Table:
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values, from_pandas=True)
        except (pa.ArrowException, TypeError):
            columns[name] = pa.array([None if value is None else str(value) for value in values], pa.string())
    return pa.table(columns)


def _bytes(value: Any) -> bytes:
    """The encoded image of an entry: bytes, or what the package datasets makes of them."""
    if isinstance(value, dict):
        if value.get("bytes") is None and value.get("path"):
            try:
                return Path(value["path"]).read_bytes()
            except OSError as error:
                raise BadImageError("unreadable", error.strerror or str(error)) from error
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise BadImageError("null", "the row has no image bytes")
    return value


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return decode_text(value)
        except ValueError:
            return ""
    return "" if value is None else str(value)


def _word(value: Any) -> str:
    return _text(value).strip()


def _is_image(name: Any, value: Any) -> bool:
    if f".{str(name).lower().rpartition('.')[2]}" in IMAGE_SUFFIXES:
        return True
    return isinstance(value, dict) and "bytes" in value and ("path" in value or isinstance(value["bytes"], bytes))


def _place(source: Streamed, held: int, index: int) -> tuple[int, int]:
    row, part = divmod(index, source.parts)
    return part, row + held


def _name(source: Streamed, held: int, index: int) -> str:
    return source.name(*_place(source, held, index))


def _show(source: Streamed, held: int, key: str | None, index: int) -> str:
    part, row = _place(source, held, index)
    found = next(source.rows(part, row), None)
    if found is None:
        return ""
    if key is not None:
        return " ".join(_text(found.get(key)).split())[:200]
    return ", ".join(f"{name}={'' if value is None else value}" for name, value in list(found.items())[:12])
