import json

import pytest
import torch
from safetensors.torch import save_file

INDEX = "model.safetensors.index.json"


def _shards(folder, count=3):
    stored = {f"layers.{i}.weight": torch.full((2, 3), float(i)) for i in range(2 * count)}
    weight_map = {}
    for shard in range(count):
        name = f"model-{shard + 1:05d}-of-{count:05d}.safetensors"
        part = dict(list(stored.items())[2 * shard : 2 * shard + 2])
        save_file(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return stored, weight_map


@pytest.mark.parametrize("by", ["index", "folder"])
def test_shards_are_one_checkpoint(open_checkpoint, tmp_path, by):
    stored, weight_map = _shards(tmp_path)
    checkpoint = open_checkpoint(tmp_path / INDEX if by == "index" else tmp_path)
    assert checkpoint.format == "sharded safetensors"
    assert set(checkpoint.entries) == set(stored)
    assert len(checkpoint.files) == 3
    for name, value in stored.items():
        assert checkpoint.entries[name].file.name == weight_map[name]
        assert torch.equal(checkpoint.load(name), value)
    assert checkpoint.notes == []


def test_shards_of_torch(open_checkpoint, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"b": torch.zeros(2)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    weight_map = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    checkpoint = open_checkpoint(tmp_path)
    assert list(checkpoint.entries) == ["a", "b"]
    assert checkpoint.load("b").sum() == 0
    assert checkpoint.format == "transformers folder"


def test_a_cache_of_links(open_checkpoint, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    stored, _ = _shards(blobs)
    for number, path in enumerate(sorted(blobs.iterdir())):
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
        path.rename(blobs / str(number))
    for path in (snapshot / INDEX, snapshot):
        checkpoint = open_checkpoint(path)
        assert all(torch.equal(checkpoint.load(name), value) for name, value in stored.items())


def test_a_cache_entry_of_the_hub_gives_its_main_revision(open_checkpoint, tmp_path):
    for number, revision in enumerate(("old", "wanted", "newest")):
        folder = tmp_path / "snapshots" / revision
        folder.mkdir(parents=True)
        save_file({"a": torch.full((1,), float(number))}, folder / "model.safetensors")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "main").write_text("wanted")
    assert open_checkpoint(tmp_path).load("a") == 1


def test_missing_shards_are_named(open_checkpoint, tmp_path):
    _shards(tmp_path)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"names 3 files and 1 of them are not there: model-00002-of-00003\.safetensors;"
    ):
        open_checkpoint(tmp_path)
    (tmp_path / INDEX).unlink()
    with pytest.raises(ValueError, match=r"holds shards \(model-00001-of-00003.safetensors, ...\) and no "):
        open_checkpoint(tmp_path)


def test_a_shard_that_lacks_its_tensor(open_checkpoint, tmp_path):
    _shards(tmp_path)
    save_file({"layers.2.weight": torch.ones(1)}, tmp_path / "model-00002-of-00003.safetensors")
    with pytest.raises(ValueError, match=r"says that 'layers.3.weight' is in model-00002.*lacks it \(1 such tensors\)"):
        open_checkpoint(tmp_path)


def test_tensors_that_the_index_does_not_name(open_checkpoint, tmp_path):
    stored, weight_map = _shards(tmp_path)
    del weight_map["layers.3.weight"]
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    checkpoint = open_checkpoint(tmp_path)
    assert set(checkpoint.entries) == set(stored) - {"layers.3.weight"}
    assert checkpoint.notes == [f"the shards hold 1 tensors that {INDEX} does not name; they were left out"]


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "..", ".", "", "a/b.safetensors", "..\\a.safetensors", "a\0.safetensors"],
)
def test_names_that_lead_elsewhere_are_refused(open_checkpoint, tmp_path, name):
    inside = tmp_path / "model"
    inside.mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    (inside / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="shards lie beside their index"):
        open_checkpoint(inside / INDEX)


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{", "", "\xff"])
def test_damaged_indices(open_checkpoint, tmp_path, text):
    (tmp_path / INDEX).write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r"index\.json"):
        open_checkpoint(tmp_path / INDEX)


def test_a_damaged_shard_is_named(open_checkpoint, tmp_path):
    _shards(tmp_path)
    file = tmp_path / "model-00003-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"model-00003-of-00003.safetensors is .* bytes.*: 5 bytes are missing"):
        open_checkpoint(tmp_path)
