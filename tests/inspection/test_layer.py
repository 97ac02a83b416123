import math

import pytest
import torch

from lsdr.inspection.layer import layer_row
from lsdr.inspection.statistics import condition
from lsdr.layers.layout import describe
from lsdr.spectrum import Spectrum


def row_of(name, weight, config=None, precision="float32"):
    return layer_row(name, weight, describe(name, tuple(weight.shape), config, weight.dtype), precision)


def test_every_number_of_a_linear_layer(noise):
    weight = noise(20, 50)
    row = row_of("blocks.0.fc.weight", weight)
    values = torch.linalg.svdvals(weight.double())
    share = values / values.sum()
    assert row["sigma_max"] == pytest.approx(values[0].item(), rel=1e-5)
    assert row["lower"] <= values[0] <= row["upper"]
    assert row["upper"] / row["lower"] < 1.001
    assert row["stable_rank"] == pytest.approx((values.square().sum() / values[0] ** 2).item(), rel=1e-4)
    assert row["effective_rank"] == pytest.approx((-(share * share.log()).sum()).exp().item(), rel=1e-4)
    assert row["sigma_over_target"] == pytest.approx(values[0].item() / math.sqrt(20 / 50), rel=1e-5)
    assert row["condition_number"] == pytest.approx((values[0] / values[-1]).item(), rel=1e-3)
    assert row["frobenius"] == pytest.approx(weight.norm().item(), rel=1e-6)
    assert row["spectrum"] == pytest.approx(values.tolist(), rel=1e-3)
    assert row["power_law_exponent"]["exponent"] > 1
    assert row["power_law_exponent"].keys() == {"exponent", "count", "distance"}
    assert (row["kind"], row["operator"], row["parameters"], row["dtype"]) == ("linear", "reshape", 1000, "float32")
    assert row["shape"] == row["matrix"] == [20, 50]
    assert row["unknown"] == []
    assert "Gram" in row["method"]


def test_spikes_are_counted(noise):
    u, v = (each / each.norm() for each in (noise(200, seed=1), noise(100, seed=2)))
    assert row_of("fc.weight", noise(200, 100))["marchenko_pastur_outliers"] == 0
    assert row_of("fc.weight", noise(200, 100) + 60 * torch.outer(u, v))["marchenko_pastur_outliers"] == 1


def test_a_convolution_is_bracketed_and_what_is_unknown_is_said(noise):
    weight = noise(8, 4, 3, 3)
    row = row_of("conv.weight", weight)
    flat = torch.linalg.matrix_norm(weight.flatten(1), 2).item()
    assert row["sigma_max"] == pytest.approx(flat, rel=1e-5)
    assert row["convolution_lower"] <= flat < row["convolution_upper"] <= 3.01 * flat
    assert {"stride", "padding"} <= set(row["unknown"])
    at_size = torch.stack([
        torch.nn.functional.conv2d(each.view(1, 4, 5, 5), weight, padding=1).flatten() for each in torch.eye(100)
    ])  # fmt: skip
    assert row["convolution_lower"] <= torch.linalg.matrix_norm(at_size, 2) <= row["convolution_upper"]
    assert "convolution_upper" not in row_of("conv.weight", noise(8, 4, 1, 1))


def test_storage_of_transposed_layers_is_turned(noise):
    stored = noise(12, 36)
    row = row_of("h.0.attn.c_attn.weight", stored, {"model_type": "gpt2", "n_head": 2})
    assert row["matrix"] == [36, 12]
    assert row["shape"] == [12, 36]
    assert row["sigma_over_target"] == pytest.approx(
        torch.linalg.matrix_norm(stored, 2).item() / math.sqrt(3), rel=1e-5
    )


def test_an_embedding_has_no_target(noise):
    row = row_of("wte.weight", noise(200, 8))
    assert row["kind"] == "embedding"
    assert row["sigma_over_target"] is None
    assert row["sigma_max"] > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_half_precision_has_no_condition_number_and_says_why(dtype, noise):
    row = row_of("fc.weight", noise(8, 9).to(dtype))
    assert row["condition_number"] is None
    assert str(dtype).removeprefix("torch.") in row["condition_number_note"]
    exact = torch.linalg.svdvals(noise(8, 9).to(dtype).double())
    assert row["sigma_max"] == pytest.approx(exact[0].item(), rel=1e-5)


def test_a_condition_number_that_float32_cannot_resolve_is_bounded_below(noise):
    left, right = (torch.linalg.qr(noise(30, 30, seed=seed).double())[0] for seed in (1, 2))
    weight = (left @ torch.diag(torch.logspace(0, -4, 30).double()) @ right).float()
    row = row_of("fc.weight", weight)
    assert row["condition_number"] is None
    assert 50 < row["condition_number_at_least"] <= 1e4 * 1.01
    exact = row_of("fc.weight", weight, precision="float64")
    assert exact["condition_number"] == pytest.approx(1e4, rel=0.02)


def test_a_smallest_value_that_is_only_bracketed_gives_a_bound():
    spectrum = Spectrum.of([8.0, 1.4], lower=[7.9, 1.0], upper=[8.1, 2.0])
    found = condition(spectrum, torch.float32)
    assert found["condition_number"] is None
    assert found["condition_number_at_least"] == pytest.approx(7.9 / 2)
    close = Spectrum.of([8.0, 1.0], lower=[7.9, 0.99], upper=[8.1, 1.01])
    assert condition(close, torch.float32) == {"condition_number": 8.0}


def test_zeros_have_defined_values():
    row = row_of("fc.weight", torch.zeros(6, 9))
    assert (row["sigma_max"], row["stable_rank"], row["effective_rank"], row["frobenius"]) == (0, 0, 0, 0)
    assert row["power_law_exponent"] is row["condition_number"] is None
    assert row["dead_directions"] == row["duplicated_directions"] == row["marchenko_pastur_outliers"] == 0


def test_what_is_not_finite_has_no_numbers(noise):
    weight = noise(6, 9)
    weight[1, 1], weight[2, 2] = torch.nan, torch.inf
    row = row_of("fc.weight", weight)
    assert row["nonfinite"] == 2
    assert row["sigma_max"] is row["stable_rank"] is row["frobenius"] is None
    assert row["spectrum"] == []


def test_dead_and_repeated_directions(noise):
    weight = noise(40, 30)
    weight[3] = 0
    weight[:, 5] *= 1e-6
    weight[10:20] = weight[30:40]
    row = row_of("fc.weight", weight)
    assert (row["dead_rows"], row["dead_columns"], row["dead_directions"]) == (1, 1, 2)
    assert row["duplicated_directions"] == 10
    assert row["duplicated_examples"][0] == [30, 10]


def test_a_long_spectrum_is_thinned_to_its_ends(noise):
    row = row_of("fc.weight", noise(200, 300))
    assert len(row["spectrum"]) == 64
    assert row["spectrum"][0] == row["sigma_max"]
    assert row["spectrum"] == sorted(row["spectrum"], reverse=True)
    assert row["spectrum"][-1] == pytest.approx(torch.linalg.svdvals(noise(200, 300))[-1].item(), rel=1e-2)
