"""What the measures of the operator refuse, and in which words."""

import inspect
import math

import pytest
import torch

from lsdr.probes._operator_reading import read_operator
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
        ({"block": 0}, "between 1 and the 4"),
        ({"block": 5}, "between 1 and the 4"),
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
    given = {"of": "eigenvalues", "conditioning": None, "steps": 1, "block": 1, "tolerance": 0.1, "batch": 1} | change
    with pytest.raises(ValueError, match="expected '"):  # types are not checked outside the tests
        inspect.unwrap(read_operator)(lambda x, *_: x / 2, images(1, 4), 1.0, None, 1, **given, generator=None)


@pytest.mark.parametrize("measure", [operator_density, operator_trace, operator_asymmetry])
def test_the_others_check_too(measure):
    with pytest.raises(ValueError, match="probes"):
        measure(lambda x, sigma, conditioning: x, images(1, 4), 1.0, probes=0)
    with pytest.raises(ValueError, match="sigma must be positive"):
        measure(lambda x, sigma, conditioning: x, images(1, 4), 0.0)


def test_one_probe_has_no_error():
    assert operator_trace(lambda x, sigma, conditioning: x, images(1, 4), 1.0, probes=1).error.isnan().all()


@pytest.mark.parametrize("of", ["eigenvalues", "singular_values"])
@pytest.mark.parametrize("sigma_next", [None, 0.5])
def test_a_network_behind_no_grad_is_seen_where_the_rest_has_a_gradient(of, sigma_next):
    """Preconditioning keeps a graph, so that a backward pass runs and misses the network."""
    network = torch.nn.Linear(16, 16).double()

    def denoise(x, sigma, conditioning):
        with torch.no_grad():
            return_of_network = network(x)
        return 0.3 * x + 0.7 * return_of_network

    with pytest.raises(ValueError, match="cuts the graph between its input and its estimate in part"):
        operator_spectrum(denoise, images(2, 16), 1.0, sigma_next, 2, of)
    with pytest.raises(ValueError, match="in part"):
        operator_asymmetry(denoise, images(2, 16), 1.0)


def test_batch_statistics_out_of_reach_are_seen():
    norm = torch.nn.BatchNorm1d(4).double()
    with pytest.raises(ValueError, match="alone and among others"):
        operator_spectrum(lambda x, sigma, conditioning: norm(x), images(4, 4), 1.0, k=2)


def test_a_jacobian_that_is_not_finite_is_not_symmetric():
    def root(x, sigma, conditioning):
        return (0 * x).abs().sqrt() + x

    with pytest.raises(ValueError, match="nan or infinite"):
        operator_asymmetry(root, images(1, 4), 1.0)


def test_a_narrow_block_gives_the_same_values():
    def wiener(x, sigma, conditioning):
        return x * torch.logspace(-2, -0.1, 60, dtype=x.dtype)

    wide, narrow = (
        operator_spectrum(wiener, images(1, 60), 1.0, k=4, block=block, steps=60, tolerance=1e-6)[0]
        for block in (None, 1)
    )
    torch.testing.assert_close(wide.values, narrow.values, rtol=1e-6, atol=0)
    assert "steps of 1," in narrow.method
