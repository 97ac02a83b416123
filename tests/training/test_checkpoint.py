import pytest
import torch

from lsdr.training.checkpoint import Checkpoint, checkpoints, load_latest, save_checkpoint


def _checkpoint(step):
    return Checkpoint({"model": {"w": torch.full((3,), float(step))}}, {"step": step})


def test_round_trip_and_pruning(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, _checkpoint(step), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    found = load_latest(tmp_path)
    assert found.state == {"step": 3}
    torch.testing.assert_close(found.tensors["model"]["w"], torch.full((3,), 3.0))


def test_what_a_kill_left_half_written_is_ignored_and_removed(tmp_path):
    save_checkpoint(tmp_path, _checkpoint(1), keep=2)
    half = tmp_path / ".step-00000002.tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"\0" * 10)
    assert load_latest(tmp_path).state == {"step": 1}
    save_checkpoint(tmp_path, _checkpoint(2), keep=2)
    assert not half.exists()


def test_no_checkpoint(tmp_path):
    assert load_latest(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    folder = save_checkpoint(tmp_path, _checkpoint(1), keep=2)
    if content.startswith(b"\x08"):
        content = content[:-3]
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        load_latest(tmp_path)
