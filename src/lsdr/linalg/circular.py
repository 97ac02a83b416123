"""Convolutions on a torus: what the interior of a large image sees, diagonal blocks in the Fourier basis."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.sliding_kernel import SlidingKernel, checked_kernel, per_dimension
from lsdr.spectrum import Spectrum

Ints = int | Sequence[int]
_WORKING_BYTES = 1 << 28


class Circular(SlidingKernel):
    r"""A convolution on an image whose edges are joined, at stride s a map from n to n / s pixels per dimension.

    .. math:: (A x)_{o, j} = \sum_{c, t} W_{o, c, t} \, x_{c,\, (s j + d t - p) \bmod n},
        \quad p = \lfloor d (k - 1) / 2 \rfloor

    For odd kernels this is `torch.nn.Conv2d` with padding_mode="circular" and padding p. Taps of a kernel wider than
    the image wrap and add up. Where the kernel starts (p) does not change the singular values:
    `circular_singular_values` gives all of them.

    Args:
        weight: (out, in / groups, *kernel), or (in, out / groups, *kernel) if transposed: as torch stores it.
        size: The input's pixels in each dimension.
        stride: s.
        dilation: d.
        groups: Groups of channels.
        transposed: The adjoint, from n to n s pixels.

    Raises:
        ValueError: If the stride does not divide the size, or weight, size and groups do not fit together.
    """

    def __init__(
        self,
        weight: Float[Tensor, "..."],
        size: Sequence[int],
        *,
        stride: Ints = 1,
        dilation: Ints = 1,
        groups: int = 1,
        transposed: bool = False,
    ):
        positions, strides, dilations = _torus(weight, size, stride, dilation, groups, transposed)
        image = tuple(q * s for q, s in zip(positions, strides, strict=True))
        before = tuple(d * (k - 1) // 2 for d, k in zip(dilations, weight.shape[2:], strict=True))
        super().__init__(weight, image, positions, before, strides, dilations, groups, "circular", transposed)


def circular_singular_values(
    weight: Float[Tensor, "..."],
    size: Sequence[int],
    *,
    stride: Ints = 1,
    dilation: Ints = 1,
    groups: int = 1,
    transposed: bool = False,
    precision: Literal["float32", "float64"] = "float64",
) -> Spectrum:
    r"""All singular values of a convolution on a torus, exact, with their multiplicities.

    At stride 1 they are those of the symbol at each of the N frequencies,

    .. math:: \hat W(f) = \sum_t W_t \, e^{2 \pi i \sum_\delta f_\delta d_\delta t_\delta / n_\delta}
        \in \mathbb{C}^{out \times in}

    and at stride s those of the out x (in S) blocks that the S frequencies :math:`g + a\, n / s` with one alias g make
    side by side, divided by :math:`\sqrt S` (S the product of the strides). Groups give the values of all groups, a
    transposed convolution those of its adjoint. Frequencies g and -g have the same values and are computed once.

    This bounds no zero-padded convolution from below, and at one size not from above either: zero-padded norms grow
    with the image to the supremum over all frequencies, which a coarse grid underestimates (by 2.4% at 3 x 3 pixels,
    0.5% at 16 x 16, for Gaussian 3 x 3 kernels).

    Cost: N / S decompositions of out / groups x in S / groups for each group; 256 MB at a time.

    Source: Sedghi, Gupta & Long 2019 (arXiv:1805.10408), Theorem 6; the strided form by aliasing (polyphase).

    Args:
        weight: (out, in / groups, *kernel), or (in, out / groups, *kernel) if transposed: as torch stores it.
        size: The input's pixels in each dimension.
        stride: Strides.
        dilation: Dilations.
        groups: Groups of channels.
        transposed: A transposed convolution: its output has size x stride pixels.
        precision: "float64" decomposes the blocks. "float32" takes eigenvalues of their Gram matrices in float64,
            several times faster: the largest values as good, but those below 1e-7 of the largest are not resolved.

    Returns:
        min(shape) values of the operator of `Circular`, in float64, with bounds that hold the rounding.

    Raises:
        ValueError: If the stride does not divide the size, or weight, size and groups do not fit together.

    Example:
        >>> kernel = torch.tensor([[[1.0, 2.0, 1.0]]])
        >>> circular_singular_values(kernel, (4,)).values
        tensor([4.0000, 2.0000, 2.0000, 0.0000], dtype=torch.float64)
    """
    positions, strides, dilations = _torus(weight, size, stride, dilation, groups, transposed)
    stored = weight.detach().cpu() if weight.device.type == "mps" else weight.detach()  # mps has no float64
    with full_precision(stored.device):
        kernel = stored.double()
        if not bool(kernel.isfinite().all()):
            bad = int((~kernel.isfinite()).sum())
            raise ValueError(f"{bad} of {kernel.numel()} weights are nan or infinite: no spectrum")
        scale = kernel.abs().amax()
        scale = torch.where(scale > 0, scale, 1.0)
        kernel = (kernel / scale).flatten(2).unflatten(0, (groups, -1))  # (group, out, in, taps)
        values, counts = [], []
        for block, count in _blocks(kernel, tuple(weight.shape[2:]), positions, strides, dilations):
            found = torch.linalg.svdvals(block) if precision == "float64" else _gram_values(block)
            values.append(found.flatten(1))
            counts.append(count)
        spectrum, largest = torch.cat(values), torch.cat(values).amax()
        spectrum = spectrum.repeat_interleave(torch.cat(counts), 0).flatten().sort(descending=True).values
        eps = torch.finfo(torch.float64).eps
        sides = kernel.shape[1] + kernel.shape[2] * math.prod(strides)
        rounding = 4 * sides * eps * largest  # of a decomposition; that of the symbol, a sum over taps that may cancel:
        symbol = 4 * eps * kernel.shape[3] ** 1.5 * torch.linalg.vector_norm(kernel)
        if precision == "float64":
            lower, upper = spectrum - rounding, spectrum + rounding
        else:
            lower = (spectrum.square() - rounding * largest).clamp_min(0).sqrt()
            upper = (spectrum.square() + rounding * largest).sqrt()
        lower, upper = (lower - symbol).clamp_min(0) * scale, (upper + symbol) * scale
    method = f"circular, {'SVD' if precision == 'float64' else 'Gram matrix in float64'} at each frequency"
    return Spectrum.of(spectrum * scale, method=method, lower=lower, upper=upper)


def _gram_values(block: Tensor) -> Tensor:
    wide = block if block.shape[-2] <= block.shape[-1] else block.mH
    eigenvalues: Tensor = torch.linalg.eigvalsh(wide @ wide.mH)
    return eigenvalues.clamp_min(0).sqrt()


def _blocks(
    kernel: Tensor,
    taps: tuple[int, ...],
    positions: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> Iterator[tuple[Tensor, Tensor]]:
    """The blocks (frequency, group, out, in x S) some frequencies at a time, and how often each frequency counts."""
    device = kernel.device
    sizes = torch.tensor([q * s for q, s in zip(positions, strides, strict=True)], device=device)
    small = torch.tensor(positions, device=device)
    grid = _grid(positions, device)  # (frequency, dimension)
    mirrored = (-grid) % small
    order, mirror = _flat(grid, positions), _flat(mirrored, positions)
    kept = order <= mirror  # one of g and -g
    grid, counts = grid[kept], torch.where(order == mirror, 1, 2)[kept]
    aliases = _grid(strides, device) * small
    steps = _grid(taps, device) * torch.tensor(dilations, device=device)
    groups, out, channels, _ = kernel.shape
    held = 6 * 16 * groups * out * channels * len(aliases) + 16 * len(aliases) * len(steps)
    for part, count in zip(*(x.split(max(1, _WORKING_BYTES // held)) for x in (grid, counts)), strict=True):
        frequencies = part[:, None] + aliases  # (frequency, alias, dimension)
        turns = (frequencies[:, :, None] * steps) % sizes  # integers: the phase of a large frequency loses nothing
        angles = 2 * math.pi * (turns / sizes.double()).sum(-1).flatten(0, 1)
        symbol = torch.complex(kernel @ angles.cos().mT, kernel @ angles.sin().mT)  # (group, out, in, frequency alias)
        symbol = symbol.unflatten(-1, (len(part), len(aliases))).permute(3, 0, 1, 2, 4)
        yield symbol.flatten(-2) / math.sqrt(len(aliases)), count


def _grid(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    axes = [torch.arange(n, device=device) for n in sizes]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(sizes))


def _flat(grid: Tensor, sizes: tuple[int, ...]) -> Tensor:
    index = torch.zeros(len(grid), dtype=torch.long, device=grid.device)
    for dimension, n in enumerate(sizes):
        index = index * n + grid[:, dimension]
    return index


def _torus(
    weight: Tensor, size: Sequence[int], stride: Ints, dilation: Ints, groups: int, transposed: bool
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Positions, strides and dilations per dimension."""
    count = checked_kernel(weight, size, groups)
    strides = per_dimension("stride", stride, count, 1)
    dilations = per_dimension("dilation", dilation, count, 1)
    if transposed:
        return tuple(size), strides, dilations
    if any(n % s for n, s in zip(size, strides, strict=True)):
        nearest = tuple(max(s, s * round(n / s)) for n, s in zip(size, strides, strict=True))
        raise ValueError(
            f"on a torus the stride {strides} must divide the size {tuple(size)}: take size {nearest}, or Convolution "
            "for what zero padding does at this size"
        )
    return tuple(n // s for n, s in zip(size, strides, strict=True)), strides, dilations
