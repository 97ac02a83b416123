"""What the measures of the operator refuse, and in which words."""

import inspect
import math

import pytest
import torch

from lsdr.probes.operator_spectrum import operator_asymmetry, operator_density, operator_spectrum, operator_trace


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


BAD = images(2, 1, 2, 2)
BAD[0, 0, 0, 0] = torch.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"sigma": -1.0}, "sigma must be positive"),
        ({"sigma": math.nan}, "sigma must be positive"),
        ({"sigma": math.inf}, "sigma must be positive"),
        ({"sigma": torch.ones(3)}, "sigma has shape"),
        ({"sigma": torch.ones(2, 1)}, "sigma has shape"),
        ({"sigma_next": 1.0}, "sigma_next must be in"),
        ({"sigma_next": -0.1}, "sigma_next must be in"),
        ({"sigma_next": math.nan}, "sigma_next must be in"),
        ({"sigma_next": torch.zeros(3)}, "sigma_next has shape"),
        ({"noisy": BAD}, "1 values that are nan"),
        ({"noisy": BAD[:0]}, "expected a batch"),
        ({"conditioning": torch.ones(3)}, "one entry per image"),
        ({"conditioning": torch.tensor(1)}, "one entry per image"),
        ({"k": 5}, "between 1 and the 4"),
        ({"k": 0}, "between 1 and the 4"),
        ({"steps": 0}, "steps must be"),
        ({"tolerance": 0.0}, "tolerance positive"),
        ({"batch": 0}, "batch must be"),
        ({"denoiser": lambda x, sigma, conditioning: x[:, :, :1]}, "returned shape"),
        ({"denoiser": lambda x, sigma, conditioning: x * torch.inf}, "diverged"),
        ({"denoiser": lambda x, sigma, conditioning: torch.rand_like(x)}, "evaluation mode"),
        ({"denoiser": torch.no_grad()(lambda x, sigma, conditioning: x * 2)}, "cuts the graph"),
    ],
)
def test_errors(change, message):
    given = {"denoiser": lambda x, sigma, conditioning: x / 2, "noisy": images(2, 1, 2, 2), "sigma": 1.0, "k": 2}
    with pytest.raises(ValueError, match=message):
        operator_spectrum(**(given | change))


@pytest.mark.parametrize("change", [{"of": "values"}, {"end": "top"}])
def test_unknown_words(change):
    call = inspect.unwrap(operator_spectrum)
    with pytest.raises(ValueError, match="expected '"):
        call(lambda x, sigma, conditioning: x / 2, images(1, 4), 1.0, k=1, **change)


@pytest.mark.parametrize("measure", [operator_density, operator_trace, operator_asymmetry])
def test_the_others_check_too(measure):
    with pytest.raises(ValueError, match="probes"):
        measure(lambda x, sigma, conditioning: x, images(1, 4), 1.0, probes=0)
    with pytest.raises(ValueError, match="sigma must be positive"):
        measure(lambda x, sigma, conditioning: x, images(1, 4), 0.0)


def test_one_probe_has_no_error():
    assert operator_trace(lambda x, sigma, conditioning: x, images(1, 4), 1.0, probes=1).error.isnan().all()
