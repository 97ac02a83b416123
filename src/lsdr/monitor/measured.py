"""What probes measure, as named numbers: one transfer from the device for all of them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lsdr.moments import Moments
from lsdr.probes.features import feature_values
from lsdr.spectrum import Spectrum
from lsdr.statistics.effective_rank import effective_rank
from lsdr.statistics.stable_rank import stable_rank


def flat_values(measured: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Name the numbers in what a probe measured.

    Spectra come to "sigma_max" (or "lambda_max", of eigenvalues), "stable_rank" and "effective_rank", moments to
    "effective_rank", "dead_units" and "mean_abs_correlation"; mappings are walked, and a number is a number.

    Args:
        measured: By layer or by name: spectra, moments, mappings of numbers, numbers or tensors of one number.
        prefix: What the names begin with.

    Returns:
        Values by name, the parts of a name joined by "/".

    Raises:
        TypeError: If something else was measured.

    Example:
        >>> flat_values({"conv_in": {"norm": torch.tensor(2.0)}, "loss": 1}, "gradients")
        {'gradients/conv_in/norm': 2.0, 'gradients/loss': 1.0}
    """
    found: dict[str, float | Tensor] = {}
    _collect(measured, prefix, found)
    tensors = [value for value in found.values() if isinstance(value, Tensor)]
    if tensors:
        # Sorted by nothing: the order of the mapping is the order of the stack.
        numbers = iter(torch.stack([value.detach().reshape(()).double() for value in tensors]).tolist())
        found = {name: next(numbers) if isinstance(value, Tensor) else value for name, value in found.items()}
    return {name: float(value) for name, value in found.items()}


def spectrum_values(spectrum: Spectrum) -> dict[str, float | Tensor]:
    """Largest value and ranks of a spectrum; the ranks of zero are undefined and given as 0."""
    largest = "sigma_max" if spectrum.kind == "singular_values" else "lambda_max"
    if float(spectrum.values[0]) <= 0:
        return {largest: spectrum.values[0], "stable_rank": 0.0, "effective_rank": 0.0}
    return {
        largest: spectrum.values[0],
        "stable_rank": stable_rank(spectrum),
        "effective_rank": effective_rank(spectrum),
    }


def _collect(measured: Any, name: str, found: dict[str, float | Tensor]) -> None:
    if isinstance(measured, Spectrum):
        measured = spectrum_values(measured)
    elif isinstance(measured, Moments):
        measured = feature_values(measured)
    if isinstance(measured, Mapping):
        for key, value in measured.items():
            _collect(value, "/".join(part for part in (name, str(key)) if part), found)
    elif isinstance(measured, int | float) or (isinstance(measured, Tensor) and measured.numel() == 1):
        found[name] = measured if isinstance(measured, Tensor) else float(measured)
    else:
        raise TypeError(
            f"a probe measured {type(measured).__name__} under {name!r}, expected a number, a tensor of one number, a "
            "Spectrum, Moments or a mapping of these"
        )
