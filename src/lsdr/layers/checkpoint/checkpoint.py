"""A checkpoint: tensors by name, wherever they lie."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from lsdr.layers.checkpoint.entry import Entry
from lsdr.layers.checkpoint.safetensors import SafetensorsFile
from lsdr.layers.checkpoint.torch_file import TorchFile

_LONGEST_NAME = 2000
TensorFile = SafetensorsFile | TorchFile


class Checkpoint:
    """The tensors of one or several files, listed from their headers and read one at a time.

    A context manager: files are closed at the end, tensors that were read stay.

    Args:
        format: What it is, in words.

    Attributes:
        format: "safetensors", "torch", "sharded safetensors", "diffusers folder", ...
        entries: What is stored under each name, in the order of the files.
        metadata: The files' own words about themselves.
        config: Configuration files, by component: {"unet": {...}}, that of the whole under "".
        notes: What a user should know: files that were passed over, entries that were left out.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from safetensors.torch import save_file
        >>> from lsdr.layers.checkpoint.open import open_checkpoint
        >>> file = Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> save_file({"0.weight": torch.ones(2, 3)}, file)
        >>> with open_checkpoint(file) as checkpoint:
        ...     [(entry.name, entry.shape, entry.nbytes) for entry in checkpoint.entries.values()]
        ...     checkpoint.load("0.weight").sum()
        [('0.weight', (2, 3), 24)]
        tensor(6.)
    """

    def __init__(self, format: str):
        self.format = format
        self.entries: dict[str, Entry] = {}
        self.metadata: dict[str, str] = {}
        self.config: dict[str, Any] = {}
        self.notes: list[str] = []
        self._where: dict[str, tuple[TensorFile, str]] = {}
        self._files: list[TensorFile] = []

    @classmethod
    def of(cls, file: TensorFile) -> "Checkpoint":
        """One file as a checkpoint; the file is closed if that fails."""
        checkpoint = cls(file.format)
        try:
            checkpoint.add(file)
        except BaseException:
            file.close()
            raise
        return checkpoint

    @property
    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        return [each.file for each in self._files]

    def add(self, file: TensorFile, names: Mapping[str, str] | None = None) -> None:
        """Take in tensors of a file.

        Args:
            file: The open file, closed with the checkpoint from here on.
            names: Which, {name in the file: name here}; None: all, as they are called there.

        Raises:
            ValueError: If a name is taken already, or is no name.
        """
        self._files.append(file)
        for stored, name in (names if names is not None else {name: name for name in file.entries}).items():
            if len(name) > _LONGEST_NAME:
                raise ValueError(f"{file.file} has a tensor with a name of {len(name):,} characters; it is damaged")
            if name in self.entries:
                raise ValueError(f"the tensor {name!r} is in both {self.entries[name].file} and {file.file}")
            self.entries[name] = replace(file.entries[stored], name=name)
            self._where[name] = (file, stored)
        self.metadata |= file.metadata
        self.notes += file.notes

    def absorb(self, component: str, other: "Checkpoint") -> None:
        """Take in another checkpoint, its names behind "<component>."; its files are closed with this one's."""
        prefix = f"{component}." if component else ""
        for name, entry in other.entries.items():
            self.entries[prefix + name] = replace(entry, name=prefix + name)
            self._where[prefix + name] = other._where[name]
        self._files += other._files
        self.metadata |= {prefix + key: value for key, value in other.metadata.items()}
        self.config |= {(prefix + key).removesuffix("."): value for key, value in other.config.items()}
        self.notes += [f"{component}: {note}" if component else note for note in other.notes]

    def load(self, name: str) -> Tensor:
        """Read one tensor, on the CPU and in the type it is stored in.

        Large tensors are mapped: reading one takes no more memory than it, and none once it is dropped.

        Raises:
            ValueError: If there is no such tensor, or its file became shorter since it was opened.
        """
        file, stored = self._find(name)
        return file.load(stored)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read entries `start` to `stop` of a tensor's first axis, and no more of the file.

        Raises:
            ValueError: If there is no such tensor or these are not rows of it.
        """
        file, stored = self._find(name)
        shape = self.entries[name].shape
        if not shape or not 0 <= start <= stop <= shape[0]:
            raise ValueError(f"{name!r} has the shape {shape}; its rows {start} to {stop} were asked for")
        return file.rows(stored, start, stop)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        self._where = {}

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _find(self, name: str) -> tuple[TensorFile, str]:
        if name in self._where:
            return self._where[name]
        if name in self.entries:
            raise ValueError("the checkpoint is closed; read tensors inside its with statement")
        raise ValueError(f"no tensor {name!r} in this checkpoint of {len(self.entries)} tensors")
