"""Grids and stripes that a set of images has in common: peaks of their two-dimensional spectrum."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_DECIBEL = 10 / math.log(10)
# Standard deviation of the logarithm of an exponentially distributed power, as one periodogram of one image has.
_SPREAD = math.pi / math.sqrt(6)
# The smallest departure of white noise from the medians of its four lines is 0.29 standard deviations, at the median.
_CALIBRATION = 3.5
# Real images' spectra are not smooth: half a decibel is nothing to report, however many images there are.
_ALLOWANCE = 0.5 / _DECIBEL
# Below 6 dB the slope of the background decides where the power near a peak is largest, not the wave.
_CLEAR = 6 / _DECIBEL
_LINES = ((0, 1), (1, 0), (1, 1), (1, -1))
_FEWEST, _SMALLEST = 4, 8


@dataclass(frozen=True)
class GridArtifact:
    """A wave that the images have in common; `str` says it in words."""

    period: float
    """Pixels from crest to crest, along the wave: 2 for stripes one pixel wide, sqrt(2) for a chessboard of pixels.

    About 1 % off where a peak is 10 dB high; of weak ones only the nearest of the images' own frequencies is known.
    """
    orientation: float
    """Direction in which the wave runs, in degrees from the horizontal, anticlockwise as seen, 0 <= angle < 180.

    0 is a horizontal wave, so vertical stripes; 90 is horizontal stripes.
    """
    frequency: tuple[float, float]
    """Cycles per pixel down the rows and along the columns (y, x), -1/2 < y <= 1/2 and 0 <= x <= 1/2."""
    decibels: float
    """Power over the background's, at the nearest of the images' own frequencies; less for a wave between them."""
    p_value: float
    """Probability that any frequency of clean images stands out like this."""

    def __str__(self) -> str:
        """Say what is seen.

        Example:
            >>> print(GridArtifact(4.0, 0.0, (0.0, 0.25), 11.5, 1e-9))
            vertical stripes every 4 pixels, 11.5 dB over the background (p = 1e-09)
        """
        if min(abs(each) for each in self.frequency) > 0.49:
            shape = "a chessboard of single pixels"
        elif min(self.orientation, 180 - self.orientation) < 1:
            shape = f"vertical stripes every {self.period:.3g} pixels"
        elif abs(self.orientation - 90) < 1:
            shape = f"horizontal stripes every {self.period:.3g} pixels"
        else:
            shape = f"stripes every {self.period:.3g} pixels along {self.orientation:.0f} degrees"
        return f"{shape}, {self.decibels:.1f} dB over the background (p = {self.p_value:.1g})"


@dataclass(frozen=True)
class _Peaks:
    """How far every frequency stands out, in units of the logarithm of power."""

    power: Float[Tensor, "h w"]
    height: Float[Tensor, "h w"]
    tested: Bool[Tensor, "h w"]
    summit: Bool[Tensor, "h w"]
    deviation: Float[Tensor, "h w"]


def grid_artifacts(
    images: Float[Tensor, "n c h w"], reference: Float[Tensor, "..."] | None = None, *, false_alarm: float = 0.01
) -> list[GridArtifact]:
    r"""Find the grids and stripes that images have in common, as upsampling by strided layers leaves them.

    .. math:: L(f) = \frac{1}{n} \sum_i \ln |\hat p_i(f)|^2, \qquad
        h(f) = \min_{\text{lines}} \bigl( L(f) - \operatorname{median}_{g \in \text{line through } f} L(g) \bigr)

    with :math:`\hat p_i` the Fourier transform of image i less its smooth component, which takes up the jumps between
    opposite borders (no cross on the axes, and no window that would widen peaks). The lines are the row, the column
    and both diagonals through f, 3 frequencies to either side (2 where a side is below 16 pixels): edges and borders
    of real images leave ridges and slopes, which some line runs along, and only a point stands above all four. An
    artefact is a local maximum of L of at least two waves per image with

    .. math:: \Phi(-h / s) < \text{false\_alarm} / \text{frequencies}, \qquad
        s^2 = \max(\text{standard error of } L, \text{local roughness of } L)^2 + (0.5\ \mathrm{dB})^2

    The normal distribution bounds the upper tail of a mean of log powers; roughness stands for images that are not
    independent; 0.5 dB is allowed for spectra of real images, which are not quite smooth. The logarithm makes contrast
    that differs between images, and a texture that only a few of them have, count for little. With `reference` images
    L is the difference to theirs, which takes away what real images have themselves.

    Measured: of sets of 4 to 1024 images from the embedded photographs (8 to 64 pixels wide), digits, CIFAR-10, MNIST
    and fields of power f^-beta, beta 0 to 3, at most 1 % gave an alarm at the default, mostly none; with a reference,
    1.5 % of sets of 4 to 16 digits and at most 0.5 % of others. With 64 photographs of 32x32, waves of 1 % of the
    pixels' standard deviation were found in 4 of 5 cases, of 5 % always; in white noise of 16x16 it takes 20 %. With
    sides of 8 there are too few frequencies to tell weak waves from steep spectra: use a reference.

    Invariant to the images' brightness, contrast and shifts. Cost: one FFT per image and channel, in float64 on the
    CPU.

    Source: peaks of the mean spectrum as traces of upsampling, Zhang et al., arXiv 1907.06515, and Frank et al.,
    arXiv 2003.08685, there seen by eye or a classifier; the smooth component is Moisan 2011 (J. Math. Imaging Vis.
    39), eqs. 11-13. The test is ours.

    Args:
        images: Images in any units, at least 4 of at least 8x8 pixels.
        reference: Real images of the same shape, to compare with.
        false_alarm: Probability of reporting anything on clean images, in (0, 1).

    Returns:
        Artefacts, the strongest first; harmonics of a grid are artefacts of their own. Empty if there is none.

    Raises:
        ValueError: If images are too few, too small, all constant or not finite, or the reference's shape differs.

    Example:
        >>> noise = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> stripes = torch.cos(2 * torch.pi * torch.arange(16) / 4)
        >>> for artifact in grid_artifacts(noise + stripes):
        ...     print(f"{artifact.period:.1f} pixels, {artifact.orientation:.0f} degrees")
        4.0 pixels, 0 degrees
        >>> grid_artifacts(noise)
        []
    """
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm is a probability between 0 and 1, got {false_alarm}")
    peaks = _peaks(images, reference)
    fy, fx = _frequencies(*images.shape[-2:])
    # Every wave has two frequencies, f and -f; of those that are their own mirror image none is left out.
    half = (fx > 0) | (fx == -0.5) | ((fx == 0) & (fy >= 0)) | ((fx == 0) & (fy == -0.5))
    tests = int((peaks.tested & half).sum())
    found: list[GridArtifact] = []
    places = (peaks.summit & half).nonzero().tolist()
    for row, column in sorted(places, key=lambda place: -float(peaks.height[place[0], place[1]])):
        height = float(peaks.height[row, column])
        deviation = float(peaks.deviation[row, column])
        p_value = min(1.0, tests * 0.5 * math.erfc(height / deviation / math.sqrt(2)))
        if p_value < false_alarm:
            y, x = _refine(images, reference, peaks, row, column)
            if all(_apart((y, x), other.frequency, images.shape[-2:]) for other in found):
                angle = math.degrees(math.atan2(-y, x)) % 180
                found.append(GridArtifact(1 / math.hypot(y, x), angle, (y, x), height * _DECIBEL, p_value))
    return found


def grid_artifact_db(images: Float[Tensor, "n c h w"], reference: Float[Tensor, "..."] | None = None) -> float:
    """How far the strongest peak of images' spectrum stands out, significant or not, in decibels.

    The largest h of `grid_artifacts`, at least 0. Lower is better; compare sets of equal size, since chance alone gives
    about 15 / sqrt(n) dB in n independent images.

    Args:
        images: As for `grid_artifacts`.
        reference: As for `grid_artifacts`.

    Returns:
        Decibels over the background, 0 or more.

    Raises:
        ValueError: As `grid_artifacts`.

    Example:
        >>> noise = torch.randn(256, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> chessboard = (-1.0) ** (torch.arange(16)[:, None] + torch.arange(16))
        >>> grid_artifact_db(noise) < 1 < 9 < grid_artifact_db(noise + 0.25 * chessboard)
        True
    """
    peaks = _peaks(images, reference)
    strongest = max(peaks.height[peaks.summit].tolist(), default=0.0)
    return max(0.0, strongest * _DECIBEL)


def _peaks(images: Tensor, reference: Tensor | None) -> _Peaks:
    power, error = _mean_log_power(images, "images")
    if reference is not None:
        if reference.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"reference must hold images of {tuple(images.shape[1:])} (c, h, w), got {tuple(reference.shape[1:])}"
            )
        theirs, their_error = _mean_log_power(reference, "reference")
        power, error = power - theirs, math.hypot(error, their_error)
    height, width = power.shape
    fy, fx = _frequencies(height, width)
    tested = torch.hypot(fy * height, fx * width) >= 2 - 1e-9
    reach = 3 if min(height, width) >= 16 else 2
    # The mean is no neighbour to compare with; spectra that fall from zero on would have a high one there.
    known = power.clone()
    known[0, 0] = power[0, 1].maximum(power[1, 0])
    steps = [step for step in range(-reach, reach + 1) if step]
    lines = [_neighbours(known, [(step * y, step * x) for step in steps]).quantile(0.5, 0) for y, x in _LINES]
    over = power - torch.stack(lines)
    roughness = _CALIBRATION * float(over.abs().amin(0)[tested].median())
    # The log power of a real coefficient has three times the variance, pi^2 / 2.
    errors = torch.where(_real(height, width), 3**0.5, 1.0) * error
    deviation = torch.hypot(errors.clamp(min=roughness), torch.tensor(_ALLOWANCE))
    summit = tested & (power >= _neighbours(power, _SQUARE).amax(0))
    return _Peaks(power, over.amin(0), tested, summit, deviation)


def _mean_log_power(images: Tensor, name: str) -> tuple[Float[Tensor, "h w"], float]:
    """Mean over images and channels of the log power, and the standard error of that mean."""
    if images.ndim != 4:
        raise ValueError(f"{name} must be (n, c, h, w), got the shape {tuple(images.shape)}")
    count, channels, height, width = images.shape
    if count < _FEWEST or min(height, width) < _SMALLEST:
        raise ValueError(
            f"{name} must be at least {_FEWEST} of at least {_SMALLEST}x{_SMALLEST} pixels, "
            f"got {count} of {height}x{width}"
        )
    if not bool(images.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinite pixels")
    pixels = _pixels(images)
    transformed = torch.fft.fft2(pixels) - _smooth_component(pixels)
    power = transformed.real.square() + transformed.imag.square()
    mean = power.mean((2, 3), keepdim=True)
    # A constant image is not exactly constant in floating point.
    varies = mean > 1e-24 * height * width
    if not bool(varies.any()):
        raise ValueError(f"{name} are all constant: there is no spectrum to look at")
    logarithm = (power / mean + 1e-12).log().where(varies, math.nan)
    # That of a real coefficient is lower by ln 2 on average than that of a complex one of the same variance.
    logarithm = torch.where(_real(height, width), logarithm + math.log(2), logarithm)
    each = logarithm.nanmean(1)
    each = each[~each.isnan().any((1, 2))]
    centred = each - each.mean((1, 2), keepdim=True)
    scatter = float(centred.var(0).mean()) if len(each) > 1 else _SPREAD**2
    return each.mean(0), math.sqrt(max(scatter, _SPREAD**2 / channels) / len(each))


def _smooth_component(images: Float[Tensor, "n c h w"]) -> Tensor:
    """Fourier transform of the smooth image whose border jumps are those of each image; Moisan's eqs. 11-13."""
    height, width = images.shape[-2:]
    jumps = torch.zeros_like(images)
    rows, columns = images[..., -1, :] - images[..., 0, :], images[..., :, -1] - images[..., :, 0]
    jumps[..., 0, :] += rows
    jumps[..., -1, :] -= rows
    jumps[..., :, 0] += columns
    jumps[..., :, -1] -= columns
    fy, fx = _frequencies(height, width)
    laplacian = 2 * torch.cos(2 * math.pi * fy) + 2 * torch.cos(2 * math.pi * fx) - 4
    laplacian[0, 0] = 1
    # The mean belongs to neither component; here it goes away with the smooth one.
    smooth: Tensor = torch.fft.fft2(jumps) / laplacian
    smooth[..., 0, 0] = images.sum((2, 3))
    return smooth


def _refine(images: Tensor, reference: Tensor | None, peaks: _Peaks, row: int, column: int) -> tuple[float, float]:
    """The frequency within half a step of a peak at which the images' power is most over the background."""
    height, width = images.shape[-2:]
    rows, columns = _frequencies(height, width)
    if peaks.height[row, column] < _CLEAR:
        return _one_of_two(float(rows[row, 0]), float(columns[0, column]))
    steps = torch.linspace(-0.5, 0.5, 41, dtype=torch.float64)
    ys, xs = rows[row, 0] + steps / height, columns[0, column] + steps / width
    power = _power_at(images, ys, xs)
    # Beyond 1/2 cycle per pixel frequencies come back from the other side.
    ys, xs = (ys + 0.5) % 1 - 0.5, (xs + 0.5) % 1 - 0.5
    if reference is None:
        radius = torch.hypot(rows, columns)[peaks.tested].log()
        radius, level = radius - radius.mean(), peaks.power[peaks.tested]
        slope = min(0.0, max(-4.0, float((radius * level).sum() / radius.square().sum())))
        background = torch.hypot(ys[:, None], xs) ** slope
    else:
        background = _power_at(reference, ys, xs)
    middle = len(steps) // 2
    share = math.exp(-float(peaks.height[row, column])) * power[middle, middle] / background[middle, middle]
    best, beside = divmod(int((power - share * background).argmax()), len(steps))
    return _one_of_two(float(ys[best]), float(xs[beside]))


def _power_at(images: Tensor, ys: Float[Tensor, "k"], xs: Float[Tensor, "k"]) -> Float[Tensor, "k k"]:
    """Mean power, at any frequencies, of images scaled to one contrast."""
    pixels = _pixels(images)
    deviation = pixels.std((2, 3), keepdim=True)
    pixels = torch.where(deviation > 0, (pixels - pixels.mean((2, 3), keepdim=True)) / deviation, 0).flatten(0, 1)
    down, along = (
        torch.exp(-2j * math.pi * points[:, None] * torch.arange(size, dtype=torch.float64))
        for points, size in zip((ys, xs), images.shape[-2:], strict=True)
    )
    return (down @ pixels.to(down.dtype) @ along.T).abs().square().mean(0)


def _one_of_two(y: float, x: float) -> tuple[float, float]:
    """Of a wave's frequencies f and -f the one with x >= 0, and y >= 0 where that leaves both; 1/2 for -1/2."""
    y, x = (0.0 if abs(each) < 1e-12 else 0.5 if abs(each) > 0.5 - 1e-12 else each for each in (y, x))
    if x < 0 or (x in (0.0, 0.5) and y < 0):
        y, x = -y, -x
    return (0.5 if y == -0.5 else y + 0.0), abs(x)


def _pixels(images: Tensor) -> Float[Tensor, "n c h w"]:
    pixels = images.detach().to("cpu", torch.float64)
    return pixels / pixels.abs().amax((2, 3), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def _frequencies(height: int, width: int) -> tuple[Float[Tensor, "h 1"], Float[Tensor, "1 w"]]:
    fy, fx = (torch.fft.fftfreq(size, dtype=torch.float64) for size in (height, width))
    return fy[:, None], fx[None, :]


def _real(height: int, width: int) -> Bool[Tensor, "h w"]:
    """Which coefficients of a real image are real: those of frequencies that are their own mirror images."""
    fy, fx = _frequencies(height, width)
    return ((fy == 0) | (fy == -0.5)) & ((fx == 0) | (fx == -0.5))


_SQUARE = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def _neighbours(values: Float[Tensor, "h w"], offsets: list[tuple[int, int]]) -> Float[Tensor, "k h w"]:
    """What stands at each offset from every frequency; the plane of frequencies is periodic."""
    return torch.stack([values.roll(offset, (0, 1)) for offset in offsets])


def _apart(one: tuple[float, float], other: tuple[float, float], size: torch.Size) -> bool:
    """Whether two waves are more than one step of frequency from each other."""
    gaps = []
    for sign in (1, -1):
        steps = [((a - sign * b + 0.5) % 1 - 0.5) * n for a, b, n in zip(one, other, size, strict=True)]
        gaps.append(max(abs(step) for step in steps))
    return min(gaps) > 1
