"""Cosine transforms of blocks: nothing lost, borders continued, gradients true; JPEG's weights and colours."""

import pytest
import torch

from lsdr.fourier.block_dct import block_dct, jpeg_weights, rgb_to_ycbcr


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("dims", "size"), [((12,), 4), ((8, 16), 8), ((6, 9), 3), ((4, 6, 2), 2), ((5, 7), 1)])
def test_the_transform_is_orthonormal(dims, size):
    one, other = draw(2, 3, *dims), draw(2, 3, *dims, seed=1)
    a, b = block_dct(one, size), block_dct(other, size)
    assert a.shape == (2, 3, *[d // size for d in dims], size ** len(dims))
    torch.testing.assert_close((a * b).sum(), (one * other).sum())


def test_the_last_axis_runs_fastest_within_a_block():
    position = torch.arange(8, dtype=torch.float64)
    across = torch.cos(torch.pi * (2 * position + 1) * 2 / 16).expand(1, 1, 8, 8)  # second frequency of the columns
    assert block_dct(across)[0, 0, 0, 0].abs().argmax() == 2
    assert block_dct(across.mT)[0, 0, 0, 0].abs().argmax() == 16


def test_blocks_lie_where_their_pixels_lie():
    image = draw(1, 2, 4, 6)
    whole = block_dct(image, 2)
    torch.testing.assert_close(whole[:, :, 1, 2], block_dct(image[:, :, 2:4, 4:6], 2)[:, :, 0, 0])


@pytest.mark.parametrize("dims", [(3,), (9, 6), (1, 1), (5, 3, 2)])
def test_what_does_not_fill_a_block_is_continued_by_its_last_row(dims):
    image = draw(1, 1, *dims)
    continued = image
    for axis, length in enumerate(dims, start=2):
        rest = -length % 4
        continued = torch.cat([continued, continued.narrow(axis, length - 1, 1).repeat_interleave(rest, axis)], axis)
    assert torch.equal(block_dct(image, 4), block_dct(continued, 4))


@pytest.mark.parametrize("dims", [(5,), (4, 3), (2, 3, 2)])
def test_gradients_match_finite_differences(dims):
    assert torch.autograd.gradcheck(lambda x: block_dct(x, 2), (draw(1, 2, *dims).requires_grad_(),))


def test_half_precision_is_computed_in_float32_also_under_autocast():
    images = draw(1, 1, 8, 8).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = block_dct(images)
    assert found.dtype == torch.float32
    assert torch.equal(found, block_dct(images.float()))


@pytest.mark.parametrize("table", ["luminance", "chrominance"])
def test_weights_have_mean_one_and_prefer_coarse_patterns(table):
    weights = jpeg_weights(table)
    assert weights.mean().item() == pytest.approx(1)
    assert weights[0] > 2 * weights[-1]
    assert weights.dtype == torch.float64


def test_grey_has_no_colour_and_colours_stay_in_range():
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3).reshape(8, 3, 1, 1)
    found = rgb_to_ycbcr(corners)
    assert found.abs().max().item() == pytest.approx(1)
    assert found[0].flatten().tolist() == pytest.approx([-1, 0, 0])
    assert found[-1].flatten().tolist() == pytest.approx([1, 0, 0])
    assert torch.autograd.gradcheck(rgb_to_ycbcr, (draw(1, 3, 2, 2).requires_grad_(),))


@pytest.mark.parametrize("channels", [1, 4])
def test_what_has_not_three_colours_is_refused(channels):
    with pytest.raises(ValueError, match=f"three channels, red, green and blue; got {channels} channels"):
        rgb_to_ycbcr(torch.ones(1, channels, 8, 8))


def test_an_unknown_table():
    with pytest.raises(ValueError, match="'luminance' and 'chrominance'"):
        jpeg_weights("colour")


@pytest.mark.parametrize("size", [0, -8])
def test_blocks_have_a_side(size):
    with pytest.raises(ValueError, match=f"at least 1, got {size}"):
        block_dct(torch.ones(1, 1, 8, 8), size)
