"""Spectra of weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lsdr.layers.operators import Kind, Size, layer_operator
from lsdr.layers.select import Layers, select_layers
from lsdr.linalg.block_diagonal import Grouped
from lsdr.linalg.combine import Sum
from lsdr.linalg.convolution import Convolution
from lsdr.linalg.dense import Dense
from lsdr.linalg.exact import exact_singular_values
from lsdr.linalg.lanczos import lanczos
from lsdr.linalg.operator import Adjoint, LinearOperator
from lsdr.linalg.sliding_kernel import SlidingKernel
from lsdr.spectrum import Spectrum
from lsdr.statistics.effective_rank import effective_rank
from lsdr.statistics.stable_rank import stable_rank

_DENSE_ELEMENTS = 1 << 22  # a matrix of 32 MB in float64
WEIGHTED = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


@dataclass(frozen=True)
class WeightProbe:
    """Spectra of the weights of chosen layers; measuring changes nothing in the model.

    Args:
        layers: Glob, several globs, regular expression or predicate (see `select_layers`).
        types: Classes of layers to measure; each must have a `weight` of two dimensions or more.
        operator: Which operator of a convolution is meant; see `weight_spectrum`. Other layers have one only.
        size: Size of the input image, for "circular" and "zero_padded": one for all convolutions, or a mapping from
            the name of each to its own (the convolutions of a U-Net see images of several sizes).
        precision: What weights of up to float32 are decomposed in; see `weight_spectrum`.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Conv2d(2, 4, 3))
        >>> {name: len(spectrum.values) for name, spectrum in WeightProbe()(model).items()}
        {'0': 2, '2': 4}
        >>> WeightProbe("2", operator="circular", size=8)(model)["2"].values.shape
        torch.Size([128])
    """

    prefix: ClassVar[str] = "weights"
    layers: Layers = "*"
    types: tuple[type[nn.Module], ...] = WEIGHTED
    operator: Kind = "reshape"
    size: Size | Mapping[str, Size] | None = None
    precision: Literal["float32", "float64"] = "float64"

    def __call__(self, model: nn.Module) -> dict[str, Spectrum]:
        """Measure now.

        Args:
            model: Plain, compiled or wrapped.

        Returns:
            Spectrum of each layer by name, in the model's order; see `weight_spectrum`.

        Raises:
            ValueError: If no layer matches, or a layer's weight cannot be measured; the message names the layer.
        """
        spectra = {}
        for name, module in select_layers(model, self.layers, self.types).items():
            size = self.size.get(name) if isinstance(self.size, Mapping) else self.size
            try:
                spectra[name] = weight_spectrum(module, self.operator, size, self.precision)
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from error
        return spectra


def weight_spectrum(
    module: nn.Module,
    operator: Kind = "reshape",
    size: Size | None = None,
    precision: Literal["float32", "float64"] = "float64",
) -> Spectrum:
    r"""Singular values of a layer's operator, each with bounds.

    "reshape", the default, is the weight as a matrix:

    .. math:: \sigma_k(R), \quad R = W \text{ reshaped to } (d_{out},\; d_{in} \cdot \textstyle\prod \text{kernel})

    For a linear layer R is the layer. For a convolution it is the map from one input patch to one output pixel, not
    the convolution itself, whose norm is between that of R and sqrt(kernel size) times it. A transposed convolution
    stores (in, out, kernel) and is measured as its adjoint, an ordinary convolution from out to in channels. Groups
    are blocks: R is block diagonal with one block (out / groups, in / groups * kernel) a group, its values are those
    of all groups and its norm the greatest of theirs.

    "circular" gives all values of the convolution of a periodic image of the given size. "zero_padded" gives all
    values of the convolution as the layer applies it where that is a matrix of up to 2^22 elements, and beyond only
    the largest, by Lanczos, with an upper bound that fails once in a million layers; `method` says which.

    In the units of the weight; not differentiable. Zeros are included. Parametrized weights are read on a copy in
    evaluation mode, so that no power iteration advances; adapted layers are measured with their active adapters.

    Cost of "reshape": O(m^2 n + m^3) for R of shape (m, n), m <= n; of a group each.

    Args:
        module: A layer with a `weight` of two dimensions or more; see `layer_operator`.
        operator: Which operator of a convolution is meant.
        size: Size of the layer's input image, for "circular" and "zero_padded": an int, or one for each dimension.
        precision: "float64" is accurate to less than the rounding of float32 weights. "float32" is faster, and loses
            small values; the bounds say how much. Weights in float64 are decomposed in float64 either way.

    Returns:
        Singular values in float32 (float64 for float64 weights), on the weight's device, with `lower` and `upper`.

    Raises:
        ValueError: If there is no such weight, it is sharded over ranks, on the meta device, empty or not finite, or
            the operator needs a size.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> layer.weight = nn.Parameter(torch.tensor([[0.0, 3.0], [4.0, 0.0]]))
        >>> weight_spectrum(layer).values
        tensor([4., 3.])
        >>> weight_spectrum(nn.Conv2d(1, 1, 3), "circular", size=(4, 4)).upper.shape
        torch.Size([16])
    """
    found = layer_operator(module, operator, size)
    _check_finite(found)
    if isinstance(found, Convolution) and math.prod(found.shape) > _DENSE_ELEMENTS and not found.disjoint():
        start = torch.Generator().manual_seed(0)  # the same bounds every time, and nothing drawn from the run's own
        spectrum = lanczos(found.to_float64(), tolerance=1e-3, failure=1e-6, generator=start)
    else:
        spectrum = exact_singular_values(found, precision)
    kind = operator if isinstance(found, SlidingKernel) else "reshape"
    return _stored(spectrum, found, f"{kind}, {spectrum.method.removeprefix(f'{kind}, ')}")


def weight_statistics(module: nn.Module) -> dict[str, float | None]:
    """Largest singular value, stable rank and effective rank of a layer's weight, whatever it holds.

    The ranks of a zero matrix are undefined and given as 0: zero-initialised layers are normal in diffusion models. A
    weight that is not finite has none of the three, and "nonfinite" says how many of its entries are to blame.

    Args:
        module: A layer with a `weight` of two dimensions or more.

    Returns:
        "sigma_max", "stable_rank" and "effective_rank", and "nonfinite" where there is something to count.

    Example:
        >>> weight_statistics(nn.Linear(2, 2).requires_grad_(False).apply(lambda m: m.weight.zero_()))
        {'sigma_max': 0.0, 'stable_rank': 0.0, 'effective_rank': 0.0}
    """
    try:
        spectrum = weight_spectrum(module)
    except ValueError:  # not finite, or too large for its norm to be
        assert isinstance(module.weight, Tensor)
        bad = int((~module.weight.detach().isfinite()).sum())
        return {"sigma_max": None, "stable_rank": None, "effective_rank": None, "nonfinite": bad}
    largest = float(spectrum.values[0])
    ranks = (float(stable_rank(spectrum)), float(effective_rank(spectrum))) if largest > 0 else (0.0, 0.0)
    return {"sigma_max": largest, "stable_rank": ranks[0], "effective_rank": ranks[1]}


def _check_finite(operator: LinearOperator) -> None:
    """Find the layer's own weight in its operator and count what is no number there."""
    while isinstance(operator, Adjoint | Sum):  # of an adapted layer the base; the factors are found out later
        operator = operator.of if isinstance(operator, Adjoint) else operator.operators[0]
    if isinstance(operator, Dense | Grouped | SlidingKernel):
        weight = operator.weight if operator.weight.dtype.itemsize >= 4 else operator.weight.float()
        bad = int((~weight.isfinite()).sum())
        if bad:
            raise ValueError(f"{bad} of {weight.numel()} weights are nan or infinite: no spectrum")


def _stored(spectrum: Spectrum, operator: LinearOperator, method: str) -> Spectrum:
    """The spectrum in the operator's type on its device; bounds are rounded outwards."""

    def moved(values: Tensor, towards: float) -> Tensor:
        rounded = values.to(operator.dtype)
        beyond = rounded.double() < values if towards > 0 else rounded.double() > values
        wider = torch.where(beyond, torch.nextafter(rounded, torch.full_like(rounded, towards)), rounded)
        return wider.to(operator.device)

    return Spectrum(
        spectrum.values.to(operator.dtype).to(operator.device),
        spectrum.kind,
        method,
        None if spectrum.lower is None else moved(spectrum.lower, -math.inf).clamp_min(0),
        None if spectrum.upper is None else moved(spectrum.upper, math.inf),
        None if spectrum.residual is None else moved(spectrum.residual, math.inf),
    )
