import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lsdr.linalg.circular import Circular
from lsdr.linalg.convolution import Convolution, convolution_bracket
from lsdr.spectrum import Spectrum

LAYERS = {
    False: {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d},
    True: {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d},
}


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@st.composite
def geometries(draw, dimensions=(1, 2), groups=(1, 1, 2)):
    d = draw(st.sampled_from(dimensions))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(d))

    g = draw(st.sampled_from(groups))
    shape = (g * draw(st.integers(1, 2)), draw(st.integers(1, 2)), *each(1, 3))
    return {
        "weight": randn(*shape, seed=draw(st.integers(0, 99))),
        "size": each(1, 5),
        "stride": each(1, 3),
        "padding": each(0, 3),
        "dilation": each(1, 2),
        "groups": g,
    }


def spans(g):
    return [d * (k - 1) + 1 for d, k in zip(g["dilation"], g["weight"].shape[2:], strict=True)]


@settings(max_examples=80, deadline=None)
@given(geometries(), st.sampled_from(["zeros", "zeros", "circular", "reflect", "replicate"]))
def test_every_entry_is_that_of_loops_over_outputs_and_taps(agrees, loops, g, edges):
    fits = all(n + 2 * p >= span for n, p, span in zip(g["size"], g["padding"], spans(g), strict=True))
    if edges == "reflect":
        fits = fits and all(p < n for p, n in zip(g["padding"], g["size"], strict=True))
    make = {k: v for k, v in g.items() if k not in ("weight", "size")}
    if not fits:
        with pytest.raises(ValueError, match=r"size|reflect"):
            Convolution(g["weight"], g["size"], **make, padding_mode=edges)
        return
    operator = Convolution(g["weight"], g["size"], **make, padding_mode=edges)
    padding = g["padding"]
    agrees(operator, loops(g["weight"], g["size"], g["stride"], padding, padding, g["dilation"], g["groups"], edges))


@settings(max_examples=80, deadline=None)
@given(geometries(), st.data())
def test_a_transposed_convolution_is_torchs_with_its_adjoint(agrees, g, data):
    d = len(g["size"])
    extra = tuple(data.draw(st.integers(0, max(s, e) - 1)) for s, e in zip(g["stride"], g["dilation"], strict=True))
    make = {k: v for k, v in g.items() if k not in ("weight", "size")} | {"output_padding": extra}
    small, per_group = g["weight"].shape[:2]
    layer = LAYERS[True][d](small, per_group * g["groups"], tuple(g["weight"].shape[2:]), bias=False, **make).double()
    pixels = [
        (n - 1) * s + span - 2 * p + o
        for n, s, span, p, o in zip(g["size"], g["stride"], spans(g), g["padding"], extra, strict=True)
    ]
    if min(pixels) < 1:
        with pytest.raises(ValueError, match="no output"):
            Convolution(g["weight"], g["size"], transposed=True, **make)
        return
    inputs = small * math.prod(g["size"])
    with torch.no_grad():
        layer.weight.copy_(g["weight"])
        images = torch.eye(inputs, dtype=torch.float64).reshape(-1, small, *g["size"])
        dense = layer(images).flatten(1).T
    agrees(Convolution(layer.weight, g["size"], transposed=True, **make), dense)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # torch's own, of its own cost
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [(3, 2), (4, 1), (5, 2)])
@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_padding_in_words_is_what_torch_does(agrees, padding, kernel, mode):
    layer = nn.Conv2d(2, 3, kernel, dilation=(1, 2), padding=padding, padding_mode=mode, bias=False).double()
    with torch.no_grad():
        dense = layer(torch.eye(60, dtype=torch.float64).reshape(-1, 2, 6, 5)).flatten(1).T
    agrees(Convolution(layer.weight, (6, 5), dilation=(1, 2), padding=padding, padding_mode=mode), dense)


@pytest.mark.parametrize("transposed", [False, True])
def test_three_dimensions(agrees, transposed):
    make = {"stride": (2, 1, 2), "padding": (1, 0, 1), "dilation": (1, 2, 1), "groups": 2}
    layer = LAYERS[transposed][3](4, 2, (2, 2, 3), bias=False, **make).double()
    size = (3, 3, 2)
    with torch.no_grad():
        dense = layer(torch.eye(72, dtype=torch.float64).reshape(-1, 4, *size)).flatten(1).T
    agrees(Convolution(layer.weight, size, transposed=transposed, **make), dense)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_half_and_quarter_precision_weights_are_widened_as_stored(agrees, loops, dtype):
    weight = randn(2, 2, 3, dtype=torch.float32).to(dtype)
    operator = Convolution(weight, (5,), padding=1)
    assert operator.dtype == torch.float32
    agrees(operator, loops(weight.float(), (5,), (1,), (1,), (1,), (1,)))


def test_autocast_and_gradients_stay_out():
    weight = nn.Parameter(randn(4, 4, 3, 3, dtype=torch.float32))
    operator, x = Convolution(weight, (4, 4), padding=1), randn(64, dtype=torch.float32)
    plain = operator.matvec(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(operator.matvec(x), plain)
    assert plain.dtype == torch.float32
    assert not plain.requires_grad


def test_the_weight_is_not_copied():
    weight = randn(4, 4, 3, 3)
    assert Convolution(weight, (4, 4)).weight.data_ptr() == weight.data_ptr()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"padding": "same", "stride": 2}, "stride 1 only"),
        ({"padding": "full"}, "'same' or 'valid'"),
        ({"padding": "same", "transposed": True}, "not transposed"),
        ({"padding": -1}, "padding must be"),
        ({"stride": 0}, "stride must be"),
        ({"dilation": (1,)}, "dilation must be"),
        ({"groups": 3}, "groups must divide"),
        ({"output_padding": 1}, "for transposed"),
        ({"transposed": True, "output_padding": 1}, "smaller than"),
        ({"transposed": True, "padding_mode": "circular"}, "zeros only"),
        ({"size": (4,)}, "2 dimensions"),
        ({"size": (0, 4)}, "1 or more"),
        ({"size": (2, 2)}, "larger size"),
        ({"weight": torch.ones(2, 2)}, "Dense"),
        ({"weight": torch.ones(0, 2, 1, 1)}, "no dimension of 0"),
    ],
)
def test_what_torch_would_not_apply_is_refused_in_words(change, message):
    make = {"weight": torch.ones(4, 2, 3, 3), "size": (5, 5)} | change
    with pytest.raises(ValueError, match=message):
        Convolution(make.pop("weight"), make.pop("size"), **make)


def norm(operator):
    return float(torch.linalg.svdvals(operator.matrix())[0])


def reshaped(weight, groups):
    """The norm of the largest group's kernel, as a spectrum without bounds."""
    return Spectrum.of(torch.stack([torch.linalg.svdvals(part.flatten(1))[0] for part in weight.chunk(groups)]))


@settings(max_examples=150, deadline=None)
@given(geometries(), st.booleans(), st.booleans())
def test_the_bracket_holds_for_zero_padding_wherever_it_says(g, transposed, positive):
    make = {k: v for k, v in g.items() if k not in ("weight", "size")}
    weight = g["weight"].abs() if positive else g["weight"]  # without cancellation the upper bound is nearly reached
    try:
        operator = Convolution(weight, g["size"], transposed=transposed, **make)
    except ValueError:
        return
    sigma = reshaped(weight, g["groups"])
    bracket = convolution_bracket(weight, g["stride"], g["dilation"], g["groups"], sigma)
    true = norm(operator)
    assert true <= bracket.upper.item()
    loosest = convolution_bracket(weight, None, 1, g["groups"], sigma)
    assert loosest.upper.item() >= bracket.upper.item()
    stored = Spectrum.of(torch.linalg.svdvals(weight.flatten(1))[:1])
    unknown = convolution_bracket(weight, None, 1, None, stored)
    assert true <= unknown.upper.item()
    inside = all(
        -p % s <= n - span for p, s, n, span in zip(g["padding"], g["stride"], operator.image, spans(g), strict=True)
    )
    if inside:
        assert true >= bracket.lower.item()
        assert true >= unknown.lower.item()
    assert bracket.lower <= bracket.values <= bracket.upper


@settings(max_examples=80, deadline=None)
@given(geometries(), st.booleans(), st.booleans())
def test_the_bracket_holds_on_a_torus(g, transposed, positive):
    weight = g["weight"].abs() if positive else g["weight"]
    size = g["size"] if transposed else tuple(n * s for n, s in zip(g["size"], g["stride"], strict=True))
    make = {k: g[k] for k in ("stride", "dilation", "groups")}
    operator = Circular(weight, size, transposed=transposed, **make)
    bracket = convolution_bracket(weight, g["stride"], g["dilation"], g["groups"], reshaped(weight, g["groups"]))
    true = norm(operator)
    assert true <= bracket.upper.item()
    if all(n >= span for n, span in zip(operator.image, spans(g), strict=True)):
        assert true >= bracket.lower.item()


def test_the_upper_factor_is_reached_and_counts_what_dilation_adds():
    """A constant kernel on a torus: every pixel is met by as many patches as the factor says, in phase."""
    for k, s, d, meets in [(3, 1, 1, 3), (3, 2, 1, 2), (3, 2, 2, 3), (4, 4, 2, 2), (3, 4, 2, 2), (5, 3, 2, 2)]:
        weight = torch.zeros(1, 1, k, dtype=torch.float64)
        weight[..., :: s // math.gcd(s, d)] = 1.0  # the taps of one residue: those that can meet in one pixel
        sigma = reshaped(weight, 1)
        bracket = convolution_bracket(weight, s, d, 1, sigma)
        assert bracket.upper.item() == pytest.approx(math.sqrt(meets) * sigma.values.item(), rel=1e-12)
        true = norm(Circular(weight, (60,), stride=s, dilation=d))
        assert true == pytest.approx(bracket.upper.item(), rel=1e-12)


def test_on_a_small_image_the_reshaped_kernel_is_no_lower_bound():
    weight = torch.ones(1, 1, 3, dtype=torch.float64)
    weight[..., 1] = 0.0
    assert norm(Convolution(weight, (1,), padding=1)) == 0.0
    bracket = convolution_bracket(weight, 1, 1, 1, reshaped(weight, 1))
    assert norm(Convolution(weight, (3,), padding=1)) >= bracket.lower.item() == pytest.approx(2**0.5)


def test_the_brackets_own_bounds_widen_it():
    weight = torch.ones(2, 1, 3, 3)
    known = Spectrum.of([2.0, 1.0], lower=torch.tensor([1.9, 0.9]), upper=torch.tensor([2.2, 1.1]), method="lanczos")
    bracket = convolution_bracket(weight, 2, 1, 1, known)
    assert bracket.lower.item() == pytest.approx(1.9)
    assert bracket.upper.item() == pytest.approx(2 * 2.2)
    assert bracket.values.item() == pytest.approx((1.9 * 4.4) ** 0.5)
    assert bracket.method == "bracket, lanczos"
    assert "stride unknown" in convolution_bracket(weight, None, 1, 1, known).method


@pytest.mark.parametrize("seed", range(6))  # some are rounded up, some down
def test_a_norm_without_bounds_is_as_good_as_its_type(seed):
    weight = randn(3, 3, 1, seed=seed)
    single = Spectrum.of([float(reshaped(weight, 1).values[0])])
    assert single.values.dtype == torch.float32
    bracket = convolution_bracket(weight, 1, 1, 1, single)
    assert bracket.lower.item() < norm(Convolution(weight, (4,))) < bracket.upper.item()


def test_a_zero_kernel_has_a_bracket_of_zeros():
    bracket = convolution_bracket(torch.zeros(2, 2, 3), 1, 1, None, Spectrum.of([0.0]))
    assert [bracket.lower.item(), bracket.values.item(), bracket.upper.item()] == [0.0, 0.0, 0.0]


def test_zero_padded_norms_grow_with_the_image_to_the_supremum_over_frequencies():
    weight = randn(8, 8, 3, 3)
    grown = [norm(Convolution(weight, (n, n), padding=1)) for n in (1, 2, 3, 5, 7, 9)]
    assert grown == sorted(grown)
    frequencies = torch.linspace(0, 2 * math.pi, 129, dtype=torch.float64)[:-1]
    phases = torch.exp(1j * frequencies[:, None] * torch.arange(3))
    symbol = torch.einsum("octs,at,bs->aboc", weight.to(torch.complex128), phases, phases)
    supremum = float(torch.linalg.matrix_norm(symbol, ord=2).amax())
    assert 0.95 * supremum < grown[-1] < supremum * (1 + 1e-4)
    assert 1.4 < supremum / reshaped(weight, 1).values.item() < 1.9  # measured elsewhere for Gaussian kernels: 1.6
