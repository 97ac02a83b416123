import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lsdr.layers.operators import layer_operator
from lsdr.linalg.dense import Dense
from lsdr.linalg.operator import Adjoint


def dense(layer, channels, size):
    """The matrix of a layer, from its own forward pass on unit images: nothing of the code under test."""
    layer = copy.deepcopy(layer).double()
    layer.bias = None
    inputs = torch.eye(channels * torch.Size(size).numel(), dtype=torch.float64).reshape(-1, channels, *size)
    with torch.no_grad():
        return layer(inputs).flatten(1).T


LOOSE = {"rtol": 1e-5, "atol": 1e-5}


def close(operator, expected):
    torch.testing.assert_close(operator.matrix().double(), expected.double(), rtol=1e-5, atol=1e-6)
    vector = torch.randn(operator.shape[0], dtype=operator.dtype)
    torch.testing.assert_close(operator.adjoint(vector).double(), expected.double().T @ vector.double(), **LOOSE)


CONVOLUTIONS = [
    (nn.Conv1d(2, 3, 4, stride=2, padding=1, dilation=2), (9,)),
    (nn.Conv1d(2, 3, 4, padding="same", dilation=3), (7,)),
    (nn.Conv2d(2, 3, 3, padding=1), (4, 5)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2), (6, 5)),
    (nn.Conv2d(2, 2, (2, 4), padding="same"), (3, 5)),
    (nn.Conv2d(2, 2, 3, padding="valid"), (4, 4)),
    (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), (4, 4)),
    (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), (4, 4)),
    (nn.Conv2d(2, 2, 3, padding="same", padding_mode="replicate"), (4, 4)),
    (nn.Conv3d(2, 2, 2, stride=2), (2, 4, 3)),
    (nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1), (5,)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2), (3, 4)),
    (nn.ConvTranspose3d(2, 1, 2), (2, 2, 2)),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize(("layer", "size"), CONVOLUTIONS)
def test_zero_padded_is_the_layer_as_it_runs(layer, size):
    close(layer_operator(layer, "zero_padded", size), dense(layer, layer.in_channels, size))


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), (6,)),
        (nn.Conv2d(4, 2, 3, padding=1, groups=2, stride=2, padding_mode="circular"), (4, 6)),
        (nn.Conv2d(2, 3, 3, padding=2, dilation=2, padding_mode="circular"), (5, 5)),
    ],
)
def test_circular_is_a_layer_that_pads_so(layer, size):
    close(layer_operator(layer, "circular", size), dense(layer, layer.in_channels, size))
    zeros = copy.deepcopy(layer)
    zeros.padding_mode = "zeros"  # what the layer does at its edges is another matter
    assert torch.equal(
        layer_operator(zeros, "circular", size).matrix(), layer_operator(layer, "circular", size).matrix()
    )


def test_reshape_of_a_convolution_maps_a_patch_to_a_pixel():
    layer = nn.Conv2d(3, 5, (2, 3), stride=2, padding=1)
    image = torch.randn(3, 2, 3)
    pixel = nn.functional.conv2d(image[None], layer.weight).flatten()
    operator = layer_operator(layer)
    torch.testing.assert_close(operator.matvec(image.flatten()), pixel.detach())
    assert operator.weight.data_ptr() == layer.weight.data_ptr()  # a view


def test_groups_are_blocks():
    layer = nn.Conv2d(4, 6, 3, groups=2)
    expected = torch.block_diag(*layer.weight.detach().flatten(1).chunk(2))
    close(layer_operator(layer), expected)
    assert layer_operator(layer).shape == (6, 36)


def test_transposed_convolutions_are_adjoints():
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2)  # from a pixel to a patch
    close(layer_operator(layer), torch.block_diag(*layer.weight.detach().flatten(1).chunk(2)).T)
    layer = nn.ConvTranspose1d(2, 3, 4)
    pixel = torch.randn(2)
    patch = nn.functional.conv_transpose1d(pixel[None, :, None], layer.weight).flatten()
    torch.testing.assert_close(layer_operator(layer).matvec(pixel), patch.detach())


@pytest.mark.parametrize("kind", ["reshape", "circular", "zero_padded"])
def test_linear_layers_have_one_operator(kind):
    layer, table = nn.Linear(4, 3), nn.Embedding(5, 2)
    assert torch.equal(layer_operator(layer, kind).matrix(), layer.weight)
    assert torch.equal(layer_operator(table, kind, 8).matrix(), table.weight)


def test_transformers_conv1d_is_stored_transposed():
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    layer = conv1d(6, 4)  # from 4 to 6
    nn.init.normal_(layer.bias)
    operator = layer_operator(layer)
    x = torch.randn(3, 4)
    assert isinstance(operator, Adjoint)
    assert operator.shape == (6, 4)
    torch.testing.assert_close(operator.matvec(x), (layer(x) - layer.bias).detach())


def test_parametrized_layers_are_read_as_in_evaluation():
    layer = parametrizations.spectral_norm(nn.Linear(4, 3))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    operator = layer_operator(layer)
    torch.testing.assert_close({**layer.state_dict()}, before, rtol=0, atol=0)
    assert torch.equal(operator.matrix(), layer.eval().weight)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compiled_and_wrapped_layers():
    layer = nn.Linear(4, 3)
    for wrapped in (torch.compile(layer), nn.DataParallel(layer), torch.compile(nn.DataParallel(layer))):
        assert torch.equal(layer_operator(wrapped).matrix(), layer.weight)
    average = torch.optim.swa_utils.AveragedModel(layer)
    assert torch.equal(layer_operator(average).matrix(), layer.weight)


def test_another_weight_in_place_of_the_layers_own():
    layer = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    other = torch.randn_like(layer.weight)
    expected = copy.deepcopy(layer)
    expected.weight = nn.Parameter(other)
    operator = layer_operator(layer, "zero_padded", 5, weight=other)
    assert torch.equal(operator.matrix(), layer_operator(expected, "zero_padded", 5).matrix())


class Custom(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))


def test_other_layers_with_a_weight_are_matrices():
    assert layer_operator(Custom(3, 2, 2)).shape == (3, 4)
    assert isinstance(layer_operator(Custom(3, 2), "circular"), Dense)
    with pytest.raises(ValueError, match="stride and padding are unknown"):
        layer_operator(Custom(3, 2, 2), "circular", 4)


def test_what_has_no_operator_says_why():
    with pytest.raises(ValueError, match="Bilinear is linear in each input"):
        layer_operator(nn.Bilinear(2, 2, 2))
    with pytest.raises(ValueError, match="attention_projections"):
        layer_operator(nn.MultiheadAttention(4, 2))
    with pytest.raises(Exception, match=r"reshape.*circular.*zero_padded"):  # annotations refuse it first
        layer_operator(nn.Linear(2, 2), "dense")
    with pytest.raises(ValueError, match=r"give it, such as size=\(32, 32\) for Conv2d"):
        layer_operator(nn.Conv2d(2, 2, 3), "zero_padded")
    for size in (0, (4,), (4, -1)):
        with pytest.raises(ValueError, match="size must be a positive int or 2 of them"):
            layer_operator(nn.Conv2d(2, 2, 3), "circular", size)
    quantized = nn.Linear(2, 2)
    quantized.weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"torch\.int8, without its scales"):
        layer_operator(quantized)
