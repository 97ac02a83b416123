"""The header of a safetensors file, believed only as far as the file bears it out."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

from lsdr.layers.checkpoint.json_file import LARGEST, parse_json

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
if hasattr(torch, "float8_e8m0fnu"):  # torch 2.7; the scales of microscaling formats
    _DTYPES["F8_E8M0"] = torch.float8_e8m0fnu
_PACKED = ("F4", "F6_E2M3", "F6_E3M2")
_LARGEST_INDEX = 2**63 - 1
_MOST_AXES = 64
_AGAIN = "it is damaged or was not written whole: download or save it again"


@dataclass(frozen=True)
class Slot:
    """Where one tensor lies: bytes begin to end of the file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The tensors in the order of their bytes, the file's own words, and what a user should know."""

    slots: list[Slot]
    metadata: dict[str, str]
    notes: list[str] = field(default_factory=list)


def read_header(raw: BinaryIO, size: int, file: Path) -> Header:
    """Read and check the header of an open safetensors file.

    The format is 8 bytes of header length N (little endian), N bytes of JSON, then the tensors' bytes; offsets count
    from there. Whatever follows from the header is checked against the file: bytes that are there, that suit the
    shape, and that belong to one tensor only.

    Args:
        raw: The file, at its beginning.
        size: Its size in bytes.
        file: Its name, for messages.

    Raises:
        ValueError: If the header is not that of this file.
    """
    if size < 8:
        raise ValueError(f"{file} has {size} bytes, less than the 8 that a safetensors file begins with; {_AGAIN}")
    length = int.from_bytes(raw.read(8), "little")
    if length > size - 8:
        raise ValueError(
            f"{file} says that its header is {length:,} bytes long, and {size - 8:,} bytes follow; {_AGAIN}, or it is "
            "no safetensors file"
        )
    if length > LARGEST:
        raise ValueError(f"{file} has a header of {length:,} bytes; safetensors allows {LARGEST:,}")
    parsed = parse_json(raw.read(length), f"the header of {file}")
    metadata, notes = _metadata(parsed.pop("__metadata__", {}), file)
    start = 8 + length
    slots = [_slot(name, value, start, file) for name, value in parsed.items()]
    slots.sort(key=lambda slot: (slot.begin, slot.end))
    return Header(slots, metadata, notes + _check_layout(slots, start, size, file))


def _metadata(value: Any, file: Path) -> tuple[dict[str, str], list[str]]:
    if not isinstance(value, dict):
        raise ValueError(f"{file}: __metadata__ is a JSON {type(value).__name__}; expected an object of strings")
    texts = {key: text for key, text in value.items() if isinstance(text, str)}
    left = len(value) - len(texts)
    return texts, [f"{left} entries of __metadata__ are no strings and were left out"] if left else []


def _slot(name: str, value: Any, start: int, file: Path) -> Slot:
    where = f"{file}: the tensor {name!r}"
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError(f"{where} has a name that is no text; {_AGAIN}")
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise ValueError(f"{where} is described by {str(value)[:80]}; expected dtype, shape and data_offsets")
    dtype = _dtype(value["dtype"], where)
    shape, offsets = value["shape"], value["data_offsets"]
    if not _whole_numbers(shape) or len(shape) > _MOST_AXES or math.prod(filter(None, shape)) > _LARGEST_INDEX:
        raise ValueError(f"{where} has the shape {str(shape)[:80]}; expected a list of sizes of a tensor")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{where} has the offsets {str(offsets)[:80]}; expected [begin, end]")
    begin, end = offsets
    needed = math.prod(shape) * dtype.itemsize
    if end - begin != needed:
        raise ValueError(
            f"{where} of shape {tuple(shape)} and type {value['dtype']} needs {needed:,} bytes, and its offsets "
            f"[{begin}, {end}] hold {end - begin:,}; {_AGAIN}"
        )
    return Slot(name, dtype, tuple(shape), start + begin, start + end)


def _dtype(name: Any, where: str) -> torch.dtype:
    if name in _PACKED:
        raise ValueError(
            f"{where} is stored as {name}, several numbers packed in a byte; packed 4- and 6-bit weights are not read: "
            "give the checkpoint they were made from"
        )
    if not isinstance(name, str) or name not in _DTYPES:
        raise ValueError(f"{where} has the unknown type {str(name)[:80]!r}; known are {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _whole_numbers(value: Any) -> bool:
    """A list of integers that can be sizes; True and 1.0 are none."""
    return isinstance(value, list) and all(type(each) is int and 0 <= each <= _LARGEST_INDEX for each in value)


def _check_layout(slots: list[Slot], start: int, size: int, file: Path) -> list[str]:
    """Every byte at most one tensor's, and there."""
    end = max((slot.end for slot in slots), default=start)
    if end > size:
        raise ValueError(
            f"{file} is {size:,} bytes and its header promises {end:,}: {end - size:,} bytes are missing; {_AGAIN}"
        )
    reached, unused, previous = start, size - end, ""
    for slot in slots:
        if slot.begin < reached and slot.end > slot.begin:
            raise ValueError(f"{file}: the tensors {previous!r} and {slot.name!r} share bytes; {_AGAIN}")
        if slot.end > slot.begin:
            unused += slot.begin - reached
            reached, previous = slot.end, slot.name
    return [f"{unused:,} bytes of {file.name} belong to no tensor"] if unused else []
