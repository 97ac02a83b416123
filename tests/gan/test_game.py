"""What each player loses, against the formulas written out; and that a step does not depend on how it is cut."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState

from lsdr.gan.game import discriminator_losses, draws, generator_losses
from lsdr.regularizers.spectral_decorrelation import SpectralDecorrelation
from lsdr.regularizers.spectral_normalization import SpectralNormalization
from lsdr.training.stepper import build_accelerator, open_stepper

_spec = importlib.util.spec_from_file_location("small", Path(__file__).with_name("small.py"))
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def play(**options):
    """Players, options and a batch with everything that is drawn for it."""
    settings = small.config(**options)
    task = small.task(settings)
    generator = torch.Generator().manual_seed(3)
    batch = task.dataset.__getitems__(range(8)) | draws(task.gan, settings, 8, generator)
    return task.gan, settings, batch


def squared_gradients(gan, x):
    """Squared gradient norm of the plain discriminator at each example."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(gan.discriminator(x).sum(), x)
    return gradient.square().sum(1)


@pytest.mark.parametrize("data", ["ring", "grid"])
def test_points_are_played_with_mean_zero_and_variance_one(data):
    gan, _, _ = play(data=data)
    points = small.task(small.config(data=data)).dataset.points
    played = gan.coordinates(points)
    assert played.mean(0).abs().max() < 0.5  # of 40 of them, the mean and the variance are taken
    assert float(played.var(0).mean()) == pytest.approx(1, abs=0.2)
    latent = torch.randn(2, gan.latent_dim)
    torch.testing.assert_close(gan.coordinates(gan.generate(latent)), gan.generator(latent))


def test_the_losses_of_both_turns_are_the_published_ones():
    gan, settings, batch = play(r1=0.3, r2=0.7)
    real = gan.coordinates(batch["image"])
    losses, context = discriminator_losses(gan, settings, batch)
    fake = gan.generator(batch["latent"][:, 0])
    r1, r2 = squared_gradients(gan, real), squared_gradients(gan, fake)
    expected = F.softplus(-(gan.discriminator(real) - gan.discriminator(fake))) + 0.3 / 2 * r1 + 0.7 / 2 * r2
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(context["record"]["r1"], r1.mean())
    torch.testing.assert_close(context["record"]["r2"], r2.mean())
    torch.testing.assert_close(context["record"]["logits/fake"], gan.discriminator(fake).mean().detach())
    other = gan.generator(batch["latent"][:, 1])  # the generator's turn has latents of its own
    losses, _ = generator_losses(gan, settings, batch)
    torch.testing.assert_close(losses, F.softplus(-(gan.discriminator(other) - gan.discriminator(real))))


def test_a_pack_is_judged_together_and_counts_for_each_of_its_examples():
    gan, settings, batch = play(packing=2, r1=0.5, r2=0.0, loss="non_saturating")
    real, fake = gan.coordinates(batch["image"]), gan.generator(batch["latent"][:, 0])
    packs, fake_packs = real.reshape(4, 4), fake.reshape(4, 4)
    expected = F.softplus(-gan.discriminator(packs)) + F.softplus(gan.discriminator(fake_packs))
    expected = expected + 0.5 / 2 * squared_gradients(gan, packs)
    losses, _ = discriminator_losses(gan, settings, batch)
    torch.testing.assert_close(losses, expected.repeat_interleave(2))


def test_batch_statistics_of_real_and_generated_examples_are_kept_apart():
    gan, settings, batch = play(discriminator_normalization="standardize", r1=0.0, r2=0.0)
    assert gan.mixes_examples
    real, fake = gan.coordinates(batch["image"]), gan.generator(batch["latent"][:, 0])
    expected = F.softplus(-(gan.discriminator(real) - gan.discriminator(fake)))
    losses, _ = discriminator_losses(gan, settings, batch)
    torch.testing.assert_close(losses, expected)
    joint = gan.discriminator(torch.cat([real, fake])).chunk(2)
    assert not torch.allclose(losses, F.softplus(-(joint[0] - joint[1])), atol=1e-4)


@pytest.mark.parametrize("options", [{"packing": 2}, {"discriminator_noise": True}, {"generator_noise": "data"}])
def test_one_pass_for_real_and_generated_examples_changes_nothing(options):
    gan, settings, batch = play(r1=0.3, r2=0.7, **options)
    assert not gan.mixes_examples
    if gan.noise is not None:
        gan.noise.position.fill_(gan.noise.images)
    together, _ = discriminator_losses(gan, settings, batch)
    gan.mixes_examples = True
    apart, _ = discriminator_losses(gan, settings, batch)
    torch.testing.assert_close(together, apart)


def test_noise_is_shown_to_the_discriminator_with_its_level():
    gan, settings, batch = play(discriminator_noise=True, packing=2, r1=0.0, r2=0.0, noise_clean=0.0)
    gan.noise.position.fill_(gan.noise.images)
    level = gan.noise.levels_from(batch["level"][:, 0])[::2]  # of a pack
    ratio = gan.noise.noise_to_signal(level).repeat_interleave(2)[:, None]
    real = gan.coordinates(batch["image"]) + ratio * batch["real_noise"][:, 0]
    fake = gan.generator(batch["latent"][:, 0]) + ratio * batch["fake_noise"][:, 0]
    judged = [gan.discriminator(each.reshape(4, 4), level=level) for each in (real, fake)]
    losses, _ = discriminator_losses(gan, settings, batch)
    torch.testing.assert_close(losses, F.softplus(judged[1] - judged[0]).repeat_interleave(2))


def test_a_denoising_generator_is_judged_on_the_step_back_that_it_takes():
    gan, settings, batch = play(generator_noise="data", denoising_steps=2, r1=0.0, r2=0.0)
    step = (batch["time"][:, 0] * 2).long() + 1
    assert set(step.tolist()) == {1, 2}
    first, second, third = batch["diffusion"][:, 0].unbind(1)
    before, after = gan.schedule.q_sample_pair(gan.coordinates(batch["image"]), step, first, second)
    guess = gan.generator(batch["latent"][:, 0], noisy=after, level=step / 2)
    fake = gan.schedule.posterior(guess, after, step, third)
    judged = [gan.discriminator(each, noisy=after, level=step / 2) for each in (before, fake)]
    losses, _ = discriminator_losses(gan, settings, batch)
    torch.testing.assert_close(losses, F.softplus(judged[1] - judged[0]))


def test_latent_noise_leaves_the_latents_standard_normal():
    gan, settings, batch = play(generator_noise="latent", mode_seeking=0.5, noise_clean=0.0)
    gan.noise.position.fill_(gan.noise.images)
    seen = []
    gan.generator.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    losses, context = generator_losses(gan, settings, batch)
    ratio = gan.noise.noise_to_signal(gan.noise.levels_from(batch["level"][:, 1]))[:, None]
    mixed = (batch["latent"][:, 1] + ratio * batch["latent_noise"][:, 1]) / (1 + ratio.square()).sqrt()
    torch.testing.assert_close(seen[0], mixed)
    torch.testing.assert_close(seen[1], batch["other_latent"])
    assert losses.mean() > 0.5 * context["record"]["mode_seeking"] > 0


def test_a_lazy_penalty_is_the_same_on_average():
    gan, settings, batch = play(r1=1.0, r2=1.0, lazy=4)
    plain = discriminator_losses(gan, small.config(r1=0.0, r2=0.0), batch)[0]
    every = discriminator_losses(gan, small.config(r1=1.0, r2=1.0), batch)[0] - plain
    found = []
    for lot in (0.1, 0.3, 0.6, 0.9):
        losses, context = discriminator_losses(gan, settings, batch | {"lot": torch.full((8,), lot)})
        found.append(losses - plain)
        assert ("r1" in context["record"]) == (lot == 0.1)
    torch.testing.assert_close(torch.stack(found).mean(0), every)


def test_consistency_pays_for_changes_under_what_should_change_nothing():
    gan, settings, batch = play(consistency=2.0, r1=0.0, r2=0.0, noise_smallest=0.2)
    plain, _ = discriminator_losses(gan, small.config(r1=0.0, r2=0.0), batch)
    real, fake = gan.coordinates(batch["image"]), gan.generator(batch["latent"][:, 0])
    change = 0.0
    for number, shown in enumerate((real, fake)):
        moved = shown + 0.2 * batch["transformation"][:, number]
        change = change + (gan.discriminator(shown) - gan.discriminator(moved)).square()
    losses, _ = discriminator_losses(gan, settings, batch)
    torch.testing.assert_close(losses, plain + 2 * change)


def test_half_of_the_images_are_mirrored_in_both_turns():
    gan, settings, batch = play(data="digits", limit=60, flip=True, r1=0.0, r2=0.0)
    seen = []
    gan.judge = lambda played, **told: seen.append(played) or torch.zeros(len(played), requires_grad=True)
    discriminator_losses(gan, settings, batch)
    generator_losses(gan, settings, batch)
    images = gan.coordinates(batch["image"])
    mirrored = (batch["flip"] < 0.5).view(-1, 1, 1, 1)
    assert 0 < mirrored.sum() < 8
    torch.testing.assert_close(seen[0][:8], torch.where(mirrored, images.flip(-1), images))
    torch.testing.assert_close(seen[1], seen[0][:8])


@pytest.mark.parametrize(("loss", "seed"), [("relativistic", 0), ("hinge", 4)])
def test_the_controller_sees_the_signal_that_fits_the_loss(loss, seed):
    gan, settings, batch = play(discriminator_noise=True, loss=loss, training={"seed": seed})
    real = gan.discriminator(gan.coordinates(batch["image"]), level=torch.zeros(8))
    fake = gan.discriminator(gan.generator(batch["latent"][:, 0]), level=torch.zeros(8))
    expected = float((real - fake if loss == "relativistic" else real).detach().sign().mean())
    _, context = discriminator_losses(gan, settings, batch)
    generator_losses(gan, settings, batch)
    assert abs(expected) < 1
    assert float(context["record"]["logits/sign"]) == pytest.approx(expected)
    assert float(gan.noise.signal) == pytest.approx(expected)


def test_noise_can_be_held_at_a_strength():
    gan, settings, batch = play(discriminator_noise=True, noise_strength=0.25, noise_images=8, noise_target=-0.9)
    for _ in range(5):
        _, context = discriminator_losses(gan, settings, batch)
        generator_losses(gan, settings, batch)
        assert float(context["record"]["noise/level"]) == 0.25


def stepped(accumulate, regularizers, **options):
    """Weights, controller and gradient norms after a few steps."""
    settings = small.config(training={"accumulate": accumulate}, **options)
    task = small.task(settings)
    norms = []
    with open_stepper(task, settings.training, build_accelerator(settings.training), regularizers) as stepper:
        for step in range(4):
            examples = task.dataset.__getitems__(range(8 * step, 8 * step + 8))
            for turn in stepper.turns:
                gradient = stepper.gradient(step, examples, turn)
                norms.append(gradient.norm)
                stepper.update(step, gradient, turn)
    return {name: tensor.clone() for name, tensor in task.model.state_dict().items()}, norms


@pytest.mark.parametrize("regularized", [False, True])
def test_micro_batches_change_nothing_but_rounding(regularized):
    # Not the relativistic loss: no gradient reaches the last bias, and Adam would step along its rounding.
    options = {"discriminator_noise": True, "packing": 2, "noise_images": 50, "noise_target": -0.9, "lazy": 2}
    options |= {"loss": "non_saturating"}
    features = SpectralDecorrelation(layers="discriminator.body", weight=0.1)
    regularizers = (SpectralNormalization(), features) if regularized else ()
    (one, norms), (cut, cut_norms) = (stepped(parts, regularizers, **options) for parts in (1, 4))
    assert cut_norms == pytest.approx(norms, rel=1e-3)
    for name, tensor in one.items():
        if name.startswith("noise."):
            assert torch.equal(tensor, cut[name]), name
        else:
            torch.testing.assert_close(cut[name], tensor, rtol=1e-3, atol=2e-5)
    assert one["noise.position"] > 0
    assert int(one["noise.batches"]) == 4


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_a_penalty_on_features_moves_only_the_player_that_has_them(player, accumulate):
    layer = {"generator": "generator.stages.0", "discriminator": "discriminator.body"}[player]
    settings = small.config(training={"accumulate": accumulate}, loss="non_saturating")
    found = {}
    for weight in (0.0, 1.0):
        AcceleratorState._reset_state(reset_partial_state=True)
        task = small.task(settings)
        regularizer = SpectralDecorrelation(layers=layer, weight=weight)
        with open_stepper(task, settings.training, build_accelerator(settings.training), [regularizer]) as stepper:
            examples = task.dataset.__getitems__(range(8))
            for turn in stepper.turns:
                gradient = stepper.gradient(0, examples, turn)
                found[turn.name, weight] = gradient
                assert any("Decorrelation" in name for name in gradient.components) == (turn.name == player)
                stepper.discard()
    for name in ("generator", "discriminator"):
        assert (found[name, 0.0].norm == found[name, 1.0].norm) == (name != player)
    assert found[player, 1.0].penalty > 0
