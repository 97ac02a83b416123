"""What is watched while a GAN trains, what is said about it, and which layer is found when it breaks."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from lsdr import runs
from lsdr.gan.measures.mode_coverage import mode_coverage
from lsdr.gan.mixtures import MIXTURES
from lsdr.gan.scatter import scatter
from lsdr.regularizers.activation_standardization import ActivationStandardization
from lsdr.training.loop import train
from lsdr.training.stepper import build_accelerator
from lsdr.training.task import Task

_spec = importlib.util.spec_from_file_location("small", Path(__file__).with_name("small.py"))
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def trained(task, settings, directory, **options):
    return train(task, settings.training, directory, build_accelerator(settings.training), **options)


def test_a_gan_is_a_task_of_two_turns():
    task = small.task(small.config(discriminator_lr=4.0))
    assert isinstance(task, Task)
    assert [(turn.name, turn.lr_scale) for turn in task.turns()] == [("discriminator", 4.0), ("generator", 1.0)]


def test_each_player_moves_in_its_own_turn_only(tmp_path):
    settings = small.config(training={"steps": 1})
    task = small.task(settings)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    seen = []
    first, second = task.turns()

    def watched(model, batch):
        seen.append({name: torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()})
        return second.losses(model, batch)

    task.turns = lambda: (first, replace(second, losses=watched))
    trained(task, settings, tmp_path)
    assert all(seen[0][name] for name in seen[0] if name.startswith("generator."))
    assert not any(seen[0][name] for name in seen[0] if name.startswith("discriminator.") and "weight" in name)
    after = {name: torch.equal(tensor, before[name]) for name, tensor in task.model.state_dict().items()}
    assert not any(same for name, same in after.items() if name.startswith("generator.") and "weight" in name)


@pytest.mark.parametrize("options", [{}, {"generator_noise": "data"}, {"discriminator_noise": True, "packing": 2}])
def test_evaluation_is_of_the_averaged_generator_and_leaves_everything_as_it_was(options):
    task = small.task(small.config(normalization="standardize", **options))
    averaged = small.task(small.config(normalization="standardize", training={"seed": 1}, **options)).gan
    state = torch.random.get_rng_state()
    before = {name: tensor.clone() for name, tensor in averaged.state_dict().items()}
    found = task.evaluate(averaged.train())
    assert task.evaluate(averaged) == pytest.approx(found, nan_ok=True)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in averaged.state_dict().items())
    assert all(module.training for module in averaged.modules())
    other = task.evaluate(task.gan)
    assert other["logits_fake"] != pytest.approx(found["logits_fake"], rel=1e-6)
    # The discriminator is the one that plays.
    assert other["logits_train"] == pytest.approx(found["logits_train"])
    heldout = task.gan.eval().logits(task.unseen).detach()
    assert found["logits_heldout"] == pytest.approx(float(heldout.mean()))
    assert found["heldout_gap"] == pytest.approx(found["logits_train"] - found["logits_heldout"])
    assert ("noise_strength" in found) == ("discriminator_noise" in options)


def test_samples_are_judged_in_the_datas_own_units():
    task = small.task(small.config(data="grid"))
    perfect = MIXTURES["grid"].sample(1000, torch.Generator().manual_seed(0))
    task.gan.sample = lambda count, generator=None: perfect
    found = task.evaluate(task.gan)
    expected = mode_coverage(perfect, MIXTURES["grid"])
    assert (found["modes"], found["high_quality"]) == (25, expected.high_quality)
    assert found["high_quality"] > 0.97
    task.gan.sample = lambda count, generator=None: perfect[:1].expand(1000, 2) + 10
    found = task.evaluate(task.gan)
    assert (found["modes"], found["high_quality"]) == (0, 0)
    assert math.isnan(found["reverse_kl"])
    task.gan.sample = lambda count, generator=None: torch.full((1000, 2), torch.nan)
    assert task.evaluate(task.gan)["modes"] == 0
    assert task.picture(task.gan).size == (480, 480)


def test_all_numbers_of_a_sample_are_one_latent():
    task = small.task(small.config(generator_noise="data", denoising_steps=3, latent=4))
    gan = task.gan.eval()
    assert gan.latent_dim == 3 * (4 + 2)
    latent = torch.randn(5, 18)
    samples = gan.generate(latent)
    assert torch.equal(samples, gan.generate(latent))
    for place in range(16):  # the last two are the noise of a step back that is not taken: the last gives the sample
        moved = latent.clone()
        moved[:, place] += 1
        changed = not torch.equal(gan.generate(moved), samples)
        assert changed, place


def test_packs_that_are_not_full_are_not_judged():
    gan = small.task(small.config(packing=3, training={"batch_size": 9})).gan
    assert gan.logits(torch.randn(10, 2)).shape == (3,)
    assert gan.logits(torch.randn(2, 2)).shape == (0,)


def test_examples_are_judged_without_noise_in_the_datas_own_units():
    gan = small.task(small.config(discriminator_noise=True)).gan
    examples = torch.randn(6, 2)
    played = (examples - gan.center) / gan.spread
    torch.testing.assert_close(gan.logits(examples), gan.discriminator(played, level=torch.zeros(6)))
    assert not torch.allclose(gan.logits(examples), gan.discriminator(played, level=torch.ones(6)))
    denoising = small.task(small.config(generator_noise="data")).gan
    level, seen = torch.full((6,), 0.25), []
    denoising.discriminator.register_forward_pre_hook(lambda module, given, told: seen.append(told), with_kwargs=True)
    assert torch.equal(denoising.logits(examples), denoising.logits(examples))
    torch.testing.assert_close(seen[0]["level"], level)
    played = (examples - denoising.center) / denoising.spread
    noise = (seen[0]["noisy"] - denoising.schedule.signal[1] * played) / denoising.schedule.spread[1]
    assert 0.5 < float(noise.std()) < 1.5


def values(high_quality, modes=8.0, noise=0.5):
    return {"high_quality": high_quality, "modes": modes, "noise_strength": noise}


def said(task, *sequence):
    return [[event["kind"] for event in task.on_monitored(each, step)] for step, each in enumerate(sequence)]


def test_a_fall_of_realism_under_noise_is_said_once_until_it_has_come_back():
    task = small.task(small.config(discriminator_noise=True))
    sequence = [values(q) for q in (0.2, 0.9, 0.85, 0.7, 0.82, 0.6, 0.88, 0.7)]
    assert said(task, *sequence) == [[], [], [], ["realism"], [], [], [], ["realism"]]


def test_a_small_fall_or_one_without_noise_is_not_said():
    task = small.task(small.config())
    assert said(task, values(0.9), values(0.85), values(0.3, noise=0.0)) == [[], [], []]
    denoising = small.task(small.config(generator_noise="data"))
    assert said(denoising, values(0.9, noise=0.0)) == [[]]
    (event,) = denoising.on_monitored(values(0.3, noise=0.0), 1)
    assert event["message"].endswith("with noise off, fell to 0.30 from 0.90 while there is noise in training")


def test_lost_modes_are_said_but_not_those_that_stray_samples_hit():
    task = small.task(small.config())
    sequence = [values(0.01, 5.0), values(0.01, 1.0), values(0.5, 8.0), values(0.5, 7.0), values(0.5, 3.0)]
    assert said(task, *sequence) == [[], [], [], ["mode_loss"], []]
    grid = small.task(small.config(data="grid"))
    assert said(grid, values(0.5, 25.0), values(0.5, 23.0), values(0.5, 22.0)) == [[], [], ["mode_loss"]]
    assert grid.on_monitored({"discriminator.head/sigma_max": 1.0}, 3) == []


def test_a_layer_that_is_planted_broken_is_named(tmp_path):
    settings = small.config()
    task = small.task(settings)
    name, layer = next(
        (name, module)
        for name, module in task.model.discriminator.named_modules()
        if isinstance(module, torch.nn.Linear) and module.in_features > 2
    )

    def plant(step, gradient):
        if step == 3:
            with torch.no_grad():
                layer.weight[0, 1] = torch.nan

    outcome = trained(task, settings, tmp_path, on_step=plant)
    assert outcome.status == "diverged"
    (event,) = runs.read_records(tmp_path / "events.jsonl")
    assert (event["module"], event["direction"], event["step"]) == (f"discriminator.{name}", "parameter", 3)
    assert f"discriminator.{name}.weight: 1 of" in outcome.message


def test_a_point_that_is_not_finite_is_named_and_left_out(tmp_path):
    settings = small.config(training={"guard": "skip"}, discriminator_noise=True)
    task = small.task(settings)
    task.dataset.points[17] = torch.nan
    outcome = trained(task, settings, tmp_path)
    assert outcome.status == "finished"
    (event,) = [event for event in runs.read_records(tmp_path / "events.jsonl") if event["action"] == "skip"]
    assert (event["direction"], len(event["names"])) == ("input", 1)
    assert event["names"][0].startswith("ring#17 (")
    assert 17 in event["batch"]
    assert all(tensor.isfinite().all() for tensor in task.model.state_dict().values())


def test_images_are_watched_by_precision_and_shown_in_a_grid():
    task = small.task(small.config(data="digits", limit=60, model="dcgan"))
    found = task.evaluate(task.gan)
    assert {"precision", "recall", "density", "coverage", "heldout_gap"} <= found.keys()
    assert "modes" not in found
    assert isinstance(task.picture(task.gan), Image.Image)
    assert task.feature_layers() is None
    residual = small.task(small.config(data="digits", limit=60, model="r3gan-tiny"))
    assert residual.feature_layers() is not None
    assert said(residual, {"precision": 0.9, "noise_strength": 1.0}, {"precision": 0.5, "noise_strength": 1.0}) == [
        [],
        ["realism"],
    ]


def test_standardization_is_in_the_networks_that_ask_for_it():
    gan = small.task(small.config(normalization="standardize")).gan
    for player, expected in ((gan.generator, True), (gan.discriminator, False)):
        assert any(isinstance(module, ActivationStandardization) for module in player.modules()) == expected


def test_a_scatter_shows_samples_where_they_are():
    data = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    picture = scatter(torch.tensor([[0.0, 0.0], [torch.nan, 0.0], [99.0, 0.0]]), data, side=65)
    colours = {place: picture.getpixel(place) for place in ((31, 33), (32, 32), (63, 32), (10, 10))}
    blue = (31, 119, 180)
    assert [place for place, colour in colours.items() if colour == blue] == [(31, 33), (32, 32), (63, 32)]
    counts = {colour: count for count, colour in picture.getcolors()}
    assert counts == {blue: 8, (190, 190, 190): 8, (255, 255, 255): 65 * 65 - 16}
    first = scatter(data[:0], torch.tensor([[0.0, 0.0], [0.0, 2.0]]), side=65)
    rows = [y for y in range(65) for x in range(65) if first.getpixel((x, y)) != (255, 255, 255)]
    assert min(rows) < 32 < max(rows)


def test_a_controller_counts_examples_not_packs():
    moved = {}
    for packing in (1, 2):
        task = small.task(small.config(discriminator_noise=True, packing=packing, noise_target=-0.9))
        batch = {**task.dataset.__getitems__(range(8)), **task.draws(8, torch.Generator().manual_seed(0))}
        task.turns()[0].losses(task.model, batch)
        moved[packing] = int(task.model.noise.pending[2])
    assert moved == {1: 8, 2: 8}


@pytest.mark.parametrize(("count", "message"), [(40, "all 36 examples looked at are the same"), (3, "measuring needs")])
def test_images_that_cannot_be_learned_from_are_refused_at_once(tmp_path, count, message):
    for number in range(count):
        Image.new("L", (8, 8), 100).save(tmp_path / f"{number}.png")
    with pytest.raises(ValueError, match=message):
        small.task(small.config(data=str(tmp_path)))
