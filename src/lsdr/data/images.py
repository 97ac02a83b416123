"""The data set: images of one size as uint8 tensors, whatever the source and whatever is wrong with it."""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, SupportsInt

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lsdr.data.decode import decode, fit
from lsdr.data.problem import HARMLESS, BadImageError, Problem
from lsdr.data.reader import Reader

_CACHE_BYTES = 256 * 2**20
_PROBED = 16
_BLOCK = 256
# Smaller images are decoded faster by one thread: what is not decoding holds the interpreter's lock.
_WORTH_THREADS = 128 * 128
# No verdict on the whole from fewer images than this (or than all, if there are fewer): one bad file first in the
# alphabet must not end a training.
_ENOUGH_TO_JUDGE = 128
_UNTRIED, _GOOD, _BAD = 0, 1, 2


class ImageDataset(Dataset[dict[str, Tensor]]):
    """Images by index, decoded to uint8 tensors of one shape; made by `load_images`.

    Indices are stable: the same source gives the same image for an index on every machine and in every process. Data
    that takes less than 256 MB decoded is decoded once and kept; the rest is decoded when asked for, by a few threads.

    An image that turns out bad is counted in `problems` and, with ``on_bad="skip"``, replaced by the next good one of
    its part (see `keep_apart`), which is what ``"index"`` then reports. When more than half of at least 128 images
    tried (or of all) are bad, a ValueError says so. In a `torch.utils.data.DataLoader` pass ``collate_fn=dict``,
    because a batch arrives whole; problems met in its worker processes are not seen by this one.

    Attributes:
        reader: The source.
        shape: (C, H, W) of every image.
        classes: How many classes the labels tell apart, or None without labels.
        class_names: Their names, in the order of their numbers.

    Example:
        >>> from lsdr.data.load import load_images
        >>> digits = load_images("digits")
        >>> batch = digits.__getitems__([0, 3])
        >>> batch["image"].shape, batch["index"].tolist(), batch["label"].tolist()
        (torch.Size([2, 1, 8, 8]), [0, 3], [0, 3])
    """

    def __init__(
        self,
        reader: Reader,
        *,
        size: int | None = None,
        channels: int | None = None,
        on_bad: Literal["skip", "refuse"] = "skip",
        limit: int | None = None,
    ) -> None:
        self.reader = reader
        self.class_names = reader.class_names
        self.classes = None if reader.class_names is None else len(reader.class_names)
        self._size = size
        self._on_bad = on_bad
        self._count = len(reader) if limit is None else min(limit, len(reader))
        if self._count == 0:
            raise ValueError(f"{reader.title} holds no images{self._examples(' (', ')')}")
        self._state = np.full(self._count, _UNTRIED, dtype=np.uint8)
        self._tried = self._bad = 0
        self._part = np.zeros(self._count, dtype=np.uint8)
        self._pool: ThreadPoolExecutor | None = None
        self._pool_process = 0
        self._threads = False
        self._grey_found = False
        self.shape = self._settle_shape(channels)
        self._keeps = self._count * int(np.prod(self.shape)) < _CACHE_BYTES
        self._kept: UInt8[Tensor, "..."] | None = None
        self._is_kept = np.zeros(self._count, dtype=bool)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Iterable[SupportsInt]) -> dict[str, Tensor]:
        """Decode a batch.

        Args:
            indices: Which images, B of them, each in [0, len); a list, an array or a tensor.

        Returns:
            ``"image"`` uint8 (B, C, H, W); ``"index"`` int64 (B,), the image that was really taken; ``"label"`` int64
            (B,) where there are classes.

        Raises:
            IndexError: If an index is out of range.
            ValueError: If an image is bad and the data was loaded with ``on_bad="refuse"``, or most of the data is bad.
        """
        wanted = [int(index) for index in indices]
        for index in wanted:
            if not 0 <= index < self._count:
                raise IndexError(f"index {index} is not in a data set of {self._count} images")
        # In the order of the source: neighbours often share a block that is read once.
        fresh = sorted({index for index in wanted if self._state[index] != _BAD and not self._is_kept[index]})
        loaded = dict(zip(fresh, self._load_all(fresh), strict=True))
        taken = [self._next_good(index, loaded) for index in wanted]
        if self._kept is not None:
            image = self._kept[taken]
        else:
            image = torch.from_numpy(np.stack([np.asarray(loaded[index]) for index in taken]))
        batch = {"image": image, "index": torch.tensor(taken, dtype=torch.int64)}
        if self.classes is not None:
            labels = [self.reader.label(self._source(index)) for index in taken]
            batch["label"] = torch.tensor(labels, dtype=torch.int64)
        return batch

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pool": None, "_kept": None, "_is_kept": np.zeros(self._count, dtype=bool)}

    @property
    def problems(self) -> list[Problem]:
        """What was wrong so far: the first five problems of each kind."""
        return self.reader.problems.listed

    def problem_summary(self) -> list[dict[str, Any]]:
        """What was wrong so far: ``{"kind", "count", "examples"}`` for each kind of problem."""
        return self.reader.problems.summary()

    def name(self, index: int) -> str:
        """What to call an image when speaking to a person: its file, or where it lies in its file."""
        return self.reader.name(self._source(index))

    def strips(self) -> tuple[NDArray[np.int64], int] | None:
        """For crops of larger pictures: their left edges, shape (N,), and the distance at which two share nothing."""
        strips = self.reader.strips
        if strips is None:
            return None
        return strips.columns[[self._source(index) for index in range(self._count)]], strips.width

    def keep_apart(self, *parts: Int64[Tensor, "_"]) -> None:
        """Let a bad image be replaced only by one of its own part, so that none slips from held-out into training.

        Args:
            parts: The indices of each part, such as those from `split`, which calls this.
        """
        self._part[:] = 0
        for number, indices in enumerate(parts, start=1):
            self._part[indices.numpy()] = number

    def verify(self, progress: Callable[[Sequence[range]], Iterable[range]] = iter) -> None:
        """Decode every image once.

        Args:
            progress: Wraps the sequence of blocks of images, to show how far it is.

        Raises:
            ValueError: If any image cannot be used; the message names the first ones.
        """
        blocks = [range(start, min(start + _BLOCK, self._count)) for start in range(0, self._count, _BLOCK)]
        for block in progress(blocks):
            rest = [index for index in block if self._state[index] != _BAD]
            for index, result in zip(rest, self._load_all(rest), strict=True):
                self._note(index, result)
        self._refuse()

    def close(self) -> None:
        """Stop the threads and free the decoded images; the data set can still be used."""
        if self._pool is not None and self._pool_process == os.getpid():
            self._pool.shutdown()
        self._pool = self._kept = None
        self._is_kept[:] = False

    def _source(self, index: int) -> int:
        # A limited data set is spread evenly over its source, because sources are often sorted by class.
        return index * len(self.reader) // self._count

    def _settle_shape(self, channels: int | None) -> tuple[int, int, int]:
        """Look at a few images spread over the data: their size, and whether they are grey."""
        probes = [each * self._count // min(_PROBED, self._count) for each in range(min(_PROBED, self._count))]
        sizes: dict[str, tuple[int, int]] = {}
        all_grey = True
        for number, index in enumerate(itertools.chain(probes, range(self._count))):
            if number >= len(probes) and sizes:
                break
            try:
                image = decode(self.reader.read(self._source(index)))
            except BadImageError as error:
                self._note(index, error)
                self._judge()
                continue
            self._tried += 1
            self._state[index] = _GOOD
            sizes[self.name(index)] = image.size
            all_grey = all_grey and image.mode == "L"
        if not sizes:
            raise ValueError(f"{self.reader.title} holds no image that can be read ({self._examples()})")
        self._threads = max(w * h for w, h in sizes.values()) >= _WORTH_THREADS
        if channels is None:
            channels = 1 if all_grey else 3
            self._grey_found = all_grey
        if self._size is not None:
            self._check_large_enough(sizes, self._size)
            return channels, self._size, self._size
        width, height = next(iter(sizes.values()))
        if len(set(sizes.values())) > 1:
            shorter = min(min(each) for each in sizes.values())
            first = {size: name for name, size in reversed(sizes.items())}
            listed = ", ".join(f"{name} is {w}x{h}" for (w, h), name in itertools.islice(first.items(), 5))
            raise ValueError(
                f"the images of {self.reader.title} differ in size ({listed}); choose one size for all of them, "
                f"for example size={shorter} (--size {shorter})"
            )
        return channels, height, width

    def _check_large_enough(self, sizes: dict[str, tuple[int, int]], size: int) -> None:
        small = [name for name, each in sizes.items() if min(each) < size]
        if 2 * len(small) > len(sizes):
            width, height = sizes[small[0]]
            shorter = min(min(each) for each in sizes.values())
            raise ValueError(
                f"{len(small)} of {len(sizes)} images looked at in {self.reader.title} are smaller than {size}x{size} "
                f"(the first is {small[0]}, {width}x{height}); images are never enlarged: choose size={shorter} "
                f"(--size {shorter}) or less"
            )

    def _load(self, index: int) -> NDArray[np.uint8] | BadImageError:
        """Read and decode one image; runs in any thread and changes nothing."""
        try:
            image = decode(self.reader.read(self._source(index)), self._size)
            channels, height, width = self.shape
            if self._grey_found and image.mode != "L":
                raise BadImageError(
                    "colour", "in colour, where the images looked at first are grey; choose channels=1 or channels=3"
                )
            if self._size is None and image.size != (width, height):
                raise BadImageError(
                    "different_size", f"{image.width}x{image.height}, where others are {width}x{height}; choose a size"
                )
            return fit(image, self._size, channels)
        except BadImageError as error:
            return error

    def _load_all(self, indices: list[int]) -> Iterable[NDArray[np.uint8] | BadImageError]:
        if len(indices) < 2 or not self._threads:
            return map(self._load, indices)
        if self._pool is None or self._pool_process != os.getpid():  # threads do not survive a fork
            self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="lsdr-data")
            self._pool_process = os.getpid()
        return self._pool.map(self._load, indices)

    def _note(self, index: int, result: NDArray[np.uint8] | BadImageError) -> None:
        """Remember how an image turned out, and its pixels if they are to be kept."""
        self._tried += bool(self._state[index] == _UNTRIED)
        if isinstance(result, BadImageError):
            if self._state[index] != _BAD:
                self._bad += 1
                self.reader.problems.add(result.kind, self.name(index), result.message)
            self._state[index] = _BAD
            return
        self._state[index] = _GOOD
        if self._keeps:
            if self._kept is None:
                self._kept = torch.empty((self._count, *self.shape), dtype=torch.uint8)
            self._kept[index] = torch.from_numpy(result)
            self._is_kept[index] = True

    def _next_good(self, index: int, loaded: dict[int, NDArray[np.uint8] | BadImageError]) -> int:
        """The first good image from `index` on, around the end, within its part; `loaded` gains what was decoded."""
        for other in itertools.chain(range(index, self._count), range(index)):
            if self._is_kept[other]:
                if self._part[other] == self._part[index]:
                    return other
                continue
            if self._state[other] == _BAD or self._part[other] != self._part[index]:
                continue
            if other not in loaded:
                loaded[other] = self._load(other)
            self._note(other, loaded[other])
            if self._state[other] == _GOOD:
                return other
            if self._on_bad == "refuse":
                self._refuse()
            self._judge()
        raise ValueError(f"{self.reader.title}: no image can be read in this part of the data ({self._examples()})")

    def _judge(self) -> None:
        """Stop when most of the data is bad: what is left is not what the user meant to train on."""
        if 2 * self._bad > max(self._tried, min(self._count, _ENOUGH_TO_JUDGE)):
            raise ValueError(
                f"{self._bad} of the {self._tried} images tried in {self.reader.title} cannot be used "
                f"({self._examples()}); check that this is the data you mean"
            )

    def _refuse(self) -> None:
        if any(kind not in HARMLESS for kind in self.reader.problems.counts):
            raise ValueError(
                f"{self.reader.title} holds what cannot be used ({self._examples()}); repair or remove it, or leave it "
                f'out with on_bad="skip"'
            )

    def _examples(self, before: str = "", after: str = "") -> str:
        kinds = [f"{each['count']} {each['kind']}: {', '.join(each['examples'])}" for each in self.problem_summary()]
        return before + "; ".join(kinds) + after if kinds else ""
