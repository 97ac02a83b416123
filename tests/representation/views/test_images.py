import math

import pytest
import torch
from scipy import stats

from lsdr.representation.data.fields import ImageFields
from lsdr.representation.data.representation_data import prepare
from lsdr.representation.views.geometry import resampling
from lsdr.representation.views.images import PIXELS, change_pixels
from lsdr.representation.views.open import open_views, single
from lsdr.representation.views.pixel_noise import normal

CPU = torch.device("cpu")


def picture(count=64, shape=(3, 8, 8), low=0.2, high=0.6):
    """The same one over and over, no pixel so light or dark that a change would be cut off."""
    one = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * (high - low) + low
    return one.expand(count, *shape).contiguous()


def changed(images, name, strength, image, seed=0, exactly=True):
    data = images(4, tuple(image.shape[1:]))
    view = single(name, strength, data) if exactly else open_views(f"{name}:{strength}", data)
    return view({"image": image}, view.draws(len(image), torch.Generator().manual_seed(seed)))["image"]


def either(made, one, other, tolerance=1e-5):
    """Whether every picture is one or the other; the number of each."""
    first = ((made - one).abs() < tolerance).flatten(1).all(1)
    second = ((made - other).abs() < tolerance).flatten(1).all(1)
    assert bool((first ^ second).all())
    return int(first.sum()), int(second.sum())


def test_brightness_is_a_factor(images):
    x = picture()
    assert min(either(changed(images, "brightness", 0.4, x), x * 1.4, x * 0.6)) > 16
    ratio = changed(images, "brightness", 0.4, x, exactly=False) / x
    assert 0.6 <= ratio.min() < 0.65
    assert 1.35 < ratio.max() <= 1.4001


def test_contrast_is_a_factor_about_the_mean(images):
    x = picture()
    mean = x.mean((1, 2, 3), keepdim=True)
    assert min(either(changed(images, "contrast", 0.4, x), mean + (x - mean) * 1.4, mean + (x - mean) * 0.6)) > 16


def test_lighting_is_brightness_then_contrast(images):
    x = picture(200)
    made = changed(images, "lighting", 0.2, x)
    means, widths = made.mean((1, 2, 3)) / x.mean(), made.std((1, 2, 3)) / x.std()
    assert sorted(set(means.mul(10).round().tolist())) == [8, 12]
    assert sorted(set(widths.mul(100).round().tolist())) == [64, 96, 144]


def test_what_leaves_the_range_is_cut_off(images):
    made = changed(images, "brightness", 1.0, picture(high=1.0))
    assert made.min() == 0
    assert made.max() == 1


@pytest.mark.parametrize("strength", [0.25, 0.7, 1.0])
def test_gamma_is_a_power(images, strength):
    x = torch.linspace(0, 1, 64 * 64).view(1, 1, 64, 64).expand(20, 1, 64, 64)
    made = changed(images, "gamma", strength, x)
    assert min(either(made, x ** (1 + strength), x ** (1 / (1 + strength)), tolerance=5e-5)) > 3


def test_colour_is_a_factor_a_channel(images):
    x = picture(shape=(13, 4, 4))
    ratio = changed(images, "colour", 0.3, x) / x
    assert sorted(set(ratio.mul(100).round().flatten().tolist())) == [70, 130]
    assert ratio.std((2, 3)).max() < 1e-5
    assert ratio.mean((2, 3)).std(1).min() > 0.1


def test_grey_is_the_mean_of_the_channels(images):
    x = picture(shape=(4, 5, 5))
    assert either(changed(images, "grey", 1.0, x), x.mean(1, keepdim=True).expand_as(x), x) == (64, 0)
    assert 5 < either(changed(images, "grey", 0.2, x), x.mean(1, keepdim=True).expand_as(x), x)[0] < 25


def test_flip_exchanges_left_and_right(images):
    x = picture()
    assert changed(images, "flip", 1.0, x).equal(x.flip(-1))
    assert min(either(changed(images, "flip", 0.5, x), x.flip(-1), x, tolerance=1e-9)) > 20


@pytest.mark.parametrize("size", [8, 9])
def test_a_quarter_turn_either_way(images, size):
    x = picture(shape=(2, size, size))
    assert min(either(changed(images, "rotation", 90.0, x), x.rot90(1, (2, 3)), x.rot90(-1, (2, 3)))) > 16


def test_half_a_turn_of_what_is_not_square(images):
    x = picture(shape=(2, 6, 9))
    torch.testing.assert_close(changed(images, "rotation", 180.0, x), x.rot90(2, (2, 3)), rtol=0, atol=1e-5)


def ramps(height=32, width=48, across=0.01, down=0.005):
    """Brightness that grows evenly to the right and downwards, which interpolation leaves exact; the middle is 1/2."""
    x = torch.arange(width) - (width - 1) / 2
    y = torch.arange(height)[:, None] - (height - 1) / 2
    return (0.5 + across * x + down * y).expand(40, 1, height, width).contiguous()


def slopes(image):
    """To the right and downwards, in the middle, where nothing comes from beyond the edges."""
    middle = image[:, 0, 14:18, 22:26]
    return (middle[:, 1:] - middle[:, :-1]).mean((1, 2)), (middle[:, :, 1:] - middle[:, :, :-1]).mean((1, 2))


def test_scale_changes_lengths(images):
    _, across = slopes(changed(images, "scale", 0.25, ramps()))
    assert sorted(set(across.mul(1e5).round().tolist())) == [800, 1250]
    _, across = slopes(changed(images, "scale", 0.25, ramps(), exactly=False))
    assert 0.0079 < across.min() < across.max() < 0.0126


def test_rotation_turns_slopes_and_stretches_nothing(images):
    down, across = slopes(changed(images, "rotation", 30.0, ramps(across=0.01, down=0.0)))
    torch.testing.assert_close(across, torch.full((40,), 0.01 * math.cos(math.pi / 6)), rtol=1e-3, atol=0)
    torch.testing.assert_close(down.abs(), torch.full((40,), 0.01 * math.sin(math.pi / 6)), rtol=1e-3, atol=0)


def test_a_crop_has_its_area_and_lies_within(images):
    made = changed(images, "crop", 0.75, ramps())
    down, across = slopes(made)
    torch.testing.assert_close(across / 0.01, torch.full((40,), 0.5), rtol=1e-3, atol=0)
    torch.testing.assert_close(down / 0.005, torch.full((40,), 0.5), rtol=1e-3, atol=0)
    middle = made[:, 0].mean((1, 2))
    assert middle.std() > 0.03
    made = changed(images, "crop", 0.75, ramps(), exactly=False)
    down, across = slopes(made)
    area, aspect = down * across / 0.01 / 0.005, across * 0.005 / down / 0.01
    assert 0.25 < area.min() < 0.4 < 0.85 < area.max() < 1.001
    assert 3 / 4 <= aspect.min() < 0.85
    assert 1.15 < aspect.max() <= 4 / 3
    assert ((made >= ramps().min() - 1e-5) & (made <= ramps().max() + 1e-5)).all()


def test_shift_moves_and_the_background_goes_on(images):
    x = torch.full((50, 1, 8, 8), 0.25)
    x[:, :, 2:6, 3:6] = picture(50, (1, 4, 3))
    made = changed(images, "shift", 0.25, x)
    wanted = [x.roll((down, across), (2, 3)) for down in (-2, 2) for across in (-2, 2)]
    near = [((made - each).abs() < 1e-5).flatten(1).all(1).sum() for each in wanted]
    assert sum(near) == 50
    assert min(near) > 3


def test_transformations_of_place_are_joined_in_their_order():
    """One resampling of a ramp, where interpolation is exact, does what two after one another do."""
    x = {"image": ramps(height=32)}
    parts = [("rotation", 15.0), ("crop", 0.5), ("rotation", 20.0), ("scale", 0.3), ("shift", 0.02)]
    joined = resampling(parts)
    draws = joined.draw(40, torch.Generator().manual_seed(0))
    made = joined.apply(x, draws)["image"]
    for number, part in enumerate(parts):
        name = f"{number}.{part[0]}"
        x = resampling([part]).apply(x, {f"0.{part[0]}": draws[name]})
    inside = slice(12, 20), slice(18, 30)
    torch.testing.assert_close(made[:, :, *inside], x["image"][:, :, *inside], rtol=0, atol=2e-4)


def test_neighbours_are_joined_and_others_are_not(images):
    assert len(open_views("rotation,scale,crop", images()).steps) == 1
    assert len(open_views("rotation,flip,scale,crop", images()).steps) == 3


def test_blur_has_its_width_and_keeps_the_light(images):
    x = torch.zeros(5, 2, 21, 21)
    x[:, :, 10, 10] = 1
    made = changed(images, "blur", 1.5, x)
    place = torch.arange(21.0) - 10
    torch.testing.assert_close(made.sum((2, 3)), torch.ones(5, 2), rtol=1e-5, atol=0)
    for line in (made.sum(2), made.sum(3)):
        assert ((line * place**2).sum(-1).sqrt() - 1.5).abs().max() < 0.03
    flat = picture(shape=(1, 1, 1)).expand(64, 1, 4, 4)
    torch.testing.assert_close(changed(images, "blur", 2.0, flat), flat)


def test_noise_is_normal_and_independent():
    keys = torch.randint(2**62, (64,), generator=torch.Generator().manual_seed(0))
    noise = normal(keys, 4097)
    assert noise.shape == (64, 4097)
    assert stats.kstest(noise.flatten()[::7].numpy(), "norm").pvalue > 1e-3
    assert abs(float(noise.double().var()) - 1) < 0.02
    between = torch.corrcoef(noise) - torch.eye(64)
    assert between.abs().max() < 5.5 / math.sqrt(4097)
    shifted = [float((noise[:, lag:] * noise[:, : 4097 - lag]).mean()) for lag in (1, 2, 64)]
    assert max(map(abs, shifted)) < 5 / math.sqrt(64 * 4000)


def test_keys_next_to_one_another_give_other_noise():
    noise = normal(torch.tensor([0, 1, 2, 2**32, 2**61]), 2000)
    assert (torch.corrcoef(noise) - torch.eye(5)).abs().max() < 0.1
    assert not torch.isin(noise[1, :50], noise[0, :60]).all()


def test_noise_has_its_strength(images):
    x = torch.full((200, 1, 16, 16), 0.5)
    spread = (changed(images, "noise", 0.1, x) - x).std((1, 2, 3))
    assert (spread - 0.1).abs().max() < 0.02
    spread = (changed(images, "noise", 0.1, x, exactly=False) - x).std((1, 2, 3))
    assert spread.min() < 0.01
    assert 0.09 < spread.max() < 0.12


def test_levels_of_16_bits_survive(images):
    raw = {"image": torch.arange(64).view(1, 1, 8, 8).to(torch.uint16)}
    inputs = prepare(raw, ImageFields((1, 8, 8), (0.5,), (0.1,), largest=65535.0))
    assert len(changed(images, "brightness", 0.4, inputs["image"]).unique()) == 64
    assert changed(images, "flip", 1.0, inputs["image"]).mul(65535).round().flatten()[:2].tolist() == [7, 6]


def test_double_precision_stays(images):
    x = picture().double()
    for name in ("rotation", "lighting", "gamma", "blur", "noise"):
        assert changed(images, name, 0.5, x).dtype == torch.float64


def test_the_mean_is_the_same_however_it_is_added_up():
    """Contrast about a mean of 4800 pixels, added up from either end."""
    x = torch.rand(64, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    step = change_pixels("contrast", 0.5, 3)
    draws = step.draw(64, torch.Generator().manual_seed(0))
    made = step.apply({"image": x}, draws)["image"]
    other = step.apply({"image": x.flip(1, 2, 3)}, draws)["image"]
    assert made.equal(other.flip(1, 2, 3))


def test_what_is_no_number_stays_none(images):
    x = picture(4)
    x[0, 0, 0, 0] = torch.nan
    for name in PIXELS:
        made = changed(images, name, 0.5, x)
        assert made[0].isnan().any() or name == "flip"
        assert made[1:].isfinite().all()
