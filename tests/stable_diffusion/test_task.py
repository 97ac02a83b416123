"""The loss of a fine-tune against formulas written down here, and what must not change it."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lsdr.stable_diffusion.build import adapt, build_task, fixed_batches
from lsdr.stable_diffusion.config import StableDiffusionConfig
from lsdr.stable_diffusion.encoded import encode_dataset
from lsdr.stable_diffusion.lr_range import lr_range, suggest
from lsdr.stable_diffusion.pipeline import load_pipeline
from lsdr.stable_diffusion.task import StableDiffusionTask
from lsdr.training.config import TrainingConfig

spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["sd", "sdxl", "sd3"])
def parts(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    tiny.make(folder / "pipeline", request.param)
    tiny.photos(folder / "photos", 6, sizes=((64, 64), (64, 128)))
    pipeline = load_pipeline(folder / "pipeline")
    data = encode_dataset(pipeline, folder / "photos", resolution=64, buckets=True, cache=folder / "cache")
    config = StableDiffusionConfig(
        model=folder / "pipeline",
        data=str(folder / "photos"),
        resolution=64,
        holdout=0.34,
        validation_steps=2,
        training=TrainingConfig(steps=2, batch_size=2, trackers=(), lr=1e-3),
    )
    return build_task(config, pipeline, data, CPU), pipeline, data, config


def batch_of(task, group=-1, count=2, seed=0):
    members = task.dataset.groups[group][:count]
    return task.dataset.__getitems__(members) | task.draws(len(members), torch.Generator().manual_seed(seed))


def own_prediction(task, pipeline, batch, noisy, sigma):
    """What the network itself says, called by hand as diffusers' scripts call it."""
    text = batch["encoder_hidden_states"]
    view = sigma.view(-1, 1, 1, 1)
    if pipeline.family == "sd3":
        t = sigma / (1 + sigma)
        return task.model(
            noisy / (1 + view), timestep=1000 * t, encoder_hidden_states=text,
            pooled_projections=batch["pooled_projections"],
        ).sample  # fmt: skip
    sigmas = ((1 - pipeline.scheduler.alphas_cumprod) / pipeline.scheduler.alphas_cumprod).sqrt()
    steps = (sigmas[None] - sigma[:, None]).abs().argmin(1)
    more = {}
    if pipeline.family == "sdxl":
        more = {"added_cond_kwargs": {"text_embeds": batch["text_embeds"], "time_ids": batch["time_ids"]}}
    return task.model(noisy / (1 + view**2).sqrt(), steps, encoder_hidden_states=text, **more).sample


@torch.no_grad()
def test_the_loss_is_the_networks_own_squared_error_at_every_shape(parts):
    task, pipeline, _, _ = parts
    for group in range(len(task.dataset.groups)):
        batch = batch_of(task, group) | {"drop": torch.zeros(2, dtype=torch.bool)[: len(task.dataset.groups[group])]}
        losses, context = task.losses(task.model, batch)
        shape = batch["mean"].shape
        noise = batch["noise"][:, : shape[1:].numel()].reshape(shape)
        clean = batch["mean"] + batch["std"] * batch["posterior"][:, : shape[1:].numel()].reshape(shape)
        torch.testing.assert_close(context["clean"], clean)
        sigma = context["sigma"]
        said = own_prediction(task, pipeline, batch, clean + sigma.view(-1, 1, 1, 1) * noise, sigma)
        target = noise - clean if pipeline.family == "sd3" else noise
        expected = (said - target).square().flatten(1).mean(1)
        torch.testing.assert_close(losses, expected, rtol=2e-4, atol=1e-5)
        assert context["denoised"].shape == shape


@torch.no_grad()
def test_dropped_captions_are_empty_ones_and_the_others_stay(parts):
    task, _, _, _ = parts
    batch = batch_of(task)
    kept = task.conditioning(batch, torch.tensor([True, False]))["encoder_hidden_states"]
    torch.testing.assert_close(kept[0], task.empty["encoder_hidden_states"][0])
    torch.testing.assert_close(kept[1], batch["encoder_hidden_states"][1])
    assert not torch.equal(kept[0], batch["encoder_hidden_states"][0])
    drops = replace(task, caption_dropout=0.3).draws(4000, torch.Generator().manual_seed(0))["drop"]
    assert drops.float().mean() == pytest.approx(0.3, abs=0.03)


@torch.no_grad()
def test_prior_images_weigh_what_they_are_told_and_offset_noise_is_constant_over_a_channel(parts):
    task, _, _, _ = parts
    batch = batch_of(task) | {"prior": torch.tensor([True, False])}
    plain, context = task.losses(task.model, batch)
    half, _ = replace(task, prior_weight=0.5).losses(task.model, batch)
    torch.testing.assert_close(half, plain * torch.tensor([0.5, 1.0]))
    _, moved = replace(task, offset_noise=0.2).losses(task.model, batch)
    shift = (moved["noisy"] - context["noisy"]) / context["sigma"].view(-1, 1, 1, 1)
    torch.testing.assert_close(shift, (0.2 * batch["offset"])[:, :, None, None].expand_as(shift), rtol=1e-3, atol=1e-4)


def test_flows_train_at_the_noise_levels_that_their_scheduler_shifts_to(parts):
    task, pipeline, _, _ = parts
    uniform = torch.linspace(0.05, 0.95, 7)
    denoiser = task.denoiser(task.model)
    factor = 3.0 if pipeline.family == "sd3" else 1.0
    assert task.shift == factor
    torch.testing.assert_close(task.levels(denoiser, uniform), factor * denoiser.draw_sigma(uniform))


def test_measuring_and_rendering_change_nothing_and_repeat(parts):
    task, _, _, _ = parts
    task.model.train()
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    state = torch.get_rng_state()
    first, again = task.evaluate(task.model), task.evaluate(task.model)
    assert first == again
    assert set(first) == {f"heldout_loss{end}" for end in ("", "_low_noise", "_mid_noise", "_high_noise")}
    assert first["heldout_loss"] == pytest.approx(sum(first[name] for name in first if "noise" in name) / 3)
    one, other = task.picture(task.model), task.picture(task.model)
    assert one.tobytes() == other.tobytes()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in task.model.modules())
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())


def test_held_out_pictures_are_in_no_batch_of_the_training(parts):
    task, _, data, config = parts
    train, heldout = data.split(config.holdout, seed=0)
    trained = {train.name(index) for group in train.groups for index in group}
    assert not trained & {heldout.name(index) for index in range(len(heldout))}
    assert sum(len(batch["mean"]) for batch in task.heldout) == len(heldout) == 2
    assert sum(len(batch["mean"]) for batch in fixed_batches(data, CPU, count=3)) == 3


def test_the_same_seed_gives_the_same_lora_and_only_it_is_trained(parts):
    task, _, _, config = parts
    networks = [load_pipeline(config.model).network for _ in range(2)]
    for network in networks:
        torch.randn(3)
        adapt(config, network)
    states = [network.state_dict() for network in networks]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    trained = [name for name, parameter in task.model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_the_range_test_leaves_no_trace(parts):
    task, _, _, config = parts
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    state = torch.get_rng_state()
    found = lr_range(task, config.training, (), 10)
    assert len(found.loss) == 10
    assert found.loss[-1] != found.initial_loss
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())


def test_the_range_test_takes_the_micro_batches_of_the_training(parts, monkeypatch):
    task, _, _, config = parts
    losses, sizes = StableDiffusionTask.losses, set()

    def counting(self, model, batch):
        sizes.add(len(batch["mean"]))
        return losses(self, model, batch)

    monkeypatch.setattr(StableDiffusionTask, "losses", counting)
    lr_range(task, replace(config.training, accumulate=2), (), 10)
    assert sizes == {1}


def test_the_suggested_rate_follows_the_curve():
    rates = [10.0**k for k in range(-6, 0)]
    nan = float("nan")
    assert suggest(rates, [1.0, 1.0, 0.9, 0.6, 3.0, nan], 1.0)[0] == pytest.approx(1e-4)
    assert "breaks at 1.0e-02" in suggest(rates, [1.0, 1.0, 0.9, 0.6, 3.0, nan], 1.0)[1]
    assert suggest(rates, [1.0, 1.001, 1.005, 2.0, 3.0, nan], 1.0)[0] == pytest.approx(1e-5)
    assert suggest(rates, [2.0, 2.0, 2.0, 2.0, 3.0, nan], 1.0)[0] is None
    assert suggest(rates, [nan] * 6, 1.0)[0] is None
    assert "did not break" in suggest(rates, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5], 1.0)[1]
