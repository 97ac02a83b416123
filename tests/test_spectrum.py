import dataclasses

import numpy as np
import pytest
import torch

from lsdr.spectrum import Spectrum


@pytest.mark.parametrize("values", [[1, 3, 2], np.array([1.0, 3.0, 2.0]), torch.tensor([1.0, 3.0, 2.0])])
def test_lists_arrays_and_tensors_are_sorted(values):
    spectrum = Spectrum.of(values)
    assert spectrum.values.tolist() == [3, 2, 1]
    assert (spectrum.kind, spectrum.method) == ("singular_values", "exact")


def test_floating_types():
    assert Spectrum.of(np.ones(2)).values.dtype == torch.float64
    assert Spectrum.of(np.ones(2, dtype=np.float32)).values.dtype == torch.float32
    assert Spectrum.of(torch.ones(2, dtype=torch.bfloat16)).values.dtype == torch.float32
    assert Spectrum.of(torch.arange(2)).values.dtype == torch.float32


def test_sorting_keeps_the_graph_and_the_bounds_in_step():
    values = torch.tensor([1.0, 3.0, 2.0], requires_grad=True)
    spectrum = Spectrum.of(
        values,
        "eigenvalues",
        method="Lanczos",
        lower=values.detach() - 1,
        upper=values.detach() + 1,
        residual=[1, 3, 2],
    )
    assert spectrum.lower.tolist() == [2, 1, 0]
    assert spectrum.upper.tolist() == [4, 3, 2]
    assert spectrum.residual.tolist() == [3, 2, 1]
    (spectrum.values * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert values.grad.tolist() == [100, 1, 10]


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"K >= 1, got shape \(0,\)", lambda: Spectrum.of([])),
        (r"got shape \(2, 2\)", lambda: Spectrum.of(torch.ones(2, 2))),
        (r"got shape \(\)", lambda: Spectrum.of(torch.tensor(1.0))),
        ("1 of 2 that are nan", lambda: Spectrum.of([1.0, float("nan")])),
        ("nan or infinite", lambda: Spectrum.of([1.0, float("-inf")], "eigenvalues")),
        ("must not be negative, got -1", lambda: Spectrum.of([1.0, -1.0])),
        ("descending", lambda: Spectrum(torch.tensor([1.0, 2.0]), "eigenvalues")),
        (r"upper must have the values' shape \(2,\)", lambda: Spectrum.of([1.0, 2.0], upper=[1.0])),
    ],
)
def test_what_is_no_spectrum_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_complex_values_are_refused():
    with pytest.raises(TypeError, match="real values"):
        Spectrum.of(torch.ones(2, dtype=torch.complex64))


def test_a_spectrum_does_not_change():
    spectrum = Spectrum.of([1.0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        spectrum.kind = "eigenvalues"


def test_eigenvalues_are_squares_of_singular_values():
    singular, eigen = Spectrum.of([2.0, 3.0, 0.0]), Spectrum.of([4.0, 9.0, 0.0], "eigenvalues")
    for spectrum in (singular, eigen):
        assert spectrum.singular_values().tolist() == [3, 2, 0]
        assert spectrum.squares().tolist() == [9, 4, 0]
    with pytest.raises(ValueError, match="got -1: clamp"):
        Spectrum.of([1.0, -1.0], "eigenvalues").singular_values()


def test_the_root_of_a_zero_eigenvalue_has_a_finite_gradient():
    values = torch.tensor([4.0, 0.0], requires_grad=True)
    Spectrum.of(values, "eigenvalues").singular_values().sum().backward()
    assert values.grad.tolist() == [0.25, 0]


def test_relative_values_need_a_positive_one():
    assert Spectrum.of([4.0, 2.0]).relative().values.tolist() == [1, 0.5]
    with pytest.raises(ValueError, match="3 values whose largest is 0"):
        Spectrum.of([0.0, 0.0, 0.0]).relative()
