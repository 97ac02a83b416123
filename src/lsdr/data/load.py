"""Images from wherever they are: one entry for every kind of source."""

import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import track

from lsdr.data.embedded import PatchesReader, read_digits
from lsdr.data.folder import IMAGE_SUFFIXES, FolderReader
from lsdr.data.huggingface import read_named, read_saved
from lsdr.data.idx import is_idx, read_idx
from lsdr.data.images import ImageDataset
from lsdr.data.npz import read_npz
from lsdr.data.parquet import ParquetReader
from lsdr.data.reader import Reader

EMBEDDED = ("digits", "patches")
OnBad = Literal["skip", "refuse"]


def load_images(
    source: str | Path,
    *,
    size: int | None = None,
    channels: int | None = None,
    on_bad: OnBad = "skip",
    limit: int | None = None,
) -> ImageDataset:
    """Open a source of images; only a few are looked at, the rest are decoded when asked for.

    Args:
        source: A folder of images (subfolders included; one subfolder a class gives labels), a Parquet file or a
            folder or pattern (``data/train-*.parquet``) of them, a folder written by `datasets.save_to_disk`, an
            ``.npz`` file, an IDX file like MNIST's, ``hf:owner/name`` or ``hf:owner/name:split`` for a Hugging Face
            dataset by name (only with the prefix: a mistyped path is not to wait for a network), or ``digits`` or
            ``patches``, which come with scikit-learn. A folder that is called like one of these two is ``./digits``.
        size: Scale and crop every image to this side; None keeps the size that all of them have. For ``patches``,
            the side of the crops.
        channels: 1 or 3; None takes 1 if the first images are all grey, else 3.
        on_bad: What to do about images that cannot be used: ``"skip"`` counts them and takes the next good ones;
            ``"refuse"`` decodes every image now and raises if one is bad.
        limit: Use only so many images, spread evenly over the source.

    Returns:
        The data set.

    Raises:
        ValueError: If the source does not exist, holds no images, holds images of different or too small a size, or
            holds bad ones that are refused.
        ImportError: If a Hugging Face dataset is asked for without the package datasets.

    Example:
        >>> patches = load_images("patches", limit=100)
        >>> len(patches), patches.shape, patches.classes
        (100, (3, 16, 16), None)
    """
    if size is not None and size < 1:
        raise ValueError(f"size={size} must be at least 1")
    if channels not in (None, 1, 3):
        raise ValueError(f"channels={channels} must be 1 (grey) or 3 (colour)")
    if on_bad not in ("skip", "refuse"):
        raise ValueError(f'on_bad={on_bad!r} must be "skip" or "refuse"')
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} must be at least 1")
    reader = _open(source, size, on_bad)
    dataset = ImageDataset(reader, size=size, channels=channels, on_bad=on_bad, limit=limit)
    if on_bad == "refuse":
        dataset.verify(_progress)
    return dataset


def _open(source: str | Path, size: int | None, on_bad: OnBad) -> Reader:
    if source == "digits":
        return read_digits()
    if source == "patches":
        return PatchesReader(size)
    if isinstance(source, str) and source.startswith("hf:"):
        return read_named(source.removeprefix("hf:"))
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _open_folder(path, on_bad)
        if path.suffix == ".parquet" and any(each in path.name for each in "*?["):
            shards = sorted(path.parent.glob(path.name))
            if shards:
                return ParquetReader(shards, str(path), on_bad)
        if path.is_file():
            return _open_file(path)
    except PermissionError as error:
        raise ValueError(f"{path} may not be read: {error.strerror}") from error
    raise ValueError(_missing(path))


def _open_file(path: Path) -> Reader:
    if path.suffix == ".parquet":
        return ParquetReader([path], path.name)
    if path.suffix == ".npz":
        return read_npz(path)
    if is_idx(path):
        return read_idx(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{path} is one image; give the folder that holds the images")
    raise ValueError(f"{path} is no source of images: expected a folder, a .parquet, .npz or idx3-ubyte file")


def _open_folder(path: Path, on_bad: OnBad) -> Reader:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return read_saved(path)
    reader = FolderReader(path)
    if len(reader) == 0 and reader.parquet:
        _check_one_split(path, reader.parquet)
        return ParquetReader(reader.parquet, str(path), on_bad)
    return reader


def _check_one_split(path: Path, shards: Sequence[Path]) -> None:
    """Stop where a folder mixes shards of different splits, as downloads from the Hub do: test data stays unseen."""
    found = {match[0] for shard in shards if (match := re.match(r"train|test|validation|val", shard.name))}
    if len(found) > 1:
        raise ValueError(
            f"{path} holds shards of the splits {', '.join(sorted(found))}; choose one: {shards[0].parent}/"
            f"{sorted(found)[-1]}*.parquet, in quotation marks"
        )


def _missing(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    wanted = path.relative_to(folder).parts[0] if path.is_relative_to(folder) else path.name
    try:
        names = sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    except OSError:
        names = []
    close = [str(folder / name) for name in difflib.get_close_matches(wanted, names, n=3)]
    close += difflib.get_close_matches(str(path), EMBEDDED, n=1)
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(path)):
        close.append(f"hf:{path} (a Hugging Face dataset by name)")
    hint = f"did you mean {' or '.join(close)}?" if close else f"without files of your own, use {' or '.join(EMBEDDED)}"
    return f"there is no {path}; {hint}"


def _progress(blocks: Sequence[range]) -> Iterable[range]:
    return track(blocks, "checking images", console=Console(file=sys.stderr), transient=True)
