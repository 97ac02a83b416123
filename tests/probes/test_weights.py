import copy
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lsdr.probes.weights import WeightProbe, weight_spectrum


def state_of(model):
    """Everything a measurement must leave alone, as bytes."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return (
        {name: tensor.detach().clone() for name, tensor in tensors.items()},
        {name: tensor._version for name, tensor in tensors.items()},
        {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        {name: module.training for name, module in model.named_modules()},
        torch.get_rng_state(),
    )


def assert_unchanged(before, model):
    after = state_of(model)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    assert after[1] == before[1]
    torch.testing.assert_close(after[2], before[2], rtol=0, atol=0)
    assert after[3] == before[3]
    assert torch.equal(after[4], before[4])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(7, 3), (3, 7)),
        (nn.Linear(3, 7), (7, 3)),
        (nn.Conv1d(2, 5, 3), (5, 6)),
        (nn.Conv3d(2, 3, 2), (3, 16)),
        (nn.ConvTranspose2d(4, 6, 3), (4, 54)),
        (nn.Embedding(9, 4), (9, 4)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_against_a_dense_svd_in_float64(layer, shape, dtype):
    layer = copy.deepcopy(layer).to(dtype)
    spectrum = weight_spectrum(layer)
    expected = torch.linalg.svdvals(layer.weight.detach().double().reshape(shape))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(spectrum.values.double(), expected, rtol=tolerance, atol=0)
    assert spectrum.values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert spectrum.method.startswith("reshape, ")
    assert not spectrum.values.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose1d(4, 6, 3, groups=2)])
def test_groups_are_blocks(layer, dtype):
    layer = copy.deepcopy(layer).to(dtype)
    blocks = layer.weight.detach().double().flatten(1).chunk(2)
    expected = torch.linalg.svdvals(torch.block_diag(*blocks))
    spectrum = weight_spectrum(layer)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(spectrum.values.double(), expected, rtol=tolerance, atol=0)
    greatest = max(torch.linalg.matrix_norm(block, 2) for block in blocks)
    torch.testing.assert_close(spectrum.values[0].double(), greatest, rtol=tolerance, atol=0)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("layer", [nn.Linear(40, 30), nn.Conv2d(4, 6, 3), nn.Linear(4, 3, dtype=torch.float64)])
def test_bounds_hold_the_values(layer, precision):
    spectrum = weight_spectrum(layer, precision=precision)
    expected = torch.linalg.svdvals(layer.weight.detach().double().flatten(1))
    for bound in (spectrum.lower, spectrum.upper):
        assert bound.dtype == layer.weight.dtype
    assert (spectrum.lower.double() <= expected * (1 + 1e-14)).all()
    assert (expected * (1 - 1e-14) <= spectrum.upper.double()).all()
    assert (spectrum.upper <= spectrum.lower * (1 + 1e-3)).all()
    assert (spectrum.lower <= spectrum.values).all()
    assert (spectrum.values <= spectrum.upper).all()


def test_convolutions_of_an_image():
    layer = nn.Conv2d(3, 4, 3, padding=1, stride=2)
    images = torch.eye(3 * 6 * 4, dtype=torch.float64).reshape(-1, 3, 6, 4)
    for operator, mode in (("circular", "circular"), ("zero_padded", "zeros")):
        other = nn.Conv2d(3, 4, 3, padding=1, stride=2, bias=False, padding_mode=mode, dtype=torch.float64)
        other.load_state_dict({"weight": layer.weight})
        expected = torch.linalg.svdvals(other(images).flatten(1).detach()).float()
        spectrum = weight_spectrum(layer, operator, (6, 4))
        torch.testing.assert_close(spectrum.values, expected, rtol=1e-5, atol=1e-6)
        assert spectrum.method.startswith(f"{operator}, ")
        assert spectrum.method.count(operator) == 1
        assert spectrum.values.dtype == torch.float32


def test_large_zero_padded_convolutions_give_their_norm():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    state = torch.get_rng_state()
    spectrum = weight_spectrum(layer, "zero_padded", 40)  # 3200 x 3200
    assert torch.equal(torch.get_rng_state(), state)
    assert len(spectrum.values) == 1
    assert "Lanczos" in spectrum.method
    assert spectrum.lower <= spectrum.values <= spectrum.upper <= 1.01 * spectrum.lower
    circular = weight_spectrum(layer, "circular", 40).values[0]  # zero padding comes close to it from below
    assert 0.98 * circular < spectrum.values[0] < 1.001 * circular
    assert torch.equal(weight_spectrum(layer, "zero_padded", 40).upper, spectrum.upper)
    single = nn.Conv2d(2, 2, 1)  # pixel by pixel: all values are known at any size
    assert len(weight_spectrum(single, "zero_padded", 40).values) == 3200


def test_each_convolution_has_its_own_size():
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Linear(2, 2), nn.Conv2d(2, 2, 3))
    spectra = WeightProbe(operator="circular", size={"0": 4, "2": (2, 6)})(model)
    assert [len(spectrum.values) for spectrum in spectra.values()] == [32, 2, 24]
    assert [spectrum.method.split(",")[0] for spectrum in spectra.values()] == ["circular", "reshape", "circular"]
    with pytest.raises(ValueError, match=r"layer '2': 'circular' depends on the size .* size=\(32, 32\)"):
        WeightProbe(operator="circular", size={"0": 4})(model)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_small_singular_values_of_float32_weights_survive_the_squaring(scale):
    """Down to 1e-6 of the largest, where a Gram matrix in float32 has lost them (it loses what is below 3e-4)."""
    left, _ = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(20, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    layer = nn.Linear(20, 12)
    layer.weight = nn.Parameter((left * torch.logspace(0, -6, 12, dtype=torch.float64) @ right.T * scale).float())
    expected = torch.linalg.svdvals(layer.weight.detach().double())
    torch.testing.assert_close(weight_spectrum(layer).values.double(), expected, rtol=1e-3, atol=0)


def test_the_adjoint_of_a_transposed_convolution_is_an_ordinary_one():
    transposed, ordinary = nn.ConvTranspose2d(4, 6, 3), nn.Conv2d(6, 4, 3)
    ordinary.weight = nn.Parameter(transposed.weight.detach().clone())
    assert torch.equal(weight_spectrum(transposed).values, weight_spectrum(ordinary).values)


def test_zero_weights_have_a_zero_spectrum():
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    assert weight_spectrum(layer).values.tolist() == [0, 0]


def test_autocast_is_ignored():
    layer = nn.Linear(6, 5)
    expected = weight_spectrum(layer).values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(weight_spectrum(layer).values, expected)


class Noisy(nn.Module):
    """A parametrization that draws random numbers and counts its calls, whatever the mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, weight):
        self.calls += 1
        return weight + torch.randn_like(weight)


def test_measuring_is_invisible():
    model = nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(5, 4)),
        parametrizations.weight_norm(nn.Linear(4, 4)),
        nn.BatchNorm1d(4),
        nn.Dropout(),
        parametrizations.orthogonal(nn.Linear(4, 4)),
        nn.Linear(4, 3),
    )
    nn.utils.parametrize.register_parametrization(model[5], "weight", Noisy(), unsafe=True)
    model(torch.randn(6, 5)).sum().backward()
    model[3].eval()
    before = state_of(model)
    assert list(WeightProbe()(model)) == ["0", "1", "4", "5"]
    assert_unchanged(before, model)


def test_measuring_between_forward_and_backward_is_invisible():
    layer = parametrizations.spectral_norm(nn.Linear(5, 4))
    loss = layer(torch.ones(2, 5)).sum()
    weight_spectrum(layer)
    loss.backward()
    assert layer.parametrizations.weight.original.grad is not None


def test_parametrized_weights_are_those_of_evaluation():
    layer = parametrizations.spectral_norm(nn.Linear(5, 4))
    with torch.no_grad():  # far from what the power iteration has seen: another iteration would show
        layer.parametrizations.weight.original.copy_(torch.randn(4, 5, generator=torch.Generator().manual_seed(0)))
    spectrum = weight_spectrum(layer)
    torch.testing.assert_close(spectrum.values, torch.linalg.svdvals(layer.eval().weight.detach()))
    normed = parametrizations.weight_norm(nn.Linear(5, 4))
    torch.testing.assert_close(weight_spectrum(normed).values, torch.linalg.svdvals(normed.weight.detach()))


def test_layers_and_types_choose():
    model = nn.Sequential(nn.Linear(3, 3), nn.Conv2d(1, 2, 3), nn.Embedding(4, 2), nn.LayerNorm(3))
    assert list(WeightProbe()(model)) == ["0", "1"]
    assert list(WeightProbe("1")(model)) == ["1"]
    assert list(WeightProbe(re.compile("."), types=(nn.Embedding,))(model)) == ["2"]
    assert list(WeightProbe()(nn.Linear(2, 2))) == [""]
    with pytest.raises(ValueError, match="nothing"):
        WeightProbe("nothing")(model)


def test_what_cannot_be_measured_is_named():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="layer '1': 1 of 9 weights are nan"):
        WeightProbe()(model)
    with pytest.raises(ValueError, match=r"LayerNorm needs .* got shape \(3,\)"):
        weight_spectrum(nn.LayerNorm(3))
    with pytest.raises(ValueError, match=r"ReLU needs .* got none"):
        weight_spectrum(nn.ReLU())
    with pytest.raises(ValueError, match="meta holds no values"):
        weight_spectrum(nn.Linear(3, 3, device="meta"))


def test_sharded_weights_are_refused(tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        layer = nn.Linear(3, 2)
        mesh = init_device_mesh("cpu", (1,))
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh, [Shard(0)]))
        with pytest.raises(ValueError, match="sharded over ranks"):
            weight_spectrum(layer)
    finally:
        torch.distributed.destroy_process_group()
