"""The learned discriminator: it teaches what it should, the same however a step is cut, and leaves nothing behind."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lsdr.regularizers.attach import attach
from lsdr.regularizers.learned_spectral_discriminator import LearnedSpectralDiscriminator

SCRIPT = Path(__file__).with_name("critic_rank.py")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def examples(seed, count=20, shape=(1, 8, 8)):
    """Clean images, blurred to have a spectrum, and noisy ones at two noise levels."""
    clean = torch.randn(count, *shape, generator=generator(seed), dtype=torch.float64)
    clean = clean + clean.roll(1, -1)
    sigma = torch.tensor([0.1, 1.0], dtype=torch.float64).repeat(count // 2)
    noise = torch.randn(clean.shape, generator=generator(1000 + seed), dtype=torch.float64)
    return clean, clean + sigma.view(-1, *[1] * len(shape)) * noise, sigma


def network(channels=1):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, channels, 3, padding=1)).double()


def discriminator(**settings):
    return LearnedSpectralDiscriminator(**{"weight": 1.0, "hidden": 8, "lr": 0.01, **settings})


def run(model, penalty, steps, **settings):
    for step in steps:
        clean, noisy, sigma = examples(step, **settings)
        total = penalty(denoised=model(noisy), clean=clean, sigma=sigma)
    return total


def copied(state):
    return {key: value.clone() for key, value in state.items()}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


class Scale(nn.Module):
    """A generator with one thing to learn: the scale of its images' fine structure."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))

    def forward(self, image):
        coarse = (image + image.roll(1, -1)) / 2
        return coarse + self.fine * (image - coarse)


def test_a_generator_learns_the_spectrum_from_the_critic_alone():
    model = Scale()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    sigma = torch.zeros(32, dtype=torch.float64)
    seen = []
    with attach(model, discriminator(lr=0.01, hidden=16)) as penalty:
        for step in range(110):
            real, other = (
                torch.randn(32, 1, 8, 8, generator=generator(2 * step + k), dtype=torch.float64) for k in (0, 1)
            )
            optimizer.zero_grad()
            total = penalty(denoised=model(other), clean=real, sigma=sigma)
            if step > 1:
                total.backward()
                optimizer.step()
            seen.append(float(model.fine.detach()))
    assert seen[-1] == pytest.approx(1.0, abs=0.15)
    assert max(abs(each - 1) for each in seen[-30:]) < 0.3


def test_the_first_steps_only_measure():
    model = network()
    with attach(model, discriminator()) as penalty:
        found = [float(run(model, penalty, [step], count=10).detach()) for step in range(6)]
        # Two steps until 16 images are seen, two until 16 of their profiles are; then a critic that says nothing.
        assert found[:4] == [0, 0, 0, 0]
        (term,) = penalty._terms.values()
        variance = float(term._noise.variance())
        gates = [variance / (variance + sigma**2) for sigma in (0.1, 1.0)]
        assert found[4] == pytest.approx(math.log(2) * sum(gates) / 2, rel=0.05)
        assert found[5] != found[4]


@pytest.mark.parametrize("noise", ["wiener", "snr", "none"])
def test_penalty_and_gradient_are_the_written_formula(noise):
    model = network()
    with attach(model, discriminator(noise=noise, weight=0.3)) as penalty:
        run(model, penalty, range(6))
        (term,) = penalty._terms.values()
        critic, aware = term._critic, term._noise
        clean, noisy, sigma = examples(7)

        def expected():
            variance = aware.variance()
            gate = torch.ones_like(sigma) if noise == "none" else variance / (variance + sigma**2)
            return 0.3 * (gate * F.softplus(-critic(model(noisy), sigma))).mean()

        wanted = expected()
        gradients = torch.autograd.grad(wanted, list(model.parameters()))
        with penalty.aside():
            got = penalty(denoised=model(noisy), clean=clean, sigma=sigma)
        torch.testing.assert_close(got, wanted.detach(), rtol=1e-12, atol=0, check_dtype=False)
        for one, other in zip(torch.autograd.grad(got, list(model.parameters())), gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
        assert max(float(each.abs().max()) for each in gradients) > 1e-5


def test_the_gradient_to_the_parameters_is_that_of_finite_differences():
    model = network()
    with attach(model, discriminator()) as penalty:
        run(model, penalty, range(8))
        clean, noisy, sigma = examples(9)

        def value():
            with penalty.aside():
                return penalty(denoised=model(noisy), clean=clean, sigma=sigma)

        for parameter in model.parameters():
            (gradient,) = torch.autograd.grad(value(), parameter)
            direction = torch.randn(parameter.shape, generator=generator(3), dtype=torch.float64)
            ends = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter += step * direction
                    ends.append(value().item())
                    parameter -= step * direction
            assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-8)
            assert gradient.abs().max() > 1e-6


def test_the_critic_takes_one_step_down_its_own_loss():
    model = network()
    with attach(model, discriminator(lr=0.05)) as penalty:
        run(model, penalty, range(4))
        clean, noisy, sigma = examples(5)
        losses = []
        for _ in range(15):
            penalty(denoised=model(noisy), clean=clean, sigma=sigma)
            losses.append(float(penalty.values["LearnedSpectralDiscriminator/critic"]))
    assert losses[-1] < 0.8 * losses[0]


def test_the_update_is_adams():
    model = network()
    with attach(model, discriminator(noise="none", lr=0.05)) as penalty:
        run(model, penalty, range(2))
        (term,) = penalty._terms.values()
        critic = term._critic
        before = {name: parameter.detach().clone() for name, parameter in critic.named_parameters()}
        clean, noisy, sigma = examples(5)
        fake = model(noisy).detach()
        loss = F.softplus(-critic(clean, sigma)).mean() + F.softplus(critic(fake, sigma)).mean()
        gradients = dict(zip(before, torch.autograd.grad(loss, list(critic.parameters())), strict=True))
        penalty(denoised=model(noisy), clean=clean, sigma=sigma)
        for name, parameter in critic.named_parameters():
            # Adam's first step: lr * gradient / (|gradient| + eps).
            expected = before[name] - 0.05 * gradients[name] / (gradients[name].abs() + 1e-8)
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-8, atol=1e-12)
        assert all(parameter.grad is None for parameter in critic.parameters())
        assert gradients["network.4.weight"].abs().max() > 1e-4


def test_no_gradient_of_the_critics_loss_reaches_the_model():
    """With weight 0 the critic learns, and the model hears nothing."""
    model = network()
    with attach(model, discriminator(weight=0)) as penalty:
        total = run(model, penalty, range(4))
        assert float(total) == 0
        assert not total.requires_grad
        before = copied(penalty.state_dict())
        run(model, penalty, [5])
        assert not torch.equal(
            before["LearnedSpectralDiscriminator/critic/network.4.weight"],
            penalty.state_dict()["LearnedSpectralDiscriminator/critic/network.4.weight"],
        )


def test_nothing_is_learned_where_gradients_are_off_or_aside():
    model = network()
    with attach(model, discriminator()) as penalty:
        run(model, penalty, range(5))
        before = copied(penalty.state_dict())
        with torch.no_grad():
            run(model, penalty, [6])
        assert same(before, penalty.state_dict())
        with penalty.aside():
            run(model, penalty, range(6, 9))
            assert not same(before, penalty.state_dict())
        assert same(before, penalty.state_dict())


def test_aside_before_the_first_step_leaves_nothing():
    model = network()
    with attach(model, discriminator()) as penalty:
        with penalty.aside():
            run(model, penalty, range(5))
        assert penalty.state_dict() == {}
        assert float(run(model, penalty, [0])) == 0


def test_a_resumed_run_is_bitwise_the_same():
    model = network()
    with attach(model, discriminator(learn=70)) as penalty:
        states = []
        for step in range(8):
            states.append(copied(penalty.state_dict()))
            last = run(model, penalty, [step])
        final = copied(penalty.state_dict())
    for start in (0, 1, 2, 5):
        with attach(model, discriminator(learn=70)) as penalty:
            penalty.load_state_dict(states[start])
            assert torch.equal(run(model, penalty, range(start, 8)), last)
            assert same(penalty.state_dict(), final)


def test_the_global_generator_and_the_model_are_left_alone():
    model = network()
    before, rng = copied(model.state_dict()), torch.get_rng_state()
    with attach(model, discriminator()) as penalty:
        run(model, penalty, range(4))
    assert torch.equal(torch.get_rng_state(), rng)
    assert same(before, model.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model._forward_hooks


def test_the_critics_step_before_the_backward_pass_does_not_break_it():
    model = network()
    with attach(model, discriminator()) as penalty:
        for step in range(5):
            total = run(model, penalty, [step])
            if step > 1:
                total.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_and_micro_batches_agree_with_one_process(world, tmp_path):
    calls = [*((rank, world) for rank in range(world)), (0, 1)]
    outs = [tmp_path / f"{number}.pt" for number in range(len(calls))]
    processes = []
    for (rank, size), out in zip(calls, outs, strict=True):
        command = [sys.executable, str(SCRIPT), str(rank), str(size), str(tmp_path / "meet"), str(out)]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(calls), "\n".join(errors)
    *several, single = [torch.load(out, weights_only=True) for out in outs]
    for key, expected in single.items():
        scale = max(float(expected.double().abs().max()), 1e-3)
        whole = single[key.replace("2/", "1/", 1)]
        for actual in [*(result[key] for result in several), whole]:
            assert float((actual.double() - expected.double()).abs().max()) <= 1e-8 * scale, key
    assert (single["1/values"][2:] > 0.1).all()
    assert single["1/2.weight"].abs().max() > 1e-3


def test_infinite_noise_adds_nothing_whatever_the_estimate():
    model = network()
    with attach(model, discriminator()) as penalty:
        run(model, penalty, range(5))
        clean, noisy, sigma = examples(6)
        sigma[::2] = math.inf
        denoised = model(noisy).detach()
        with penalty.aside():
            finite = penalty(denoised=denoised.clone().requires_grad_(), clean=clean, sigma=sigma).detach()
        denoised[::2] = math.nan
        denoised.requires_grad_()
        total = penalty(denoised=denoised, clean=clean, sigma=sigma)
        total.backward()
        assert float(total.detach()) == float(finite) > 0
        assert not denoised.grad[::2].any()
        assert denoised.grad[1::2].abs().sum() > 0
        assert all(value.isfinite().all() for value in penalty.state_dict().values())


def test_a_broken_estimate_shows_in_the_penalty_and_not_in_the_critic():
    model = network()
    with attach(model, discriminator()) as penalty:
        run(model, penalty, range(5))
        clean, noisy, sigma = examples(6)
        denoised = model(noisy).detach()
        denoised[3] = math.nan
        denoised.requires_grad_()
        assert penalty(denoised=denoised, clean=clean, sigma=sigma).isnan()
        assert all(value.isfinite().all() for value in penalty.state_dict().values())
        assert run(model, penalty, [7]).isfinite()


@pytest.mark.parametrize("shape", [(2, 9), (1, 7, 5), (3, 8, 8), (1, 4, 4, 3)])
def test_audio_odd_sizes_colour_and_video(shape):
    scale = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    with attach(nn.Identity(), discriminator()) as penalty:
        for step in range(5):
            clean, noisy, sigma = examples(step, shape=shape)
            total = penalty(denoised=scale * noisy, clean=clean, sigma=sigma)
    total.backward()
    assert abs(float(scale.grad)) > 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_estimates_and_one_noise_level(dtype):
    model = network().float()
    with attach(model, discriminator()) as penalty:
        for step in range(5):
            clean, noisy, _ = (each.float() for each in examples(step))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                denoised = model(noisy)
                total = penalty(denoised=denoised, clean=clean, sigma=torch.tensor(0.5))
        assert denoised.dtype == dtype
        total.backward()
        assert total.isfinite()
        state = penalty.state_dict()
        assert state["LearnedSpectralDiscriminator/critic/network.0.weight"].dtype == torch.float32
    assert model[0].weight.grad.abs().max() > 0


def test_what_cannot_be_right_is_refused():
    clean, noisy, sigma = examples(0)
    with attach(network(), discriminator()) as penalty:
        noisy.requires_grad_()
        with pytest.raises(TypeError, match=r"needs denoised= as a floating-point tensor, got nothing; call penalty\("):
            penalty(clean=clean)
        with pytest.raises(ValueError, match="compares denoised with clean, both"):
            penalty(denoised=noisy[:, :, :4], clean=clean, sigma=sigma)
        with pytest.raises(ValueError, match=r"sigma has shape \(3,\) for a batch of 20"):
            penalty(denoised=noisy, clean=clean, sigma=sigma[:3])
        for bad in (-1.0, math.nan):
            with pytest.raises(ValueError, match="must not be negative or NaN"):
                penalty(denoised=noisy, clean=clean, sigma=torch.full((20,), bad))
        broken = clean.clone()
        broken[0, 0, 0, 0] = math.nan
        with pytest.raises(ValueError, match="clean images with NaN or infinite pixels"):
            penalty(denoised=noisy, clean=broken, sigma=sigma)
        with pytest.raises(ValueError, match="constant"):
            penalty(denoised=noisy, clean=torch.ones_like(clean), sigma=sigma)


def test_settings_and_states_that_cannot_be_right_are_refused():
    for settings, message in [
        ({"weight": -1}, "weight must be finite and not negative, got -1"),
        ({"weight": math.nan}, "weight must be finite"),
        ({"lr": 0.0}, "lr must be finite and positive, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"learn": 15}, "learn must be at least 16 images, got 15"),
    ]:
        with pytest.raises(ValueError, match=message):
            LearnedSpectralDiscriminator(**settings)
    with pytest.raises((ValueError, TypeError), match="bracket"):  # the tests' type checker may be faster
        LearnedSpectralDiscriminator(noise="bracket")
    model = network()
    with attach(model, discriminator()) as penalty:
        run(model, penalty, range(4))
        state = copied(penalty.state_dict())
    with attach(model, discriminator(hidden=9)) as penalty:
        with pytest.raises(ValueError, match="hidden=8, and this one has hidden=9"):
            penalty.load_state_dict(state)
        with pytest.raises(ValueError, match=r"another regularizer: entries \['vectors/0'\]"):
            penalty.load_state_dict({"LearnedSpectralDiscriminator/vectors/0": torch.zeros(1)})
