import copy
import math

import pytest
import torch
from torch import distributed, nn

from lsdr.gan.adaptive_noise import AdaptiveNoise


def batches(count=40):
    """Real and fake logits that drift from sure to unsure, so that the controller goes up, holds and comes down."""
    drift = torch.linspace(2, -1, 40)[:, None]
    both = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0)) + torch.stack([drift, 0 * drift])
    return both[:, :count]


# The noise.


@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_noise_is_scaled_by_level_and_dimension(level):
    scale = torch.tensor([[0.5], [2.0]])
    noise = AdaptiveNoise(scale, smallest=0.02, largest=0.8)
    x, e = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ratio = 0.02 * 40**level if level else 0.0
    noisy = noise(x, torch.full((3,), level, dtype=torch.float64), noise=e)
    torch.testing.assert_close(noisy, x + ratio * scale.double() * e, rtol=1e-6, atol=0)
    assert level or torch.equal(noisy, x)


def test_real_and_generated_get_noise_of_one_law():
    """What is added depends on level and noise alone, not on the example; its gradient passes unchanged."""
    noise = AdaptiveNoise(strength=1.0)
    real, fake, e = torch.zeros(4, 3), torch.full((4, 3), 8.0, requires_grad=True), torch.randn(4, 3)
    level = torch.tensor([0.0, 0.3, 0.6, 1.0])
    noisy = noise(fake, level, noise=e)
    torch.testing.assert_close(noisy - fake, noise(real, level, noise=e) - real, rtol=0, atol=1e-6)
    noisy.sum().backward()
    assert torch.equal(fake.grad, torch.ones(4, 3))


def test_levels_are_a_clean_share_and_uniform_up_to_the_strength():
    noise = AdaptiveNoise(strength=0.8, clean=0.25)
    levels = noise.levels(20_000, torch.Generator().manual_seed(0))
    assert (levels == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    noisy = levels[levels > 0]
    assert noisy.max() <= 0.8
    grid = torch.linspace(0.1, 0.7, 7)
    torch.testing.assert_close(torch.stack([(noisy < g).float().mean() for g in grid]), grid / 0.8, atol=0.015, rtol=0)
    # Log-uniform noise: its logarithm is uniform from that of the smallest up.
    ratios = noise.noise_to_signal(noisy).log()
    assert ratios.min().item() == pytest.approx(math.log(0.01), abs=0.01)
    assert ratios.mean().item() == pytest.approx(math.log(0.01) + 0.4 * math.log(100), abs=0.02)


def test_draws_come_from_the_generator_alone():
    noise = AdaptiveNoise(strength=1.0)
    x = torch.randn(16, 2)
    before = torch.get_rng_state()
    first, again = (noise(x, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, x)
    assert not torch.equal(noise(x), noise(x))


def test_nothing_is_added_at_strength_zero_and_in_evaluation():
    x = torch.randn(16, 2)
    assert torch.equal(AdaptiveNoise()(x), x)
    noise = AdaptiveNoise(strength=1.0).eval()
    assert noise(x) is x
    assert not torch.equal(noise(x, torch.ones(16)), x)  # asked for, it is given


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_examples_keep_their_type(dtype):
    assert AdaptiveNoise(strength=1.0)(torch.zeros(8, 2, dtype=dtype)).dtype == dtype


# The controller.


def simulate(real, fake, *, target, images, every, hysteresis, relativistic):
    """The documented rule on plain numbers: position after each batch."""
    position = direction = waiting = 0
    average, found = 0.0, []
    for number, (r, f) in enumerate(zip(real.tolist(), fake.tolist(), strict=True), start=1):
        judged = [a - b for a, b in zip(r, f, strict=True)] if relativistic else r
        signs = [(a > 0) - (a < 0) for a in judged]
        average += (sum(signs) / len(signs) - average) * max(1 / number, 1 / every)
        waiting += len(r)
        if number % every == 0:
            if average > target + hysteresis:
                direction = 1
            elif average < target - hysteresis:
                direction = -1
            elif direction * (average - target) <= 0:
                direction = 0
            position = min(max(position + direction * waiting, 0), images)
            waiting = 0
        found.append((position, direction))
    return found


@pytest.mark.parametrize("relativistic", [False, True])
@pytest.mark.parametrize("every", [1, 4])
def test_follows_the_documented_rule(relativistic, every):
    settings = {"target": 0.3, "images": 72, "every": every, "hysteresis": 0.15}
    real, fake = batches()
    noise = AdaptiveNoise(signal="relativistic" if relativistic else "sign", **settings)
    found = []
    for r, f in zip(real, fake, strict=True):
        noise.update(r, f)
        found.append((int(noise.position), int(noise.direction)))
    assert found == simulate(real, fake, relativistic=relativistic, **settings)
    positions, directions = zip(*found, strict=True)
    assert max(positions) == 72  # the course has a cap to meet,
    assert {-1, 1} <= set(directions)  # and both directions
    assert positions[-1] < 72
    assert float(noise.strength) == pytest.approx(positions[-1] / 72)


def test_hysteresis_starts_outside_the_band_and_stops_at_the_target():
    """The signal is put by hand: a batch of which it makes nothing new moves the controller only."""
    noise = AdaptiveNoise(target=0.6, hysteresis=0.1, every=1, images=1000)
    course = []
    for signal in [0.65, 0.75, 0.65, 0.55, 0.65, 0.45, 0.55, 0.65]:
        logits = torch.ones(40)
        logits[: round(20 * (1 - signal))] = -1
        noise.update(logits)
        course.append(int(noise.direction))
    assert course == [0, 1, 1, 0, 0, -1, -1, 0]


def test_holds_the_target_against_a_discriminator_that_noise_makes_unsure():
    """The stronger the noise, the lower the signal, with a delay: settles near the target and does not swing."""
    noise = AdaptiveNoise(images=10_000)
    generator = torch.Generator().manual_seed(0)
    strengths, signals = [], []
    for _ in range(250):
        sure = 1 - 0.8 * float(noise.strength)  # the target, 0.6, at strength 0.5
        noise.update((torch.rand(64, generator=generator) < (1 + sure) / 2).float() - 0.5)
        strengths.append(float(noise.strength))
        signals.append(float(noise.signal))
    assert sum(signals[-100:]) / 100 == pytest.approx(0.6, abs=0.05)
    assert min(strengths[-100:]) > 0.4
    assert max(strengths) < 0.6


def test_starts_where_it_is_told_and_stays_without_updates():
    noise = AdaptiveNoise(strength=0.25, images=1000)
    for _ in range(8):
        noise(torch.zeros(64, 1))
    assert float(noise.strength) == 0.25
    for _ in range(4):
        noise.update(torch.ones(64))
    assert float(noise.strength) == pytest.approx(0.25 + 0.256)


def test_goes_from_end_to_end_in_as_many_images_as_said():
    noise = AdaptiveNoise(images=64 * 8)
    strengths = []
    for sign in [1] * 8 + [-1] * 20:
        noise.update(torch.full((64,), float(sign)))
        strengths.append(float(noise.strength))
    assert strengths[3:8] == [0.5, 0.5, 0.5, 0.5, 1.0]
    assert strengths[-1] == 0


def test_relativistic_signal_ignores_a_constant_and_sign_does_not():
    """A discriminator of differences may put all logits below 0: its sign says overfitted by nothing."""
    real, fake = batches(12)
    ends = []
    for kind, shift in [("relativistic", 0), ("relativistic", -100), ("sign", -100)]:
        noise = AdaptiveNoise(images=100, signal=kind, target=0.2)
        for r, f in zip(real, fake, strict=True):
            noise.update(r + shift, f + shift)
        ends.append((float(noise.strength), float(noise.signal)))
    assert ends[0] == ends[1]
    assert ends[0][0] > 0
    assert ends[2] == (0, -1)


def test_parts_of_a_batch_are_one_batch():
    real, fake = batches(22)
    whole, parts = (AdaptiveNoise(images=100, signal="relativistic", target=0.3) for _ in range(2))
    for r, f in zip(real, fake, strict=True):
        whole.update(r, f)
        parts.observe(r[:3], f[:3])
        parts.observe(r[3:], f[3:])
        parts.adjust()
        parts.adjust()  # of nothing new
        assert all(torch.equal(a, b) for a, b in zip(whole.buffers(), parts.buffers(), strict=True))
    assert whole.position > 0


def test_logits_of_patches_count_once_an_image():
    single, patches = AdaptiveNoise(images=100), AdaptiveNoise(images=100)
    for logits in batches(14)[0]:
        single.update(logits)
        patches.update(logits[:, None, None, None].expand(-1, 1, 2, 2))
    assert single.position == patches.position > 0


@pytest.mark.parametrize("signal", ["sign", "relativistic"])
def test_what_is_not_a_number_is_left_out(signal):
    whole, holed = (AdaptiveNoise(images=1000, signal=signal) for _ in range(2))
    # In a pair with its like, infinity gives no number either.
    bad = torch.tensor([math.nan, math.inf])[: 1 if signal == "sign" else 2]
    for logits in batches(14)[0]:
        whole.update(logits, -logits)
        holed.update(torch.cat([logits, bad]), torch.cat([-logits, bad]))
        holed.update(bad, bad)  # a whole batch of it: no batch
    assert whole.signal > 0
    assert torch.equal(whole.signal, holed.signal)
    assert torch.equal(whole.batches, holed.batches)
    assert 0 < float(holed.strength) <= 1


def test_resumes_bitwise_wherever_it_is_cut():
    settings = {"images": 1000, "signal": "relativistic", "target": 0.3, "every": 2, "hysteresis": 0.15}
    settings["strength"] = 0.5
    real, fake = batches()

    def go(noise, first, last):
        for r, f in zip(real[first:last], fake[first:last], strict=True):
            noise.update(r, f)
        return noise

    straight = go(AdaptiveNoise(**settings), 0, 40).state_dict()
    assert straight["position"] not in (0, 500, 1000)
    for cut in range(1, 40):
        saved = copy.deepcopy(go(AdaptiveNoise(**settings), 0, cut).state_dict())
        resumed = AdaptiveNoise(**settings)
        resumed.load_state_dict(saved)
        found = go(resumed, cut, 40).state_dict()
        assert found.keys() == straight.keys()
        assert all(torch.equal(found[name], straight[name]) for name in straight)


def test_a_module_in_half_precision_counts_exactly():
    """In bfloat16 a strength would stand still: 0.5 + 8 / 10000 is 0.5."""
    full, half = AdaptiveNoise(images=10_000, every=1), AdaptiveNoise(images=10_000, every=1)
    nn.ModuleList([half]).to(torch.bfloat16)
    for _ in range(5):
        for noise in (full, half):
            noise.position += 1000
            noise.update(torch.ones(8))
    assert full.position == half.position == 5040
    assert half.levels(4).dtype == torch.float32


def test_logits_keep_their_graph():
    logits = torch.ones(8, requires_grad=True)
    noise = AdaptiveNoise()
    noise.update(logits)
    logits.sum().backward()
    assert not any(buffer.requires_grad for buffer in noise.buffers())
    assert not list(noise.parameters())


def _rank(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    noise = AdaptiveNoise(images=100, signal="relativistic", target=0.3)
    part = slice(0, 5) if rank == 0 else slice(5, 8)
    for r, f in zip(*batches(22), strict=True):
        noise.update(r[part], f[part])
        if rank == 0:
            noise.adjust()  # nothing is new: the other rank is not asked
    torch.save(noise.state_dict(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_with_uneven_shares_equal_one_process(tmp_path):
    alone = AdaptiveNoise(images=100, signal="relativistic", target=0.3)
    for r, f in zip(*batches(22), strict=True):
        alone.update(r, f)
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    assert alone.position > 0
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert all(torch.equal(value, alone.state_dict()[name]) for name, value in found.items())


# In a stranger's loop.


def test_a_discriminator_that_saw_noise_is_not_sure_where_supports_do_not_overlap():
    """Real 0 against generated 1 under noise of deviation 1: the best logit is (1 - 2 x) / 2, flat nowhere."""

    def difference(noise, level):
        torch.manual_seed(0)
        real, fake = torch.zeros(128, 1), torch.ones(128, 1)
        discriminator = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
        optimiser = torch.optim.Adam(discriminator.parameters(), 0.02)
        for _ in range(80):
            optimiser.zero_grad()
            logits = [discriminator(noise(x, level)) for x in (real, fake)]
            (nn.functional.softplus(-logits[0]) + nn.functional.softplus(logits[1])).mean().backward()
            optimiser.step()
        with torch.no_grad():
            return (discriminator(real[:1]) - discriminator(fake[:1])).item()

    assert difference(AdaptiveNoise(), torch.zeros(128)) > 5  # as good as sure, and growing
    assert difference(AdaptiveNoise(), torch.ones(128)) == pytest.approx(1, abs=0.3)


# Wrong input.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0.0}, "clamp standard deviations"),
        ({"scale": torch.tensor([1.0, math.nan])}, "scale must be finite"),
        ({"smallest": 0.0}, "smallest <= largest"),
        ({"smallest": 2.0}, "smallest <= largest"),
        ({"largest": math.inf}, "smallest <= largest"),
        ({"target": 1.0}, "target must be between"),
        ({"clean": 1.0}, "clean must be in"),
        ({"images": 0}, "images and every"),
        ({"every": 0}, "images and every"),
        ({"hysteresis": -0.1}, "hysteresis must be in"),
        ({"strength": 1.5}, "strength must be in"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveNoise(**arguments)


def test_relativistic_needs_pairs():
    noise = AdaptiveNoise(signal="relativistic")
    with pytest.raises(ValueError, match=r"\(4,\), got None"):
        noise.update(torch.zeros(4))
    with pytest.raises(ValueError, match=r"\(4,\), got \(4, 1\)"):
        noise.update(torch.zeros(4), torch.zeros(4, 1))


def test_levels_and_scale_that_do_not_fit():
    with pytest.raises(ValueError, match="one level for each of 4"):
        AdaptiveNoise()(torch.zeros(4, 2), torch.zeros(4, 1))
    with pytest.raises(ValueError, match=r"scale has shape \(3,\)"):
        AdaptiveNoise(torch.ones(3))(torch.zeros(4, 3, 2, 2), torch.ones(4))
