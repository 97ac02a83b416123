"""Spectra of weights."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from lsdr.layers.select import Layers, select_layers
from lsdr.spectrum import Spectrum
from lsdr.statistics.effective_rank import effective_rank
from lsdr.statistics.stable_rank import stable_rank

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

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Conv2d(2, 4, 3))
        >>> {name: len(spectrum.values) for name, spectrum in WeightProbe()(model).items()}
        {'0': 2, '2': 4}
    """

    layers: Layers = "*"
    types: tuple[type[nn.Module], ...] = WEIGHTED

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
            try:
                spectra[name] = weight_spectrum(module)
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from error
        return spectra


def weight_spectrum(module: nn.Module) -> Spectrum:
    r"""Singular values of a layer's weight as a matrix (operator "reshape").

    .. math:: \sigma_k(R), \quad R = W \text{ reshaped to } (d_{out},\; d_{in} \cdot \textstyle\prod \text{kernel})

    For a linear layer R is the layer. For a convolution it is the map from one input patch to one output pixel, not
    the convolution itself, whose norm is between that of R and sqrt(kernel size) times it. A transposed convolution
    stores (in, out, kernel) and is measured as its adjoint, an ordinary convolution from out to in channels: R has
    `in` rows. A grouped convolution's stored kernel (out, in / groups, kernel) is taken as one matrix, not as blocks.

    In the units of the weight; not differentiable. All min(R.shape) values, zeros included. Weights of up to float32
    are squared in float64 on the short side and their eigenvalues taken (error below 2e-8 sigma_1, less than the
    rounding of float32 weights and many times faster than an SVD); float64 weights get an SVD. Parametrized weights
    are read on a copy in evaluation mode, so that no power iteration advances.

    Cost: O(m^2 n + m^3) for R of shape (m, n), m <= n.

    Args:
        module: A layer with a `weight` of two dimensions or more.

    Returns:
        Singular values in float32 (float64 for float64 weights), on the weight's device; `method` says how.

    Raises:
        ValueError: If there is no such weight, it is sharded over ranks, on the meta device, empty or not finite.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> layer.weight = nn.Parameter(torch.tensor([[0.0, 3.0], [4.0, 0.0]]))
        >>> weight_spectrum(layer).values
        tensor([4., 3.])
    """
    with torch.no_grad():
        weight = _read(module)
        matrix = weight.flatten(1).float() if weight.dtype.itemsize < 4 else weight.flatten(1)
        if not bool(matrix.isfinite().all()):
            bad = int((~matrix.isfinite()).sum())
            raise ValueError(f"{bad} of {matrix.numel()} weights are nan or infinite: no spectrum")
        with torch.autocast(device_type=matrix.device.type, enabled=False):
            values, method = _singular_values(matrix)
    return Spectrum.of(values, method=f"reshape, {method}")


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


def _read(module: nn.Module) -> Tensor:
    """The weight, without advancing whatever computes it."""
    if is_parametrized(module, "weight"):
        parametrizations: Any = module.parametrizations
        computed = copy.deepcopy(parametrizations["weight"]).eval()
        device = computed.original.device if hasattr(computed, "original") else computed.original0.device
        # A parametrization may draw random numbers; a measurement leaves the generators as they were.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            weight = computed()
    else:
        weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else None
        raise ValueError(
            f"{type(module).__name__} needs a weight of two dimensions or more, got "
            f"{'none' if shape is None else f'shape {shape}'}: select other layers"
        )
    if hasattr(weight, "full_tensor"):
        raise ValueError("the weight is sharded over ranks (DTensor), so its spectrum is not here: gather it first")
    if weight.is_meta or not weight.numel():
        raise ValueError(f"the weight of shape {tuple(weight.shape)} on {weight.device} holds no values")
    return weight


def _singular_values(matrix: Tensor) -> tuple[Tensor, str]:
    if matrix.dtype == torch.float64:
        # Squaring would lose everything below 1e-8 of the largest.
        return torch.linalg.svdvals(matrix), "SVD in float64"
    if matrix.device.type == "mps":  # has no float64
        matrix = matrix.cpu()
    wide = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T).double()
    scale = wide.abs().amax().clamp_min(torch.finfo(torch.float64).tiny)
    eigenvalues = torch.linalg.eigvalsh((wide / scale) @ (wide / scale).T)
    return (eigenvalues.clamp_min(0).sqrt() * scale).float(), "Gram matrix in float64"
