"""Examples whose images and captions are encoded already, read from the cache on disk."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsInt

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from lsdr.data.problem import Problem, Problems
from lsdr.data.split import held_out
from lsdr.stable_diffusion.cache import part_key, part_path, read_part

_KEPT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Example:
    """One picture, mirrored or not, with its caption.

    Args:
        name: The image's file.
        caption: Its caption.
        image: A digest of the image's bytes.
        latents: Key of the part that holds the latents.
        text: Key of the part that holds the caption's embeddings.
        shape: (channels, height, width) of the latents.
        time_ids: What SDXL is told of the picture, else empty: height and width of the original, top and left of the
            cut, height and width of the target, pixels.
        mirrored: Whether left and right are exchanged.
        prior: Whether it shows the class as the base model sees it (prior preservation).
    """

    name: str
    caption: str
    image: str
    latents: str
    text: str
    shape: tuple[int, int, int]
    time_ids: tuple[int, ...]
    mirrored: bool
    prior: bool


class EncodedDataset(Dataset[dict[str, Tensor]]):
    """Latents and embeddings by index; made by `lsdr.stable_diffusion.encoded.encode_dataset`.

    Latents are given by mean and standard deviation of the VAE's posterior, so that every step may draw its own, in
    the units of the network. Data that takes less than 512 MB is read once and kept.

    Attributes:
        empty: Embeddings of the empty caption, one row each, for caption dropout and guidance.
        latent_channels: Channels of the latents.
        largest: Elements of the largest latent.
        groups: Indices whose latents have one shape, for batches; the largest shape first.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        rows: Sequence[int],
        cache: Path,
        empty: Mapping[str, Float[Tensor, "1 ..."]],
        problems: Problems,
    ) -> None:
        if not rows:
            raise ValueError("expected at least one example, came none; give more images")
        self.empty = dict(empty)
        self._examples = tuple(examples)
        self._rows = tuple(rows)
        self._cache = cache
        self._problems = problems
        self.latent_channels = self._examples[0].shape[0]
        self.largest = max(_elements(each.shape) for each in self._examples)
        shapes = sorted({self._examples[row].shape for row in rows}, key=lambda shape: (-_elements(shape), shape))
        self.groups: list[list[int]] = [
            [index for index, row in enumerate(rows) if self._examples[row].shape == shape] for shape in shapes
        ]
        self._read: dict[str, dict[str, Tensor]] = {}
        self._keeps = self._bytes() <= _KEPT_BYTES

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Iterable[SupportsInt]) -> dict[str, Tensor]:
        """Read a batch.

        Args:
            indices: Which examples, b of them, all of one group.

        Returns:
            ``"index"`` int64 (b,); ``"mean"`` and ``"std"`` of the latents, float32 (b, channels, h, w), in the
            network's units; every embedding of the captions, float32 (b, ...); for SDXL ``"time_ids"`` float32 (b, 6);
            ``"prior"`` bool (b,).

        Raises:
            IndexError: If an index is out of range.
            ValueError: If the latents differ in shape, or a file of the cache is gone or damaged.
        """
        wanted = [int(index) for index in indices]
        for index in wanted:
            if not 0 <= index < len(self):
                raise IndexError(f"index {index} is not in a data set of {len(self)} examples")
        examples = [self._example(index) for index in wanted]
        shapes = {each.shape for each in examples}
        if len(shapes) != 1:
            raise ValueError(f"expected a batch of latents of one shape, came {sorted(shapes)}; draw it from one group")
        rows = [{**self._part(each.text), **self._part(each.latents)} for each in examples]
        batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        if examples[0].time_ids:
            batch["time_ids"] = torch.tensor([each.time_ids for each in examples], dtype=torch.float32)
        batch["index"] = torch.tensor(wanted, dtype=torch.int64)
        batch["prior"] = torch.tensor([each.prior for each in examples])
        return batch

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_read": {}}

    @property
    def pictures(self) -> int:
        """How many files the examples are made of: mirrored and repeated ones count once."""
        examples = [self._examples[row] for row in self._rows]
        return len({(each.prior, each.name) for each in examples})

    @property
    def digest(self) -> str:
        """A digest of images, captions and their order, which decide what a step sees and what is held out."""
        examples = [self._examples[row] for row in self._rows]
        return part_key(*(f"{each.image} {each.prior:d} {each.mirrored:d} {each.caption}" for each in examples))

    @property
    def problems(self) -> list[Problem]:
        """What was wrong with the data: the first five problems of each kind."""
        return self._problems.listed

    def problem_summary(self) -> list[dict[str, Any]]:
        """What was wrong with the data: ``{"kind", "count", "examples"}`` for each kind of problem."""
        return self._problems.summary()

    def name(self, index: int) -> str:
        """What to call an example when speaking to a person."""
        example = self._example(index)
        return f"{example.name} (mirrored)" if example.mirrored else example.name

    def caption(self, index: int) -> str:
        """The caption of an example."""
        return self._example(index).caption

    def split(self, holdout: float | int, seed: int) -> tuple["EncodedDataset", "EncodedDataset | None"]:
        """Hold out pictures, in all their repeats and mirrored too; prior images are never held out.

        Args:
            holdout: A fraction of the pictures in [0, 1), or a number of them.
            seed: What decides which.

        Returns:
            What to train on, and the held-out pictures, once each and not mirrored, or None if `holdout` is 0. Two
            files with the same bytes are one picture.

        Raises:
            ValueError: If `holdout` is negative or leaves nothing to train on.
        """
        prior = {self._examples[row].image for row in self._rows if self._examples[row].prior}
        pictures = list(dict.fromkeys(self._examples[row].image for row in self._rows))
        candidates = [picture for picture in pictures if picture not in prior]
        count = held_out(len(candidates), holdout) if candidates or holdout else 0
        if count == 0:
            return self, None
        order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed)).tolist()
        held = {candidates[each] for each in order[:count]}
        train = [row for row in self._rows if self._examples[row].image not in held]
        first: dict[str, int] = {}
        for row in self._rows:
            if self._examples[row].image in held:  # the mirrored one comes after its original
                first.setdefault(self._examples[row].image, row)
        return self._with(train), self._with(list(first.values()))

    def _with(self, rows: Sequence[int]) -> "EncodedDataset":
        # All examples stay, so that `largest` is the same for every part.
        return EncodedDataset(self._examples, rows, self._cache, self.empty, self._problems)

    def _example(self, index: int) -> Example:
        return self._examples[self._rows[index]]

    def _part(self, key: str) -> dict[str, Tensor]:
        if key in self._read:
            return self._read[key]
        found = read_part(self._cache, key)
        if found is None:
            raise ValueError(
                f"{part_path(self._cache, key)} is gone or was damaged after it was checked; start again (a run is "
                f"resumed with --resume): it is then encoded anew"
            )
        if self._keeps:
            self._read[key] = found[0]
        return found[0]

    def _bytes(self) -> int:
        """How much memory all of it takes; a part that is used twice counts once."""
        latents = {each.latents: 2 * 4 * _elements(each.shape) for each in self._examples}
        texts = {each.text for each in self._examples}
        return sum(latents.values()) + len(texts) * sum(4 * each.numel() for each in self.empty.values())


def _elements(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2]
