"""Forward mode through norms and attention: the same functions, their tangents, and training through these."""

import math

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lsdr.linalg.forward_mode import forward_mode


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def pushed(function, x, v):
    """The value and the tangent."""
    with forward_mode():
        dual = forward_ad.unpack_dual(function(forward_ad.make_dual(x, v)))
        return dual.primal, dual.tangent


QUERY, KEY, VALUE = (random(2, 4, 5, 3, seed=seed) for seed in range(3))
ALLOWED = random(5, 5, seed=3) > -0.5
ALLOWED[2] = False  # this query sees no key
ATTENTION = [
    {},
    {"is_causal": True},
    {"scale": 0.3},
    {"attn_mask": ALLOWED},
    {"attn_mask": random(5, 5, seed=4)},
    {"attn_mask": torch.where(ALLOWED, 0.0, -math.inf).double()},
    {"attn_mask": random(2, 4, 5, 5, seed=4), "scale": 2.0},
    {"is_causal": True, "scale": 0.3},
    {"enable_gqa": True},
]


def attend(x, options):
    key, value = (each[:, :2] if options.get("enable_gqa") else each for each in (KEY + x, VALUE - x))
    return F.scaled_dot_product_attention(QUERY + x, key, value, **options)


@pytest.mark.parametrize("options", ATTENTION)
def test_attention_is_the_same_function(options):
    x, v = random(2, 4, 5, 3, seed=5), random(2, 4, 5, 3, seed=6)
    primal, tangent = pushed(lambda x: attend(x, options), x, v)
    torch.testing.assert_close(primal, attend(x, options), rtol=1e-12, atol=1e-12)
    h = 1e-6
    difference = (attend(x + h * v, options) - attend(x - h * v, options)) / (2 * h)
    torch.testing.assert_close(tangent, difference, rtol=1e-7, atol=1e-7)


def test_attention_of_other_lengths_and_in_half_precision():
    query, key, value = random(1, 2, 3, 8), random(1, 2, 7, 8, seed=1), random(1, 2, 7, 5, seed=2)
    primal, tangent = pushed(lambda q: F.scaled_dot_product_attention(q, key, value, is_causal=True), query, query)
    with sdpa_kernel(SDPBackend.MATH):
        torch.testing.assert_close(primal, F.scaled_dot_product_attention(query, key, value, is_causal=True))
    assert tangent.shape == (1, 2, 3, 5)
    # Logits of some hundred: a softmax in half precision would be off by whole units in the exponent.
    half = [(10 * each).bfloat16() for each in (query, key, value)]
    primal, _ = pushed(lambda q: F.scaled_dot_product_attention(q, *half[1:]), half[0], half[0])
    assert primal.dtype == torch.bfloat16
    exact = F.scaled_dot_product_attention(*(each.double() for each in half))
    plain = F.scaled_dot_product_attention(*half).double()
    assert (primal.double() - exact).norm() < 1.5 * (plain - exact).norm() + 1e-2 * exact.norm()


def test_attention_takes_one_mask():
    with pytest.raises(ValueError, match="not both"):
        pushed(lambda x: attend(x, {"attn_mask": ALLOWED, "is_causal": True}), QUERY, QUERY)


@pytest.mark.parametrize("layout", ["plain", "transposed", "channels_last"])
@pytest.mark.parametrize("affine", [True, False])
def test_group_norm_of_any_layout(layout, affine):
    norm = nn.GroupNorm(2, 4, affine=affine).double()
    if affine:
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x, v = random(3, 4, 5, 6), random(3, 4, 5, 6, seed=1)
    if layout == "transposed":
        x, v = random(3, 4, 6, 5).mT, random(3, 4, 6, 5, seed=1).mT
    elif layout == "channels_last":
        x, v = (each.to(memory_format=torch.channels_last) for each in (x, v))
    assert x.is_contiguous() == (layout == "plain")
    for function in (norm, lambda x: F.group_norm(x, eps=norm.eps, weight=norm.weight, num_groups=2, bias=norm.bias)):
        primal, tangent = pushed(function, x, v)
        torch.testing.assert_close(primal, norm(x))
        torch.testing.assert_close(tangent, (norm(x + 1e-6 * v) - norm(x - 1e-6 * v)) / 2e-6, rtol=1e-6, atol=1e-6)


SCALE = (1, 4, 1, 1)
TRAINED = {
    "attention": lambda x, w: F.scaled_dot_product_attention(x, x * w.view(SCALE), x, is_causal=True),
    "masked attention": lambda x, w: F.scaled_dot_product_attention(x, x * w.view(SCALE), x, attn_mask=ALLOWED[:3, :3]),
    "group norm": lambda x, w: F.group_norm(x, 2, w),
    "layer norm": lambda x, w: F.layer_norm(x.movedim(1, -1), (4,), w, w.square()),
    "layer norm over two axes": lambda x, w: torch.layer_norm(x, (3, 3)) * w.view(SCALE),
    "instance norm": lambda x, w: F.instance_norm(x, weight=w, bias=w.square()),
    "softmax": lambda x, w: F.softmax(x * w.view(SCALE), dim=-1),
    "softmax of tensors": lambda x, w: (x * w.view(SCALE)).softmax(1) + torch.softmax(x, 2),
    "batch norm": lambda x, w: F.batch_norm(x, w.new_ones(4), w.new_full((4,), 2), w),
    "convolution": lambda x, w: F.silu(F.conv2d(x, w.view(1, 4, 1, 1).expand(4, 4, 3, 3), padding=1)),
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_loss_of_the_tangent_can_be_trained(name):
    """Its gradient, to what comes in and to weights, against differences in float64."""
    x, w, v = random(2, 4, 3, 3).requires_grad_(), random(4, seed=1).requires_grad_(), random(2, 4, 3, 3, seed=2)
    torch.autograd.gradcheck(lambda x, w: pushed(lambda y: TRAINED[name](y, w), x * 1, v)[1], (x, w))


@pytest.mark.parametrize("name", TRAINED)
def test_the_functions_are_those_outside(name):
    for dtype in (torch.float64, torch.float32):
        x, w = random(2, 4, 3, 3, dtype=dtype), random(4, seed=1, dtype=dtype)
        primal, tangent = pushed(lambda y, w=w: TRAINED[name](y, w), x, x)
        torch.testing.assert_close(primal, TRAINED[name](x, w))
        assert primal.dtype == tangent.dtype == dtype


@pytest.mark.parametrize("autocast", [False, True])
def test_norms_answer_in_the_type_they_answer_in_outside(autocast):
    x = random(2, 4, 3, 3, dtype=torch.bfloat16)
    for function in (lambda x: F.layer_norm(x, (3, 3)), lambda x: x.softmax(-1)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            expected = function(x)
            primal, _ = pushed(function, x, x)
        assert primal.dtype == expected.dtype
        torch.testing.assert_close(primal, expected, rtol=0.02, atol=0.02)


def test_batch_norm_in_training_mode_is_refused_where_its_gradient_would_be_wrong():
    norm, x = nn.BatchNorm2d(4).double(), random(2, 4, 3, 3)
    with pytest.raises(RuntimeError, match="batch norm in training mode"):
        pushed(norm, x, x)
    with torch.no_grad():
        _, tangent = pushed(norm, x, random(2, 4, 3, 3, seed=1))
    assert tangent.isfinite().all()
    pushed(norm.eval(), x, x)


def test_outside_nothing_changes():
    for fails in (False, True):
        try:
            with forward_mode():
                assert torch.overrides._get_current_function_mode_stack()
                if fails:
                    raise KeyError
        except KeyError:
            pass
        assert not torch.overrides._get_current_function_mode_stack()
