"""Checkpoints in several files, tied together by an index."""

from pathlib import Path
from typing import Any

from lsdr.layers.checkpoint.checkpoint import Checkpoint, TensorFile
from lsdr.layers.checkpoint.file import open_file
from lsdr.layers.checkpoint.json_file import read_json_object


def open_index(index: Path) -> Checkpoint:
    """Open the checkpoint that a `*.index.json` describes, all its headers and none of its tensors.

    Args:
        index: {"weight_map": {tensor: file}}; the files lie beside it.

    Raises:
        ValueError: If the index is damaged, names a file that is not there or lies elsewhere, or names a tensor that
            its file lacks.
    """
    weight_map = _weight_map(index)
    names = list(dict.fromkeys(weight_map.values()))
    for name in names:
        # "../../etc/passwd" and "/etc/passwd"; links of a cache lie beside the index under plain names.
        if not name or name in (".", "..") or any(character in name for character in "/\\\0"):
            raise ValueError(
                f"{index} names the file {name!r}; shards lie beside their index, so a plain name is expected"
            )
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ValueError(
            f"{index} names {len(names)} files and {len(missing)} of them are not there: {', '.join(missing[:5])}"
            f"{' ...' if len(missing) > 5 else ''}; download the rest"
        )
    shards: dict[str, TensorFile] = {}
    try:
        for name in names:
            shards[name] = open_file(index.parent / name)
        return _join(index, weight_map, shards)
    except BaseException:
        for shard in shards.values():
            shard.close()
        raise


def _weight_map(index: Path) -> dict[str, str]:
    weight_map: Any = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ValueError(f"{index} is no index of shards: expected an object weight_map of tensor names to file names")
    return weight_map


def _join(index: Path, weight_map: dict[str, str], shards: dict[str, TensorFile]) -> Checkpoint:
    absent = [name for name, shard in weight_map.items() if name not in shards[shard].entries]
    if absent:
        raise ValueError(
            f"{index} says that {absent[0]!r} is in {weight_map[absent[0]]}, which lacks it ({len(absent)} such "
            "tensors); index and shards are of different checkpoints: download them together"
        )
    kind = "safetensors" if all(shard.format == "safetensors" for shard in shards.values()) else "torch"
    checkpoint = Checkpoint(f"sharded {kind}")
    more = 0
    for shard_name, shard in shards.items():
        wanted = {name: name for name in shard.entries if weight_map.get(name) == shard_name}
        more += len(shard.entries) - len(wanted)
        checkpoint.add(shard, wanted)
    if more:
        checkpoint.notes.append(f"the shards hold {more} tensors that {index.name} does not name; they were left out")
    return checkpoint
