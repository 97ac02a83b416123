"""What every transform refuses, and what it computes in."""

import pytest
import torch

from lsdr.fourier._real_fft import full_precision_images, multiplicity


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.complex64, torch.bool])
def test_numbers_that_are_not_real_and_floating(dtype):
    with pytest.raises(TypeError, match=rf"got {dtype}: scale them first"):
        full_precision_images(torch.ones(1, 1, 4, 4, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_raised_and_nothing_else_changed(dtype):
    images = torch.ones(1, 1, 4, dtype=dtype)
    found = full_precision_images(images)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (found is images) == (dtype.itemsize >= 4)


@pytest.mark.parametrize(("dims", "expected"), [((5,), [1, 2, 2]), ((4,), [1, 2, 1]), ((1,), [1]), ((2,), [1, 1])])
def test_how_often_a_coefficient_stands_in_the_full_transform(dims, expected):
    assert multiplicity(dims).tolist() == expected
    assert multiplicity((3, *dims)).tolist() == [expected] * 3
