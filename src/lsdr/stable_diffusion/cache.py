"""Encoded parts of examples on disk: one safetensors file each, named by what it was made from, with a checksum."""

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from lsdr.runs import atomic

# Part of every key: raise it whenever the same image or caption would be encoded to other numbers.
_FORMAT = "1"
# What transformers and diffusers write into a configuration that changes no output.
_VOLATILE = ("transformers_version", "dtype", "torch_dtype", "architectures")
_CHECKSUM, _NOTES = "checksum", "notes"


def part_key(*made_from: str | bytes) -> str:
    """A name for what is made from these inputs: BLAKE2b, 160 bits, of the format's version and each input.

    Every input is preceded by its length, so that no two lists of inputs run together to the same bytes.

    Args:
        made_from: All that decides the content.

    Returns:
        40 hexadecimal digits.

    Example:
        >>> part_key("ab", "c") == part_key("a", "bc")
        False
    """
    digest = hashlib.blake2b(digest_size=20)
    for each in (_FORMAT, *made_from):
        raw = each.encode("utf-8", "surrogatepass") if isinstance(each, str) else each
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def module_digest(module: nn.Module | None) -> str:
    """A digest of a part of a pipeline: its class, its configuration and every number of its weights.

    Cost: about a second a gigabyte.

    Args:
        module: A model of diffusers or transformers; None, for a part that a pipeline does without, has a digest too.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> before = module_digest(layer)
        >>> with torch.no_grad():
        ...     _ = layer.bias[0].add_(1e-6)
        >>> module_digest(layer) == before
        False
    """
    if module is None:
        return part_key("none")
    config: Any = getattr(module, "config", {})
    entries = dict(config.to_dict() if hasattr(config, "to_dict") else config)
    kept = {key: value for key, value in entries.items() if not key.startswith("_") and key not in _VOLATILE}
    described = json.dumps(kept, sort_keys=True, default=str)
    return part_key(type(module).__name__, described, _checksum(module.state_dict()))


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of a tokenizer: its vocabulary, rules, special tokens and largest length.

    Args:
        tokenizer: A tokenizer of transformers, or None.
    """
    if tokenizer is None:
        return part_key("none")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.dumps(sorted(tokenizer.get_vocab().items())) if backend is None else _without_state(backend.to_str())
    special = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    return part_key(type(tokenizer).__name__, rules, special, str(tokenizer.model_max_length))


def part_path(cache: Path, key: str) -> Path:
    """Where a part lies; two digits a folder, because a million files in one are slow to list."""
    return cache / key[:2] / f"{key}.safetensors"


def write_part(cache: Path, key: str, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write a part so that a reader, whenever the writer is killed, finds the whole of it or nothing.

    Args:
        cache: The cache's folder.
        key: The part's `part_key`.
        tensors: What was encoded.
        notes: What else is to be known of it, as JSON can hold it.

    Raises:
        OSError: If it cannot be written; for a full disk with a message that says what to do.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    written = json.dumps(dict(notes), sort_keys=True)
    raw = save(plain, metadata={_NOTES: written, _CHECKSUM: part_key(key, written, _checksum(plain))})
    path = part_path(cache, key)
    try:
        with atomic(path) as temporary:
            temporary.write_bytes(raw)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"the disk of the cache is full: {len(raw)} bytes more did not fit, and other images may be to come; free "
            f"space or choose another folder for the cache. What is encoded already is kept and will not be made again",
            str(cache),
        ) from error


def read_part(cache: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read a part.

    The file is read whole and not mapped into memory: a mapped file that another process cuts short ends the program.

    Args:
        cache: The cache's folder.
        key: The part's `part_key`.

    Returns:
        Its tensors and notes, or None if there is no such file or it is not, to the last bit, what was written.
    """
    try:
        raw = part_path(cache, key).read_bytes()
        tensors = load(raw)
        # The header once more: `load` does not give the notes.
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        notes, checksum = header["__metadata__"][_NOTES], header["__metadata__"][_CHECKSUM]
        if checksum != part_key(key, notes, _checksum(tensors)):
            return None
        return tensors, json.loads(notes)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """BLAKE2b of names, types, shapes and bytes, whatever the order."""
    digest = hashlib.blake2b(digest_size=20)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        described = f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0"
        digest.update(described.encode())
        # As bytes: NumPy has no bfloat16.
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _without_state(rules: str) -> str:
    """A tokenizer's rules without truncation and padding, which every call sets anew and leaves behind."""
    parsed = json.loads(rules)
    return json.dumps({key: value for key, value in parsed.items() if key not in ("truncation", "padding")})
