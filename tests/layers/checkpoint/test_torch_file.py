import argparse
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from lsdr.layers.checkpoint import state_dicts, torch_file


def _save(open_checkpoint, tmp_path, value, **options):
    file = tmp_path / "model.pt"
    torch.save(value, file, **options)
    return open_checkpoint(file)


def _weights():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).state_dict()


def test_a_plain_state_dict(open_checkpoint, tmp_path):
    weights = _weights()
    checkpoint = _save(open_checkpoint, tmp_path, weights)
    assert checkpoint.format == "torch"
    assert list(checkpoint.entries) == list(weights)
    for name, value in weights.items():
        assert torch.equal(checkpoint.load(name), value)
        assert checkpoint.entries[name].shape == tuple(value.shape)
        assert checkpoint.entries[name].nbytes == value.numel() * value.itemsize
    assert torch.equal(checkpoint.rows("0.weight", 1, 3), weights["0.weight"][1:3])
    assert checkpoint.notes == []
    checkpoint.close()
    with pytest.raises(ValueError, match="closed"):
        checkpoint.load("0.weight")


@pytest.mark.parametrize("key", ["state_dict", "model", "ema", "model_ema", "module", "params", "params_ema"])
def test_one_state_dict_inside_has_plain_names(open_checkpoint, tmp_path, key):
    weights = _weights()
    checkpoint = _save(
        open_checkpoint, tmp_path, {key: weights, "epoch": 3, "global_step": torch.tensor(12), "loss": 0.5}
    )
    assert list(checkpoint.entries) == list(weights)
    assert checkpoint.metadata == {"epoch": "3", "loss": "0.5"}
    assert checkpoint.notes == ["left out what is no weight: epoch, loss, global_step"]


def test_several_state_dicts_are_listed_with_their_keys(open_checkpoint, tmp_path):
    weights = _weights()
    averaged = {name: value + 1 for name, value in weights.items()}
    checkpoint = _save(open_checkpoint, tmp_path, {"model": weights, "ema": OrderedDict(averaged), "args": {"lr": 1.0}})
    assert set(checkpoint.entries) == {f"{part}.{name}" for part in ("model", "ema") for name in weights}
    assert torch.equal(checkpoint.load("ema.0.weight"), weights["0.weight"] + 1)
    checkpoint = _save(open_checkpoint, tmp_path, {"model": {"unet": weights, "vae": weights}})
    assert "unet.0.weight" in checkpoint.entries
    assert "vae.0.weight" in checkpoint.entries


def test_lightning(open_checkpoint, tmp_path):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    value = {
        "epoch": 1,
        "global_step": 7,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {f"model.{name}": each for name, each in model.state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {"a": torch.ones(2)}}},
        "callbacks": {},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hyper_parameters": {"width": 3},
    }
    checkpoint = _save(open_checkpoint, tmp_path, value)
    assert list(checkpoint.entries) == ["model.weight", "model.bias"]
    left = "left out what is no weight: epoch, global_step, pytorch-lightning_version, loops, callbacks and 3 more"
    assert checkpoint.notes == [left]
    assert checkpoint.metadata["pytorch-lightning_version"] == "2.6.0"


@pytest.mark.filterwarnings("ignore:.*lightning.*")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_checkpoint_that_lightning_wrote(open_checkpoint, tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def training_step(self, batch, index):
            return self.layer(batch).sum()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    trainer = lightning.Trainer(
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        accelerator="cpu",
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    module = Module()
    trainer.fit(module, torch.utils.data.DataLoader(torch.ones(2, 2)))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = open_checkpoint(tmp_path / "a.ckpt")
    assert list(checkpoint.entries) == ["layer.weight", "layer.bias"]
    assert torch.equal(checkpoint.load("layer.weight"), module.layer.weight)


def test_the_old_format_is_read_whole(open_checkpoint, tmp_path):
    weights = _weights()
    checkpoint = _save(open_checkpoint, tmp_path, {"state_dict": weights}, _use_new_zipfile_serialization=False)
    assert checkpoint.format == "torch (old format)"
    assert torch.equal(checkpoint.load("0.weight"), weights["0.weight"])
    assert any("read whole into memory" in note for note in checkpoint.notes)


def test_a_single_tensor_a_list_and_nothing(open_checkpoint, tmp_path):
    assert list(_save(open_checkpoint, tmp_path, torch.ones(2)).entries) == ["tensor"]
    assert list(_save(open_checkpoint, tmp_path, [torch.ones(2), {"a": torch.ones(1)}]).entries) == ["0", "1.a"]
    nothing = _save(open_checkpoint, tmp_path, {"epoch": 3})
    assert nothing.entries == {}
    assert nothing.notes == ["left out what is no weight: epoch", "there are no tensors in it"]
    assert _save(open_checkpoint, tmp_path, 7).entries == {}


def test_parameters_views_and_shared_storage(open_checkpoint, tmp_path):
    base = torch.arange(12.0).view(3, 4)
    value = {"parameter": nn.Parameter(base.clone()), "transposed": base.T, "part": base[1:], "again": base}
    checkpoint = _save(open_checkpoint, tmp_path, value)
    assert not checkpoint.load("parameter").requires_grad
    for name, tensor in value.items():
        assert torch.equal(checkpoint.load(name), tensor)


def test_sparse_expanded_and_cyclic_contents(open_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(state_dicts, "_MOST", 20_000)
    cyclic = {"weight": torch.ones(2)}
    cyclic["self"] = cyclic
    cyclic["many"] = [cyclic, cyclic]
    laughs = {}
    for _ in range(8):  # 100 million paths
        laughs = {str(i): laughs for i in range(10)}
    cyclic["laughs"] = laughs
    checkpoint = _save(open_checkpoint, tmp_path, cyclic)
    assert list(checkpoint.entries) == ["weight"]
    value = {
        "sparse": torch.eye(3).to_sparse(),
        "expanded": torch.ones(1).expand(100_000, 100_000),  # 40 GB of one number
        "weight": torch.ones(2),
        1: torch.ones(1),
    }
    checkpoint = _save(open_checkpoint, tmp_path, value)
    assert list(checkpoint.entries) == ["weight", "1"]
    assert checkpoint.notes == ["left out tensors that are not stored as plain numbers: sparse, expanded"]


def test_two_tensors_of_one_name(open_checkpoint, tmp_path):
    checkpoint = _save(open_checkpoint, tmp_path, {"a.b": torch.ones(2), "a": {"b": torch.zeros(2)}})
    assert torch.equal(checkpoint.load("a.b"), torch.ones(2))
    assert "two tensors are called 'a.b'" in checkpoint.notes[0]


def test_other_objects_are_code(open_checkpoint, tmp_path):
    for value in (nn.Linear(2, 2), {"state_dict": {"a": torch.ones(2)}, "hparams": argparse.Namespace(lr=1)}):
        torch.save(value, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=r"holds Python code \((torch.nn|argparse)\S+\) and not only tensors"):
            open_checkpoint(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_is_a_program(open_checkpoint, tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a TorchScript archive, a program"):
        open_checkpoint(tmp_path / "a.pt")


def test_a_compressed_archive_is_refused_and_not_read_wrongly(open_checkpoint, tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    with pytest.raises(ValueError, match="compressed after torch"):
        open_checkpoint(tmp_path / "b.pt")


@pytest.mark.parametrize("old", [False, True])
def test_truncations_are_errors(open_checkpoint, tmp_path, old):
    file = tmp_path / "a.pt"
    torch.save({"a": torch.ones(100), "b": torch.ones(7)}, file, _use_new_zipfile_serialization=not old)
    whole = file.read_bytes()
    for size in [1, 2, 10, 50, *range(100, len(whole) - 1, 97), len(whole) - 1]:
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a\.pt"):
            open_checkpoint(file)


def test_damaged_bytes_give_an_error_or_a_checkpoint(open_checkpoint, tmp_path):
    import random

    file = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3, 2), "b": {"c": torch.ones(2, dtype=torch.int64)}}, file)
    whole = file.read_bytes()
    start = whole.index(b"\x80\x02}")
    chance = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[start + chance.randrange(300)] = chance.randrange(256)
        file.write_bytes(damaged)
        try:
            checkpoint = open_checkpoint(file)
            for name in checkpoint.entries:
                checkpoint.load(name).sum()
        except ValueError:
            refused += 1
    assert refused > 30


def test_mapping_again_gives_the_same_tensors(open_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "_REMAP_BYTES", 5000)
    stored = {str(i): torch.full((1000,), float(i)) for i in range(11)}
    checkpoint = _save(open_checkpoint, tmp_path, {"model": stored, "epoch": 1})
    held = [checkpoint.load(name) for name in stored]
    assert all(torch.equal(tensor, stored[name]) for name, tensor in zip(stored, held, strict=True))
    torch.save({"model": stored}, tmp_path / "model.pt")
    checkpoint.load("0")
    with pytest.raises(ValueError, match="changed while it was read"):
        checkpoint.load("1")


def test_a_file_that_became_shorter_is_an_error_and_not_a_crash(open_checkpoint, tmp_path):
    checkpoint = _save(open_checkpoint, tmp_path, {"a": torch.ones(600, 600)})
    with (tmp_path / "model.pt").open("r+b") as raw:
        raw.truncate(1000)
    with pytest.raises(ValueError, match="became shorter while it was read"):
        checkpoint.load("a")
