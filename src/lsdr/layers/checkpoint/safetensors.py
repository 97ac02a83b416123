"""Safetensors files: the header first, then one tensor at a time."""

import mmap
import os
import threading
from pathlib import Path

import torch
from torch import Tensor

from lsdr.layers.checkpoint.entry import Entry
from lsdr.layers.checkpoint.header import Slot, read_header

# Below this a mapping costs more than a copy, and a checkpoint of ten thousand biases would need as many mappings.
_SMALLEST_MAPPING = 1 << 20


class SafetensorsFile:
    """An open safetensors file.

    Every large tensor is a mapping of its own: it costs no memory that the system cannot take back, and is unmapped
    when the caller drops the tensor.

    Args:
        file: The file.

    Raises:
        ValueError: If its header is not to be believed; see `read_header`.
    """

    format = "safetensors"

    def __init__(self, file: Path):
        self.file = file
        self._raw = file.open("rb")
        self._lock = threading.Lock()
        try:
            self._size = os.fstat(self._raw.fileno()).st_size
            header = read_header(self._raw, self._size, file)
        except BaseException:
            self._raw.close()
            raise
        self._slots = {slot.name: slot for slot in header.slots}
        self.metadata = header.metadata
        self.notes = header.notes
        self.entries = {
            slot.name: Entry(slot.name, slot.shape, slot.dtype, slot.end - slot.begin, file) for slot in header.slots
        }

    def load(self, name: str) -> Tensor:
        """Read one tensor."""
        slot = self._slots[name]
        return self._read(slot, slot.begin, slot.shape)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read entries `start` to `stop` of a tensor's first axis."""
        slot = self._slots[name]
        row = (slot.end - slot.begin) // max(slot.shape[0], 1)
        return self._read(slot, slot.begin + start * row, (stop - start, *slot.shape[1:]))

    def close(self) -> None:
        """Close the file; tensors that were read stay."""
        self._raw.close()

    def _read(self, slot: Slot, begin: int, shape: tuple[int, ...]) -> Tensor:
        tensor = torch.empty(shape, dtype=slot.dtype, device="meta")
        length = tensor.numel() * slot.dtype.itemsize
        if not length:
            return torch.empty(shape, dtype=slot.dtype)
        if os.fstat(self._raw.fileno()).st_size < self._size:  # a mapping of missing bytes would kill the process
            raise ValueError(f"{self.file} became shorter while it was read; read it when nothing writes to it")
        if length < _SMALLEST_MAPPING:
            with self._lock:
                self._raw.seek(begin)
                data = torch.frombuffer(bytearray(self._raw.read(length)), dtype=torch.uint8)
        else:
            page = begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            # A private mapping: torch gets memory that it may write to, and the file stays as it is.
            mapping = mmap.mmap(self._raw.fileno(), begin - page + length, access=mmap.ACCESS_COPY, offset=page)
            data = torch.frombuffer(mapping, dtype=torch.uint8, offset=begin - page, count=length)
            if data.data_ptr() % slot.dtype.itemsize:  # a header of odd length: kernels want aligned numbers
                data = data.clone()
        return data.view(slot.dtype).view(shape)
