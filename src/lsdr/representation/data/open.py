"""Whatever there is to learn from, opened: images, texts or tables by one call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lsdr.data.load import EMBEDDED
from lsdr.representation.data.images import image_data
from lsdr.representation.data.memory import TABLES, embedded_table, table_data
from lsdr.representation.data.objects import object_data
from lsdr.representation.data.open_files import open_files, open_stream, open_table
from lsdr.representation.data.options import IMAGE, TABLE, TEXT, Options
from lsdr.representation.data.representation_data import RepresentationData
from lsdr.representation.data.scipy_docs import read_scipy_docs
from lsdr.representation.data.stream_data import find_keys
from lsdr.representation.data.stream_sources import HuggingFaceStream
from lsdr.representation.data.tables import Labels
from lsdr.representation.data.text_data import text_data

# Parquet with more bytes than this, uncompressed, is read as it is needed; other tables must be smaller than four times
# this.
IN_MEMORY = 512 * 2**20


def open_data(
    source: Any,
    *,
    modality: Literal["auto", "image", "text", "table"] = "auto",
    size: int | None = None,
    channels: int | None = None,
    limit: int | None = None,
    holdout: float | int = 0.1,
    label: str | None = None,
    text: str | None = None,
    drop: Sequence[str] = (),
    length: int = 64,
    vocabulary: int = 4096,
    tokenizer: str | Path | None = None,
    on_bad: Literal["skip", "refuse"] = "skip",
    seed: int = 0,
    in_memory: int = IN_MEMORY,
) -> RepresentationData:
    """Open data to learn codes of, and hold some of it out.

    Args:
        source: One of

            - ``digits``, ``patches`` (images), ``breast-cancer``, ``wine``, ``digits-table`` (tables), which come with
              scikit-learn, and ``scipy-docs`` (texts: paragraphs of scipy's documentation);
            - images: whatever `lsdr.data.load.load_images` opens; ``.npy`` and ``.npz`` arrays of any number of
              channels and any depth, or a folder of ``.npy`` files of one image each; a folder of 16-bit grey PNG or
              TIFF; subfolders are classes;
            - texts: a folder of ``.txt`` files (UTF-8, UTF-16 or Windows-1252; subfolders are classes), or a table with
              a column of texts;
            - tables: Parquet, CSV, TSV, Arrow or JSON lines, one file, a folder or a pattern in quotes;
            - ``hf:owner/name`` or ``hf:owner/name:split``, a Hugging Face dataset by name, and ``hf-stream:...``, the
              same (or a folder) read as it comes; ``.tar`` files of webdataset;
            - what is in memory: a pandas or polars frame, an Arrow table or an array (n, p) as a table; an array of
              three or four axes as images; a list, an array or a series of strings as texts.
        modality: What it is; ``"auto"`` sees for itself.
        size: Images: scale and crop to this side.
        channels: Images: 1 or 3; for arrays, how many channels there are where the shape leaves it open.
        limit: Use only so many examples, spread evenly.
        holdout: How many to hold out: a fraction in [0, 1), or a number. Of a stream, a fraction is one of its first
            10,000 rows; of Parquet that is read as it is needed, the first rows of each row group are held out.
        label: The column of classes; "" for none, None for one called like one (label, target, ...).
        text: The column of texts; None for one called like one, or the one whose texts are long.
        drop: Columns to leave out of a table.
        length: Texts: tokens of an example.
        vocabulary: Texts: how many tokens a tokenizer learns, which is trained on the training part.
        tokenizer: Texts: one from disk instead, a tokenizer.json or a folder with one.
        on_bad: What to do about images and text files that cannot be used: leave out and count, or refuse.
        seed: What decides which examples are held out.
        in_memory: Parquet of more bytes than this, uncompressed, is read as it is needed, in an order that is shuffled
            by blocks (`lsdr.representation.data.block_order.BlockOrder`).

    Raises:
        ValueError: If the source is not there, cannot be read, or holds nothing to learn from.
        TypeError: If it is nothing of the kind above.
        ImportError: If it needs a package that is not installed.

    Example:
        >>> data = open_data("wine")
        >>> data.modality, len(data.train), len(data.heldout), data.classes
        ('table', 160, 18, 3)
    """
    if modality not in ("auto", "image", "text", "table"):
        raise ValueError(f'modality={modality!r} must be "auto", "image", "text" or "table"')
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1")
    options = Options(
        modality=modality,
        size=size,
        channels=channels,
        limit=limit,
        holdout=holdout,
        label=label,
        text=text,
        drop=(drop,) if isinstance(drop, str) else tuple(drop),
        length=length,
        vocabulary=vocabulary,
        tokenizer=tokenizer,
        on_bad=on_bad,
        seed=seed,
        in_memory=in_memory,
    )
    if not isinstance(source, str | Path):
        return object_data(
            source, modality=modality, text=text, channels=channels, **options.of(*TABLE, "size", "on_bad"),
            **options.of("length", "vocabulary", "tokenizer"),
        )  # fmt: skip
    name = str(source)
    found = _embedded(name, options)
    if found is None:
        found = _named(name, options) if name.startswith(("hf:", "hf-stream:")) else open_files(source, options)
    if modality not in ("auto", found.modality):
        raise ValueError(
            f"{source} holds {found.modality}s, not {modality}s: leave modality out, or give another source"
        )
    return found


def _embedded(name: str, options: Options) -> RepresentationData | None:
    if name in TABLES:
        table, names = embedded_table(name)
        return table_data(table, name, class_names=names, **options.of(*TABLE))
    if name in EMBEDDED:
        return image_data(name, **options.of(*IMAGE))
    if name != "scipy-docs":
        return None
    docs = read_scipy_docs()
    return text_data(
        docs.texts,
        name,
        name=docs.names.__getitem__,
        labels=Labels(docs.numbers, docs.class_names),
        groups=docs.groups,
        **options.of(*TEXT),
    )


def _named(name: str, options: Options) -> RepresentationData:
    if name.startswith("hf-stream:"):
        return open_stream(HuggingFaceStream(name.removeprefix("hf-stream:")), options)
    stream = HuggingFaceStream(name.removeprefix("hf:"))
    row = next(stream.rows(0, 0), None)
    kind, keys = find_keys(row or {}, options.modality, options.label, options.text, name)
    if kind == "image":
        return image_data(name, **options.of(*IMAGE))
    return open_table(stream.table(), name, options, keys.value)
