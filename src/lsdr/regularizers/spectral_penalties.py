"""What a spectral penalty makes of layers' singular values: hinge, log barrier, spread, target slope."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

# Singular values below this part of the largest are rounding, and have no logarithm to speak of.
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class Shape:
    """A penalty on singular values; `hinge` and its like make them, and so can you."""

    function: Callable[[Sequence[Float[Tensor, "_"]]], Sequence[Float[Tensor, ""]]]
    """From the values of each layer, descending, to the penalty of each; differentiable and finite at zero."""
    full: bool = False
    """Whether it looks at all singular values, or at the largest of each layer only."""
    free: float = 0.0
    """A layer whose largest value is at most this pays nothing, and costs no backward pass."""
    name: str = ""
    """What it is called in a run's records; a function's own representation differs from process to process."""

    def __repr__(self) -> str:
        return self.name or f"Shape({getattr(self.function, '__qualname__', type(self.function).__name__)})"


def hinge(bound: float | int) -> Shape:
    r"""Pull layers over a bound back to it; the others pay nothing.

    .. math:: h(\sigma_1) = \max(0, \sigma_1 / b - 1)^2

    Dimensionless, 0 up to the bound, differentiable there.

    Args:
        bound: b, positive.

    Raises:
        ValueError: If it is not.

    Example:
        >>> hinge(2.0).function([torch.tensor([3.0, 1.0]), torch.tensor([1.5])])
        [tensor(0.2500), tensor(0.)]
    """
    _check_positive("bound", bound)
    return Shape(
        lambda spectra: [(values[0] / bound - 1).relu().square() for values in spectra],
        free=float(bound),
        name=f"hinge({bound:g})",
    )


def log_barrier(bound: float | int, margin: float = 0.05) -> Shape:
    r"""Push layers off a bound, the more the nearer they are to it.

    .. math:: h(\sigma_1) = -\log z, \quad z = 1 - \sigma_1 / b, \qquad
        h = \tfrac12 \Bigl( \bigl( \tfrac{z - 2 \delta}{\delta} \bigr)^2 - 1 \Bigr) - \log \delta
        \text{ for } z < \delta

    Beyond the margin the barrier goes on as a parabola with its value, slope and curvature, so that it is finite for
    layers that start over the bound, and pulls them back. All layers but zeros pay.

    Source: the relaxed logarithmic barrier, Hauser & Saccon 2006 (CDC), eq. 21.

    Args:
        bound: b, positive.
        margin: delta, in (0, 1).

    Raises:
        ValueError: If they are not.

    Example:
        >>> log_barrier(2.0).function([torch.tensor([1.0])])
        [tensor(0.6931)]
    """
    _check_positive("bound", bound)
    if not 0 < margin < 1:
        raise ValueError(f"margin must be in (0, 1), got {margin}")

    def barrier(values: Float[Tensor, "_"]) -> Float[Tensor, ""]:
        z = 1 - values[0] / bound
        beyond = (((z - 2 * margin) / margin).square() - 1) / 2 - math.log(margin)
        return torch.where(z > margin, -z.clamp_min(margin).log(), beyond)

    name = f"log_barrier({bound:g}, margin={margin:g})"
    return Shape(lambda spectra: [barrier(values) for values in spectra], name=name)


def spread(over: Literal["spectrum", "layers"] = "spectrum") -> Shape:
    r"""Even out singular values, within each layer or between layers.

    .. math:: h = \frac1K \sum_k \bigl( \log \sigma_k - \overline{\log \sigma} \bigr)^2

    over a layer's K values that are above 1e-6 of its largest: 0 for multiples of orthogonal matrices, whatever their
    scale, and dominated by small values. Over layers: of layer l :math:`(\log \sigma_1^l - \overline{\log \sigma_1})^2`
    with the mean over layers, so that the mean of the penalties is the variance of the logarithmic norms; layers of
    zeros are left out and pay nothing.

    Args:
        over: Within each layer's spectrum, or between the layers' largest values.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> spread().function([torch.tensor([2.0, 2.0]), torch.tensor([math.e, 1.0])])
        [tensor(0.), tensor(0.2500)]
    """
    if over == "spectrum":
        return Shape(lambda spectra: [_variance(_logarithms(values)) for values in spectra], full=True, name="spread()")
    if over != "layers":
        raise ValueError(f"over must be 'spectrum' or 'layers', got {over!r}")
    return Shape(_between, name="spread(over='layers')")


def target_slope(slope: float | int) -> Shape:
    r"""Bring the decay of a layer's spectrum to a power law's.

    .. math:: h = (s - s_0)^2, \quad
        s = \frac{\sum_k (x_k - \bar x) \log \sigma_k}{\sum_k (x_k - \bar x)^2}, \quad x_k = \log k

    with s the least-squares slope of log sigma_k over log k, k = 1 for the largest, over the values that are above 1e-6
    of it. A flat spectrum has slope 0, a decaying one a negative slope; that of the squares is twice s. Invariant to
    the layer's scale. A layer with one value pays nothing.

    Args:
        slope: s_0, finite.

    Raises:
        ValueError: If it is not.

    Example:
        >>> target_slope(-0.5).function([1 / torch.arange(1.0, 9.0)])  # of slope -1
        [tensor(0.2500)]
    """
    if not math.isfinite(slope):
        raise ValueError(f"slope must be finite, got {slope}")

    def deviation(values: Float[Tensor, "_"]) -> Float[Tensor, ""]:
        logarithms = _logarithms(values)
        if len(logarithms) < 2:
            return 0 * values.sum()
        x = torch.arange(1, len(logarithms) + 1, dtype=values.dtype, device=values.device).log()
        x = x - x.mean()
        return ((x * logarithms).sum() / x.square().sum() - slope).square()

    return Shape(lambda spectra: [deviation(values) for values in spectra], full=True, name=f"target_slope({slope:g})")


def _logarithms(values: Float[Tensor, "_"]) -> Float[Tensor, "_"]:
    """Of what is not negligible; none of zeros."""
    return values[(values > 0) & (values > _NEGLIGIBLE * values[0])].log()


def _variance(x: Float[Tensor, "_"]) -> Float[Tensor, ""]:
    return (x - x.mean()).square().mean() if len(x) else x.sum()


def _between(spectra: Sequence[Float[Tensor, "_"]]) -> Sequence[Float[Tensor, ""]]:
    logarithms = [values[0].log() if bool(values[0] > 0) else None for values in spectra]
    given = [each for each in logarithms if each is not None]
    if not given:
        return [0 * values.sum() for values in spectra]
    mean = torch.stack(given).mean()
    return [
        0 * values.sum() if x is None else (x - mean).square() for x, values in zip(logarithms, spectra, strict=True)
    ]


def _check_positive(name: str, value: float | int) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and positive, got {value}")
