"""Transformations of images beside kornia's."""

import math

import pytest
import torch

from lsdr.representation.views.geometry import resampling
from lsdr.representation.views.images import change_pixels

kornia = pytest.importorskip("kornia")


def pictures(count=6, shape=(2, 12, 17)):
    """Black at the edges, so that what lies beyond them is black."""
    made = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    edge = torch.ones(shape[1:], dtype=torch.bool)
    edge[2:-2, 2:-2] = False
    return made.masked_fill(edge, 0)


def test_rotation_and_scale():
    x = pictures()
    step = resampling([("rotation", 50.0), ("scale", 0.5)])
    draws = step.draw(6, torch.Generator().manual_seed(0))
    angle = torch.rad2deg(torch.atan2(draws["0.rotation"][:, 1], draws["0.rotation"][:, 0]))
    centre = torch.tensor([[8.0, 5.5]]).expand(6, 2)
    scale = draws["1.scale"][:, None].expand(6, 2)
    matrix = kornia.geometry.transform.get_rotation_matrix2d(centre, angle, scale)
    wanted = kornia.geometry.transform.warp_affine(x, matrix, (12, 17), align_corners=True)
    torch.testing.assert_close(step.apply({"image": x}, draws)["image"], wanted, rtol=0, atol=1e-5)


def test_blur():
    x = pictures()
    step = change_pixels("blur", 1.3, 2, exact=True)
    size = 2 * math.ceil(3 * 1.3) + 1
    wanted = kornia.filters.gaussian_blur2d(x, (size, size), (1.3, 1.3), border_type="replicate")
    made = step.apply({"image": x}, step.draw(6, torch.Generator()))["image"]
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-6)


def test_gamma_brightness_and_contrast():
    x = pictures()
    for name, theirs in {
        "gamma": kornia.enhance.adjust_gamma,
        "brightness": kornia.enhance.adjust_brightness_accumulative,
    }.items():
        step = change_pixels(name, 0.5, 2, exact=True)
        made = step.apply({"image": x}, step.draw(6, torch.Generator().manual_seed(0)))["image"]
        for mine, one in zip(made, x, strict=True):
            factors = (1.5, 1 / 1.5) if name == "gamma" else (1.5, 0.5)
            nearest = min(float((mine - theirs(one, factor)).abs().max()) for factor in factors)
            assert nearest < 5e-5
    step = change_pixels("contrast", 0.5, 1, exact=True)
    made = step.apply({"image": x[:, :1]}, step.draw(6, torch.Generator().manual_seed(0)))["image"]
    theirs = kornia.enhance.adjust_contrast_with_mean_subtraction
    for mine, one in zip(made, x[:, :1], strict=True):
        assert min(float((mine - theirs(one, factor)).abs().max()) for factor in (1.5, 0.5)) < 1e-5
