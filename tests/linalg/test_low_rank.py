import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsdr.linalg.low_rank import LowRank


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 8), st.integers(1, 6), st.sampled_from([1.0, -0.5, 0.0, 3]), st.booleans())
def test_products_are_those_of_the_outer_products_added_up(agrees, m, r, n, scale, double):
    dtype = torch.float64 if double else torch.float32
    up, down = randn(m, r, dtype=dtype), randn(r, n, seed=1, dtype=dtype)
    dense = np.zeros((m, n))
    for i in range(r):
        dense += scale * np.outer(up[:, i].numpy(), down[i].numpy())
    agrees(LowRank(up, down, scale), dense)


def test_a_lora_of_a_convolution_is_its_kernel_update_reshaped(agrees):
    down = torch.nn.Conv2d(3, 2, 3, bias=False).double()
    up = torch.nn.Conv2d(2, 4, 1, bias=False).double()
    with torch.no_grad():  # the two in a row are one convolution: its kernel, from one-pixel images
        kernel = up(down(torch.eye(27, dtype=torch.float64).reshape(27, 3, 3, 3))).flatten(1).T
    agrees(LowRank(up.weight, down.weight, 0.5), 0.5 * kernel)


def test_a_core_in_the_middle_is_contracted_tap_by_tap(agrees):
    up, core, down = randn(4, 2), randn(2, 3, 3, 2, seed=1), randn(3, 5, seed=2)
    dense = np.zeros((4, 5, 3, 2))
    for tap in np.ndindex(3, 2):
        dense[(..., *tap)] = 2.0 * up.numpy() @ core[(..., *tap)].numpy() @ down.numpy()
    agrees(LowRank.with_core(up, core, down, 2.0), dense.reshape(4, 30))


def test_a_locon_with_a_middle_is_its_three_convolutions(agrees):
    layers = [torch.nn.Conv2d(3, 2, 1), torch.nn.Conv2d(2, 2, 3), torch.nn.Conv2d(2, 4, 1)]
    down, mid, up = (layer.double().weight.detach() for layer in layers)
    images = torch.eye(27, dtype=torch.float64).reshape(27, 3, 3, 3)
    for weight in (down, mid, up):
        images = torch.nn.functional.conv2d(images, weight)
    agrees(LowRank.with_core(up, mid, down), images.flatten(1).T)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_small_storage_is_widened_before_it_is_multiplied(agrees, dtype):
    up, down = (randn(*shape, dtype=torch.float32).to(dtype) for shape in ((4, 2), (2, 5)))
    agrees(LowRank(up, down), up.double().numpy() @ down.double().numpy())
    core = randn(2, 2, 3, dtype=torch.float32).to(dtype)
    dense = torch.einsum("mr,rqt,qc->mct", up.double(), core.double(), down.double()).flatten(1)
    agrees(LowRank.with_core(up, core, down), dense)


def test_one_factor_in_double_makes_the_operator_double():
    assert LowRank(torch.ones(2, 1), torch.ones(1, 2, dtype=torch.float64)).dtype == torch.float64


def test_the_product_is_never_held():
    operator = LowRank(torch.ones(1 << 20, 1), torch.ones(1, 1 << 20))  # 4 TiB, if it were
    assert operator.matvec(torch.ones(1 << 20))[0].item() == 1 << 20
    assert operator.gram(torch.ones(1 << 20))[0].item() == pytest.approx(float(1 << 40))


def test_autocast_and_gradients_stay_out():
    operator = LowRank(torch.nn.Parameter(torch.full((2, 1), 1.001)), torch.ones(1, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = operator.matvec(torch.tensor([1.0, 0.0]))
    assert y.dtype == torch.float32
    assert y[0].item() == pytest.approx(1.001, rel=1e-6)
    assert not y.requires_grad


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2, 3, 3), (3, 4))])
def test_ranks_that_disagree_are_refused(shapes):
    with pytest.raises(ValueError, match="agree in r"):
        LowRank(torch.ones(shapes[0]), torch.ones(shapes[1]))
