"""What is said of numbers."""

import math

import pytest
import torch

from lsdr.diffusion.measures.mmse_identity import MMSEIdentity
from lsdr.diffusion.measures.operator_by_noise import OperatorLevel
from lsdr.diffusion.operator_findings import of_levels, of_samples
from lsdr.fourier.grid_artifacts import GridArtifact
from lsdr.measures.power_spectrum_error import power_spectrum_error


def level(top=0.9, **changes):
    values = {"median": [top], "low": [top], "high": [top]}
    plain = {
        "sigma": 1.0, "sigma_next": 0.5, "eigenvalues": values, "residual": 0.0, "gains": [], "singular_values": [],
        "time_scales": [], "asymmetry": 0.0, "smallest": 0.0, "trace": 0.1, "trace_error": 0.0, "mse": 0.1,
        "sure": 0.1, "gaussian": [], "density": {}, **changes,
    }  # fmt: skip
    return OperatorLevel(**plain)


def calibration(trace=0.1, error=0.0):
    columns = {"sigma": 1.0, "trace": trace, "mse": 0.1, "trace_error": error, "mse_error": 0.0, "sure": 0.1}
    tensors = {name: torch.tensor([value], dtype=torch.float64) for name, value in columns.items()}
    return MMSEIdentity(**tensors, estimator="forward_mode", why="")


@pytest.mark.parametrize(
    ("changes", "kinds", "words"),
    [
        ({}, [], ""),
        ({"asymmetry": 0.6}, ["not_symmetric"], "by 0.60"),
        ({"smallest": -0.2}, ["negative_eigenvalues"], "-0.2"),
        ({"top": 1.2}, ["expanding_step"], "1.2"),
        ({"top": 1.2, "asymmetry": 0.6}, ["not_symmetric", "expanding_step"], ""),
    ],
)
def test_each_property_has_its_finding(changes, kinds, words):
    found = of_levels([level(), level(**changes)], calibration())
    assert [each["kind"] for each in found] == kinds
    assert words in "".join(each["message"] for each in found)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trace": 0.2}, "lies 3.0 dB above the measured error"),
        ({"trace": 0.05}, "lies 3.0 dB below the measured error"),
        ({"trace": -0.1}, "is not even positive"),
        ({"trace": 0.2, "error": 0.05}, None),
        ({"trace": 0.2, "error": math.nan}, None),
        ({"trace": 0.12}, None),
    ],
)
def test_a_calibration_gap_is_told_where_chance_does_not_explain_it(values, words):
    found = of_levels([level()], calibration(**values))
    assert [each["kind"] for each in found] == (["not_calibrated"] if words else [])
    assert not words or words in found[0]["message"]


def test_samples():
    artifact = GridArtifact(4.0, 0.0, (0.0, 0.25), 11.5, 1e-9)
    images = torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    assert of_samples([], power_spectrum_error(images, images)) == []
    found = of_samples([artifact], power_spectrum_error(blurred, images))
    assert [each["kind"] for each in found] == ["grid_artifact", "power_missing"]
    assert "vertical stripes every 4 pixels" in found[0]["message"]
