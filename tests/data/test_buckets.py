import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lsdr.data.buckets import bucket_sizes, fit_bucket, nearest_bucket
from lsdr.data.decode import fit
from lsdr.data.problem import BadImageError

steps = st.sampled_from([1, 2, 8, 16, 64])
ratios = st.sampled_from([1.0, 1.3, 1.5, 2.0, 3.0])


@settings(deadline=None)
@given(steps, st.integers(1, 24), st.integers(0, 63), ratios)
def test_buckets_are_all_the_largest_sizes_within_the_area_and_the_ratio(step, multiple, rest, max_ratio):
    resolution = step * multiple + min(rest, step - 1)
    sizes = bucket_sizes(resolution, step, max_ratio)
    assert sizes == sorted(set(sizes))
    assert {(width, height) for height, width in sizes} == set(sizes)
    for height, width in sizes:
        assert height % step == 0
        assert width % step == 0
        assert height * width <= resolution**2
        assert max(height, width) <= max_ratio * min(height, width)
    # Brute force: whatever is allowed fits within one of the list, and nothing of the list within another.
    side = math.ceil(resolution * max_ratio)
    for height in range(step, side + 1, step):
        for width in range(step, side + 1, step):
            if height * width <= resolution**2 and max(height, width) <= max_ratio * min(height, width):
                assert any(height <= h and width <= w for h, w in sizes)
    assert not any(a != b and a[0] <= b[0] and a[1] <= b[1] for a in sizes for b in sizes)


def test_known_buckets():
    assert bucket_sizes(64, 16) == [(48, 80), (64, 64), (80, 48)]
    assert bucket_sizes(512, 64, 1.0) == [(512, 512)]
    sizes = bucket_sizes(1024)
    assert len(sizes) == 11
    assert (1024, 1024) in sizes
    assert (832, 1216) in sizes  # the sizes that SDXL was trained on
    assert (896, 1152) in sizes


@pytest.mark.parametrize("arguments", [(63,), (512, 0), (512, 64, 0.9)])
def test_impossible_buckets_are_refused(arguments):
    with pytest.raises(ValueError, match="expected resolution >= step"):
        bucket_sizes(*arguments)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_no_bucket_is_nearer_in_ratio(height, width):
    sizes = bucket_sizes(512)
    chosen = nearest_bucket(height, width, sizes)

    def far(size):
        return abs(math.log(height / width) - math.log(size[0] / size[1]))

    assert far(chosen) <= min(map(far, sizes)) + 1e-9
    assert nearest_bucket(width, height, sizes) == chosen[::-1] or len({round(far(each), 9) for each in sizes}) < 5
    assert nearest_bucket(3 * height, 3 * width, sizes) == chosen


def test_of_equally_near_buckets_the_larger_one_is_taken():
    assert nearest_bucket(3, 3, [(64, 64), (128, 128), (96, 96)]) == (128, 128)
    # The logarithm: 100x190 is nearer to 1:2 than to 1:1, and 1:1.4 nearer to 1:1 than to 1:2, the other way up too.
    assert nearest_bucket(100, 190, [(64, 64), (64, 128)]) == (64, 128)
    assert nearest_bucket(100, 145, [(64, 64), (64, 128)]) == (64, 128)
    assert nearest_bucket(145, 100, [(64, 64), (128, 64)]) == (128, 64)
    assert nearest_bucket(100, 140, [(64, 64), (64, 128)]) == (64, 64)
    with pytest.raises(ValueError, match="0 bucket"):
        nearest_bucket(3, 3, [])
    with pytest.raises(ValueError, match="0x3"):
        nearest_bucket(0, 3, [(64, 64)])


@settings(deadline=None)
@given(st.integers(16, 60), st.integers(16, 60), st.sampled_from([(16, 16), (8, 16), (16, 8), (12, 16)]))
def test_the_centre_is_shown_undistorted(height, width, size):
    # A ramp of brightness in both directions keeps its slope under scaling, so a distorted cut would show.
    rows, columns = np.mgrid[:height, :width]
    ramp = np.stack([rows * 4, columns * 4, np.full_like(rows, 77)], axis=-1).astype(np.uint8)
    pixels, (top, left) = fit_bucket(Image.fromarray(ramp), size)
    assert pixels.shape == (3, *size)
    assert pixels.flags.c_contiguous
    scale = max(size[0] / height, size[1] / width)
    expected_rows = (np.arange(size[0]) - (size[0] - 1) / 2) / scale + (height - 1) / 2
    expected_columns = (np.arange(size[1]) - (size[1] - 1) / 2) / scale + (width - 1) / 2
    inner = slice(2, -2)  # the filter sees the edge of the picture at the rim
    tolerance = 4 if scale == 1 else 3  # whole pixels: half a pixel of 4 levels, and rounding
    assert np.abs(pixels[0, inner, inner] / 1 - expected_rows[inner, None] * 4).max() <= tolerance
    assert np.abs(pixels[1, inner, inner] / 1 - expected_columns[None, inner] * 4).max() <= tolerance
    assert (pixels[2] == 77).all()
    exact = max(Fraction(size[0], height), Fraction(size[1], width))
    assert 0 <= top == (height * exact - size[0]) / 2 // 1
    assert 0 <= left == (width * exact - size[1]) / 2 // 1
    assert top == 0 or left == 0


@pytest.mark.parametrize("shape", [(64, 64), (50, 50), (48, 70), (200, 90), (333, 480)])
def test_a_square_is_what_fit_cuts(pixels, shape):
    image = Image.fromarray(pixels(1, *shape))
    cut, _ = fit_bucket(image, (48, 48))
    # `fit` begins at a whole pixel.
    difference = np.abs(cut.astype(int) - fit(image, 48, 3).astype(int))
    assert difference.max() == 0 if (shape[0] - shape[1]) % 2 == 0 else difference.mean() < 40


def test_images_are_never_enlarged():
    with pytest.raises(BadImageError, match=r"63x200 .* enlarged to 64x32"):
        fit_bucket(Image.new("RGB", (63, 200)), (32, 64))
    assert fit_bucket(Image.new("L", (64, 32), 9), (32, 64))[0].tolist() == [[[9] * 64] * 32] * 3
