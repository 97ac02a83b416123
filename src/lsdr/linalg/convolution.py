"""Convolutions as they are applied to an image of a given size, zeros or other values beyond its edges."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lsdr.linalg.sliding_kernel import SlidingKernel, checked_kernel, per_dimension
from lsdr.spectrum import Spectrum

Ints = int | Sequence[int]
_ROUNDING = 1e-13  # of a norm in float64


class Convolution(SlidingKernel):
    r"""A convolution of 1 to 3 dimensions at a given input size, as torch applies it, never as a matrix.

    Vectors are images flattened as by `flatten(1)`: in channels x pixels to out channels x pixels. Products are one
    (transposed) convolution each, in float32 or float64, whatever autocast or TF32 say.

    .. math:: (A x)_{o, j} = \sum_{c, t} W_{o, c, t} \, x_{c,\, s j + d t - p}

    Args:
        weight: (out, in / groups, *kernel), or (in, out / groups, *kernel) if transposed: as torch stores it.
        size: The input's pixels in each dimension, without batch and channels.
        stride: As in `torch.nn.Conv2d`.
        padding: As there, "same" and "valid" included.
        dilation: As there.
        groups: As there.
        transposed: A transposed convolution, as `torch.nn.ConvTranspose2d`.
        output_padding: As there.
        padding_mode: As in `torch.nn.Conv2d`: what is beyond the edges. All four are exact.

    Raises:
        ValueError: If torch would not apply such a layer to such an image.

    Example:
        >>> layer = torch.nn.Conv2d(2, 3, 3, stride=2, padding=1)
        >>> operator = Convolution(layer.weight, (5, 4), stride=2, padding=1)
        >>> operator
        Convolution(18 x 40, float32)
        >>> x = torch.randn(7, 2, 5, 4)
        >>> torch.allclose(operator.matvec(x.flatten(1)), (layer(x) - layer.bias[:, None, None]).flatten(1), atol=1e-5)
        True
    """

    def __init__(
        self,
        weight: Float[Tensor, "..."],
        size: Sequence[int],
        *,
        stride: Ints = 1,
        padding: Ints | str = 0,
        dilation: Ints = 1,
        groups: int = 1,
        transposed: bool = False,
        output_padding: Ints = 0,
        padding_mode: str = "zeros",
    ):
        count = checked_kernel(weight, size, groups)
        strides = per_dimension("stride", stride, count, 1)
        dilations = per_dimension("dilation", dilation, count, 1)
        extra = per_dimension("output_padding", output_padding, count, 0)
        spans = tuple(d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True))
        before, after = _pads(padding, spans, strides, transposed)
        if padding_mode not in ("zeros", "circular", "reflect", "replicate"):
            raise ValueError(
                f"padding_mode must be 'zeros', 'circular', 'reflect' or 'replicate', got {padding_mode!r}"
            )
        if transposed:
            if padding_mode != "zeros":
                raise ValueError(f"transposed convolutions pad with zeros only, got padding_mode={padding_mode!r}")
            if any(o >= max(s, d) for o, s, d in zip(extra, strides, dilations, strict=True)):
                raise ValueError(f"output_padding {extra} must be smaller than the stride or the dilation")
            positions = tuple(size)
            image = tuple(
                s * (q - 1) + span - 2 * p + o
                for s, q, span, p, o in zip(strides, positions, spans, before, extra, strict=True)
            )
        else:
            if any(extra):
                raise ValueError(f"output_padding is for transposed convolutions, got {extra}")
            if padding_mode == "reflect" and any(max(p, r) >= n for p, r, n in zip(before, after, size, strict=True)):
                raise ValueError(f"reflect padding must be smaller than the image, got {before} for size {tuple(size)}")
            image = tuple(size)
            positions = tuple(
                (n + p + r - span) // s + 1
                for n, p, r, span, s in zip(image, before, after, spans, strides, strict=True)
            )
        if min(*image, *positions) < 1:
            raise ValueError(
                f"a kernel spanning {spans} with padding {before} leaves no output for size {tuple(size)}: "
                "take a larger size or more padding"
            )
        super().__init__(weight, image, positions, before, strides, dilations, groups, padding_mode, transposed)


def _pads(
    padding: Ints | str, spans: tuple[int, ...], strides: tuple[int, ...], transposed: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Pixels added before and after the image, per dimension."""
    if not isinstance(padding, str):
        both = per_dimension("padding", padding, len(spans), 0)
        return both, both
    if transposed or padding not in ("same", "valid"):
        raise ValueError(
            f"padding must be ints, or 'same' or 'valid' for a convolution that is not transposed; got {padding!r}"
        )
    if padding == "valid":
        return (0,) * len(spans), (0,) * len(spans)
    if max(strides) > 1:
        raise ValueError(f"padding='same' is defined for stride 1 only, got stride {strides}")
    before = tuple((span - 1) // 2 for span in spans)  # an even span gets its odd pixel behind, as in torch
    return before, tuple(span - 1 - p for span, p in zip(spans, before, strict=True))


def convolution_bracket(
    weight: Float[Tensor, "..."],
    stride: Ints | None,
    dilation: Ints,
    groups: int | None,
    sigma: Spectrum,
) -> Spectrum:
    r"""Bounds of a convolution's norm at any image size, from the norm of its reshaped kernel R alone.

    .. math:: \sigma(R) \;\le\; \sigma(A) \;\le\; \sqrt M \, \sigma(R), \qquad
        M = \prod_\delta \left\lceil \frac{k \gcd(s, d)}{s} \right\rceil

    Every output position is R times its patch, so that :math:`\|A x\|^2 \le \sigma(R)^2 \sum_j \|P_j x\|^2`, and no
    pixel is in more than M patches. From below, x may be R's top right singular vector in one patch that is whole.

    *The upper bound* is true at every size for zero padding of any amount and for a torus (`Circular`), kernels wider
    than the image included; not for padding_mode "reflect" and "replicate" or for wider circular padding, which repeat
    pixels. For dilation 1 it is the :math:`\lceil k / s \rceil` of the literature; a dilation that shares a divisor
    with the stride makes patches meet more often (stride 2, dilation 2, kernel 3: M = 3 per dimension).

    *The lower bound* is true where some patch lies inside the image, touching no padding, per dimension

    .. math:: (-p) \bmod s \;\le\; n - 1 - d (k - 1)

    (n the pixels on the strided side: the input, or the output of a transposed convolution with output_padding below
    s), hence for every stride s
    and padding p as soon as :math:`n \ge d (k - 1) + s`; on a torus as soon as :math:`n > d (k - 1)`. On a smaller
    image only the taps that ever meet a pixel count: a 3 x 3 kernel on a zero-padded 1 x 1 image is its centre tap,
    and its norm may be 0. So if the stride is unknown, :math:`\sigma(R)` is a lower bound on images large enough, and
    the upper bound is that of stride 1, the largest.

    A transposed convolution is the adjoint of a convolution with the same stored weight and has the same bracket.

    Args:
        weight: The stored kernel; only its shape is read (and its rows, where `groups` is None).
        stride: s, or None if it is not known, as in a bare state dict.
        dilation: d.
        groups: Groups of channels, if `sigma` is the norm of the largest group's R (`Grouped`). None if they are not
            known, and `sigma` is of the stored kernel flattened after its first dimension: an upper bound of the
            groups' norms, of which the longest row is a lower one.
        sigma: Spectrum whose first value is the norm of R, with its bounds; without them it is taken to be right to
            the precision of its type.

    Returns:
        One value with lower and upper; the value is their geometric mean, as far from both.

    Raises:
        ValueError: If the weight is no convolution's, or stride, dilation and groups do not fit it.

    Example:
        >>> kernel = torch.ones(1, 1, 3, 3)
        >>> bracket = convolution_bracket(kernel, 1, 1, 1, Spectrum.of([3.0]))
        >>> [bracket.lower.item(), bracket.values.item(), bracket.upper.item()]
        [3.0, 5.196, 9.0]
    """
    count = checked_kernel(weight, (1,) * (weight.ndim - 2), groups or 1)
    dilations = per_dimension("dilation", dilation, count, 1)
    strides = (1,) * count if stride is None else per_dimension("stride", stride, count, 1)
    meets = math.prod(
        math.ceil(k * math.gcd(s, d) / s) for k, s, d in zip(weight.shape[2:], strides, dilations, strict=True)
    )
    norm = sigma.values[:1].detach()
    rounding = torch.finfo(norm.dtype).eps  # of the value itself, where its bounds do not say
    norm = norm.double()
    lower = norm * (1 - rounding) if sigma.lower is None else sigma.lower[:1].detach().double()
    upper = norm * (1 + rounding) if sigma.upper is None else sigma.upper[:1].detach().double()
    if groups is None:
        rows = torch.stack([torch.linalg.vector_norm(row.double()) for row in weight.detach().flatten(1)])
        lower = rows.amax()[None]
    lower, upper = lower * (1 - _ROUNDING), upper * math.sqrt(meets) * (1 + _ROUNDING)
    method = f"bracket, {'stride unknown, ' if stride is None else ''}{sigma.method}"
    return Spectrum((lower * upper).sqrt().clamp(lower, upper), "singular_values", method, lower, upper)
