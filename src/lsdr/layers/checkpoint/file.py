"""One file: what it is, told by its first bytes and not by its name."""

import zipfile
from pathlib import Path

from lsdr.layers.checkpoint.checkpoint import TensorFile
from lsdr.layers.checkpoint.safetensors import SafetensorsFile
from lsdr.layers.checkpoint.torch_file import TorchFile

# The number that begins files of torch.save before 1.6, as torch's pickle writes it.
_TORCH_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_FOREIGN = {
    b"GGUF": "a GGUF file: its weights are quantised and packed, give the checkpoint that it was made from",
    b"\x89HDF\r\n": "an HDF5 file, as Keras writes it; save the weights as safetensors",
    b"\x93NUMPY": "a NumPy array; save the weights as safetensors",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
}


def open_file(file: Path) -> TensorFile:
    """Open a file of tensors.

    Args:
        file: A safetensors file or a file of torch.save, whatever its ending.

    Raises:
        ValueError: If it is none, or damaged; the message says what it looks like and what to do.
    """
    with file.open("rb") as raw:
        head = raw.read(512)
    if not head:
        raise ValueError(f"{file} is empty; download or save it again")
    _refuse_what_is_none(file, head)
    if head[:4] == b"PK\x03\x04" and file.suffix == ".safetensors":
        raise ValueError(f"{file} is a zip archive and no safetensors file; if torch.save wrote it, rename it to .pt")
    if head[:4] == b"PK\x03\x04" or head.startswith(_TORCH_OLD):
        return TorchFile(file)
    if zipfile.is_zipfile(file) and not file.name.endswith(".safetensors"):
        raise ValueError(f"{file} is a zip archive behind other bytes, which torch.save does not write")
    if file.suffix == ".safetensors" or head[8:9] == b"{":
        return SafetensorsFile(file)
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        raise ValueError(
            f"{file} is a Python pickle that torch.save did not write; reading it would run the code in it, so it was "
            "not read. Save the weights as safetensors where you trust it, and give that file"
        )
    raise ValueError(
        f"{file} begins with {head[:8]!r}, which is neither safetensors nor a file of torch.save; those are read, "
        "their *.index.json, and folders of diffusers, transformers, peft and lsdr"
    )


def _refuse_what_is_none(file: Path, head: bytes) -> None:
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{file} is a Git LFS pointer, not the file: run git lfs pull")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<error")):
        raise ValueError(f"{file} is a web page, the answer to a download that failed; download it again")
    for beginning, what in _FOREIGN.items():
        if head.startswith(beginning):
            raise ValueError(f"{file} is {what}")
    if head[257:262] == b"ustar":
        raise ValueError(f"{file} is a tar archive; unpack it and give a checkpoint that is in it")
