"""The artefact detector: waves that were put in are found with their period, and nothing else is."""

import inspect
import math

import pytest
import torch

from lsdr.data.load import load_images
from lsdr.fourier.grid_artifacts import GridArtifact, _peaks, grid_artifact_db, grid_artifacts


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def field(count, side, beta, seed=0, channels=1):
    """Gaussian images of power 1/f^beta, cut out of larger ones so that opposite borders do not match."""
    frequency = torch.fft.fftfreq(2 * side + 6, dtype=torch.float64)
    radius = torch.hypot(frequency[:, None], frequency[None])
    radius[0, 0] = math.inf if beta else 1
    noise = torch.randn(count, channels, len(frequency), len(frequency), generator=generator(seed), dtype=torch.float64)
    images = torch.fft.ifft2(torch.fft.fft2(noise) * radius ** (-beta / 2)).real[..., :side, :side]
    return images / images.std()


def wave(side, period, degrees, phase=0.3):
    angle = math.radians(degrees)
    rows, columns = torch.arange(side, dtype=torch.float64)[:, None], torch.arange(side, dtype=torch.float64)[None]
    # Rows count downwards, angles go up.
    along = columns * math.cos(angle) - rows * math.sin(angle)
    return math.sqrt(2) * torch.cos(2 * math.pi * along / period + phase)


def photographs(side, count=96):
    dataset = load_images("patches", size=side, limit=count)
    return dataset.__getitems__(list(range(len(dataset))))["image"].double() / 127.5 - 1


def apart(one, other):
    """Degrees between two directions of a wave."""
    return min((one - other) % 180, (other - one) % 180)


@pytest.mark.parametrize("period", [2, 3, 4, 8])
@pytest.mark.parametrize("degrees", [0, 90])
@pytest.mark.parametrize("side", [32, 33])
def test_stripes_are_found_with_their_period(period, degrees, side):
    images = photographs(side) + 0.02 * wave(side, period, degrees)
    first = grid_artifacts(images)[0]
    assert first.period == pytest.approx(period, rel=0.03)
    assert apart(first.orientation, degrees) < 2
    assert first.decibels > 3
    assert first.p_value < 1e-3


@pytest.mark.parametrize(("period", "degrees"), [(2.7, 30), (5.3, 117), (3.4, 163), (4, 45), (2.2, 71)])
def test_stripes_in_odd_directions_are_found_alone(period, degrees):
    images = field(64, 32, 2) + 0.2 * wave(32, period, degrees)
    (only,) = grid_artifacts(images)
    assert only.period == pytest.approx(period, rel=0.02)
    assert apart(only.orientation, degrees) < 1.5
    y, x = only.frequency
    assert math.hypot(y, x) == pytest.approx(1 / only.period)
    assert math.degrees(math.atan2(-y, x)) % 180 == pytest.approx(only.orientation)


@pytest.mark.parametrize("side", [8, 16, 32])
def test_a_chessboard_of_pixels_is_found(side):
    chessboard = (-1.0) ** (torch.arange(side)[:, None] + torch.arange(side))
    (only,) = grid_artifacts(photographs(side) + 0.05 * chessboard)
    assert only.period == pytest.approx(math.sqrt(2))
    assert only.frequency == (0.5, 0.5)
    assert str(only).startswith("a chessboard of single pixels, ")


@pytest.mark.parametrize("period", [4, 8])
def test_a_chessboard_of_larger_fields_is_two_diagonal_waves(period):
    board = wave(32, period, 0) * wave(32, period, 90)
    found = grid_artifacts(field(64, 32, 1) + 0.3 * board)
    assert len(found) == 2
    assert sorted(round(each.orientation) for each in found) == [45, 135]
    assert [each.period for each in found] == pytest.approx([period / math.sqrt(2)] * 2, rel=0.03)


def test_a_grid_of_blocks_is_found_with_its_harmonics():
    lines = torch.zeros(32, 32, dtype=torch.float64)
    lines[:, ::8] = 1
    found = grid_artifacts(field(64, 32, 1) + 0.8 * lines)
    periods = sorted(each.period for each in found)
    assert periods == pytest.approx([2, 8 / 3, 4, 8], rel=0.03)
    assert all(apart(each.orientation, 0) < 1 for each in found)


@pytest.mark.parametrize(("height", "width"), [(16, 48), (48, 16), (17, 40)])
def test_sides_may_differ(height, width):
    images = field(64, 48, 2)[..., :height, :width]
    first = grid_artifacts(images + 0.2 * wave(48, 4, 0)[:height, :width])[0]
    assert (first.period, apart(first.orientation, 0)) == (pytest.approx(4, rel=0.03), pytest.approx(0, abs=2))


def test_the_strongest_comes_first():
    found = grid_artifacts(field(64, 32, 0) + 0.3 * wave(32, 4, 0) + 0.6 * wave(32, 8 / 3, 90))
    assert [round(each.period, 1) for each in found] == [2.7, 4.0]
    assert found[0].decibels > found[1].decibels


def test_decibels_are_power_over_the_background():
    """A wave of amplitude a sqrt(2) has a coefficient a^2 N / 2 above white noise of power 1."""
    images = field(400, 32, 0) + 0.5 * wave(32, 4, 90)
    assert grid_artifacts(images)[0].decibels == pytest.approx(10 * math.log10(1 + 0.5**2 * 32 * 32 / 2), abs=1)
    assert grid_artifact_db(images) == pytest.approx(grid_artifacts(images)[0].decibels)


@pytest.mark.parametrize("beta", [0, 1, 2, 3])
@pytest.mark.parametrize("side", [8, 16, 25])
def test_clean_fields_raise_no_alarm(beta, side):
    """40 sets at 1 %: three or more alarms come by chance with probability 0.01, at the nominal rate."""
    sets = field(40 * 32, side, beta, seed=7).split(32)
    assert sum(bool(grid_artifacts(each)) for each in sets) <= 2


@pytest.mark.parametrize("side", [8, 16, 32])
def test_photographs_raise_no_alarm(side):
    images = photographs(side, count=640)
    images = images[torch.randperm(len(images), generator=generator())]
    assert sum(bool(grid_artifacts(each)) for each in images.split(64)) == 0
    assert not grid_artifacts(images)


def test_digits_raise_no_alarm():
    dataset = load_images("digits")
    images = dataset.__getitems__(list(range(len(dataset))))["image"].double()
    assert sum(bool(grid_artifacts(each)) for each in images.split(150)) == 0
    assert not grid_artifacts(images)


def test_weak_stripes_in_white_noise_are_found():
    """So the threshold is not safe because nothing ever passes it."""
    for images in field(10 * 64, 16, 0, seed=3).split(64):
        (only,) = grid_artifacts(images + 0.25 * wave(16, 4, 0))
        assert only.period == pytest.approx(4, rel=0.03)


def test_the_error_of_each_frequency_is_not_understated():
    """Real coefficients scatter more than complex ones, and the chessboard's frequency is one of them."""
    peaks = [_peaks(images, None) for images in field(150 * 8, 8, 0, seed=4).split(8)]
    scatter = torch.stack([each.power for each in peaks]).std(0)
    stated = torch.stack([each.deviation for each in peaks]).median(0).values
    tested = peaks[0].tested
    assert (scatter[tested] < 1.15 * stated[tested]).all()
    assert scatter[4, 4] > 1.4 * scatter[3, 3]


def test_a_third_of_a_decibel_is_nothing_to_report_however_many_images():
    images = torch.randn(20000, 1, 16, 16, generator=generator()) + 0.03 * wave(16, 4, 0).float()
    assert grid_artifact_db(images) == pytest.approx(0.35, abs=0.1)
    assert grid_artifacts(images) == []


def test_borders_that_do_not_match_hide_nothing():
    """Slopes as strong as the images, which would leave a cross in the spectrum."""
    ramp = torch.linspace(-1, 1, 32, dtype=torch.float64)
    slopes = 3 * torch.randn(64, 1, 1, 2, generator=generator(), dtype=torch.float64)
    images = field(64, 32, 0) + 0.3 * wave(32, 4, 0)
    sloping = images + slopes[..., :1] * ramp + slopes[..., 1:] * ramp[:, None]
    assert grid_artifact_db(sloping) == pytest.approx(grid_artifact_db(images), abs=0.5)
    (only,) = grid_artifacts(sloping)
    assert only.p_value < 1e-6


def test_edges_in_one_direction_are_no_grid():
    """A single edge in each image: a ridge in the spectrum."""
    places = torch.randint(2, 30, (64, 1, 1, 1), generator=generator())
    images = (torch.arange(32) > places).double().expand(64, 1, 32, 32) + 0.05 * field(64, 32, 1)
    assert grid_artifacts(images) == []


def test_a_texture_of_few_images_is_no_artefact_and_contrast_does_not_matter():
    images = field(64, 32, 1)
    textured = images.clone()
    textured[:3] += wave(32, 4, 0)
    assert grid_artifacts(textured) == []
    contrast = torch.logspace(-3, 3, 64, dtype=torch.float64).view(-1, 1, 1, 1)
    first, other = (grid_artifacts((images + 0.2 * wave(32, 4, 0)) * scale + 5 * scale) for scale in (1, contrast))
    assert len(first) == len(other) == 1
    assert first[0].decibels == pytest.approx(other[0].decibels, abs=1e-6)


def test_a_reference_takes_away_what_real_images_have():
    real = field(128, 16, 2) + 0.5 * wave(16, 4, 90)
    images, reference = real[:64] + 0.1 * wave(16, 2, 0), real[64:]
    assert grid_artifacts(real[:64])[0].period == pytest.approx(4, rel=0.03)
    (only,) = grid_artifacts(images, reference)
    assert only.period == pytest.approx(2, rel=0.03)
    assert grid_artifacts(real[:64], reference) == []
    assert grid_artifact_db(images, reference) == pytest.approx(only.decibels)
    assert grid_artifact_db(real[:64], reference) < 3


def test_a_reference_finds_what_a_steep_small_spectrum_hides():
    dataset = load_images("digits")
    digits = dataset.__getitems__(list(range(400)))["image"].double() / 127.5 - 1
    images = digits[:200] + 0.15 * wave(8, 4, 0)
    assert grid_artifacts(images, digits[200:])[0].period == pytest.approx(4, rel=0.05)


def test_some_constant_images_do_not_matter_and_colours_count_together():
    images = field(64, 16, 1, channels=3) + 0.3 * wave(16, 4, 0)
    expected = grid_artifacts(images)
    padded = torch.cat([images, torch.full((9, 3, 16, 16), 0.1, dtype=torch.float64)])
    found = grid_artifacts(padded)
    assert [each.frequency for each in found] == [each.frequency for each in expected]
    assert found[0].decibels == pytest.approx(expected[0].decibels)


@pytest.mark.parametrize("scale", [1e-30, 1e200])
def test_units_do_not_matter(scale):
    images = field(32, 16, 1) + 0.4 * wave(16, 4, 0)
    one, other = grid_artifacts(images), grid_artifacts(images * scale)
    assert len(one) == len(other) == 1
    assert one[0].decibels == pytest.approx(other[0].decibels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_is_taken_and_nothing_is_touched(dtype):
    images = (field(32, 16, 1) + 0.4 * wave(16, 4, 0)).to(dtype).requires_grad_()
    before = images.detach().clone()
    (only,) = grid_artifacts(images)
    assert only.period == pytest.approx(4, rel=0.03)
    assert torch.equal(images, before)
    assert images.grad is None


def test_pure_stripes_without_any_background_are_found():
    (only,) = grid_artifacts(wave(16, 4, 0).expand(4, 1, 16, 16))
    assert only.period == pytest.approx(4, rel=0.02)


def test_nothing_that_stands_out_is_zero_decibels():
    assert 0 <= grid_artifact_db(field(2000, 8, 3)) < 0.5


@pytest.mark.parametrize(
    ("frequency", "period", "orientation", "words"),
    [
        ((0.5, 0.0), 2.0, 90.0, "horizontal stripes every 2 pixels"),
        ((0.0, 0.125), 8.0, 179.5, "vertical stripes every 8 pixels"),
        ((-0.25, 0.25), 2.828, 45.0, "stripes every 2.83 pixels along 45 degrees"),
    ],
)
def test_words(frequency, period, orientation, words):
    text = str(GridArtifact(period, orientation, frequency, 12.34, 1e-5))
    assert text == f"{words}, 12.3 dB over the background (p = 1e-05)"


def test_what_cannot_be_right_is_refused():
    images = field(8, 16, 0)
    broken = images.clone()
    broken[0, 0, 0, 0] = math.nan
    for bad, message in [
        (images[:3], "at least 4 of at least 8x8 pixels, got 3 of 16x16"),
        (images[..., :7], "at least 4 of at least 8x8 pixels, got 8 of 16x7"),
        (broken, "images must be finite, got NaN or infinite pixels"),
        (torch.full((8, 1, 16, 16), 0.1), "images are all constant"),
        (torch.zeros(8, 1, 16, 16), "images are all constant"),
    ]:
        for function in (grid_artifacts, grid_artifact_db):
            with pytest.raises(ValueError, match=message):
                function(bad)
    with pytest.raises(ValueError, match=r"images must be \(n, c, h, w\), got the shape \(1, 16, 16\)"):
        inspect.unwrap(grid_artifacts)(images[0])  # types are not checked outside the tests
    with pytest.raises(ValueError, match="reference must be finite"):
        grid_artifacts(images, broken)
    with pytest.raises(ValueError, match=r"reference must hold images of \(1, 16, 16\) \(c, h, w\), got \(1, 16, 15\)"):
        grid_artifacts(images, images[..., :15])
    for probability in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="probability between 0 and 1"):
            grid_artifacts(images, false_alarm=probability)


@pytest.mark.parametrize(
    ("one", "told"),
    [((-0.5, -0.01), (0.5, 0.01)), ((0.5, -0.01), (0.5, 0.01)), ((-0.2, 0.0), (0.2, 0.0)), ((0.1, -0.3), (-0.1, 0.3))],
)
def test_of_a_waves_two_frequencies_the_one_in_range_is_told(one, told):
    from lsdr.fourier.grid_artifacts import _one_of_two

    assert _one_of_two(*one) == told
