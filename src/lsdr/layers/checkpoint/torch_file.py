"""Files of torch.save: tensors only, mapped where the format allows it."""

import re
import threading
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from lsdr.layers.checkpoint.entry import Entry
from lsdr.layers.checkpoint.state_dicts import Collected, collect_tensors

# torch maps the file as a whole. What was read stays in memory until that mapping goes, so it is made anew every now
# and then; a mapping lives on for tensors that a caller still holds.
_REMAP_BYTES = 1 << 30
_LARGEST_PICKLE = 1 << 29


class TorchFile:
    """An open file of `torch.save`, read with `weights_only=True` and nothing else.

    Args:
        file: The file.

    Raises:
        ValueError: If it holds more than tensors and plain values, is damaged, or is no file of torch.
    """

    def __init__(self, file: Path):
        self.file = file
        self._lock = threading.Lock()
        self._mapped = zipfile.is_zipfile(file)
        self.format = "torch" if self._mapped else "torch (old format)"
        if self._mapped:
            _check_zip(file)
        self._read = 0
        self._written, self._size = file.stat().st_mtime_ns, file.stat().st_size
        collected = _load(file, mmap=self._mapped)
        self._tensors = collected.tensors
        self.metadata = collected.metadata
        self.notes = collected.notes
        if not self._mapped:
            self.notes.append(f"{file.name} is in torch's format of before 1.6, which has to be read whole into memory")
        self.entries = {
            name: Entry(name, tuple(tensor.shape), tensor.dtype, tensor.numel() * tensor.itemsize, file)
            for name, tensor in self._tensors.items()
        }

    def load(self, name: str) -> Tensor:
        """Read one tensor."""
        return self.rows(name, None, None)

    def rows(self, name: str, start: int | None, stop: int | None) -> Tensor:
        """Read entries `start` to `stop` of a tensor's first axis."""
        with self._lock:
            if self._mapped and self._read > _REMAP_BYTES:
                self._map_again()
            if self._mapped and self.file.stat().st_size < self._size:  # reading missing bytes would kill the process
                raise ValueError(f"{self.file} became shorter while it was read; read it when nothing writes to it")
            tensor = self._tensors[name]
            tensor = tensor if start is None else tensor[start:stop]
            self._read += tensor.numel() * tensor.itemsize
            return tensor

    def close(self) -> None:
        """Let go of the file; tensors that were read stay."""
        self._tensors = {}

    def _map_again(self) -> None:
        if self.file.stat().st_mtime_ns != self._written:
            raise ValueError(f"{self.file} changed while it was read; read it when nothing writes to it")
        self._tensors = {}
        self._tensors = _load(self.file, mmap=True).tensors
        self._read = 0


def _load(file: Path, *, mmap: bool) -> Collected:
    try:
        value = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
        return collect_tensors(value, file.stat().st_size)
    except Exception as error:
        raise ValueError(_explain(file, error)) from error


def _explain(file: Path, error: Exception) -> str:
    found = re.search(r"GLOBAL (\S+)|unrecognized function (\S+)", str(error))
    if found or type(error).__name__ == "UnpicklingError":
        code = f"({found[1] or found[2]}) " if found else ""
        return (
            f"{file} holds Python code {code}and not only tensors; reading it would run that code, so nothing of it "
            "was read. If you trust whoever made it, write its weights alone where it came from, with torch.load(..., "
            "weights_only=False) and safetensors.torch.save_file(state_dict, 'model.safetensors'), and give that file"
        )
    text = str(error).strip().split("\n")[0][:300]
    return f"{file} cannot be read as a file of torch.save ({text or type(error).__name__}); download or save it again"


def _check_zip(file: Path) -> None:
    """Refuse archives that torch did not write, and those that it would read wrongly or unpack without bound."""
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    names = [info.filename for info in infos]
    pickles = [info for info in infos if info.filename.split("/")[1:] == ["data.pkl"]]
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(
            f"{file} is a TorchScript archive, a program and not only tensors; save its state_dict() as safetensors "
            "where you trust it, and give that file"
        )
    if len(pickles) != 1:
        listed = ", ".join(names[:5]) or "nothing"
        raise ValueError(
            f"{file} is a zip archive that torch.save did not write; it holds {listed}. Unpack it and give a "
            "checkpoint that is in it"
        )
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise ValueError(
            f"{file} was compressed after torch.save wrote it; unpack it, or save it again with torch.save"
        )
    if pickles[0].file_size > _LARGEST_PICKLE:
        raise ValueError(
            f"{file} holds {pickles[0].file_size:,} bytes beside its tensors; up to {_LARGEST_PICKLE:,} are read"
        )
