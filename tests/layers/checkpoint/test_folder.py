import json

import pytest
import torch
from safetensors.torch import save_file

from lsdr.training.checkpoint import Checkpoint, save_checkpoint


def _write(folder, name="model.safetensors", value=1.0, **config):
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"a.weight": torch.full((2, 2), value)}
    save_file(weights, folder / name) if name.endswith(".safetensors") else torch.save(weights, folder / name)
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_pipeline_as_diffusers_saves_it(open_checkpoint, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
    )
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    checkpoint = open_checkpoint(tmp_path / "pipeline")
    assert checkpoint.format == "diffusers folder"
    assert {name: each.shape for name, each in checkpoint.entries.items()} == {
        f"unet.{name}": tuple(value.shape) for name, value in unet.state_dict().items()
    }
    assert torch.equal(checkpoint.load("unet.conv_in.weight"), unet.conv_in.weight)
    assert checkpoint.config["unet"]["_class_name"] == "UNet2DModel"
    assert checkpoint.config[""]["_class_name"] == "DDPMPipeline"
    assert checkpoint.notes == []
    part = open_checkpoint(tmp_path / "pipeline" / "unet")
    assert part.format == "diffusers folder"
    assert part.config[""]["norm_num_groups"] == 4
    assert "conv_in.weight" in part.entries


def test_a_model_as_transformers_saves_it(open_checkpoint, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=20, n_positions=8)
    model = transformers.GPT2Model(config)
    model.save_pretrained(tmp_path / "one")
    checkpoint = open_checkpoint(tmp_path / "one")
    assert checkpoint.format == "transformers folder"
    assert checkpoint.config[""]["n_head"] == 2
    assert torch.equal(checkpoint.load("h.0.attn.c_attn.weight"), model.h[0].attn.c_attn.weight)
    model.save_pretrained(tmp_path / "many", max_shard_size="3KB")
    sharded = open_checkpoint(tmp_path / "many")
    assert len(sharded.files) > 2
    assert set(sharded.entries) == set(checkpoint.entries)


def test_components_that_are_missing_are_noted(open_checkpoint, tmp_path):
    index = {"_class_name": "P", "vae": ["diffusers", "V"], "unet": ["diffusers", "U"], "safety_checker": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    _write(tmp_path / "unet")
    _write(tmp_path / "extra")
    checkpoint = open_checkpoint(tmp_path)
    assert list(checkpoint.entries) == ["unet.a.weight", "extra.a.weight"]
    assert checkpoint.notes == ["model_index.json names vae, and there is no such folder"]


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["model.fp16.safetensors", "model.safetensors"], "model.safetensors"),
        (["model.safetensors", "pytorch_model.bin"], "model.safetensors"),
        (["pytorch_model.bin", "model.fp16.safetensors"], "pytorch_model.bin"),
        (["model.fp16.safetensors", "pytorch_model.fp16.bin"], "model.fp16.safetensors"),
        (["diffusion_pytorch_model.non_ema.safetensors", "diffusion_pytorch_model.bin"], "diffusion_pytorch_model.bin"),
        (["model.safetensors", "some_other.safetensors"], "model.safetensors"),
    ],
)
def test_of_several_files_of_the_same_weights_one_is_read_and_the_choice_is_noted(
    open_checkpoint, tmp_path, names, read
):
    for number, name in enumerate(names):
        _write(tmp_path, name, float(number))
    checkpoint = open_checkpoint(tmp_path)
    assert [path.name for path in checkpoint.files] == [read]
    assert checkpoint.load("a.weight")[0, 0] == names.index(read)
    left = [name for name in names if name != read and not name.startswith("some_other")]
    assert checkpoint.notes == ([f"read {read}, passed over {left[0]}"] if left else [])


def test_training_state_is_no_weight(open_checkpoint, tmp_path):
    _write(tmp_path, "my_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "optimizer.bin"):
        torch.save({}, tmp_path / name)
    assert [path.name for path in open_checkpoint(tmp_path).files] == ["my_model.safetensors"]


def test_several_files_without_a_known_name(open_checkpoint, tmp_path):
    _write(tmp_path, "one.safetensors")
    _write(tmp_path, "two.safetensors")
    with pytest.raises(
        ValueError, match=r"holds 2 files of weights, one.safetensors, two.safetensors; give one of them"
    ):
        open_checkpoint(tmp_path)


def test_folders_of_a_training_script(open_checkpoint, tmp_path):
    for step, value in ((500, 1.0), (1500, 3.0), (1000, 2.0)):
        _write(tmp_path / f"checkpoint-{step}", value=value, model_type="bert")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.load("a.weight")[0, 0] == 3
    assert checkpoint.notes == ["read checkpoint-1500, the newest of 3 steps"]
    both = tmp_path / "both"
    _write(both / "unet", "diffusion_pytorch_model.safetensors", _class_name="U")
    _write(both / "unet_ema", "diffusion_pytorch_model.safetensors", _class_name="U")
    (both / "random_states_0.pkl").write_bytes(b"no")
    assert list(open_checkpoint(both).entries) == ["unet.a.weight", "unet_ema.a.weight"]


def _run(folder, steps, *, keep=5):
    for step in steps:
        weights = {"a.weight": torch.full((2, 2), float(step))}
        averaged = {"a.weight": torch.full((2, 2), step / 2)}
        tensors = {"model": weights, "ema": averaged, "optimizer": {"a.weight/exp_avg": torch.ones(2, 2)}}
        save_checkpoint(folder / "checkpoints", Checkpoint(tensors, {"step": step}), keep)


def test_the_newest_checkpoint_of_a_run(open_checkpoint, tmp_path):
    _run(tmp_path, [100, 200])
    (tmp_path / "checkpoints" / ".step-00000300.tmp").mkdir()
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "lsdr run"
    assert list(checkpoint.entries) == ["model.a.weight", "ema.a.weight"]
    assert checkpoint.load("model.a.weight")[0, 0] == 200
    assert checkpoint.load("ema.a.weight")[0, 0] == 100
    assert checkpoint.metadata["step"] == "200"
    assert checkpoint.notes == ["read checkpoints/step-00000200 of step 200, passed over 1 more checkpoint of the run"]
    step = open_checkpoint(tmp_path / "checkpoints" / "step-00000100")
    assert step.format == "lsdr checkpoint"
    assert step.load("model.a.weight")[0, 0] == 100


def test_a_finished_run(open_checkpoint, tmp_path):
    _run(tmp_path, [100, 200])
    final = tmp_path / "snapshots" / "final"
    _write(final, "model.safetensors", 7.0)
    _write(final, "ema.safetensors", 8.0)
    (final / "snapshot.json").write_text('{"step": 200}')
    _write(tmp_path / "diffusers", "diffusion_pytorch_model.safetensors", 8.0, _class_name="UNet2DModel")
    _write(tmp_path, "model.safetensors", 7.0)
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.load("model.a.weight")[0, 0], checkpoint.load("ema.a.weight")[0, 0]) == (7, 8)
    assert checkpoint.config == {"model": {"_class_name": "UNet2DModel"}, "ema": {"_class_name": "UNet2DModel"}}
    assert open_checkpoint(tmp_path / "diffusers").format == "diffusers folder"


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_distributed_checkpoints_are_not_unpickled(open_checkpoint, tmp_path):
    import torch.distributed.checkpoint as dcp

    dcp.save({"a": torch.ones(2)}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    with pytest.raises(ValueError, match=r"\.metadata is a pickle.*format_utils dcp_to_torch"):
        open_checkpoint(tmp_path / "dcp")


def test_a_folder_of_nothing_says_what_was_looked_for(open_checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"looked for \*.safetensors.*model_index.json.*lsdr .*; it is empty"):
        open_checkpoint(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    _write(tmp_path / "one")
    _write(tmp_path / "two")
    with pytest.raises(
        ValueError, match=r"it holds notes.txt, one/, two/; give one of the folders in it that do: one, two"
    ):
        open_checkpoint(tmp_path)


def test_damaged_configurations_are_named(open_checkpoint, tmp_path):
    _write(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not readable JSON"):
        open_checkpoint(tmp_path)


def test_a_file_brings_the_configuration_beside_it(open_checkpoint, tmp_path):
    _write(tmp_path, model_type="bert", heads=2)
    _write(tmp_path, "mine.safetensors")
    checkpoint = open_checkpoint(tmp_path / "model.safetensors")
    assert (checkpoint.format, checkpoint.config) == ("safetensors", {"": {"model_type": "bert", "heads": 2}})
    assert open_checkpoint(tmp_path / "mine.safetensors").config == {}
    (tmp_path / "config.json").write_text("{")
    checkpoint = open_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint.config == {}
    assert "the configuration beside it was not read: " in checkpoint.notes[0]


def test_a_shelf_of_files_is_no_component(open_checkpoint, tmp_path):
    (tmp_path / "model_index.json").write_text('{"unet": ["diffusers", "U"]}')
    _write(tmp_path / "unet", "diffusion_pytorch_model.safetensors")
    _write(tmp_path / "loras", "one.safetensors")
    _write(tmp_path / "loras", "two.safetensors")
    assert list(open_checkpoint(tmp_path).entries) == ["unet.a.weight"]


def test_an_unreadable_file_is_a_value_error(open_checkpoint, tmp_path, monkeypatch):
    from pathlib import Path

    _write(tmp_path)

    def refuse(self, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read: Permission denied"):
        open_checkpoint(tmp_path)
