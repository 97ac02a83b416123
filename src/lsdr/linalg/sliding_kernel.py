"""What every convolution is made of: one kernel applied at regular positions of an image."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.dense import spectral_dtype
from lsdr.linalg.full_precision import full_precision
from lsdr.linalg.operator import LinearOperator

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class SlidingKernel(LinearOperator):
    r"""A kernel at positions of an image: the geometry that `Convolution` and `Circular` share.

    Per dimension, position j sees the pixels :math:`s j + d t - p` for the taps t = 0 ... k - 1; the image of n pixels
    is first extended to :math:`F = s (q - 1) + d (k - 1) + 1`, exactly what q positions see, p of it in front. Its
    adjoint spreads the positions to those F pixels and folds the extension back, so both are exact for every stride
    remainder, and a transposed convolution is the same pair with the roles changed over.

    Args:
        weight: Shape (channels of the positions, channels of the image / groups, *kernel), as both kinds of torch's
            convolutions store it.
        image: Pixels n per dimension.
        positions: Positions q per dimension.
        before: Pixels p in front of the image per dimension.
        stride: s per dimension.
        dilation: d per dimension.
        groups: Groups of channels.
        edges: What is beyond the image: zeros, circular, replicate or reflect.
        transposed: Map positions to the image.
    """

    def __init__(
        self,
        weight: Float[Tensor, "..."],
        image: tuple[int, ...],
        positions: tuple[int, ...],
        before: tuple[int, ...],
        stride: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
        edges: str,
        transposed: bool,
    ):
        self.weight = weight.detach()
        self.kernel = tuple(weight.shape[2:])
        self.image, self.positions, self.before = image, positions, before
        self.stride, self.dilation, self.groups, self.edges = stride, dilation, groups, edges
        self.transposed = transposed
        self.seen = tuple(
            s * (q - 1) + d * (k - 1) + 1 for s, q, d, k in zip(stride, positions, dilation, self.kernel, strict=True)
        )
        many = weight.shape[1] * groups * math.prod(image)
        few = weight.shape[0] * math.prod(positions)
        super().__init__((many, few) if transposed else (few, many), spectral_dtype(weight.dtype), weight.device)
        self._index = [] if edges == "zeros" else [index.to(weight.device) for index in self._sources()]

    def matvec(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
        """A x, for each vector x, which is an image flattened as by `flatten(1)`."""
        return self._spread(x) if self.transposed else self._gather(x)

    def adjoint(self, y: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """A transposed times y, for each vector y."""
        return self._gather(y) if self.transposed else self._spread(y)

    def _sources(self) -> list[Tensor]:
        """Per dimension, the pixel that each pixel of the extended image is a copy of; -1 where it is zero."""
        found = []
        for n, p, seen in zip(self.image, self.before, self.seen, strict=True):
            index = torch.arange(seen) - p
            if self.edges == "zeros":
                index = torch.where((index >= 0) & (index < n), index, -1)
            elif self.edges == "circular":
                index = index % n
            elif self.edges == "replicate":
                index = index.clamp(0, n - 1)
            else:
                index = (n - 1 - (n - 1 - index.abs()).abs()).abs()
            found.append(index)
        return found

    def group(self, index: int) -> "SlidingKernel":
        """The operator of one group of channels, a view of the weights."""
        weight = self.weight.chunk(self.groups)[index]
        geometry = (self.image, self.positions, self.before, self.stride, self.dilation)
        return SlidingKernel(weight, *geometry, 1, self.edges, self.transposed)

    def to_float64(self) -> "SlidingKernel":
        """The same operator with products in float64."""
        geometry = (self.image, self.positions, self.before, self.stride, self.dilation, self.groups)
        return SlidingKernel(self.weight.double(), *geometry, self.edges, self.transposed)

    def disjoint(self) -> bool:
        """Whether no pixel is seen twice and none beyond the image: then A is R, once per position, side by side."""
        return all(bool((pixels >= 0).all()) and len(pixels.unique()) == pixels.numel() for pixels in self._pixels())

    def tap_counts(self) -> Tensor | None:
        """At how many positions each tap is inside the image, shaped like the kernel.

        None where two taps of one position may meet in one pixel, so that they are one entry of the matrix.
        """
        counts = torch.ones((), dtype=torch.float64)
        for pixels in self._pixels():
            ordered = pixels.sort(dim=1).values
            if bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any()):
                return None
            counts = counts[..., None] * (pixels >= 0).sum(0)
        return counts

    def _pixels(self) -> list[Tensor]:
        """Per dimension, the pixel that position j sees through tap t, shape (q, k); -1 beyond the image."""
        seen = zip(self._sources(), self.positions, self.stride, self.kernel, self.dilation, strict=True)
        return [index[torch.arange(q)[:, None] * s + torch.arange(k) * d] for index, q, s, k, d in seen]

    def _gather(self, x: Tensor) -> Tensor:
        with full_precision(self.device):
            images = x.reshape(-1, self.weight.shape[1] * self.groups, *self.image)
            extended = self._extend(images)
            convolve = _CONVOLVE[len(self.kernel)]
            y = convolve(
                extended, self.weight.to(self.dtype), stride=self.stride, dilation=self.dilation, groups=self.groups
            )
            return y.reshape(*x.shape[:-1], -1)

    def _spread(self, y: Tensor) -> Tensor:
        with full_precision(self.device):
            values = y.reshape(-1, self.weight.shape[0], *self.positions)
            transpose = _TRANSPOSE[len(self.kernel)]
            extended = transpose(
                values, self.weight.to(self.dtype), stride=self.stride, dilation=self.dilation, groups=self.groups
            )
            return self._fold(extended).reshape(*y.shape[:-1], -1)

    def _extend(self, images: Tensor) -> Tensor:
        if self.edges == "zeros":
            return F.pad(images, self._pads(1))
        for dimension, index in enumerate(self._index, 2):
            images = images.index_select(dimension, index)
        return images

    def _fold(self, extended: Tensor) -> Tensor:
        if self.edges == "zeros":
            return F.pad(extended, self._pads(-1))
        for dimension, (index, n) in enumerate(zip(self._index, self.image, strict=True), 2):
            shape = (*extended.shape[:dimension], n, *extended.shape[dimension + 1 :])
            extended = extended.new_zeros(shape).index_add(dimension, index, extended)
        return extended

    def _pads(self, sign: int) -> list[int]:
        """As `F.pad` wants them, the last dimension first; negative ones crop what no position sees."""
        pads = []
        for n, p, seen in reversed(list(zip(self.image, self.before, self.seen, strict=True))):
            pads += [sign * p, sign * (seen - p - n)]
        return pads


def per_dimension(name: str, value: int | Sequence[int], dimensions: int, least: int) -> tuple[int, ...]:
    """An int for all dimensions, or one for each.

    Raises:
        ValueError: If there are not as many as dimensions, or one is below `least`.
    """
    values = (value,) * dimensions if isinstance(value, int) else tuple(value)
    if len(values) != dimensions or any(v < least for v in values):
        raise ValueError(
            f"{name} must be an int of at least {least} or {dimensions} of them, one for each dimension of the kernel; "
            f"got {value}"
        )
    return values


def checked_kernel(weight: Tensor, size: Sequence[int], groups: int) -> int:
    """The number of dimensions of the kernel, 1 to 3.

    Raises:
        ValueError: If weight, size and groups do not fit together.
    """
    dimensions = weight.ndim - 2
    if dimensions not in _CONVOLVE or not weight.numel():
        raise ValueError(
            "a convolution needs a weight of shape (out, in / groups, *kernel) with a kernel of 1 to 3 dimensions and "
            f"no dimension of 0, got {tuple(weight.shape)}: take Dense for a linear layer"
        )
    if len(size) != dimensions or any(n < 1 for n in size):
        raise ValueError(
            f"size must give the {dimensions} dimensions of the input, 1 or more each, no batch or channels; got {size}"
        )
    if groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"groups must divide the weight's first dimension {weight.shape[0]}, got {groups}")
    return dimensions
