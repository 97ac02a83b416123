"""Files larger than memory: sparse ones with true headers."""

import json
import re
import struct
from pathlib import Path

import pytest
import torch

from lsdr.layers.checkpoint import torch_file

STATUS = Path("/proc/self/status")
pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")
MIB = 1 << 20


def _resident():
    return int(re.search(r"VmRSS:\s+(\d+) kB", STATUS.read_text())[1]) << 10


def _sparse(path, tensors, written=()):
    """A safetensors file of these shapes in float32, all holes but for the values of `written`."""
    header, places, end = {}, {}, 0
    for name, shape in tensors.items():
        begin, end = end, end + 4 * torch.Size(shape).numel()
        header[name], places[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}, begin
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # as safetensors does, so that numbers are aligned and need no copy
    with path.open("wb") as raw:
        raw.write(len(text).to_bytes(8, "little") + text)
        for name, values in written:
            raw.seek(8 + len(text) + places[name])
            raw.write(struct.pack(f"<{len(values)}f", *values))
        raw.truncate(8 + len(text) + end)
    return path


def test_sixteen_gigabytes_in_shards(open_checkpoint, tmp_path):
    weight_map = {}
    for shard in range(4):
        name = f"model-{shard}.safetensors"
        _sparse(
            tmp_path / name,
            {f"big.{shard}": [1 << 15, 1 << 15], f"small.{shard}": [2]},
            [(f"small.{shard}", [shard, -shard]), (f"big.{shard}", [shard + 0.5])],
        )
        weight_map |= dict.fromkeys((f"big.{shard}", f"small.{shard}"), name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    before = _resident()
    checkpoint = open_checkpoint(index)
    assert sum(entry.nbytes for entry in checkpoint.entries.values()) > 16 * 2**30
    for shard in range(4):
        assert checkpoint.load(f"small.{shard}").tolist() == [shard, -shard]
        assert checkpoint.rows(f"big.{shard}", 0, 2)[0, 0] == shard + 0.5
        whole = checkpoint.load(f"big.{shard}")  # mapped, and of 4 GiB one page is read
        assert (whole.shape, whole[0, 0]) == ((1 << 15, 1 << 15), shard + 0.5)
    assert _resident() - before < 16 * MIB


def test_reading_all_tensors_takes_the_memory_of_one(open_checkpoint, tmp_path):
    file = _sparse(tmp_path / "a.safetensors", {str(i): [4096, 4096] for i in range(8)})
    checkpoint = open_checkpoint(file)
    before, most = _resident(), 0
    for name in checkpoint.entries:
        tensor = checkpoint.load(name)
        tensor.sum()
        most = max(most, _resident() - before)
        del tensor
    assert 32 * MIB < most < 100 * MIB
    assert _resident() - before < 32 * MIB


def test_torch_files_are_mapped_anew(open_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "_REMAP_BYTES", 32 * MIB)
    torch.save({str(i): torch.ones(16 * MIB // 4) for i in range(12)}, tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    before, most = _resident(), 0
    for name in checkpoint.entries:
        tensor = checkpoint.load(name)
        assert tensor.sum() == len(tensor)
        del tensor
        most = max(most, _resident() - before)
    assert most < 90 * MIB
