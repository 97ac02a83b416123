"""Moments that outliers do not spoil: trimmed and Huber, of NumPy arrays and torch tensors alike."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lsdr.moments import Moments

# A NumPy array or a torch tensor.
Array = Any
Robust = Literal["trimmed", "huber"]
Distance = Literal["full", "radial"]

_ITERATIONS = 100
_FLOOR = 1e-12  # of the largest eigenvalue: below it a covariance has no direction


def trimmed_moments(x: Array, y: Array | None = None, *, trim: float = 0.1, distance: Distance = "full") -> Moments:
    r"""Moments of the rows that are left when the `trim` farthest are cut off.

    The kept rows are those nearest to their own mean in the metric of their own covariance, found by concentration
    steps from a start that no outlier moves far (spatial signs). Their covariance is scaled so that the median
    distance of all rows is that of normal rows. Withstands a share of outliers of up to `trim`, wherever they are.

    Source: the minimum covariance determinant, Rousseeuw & Van Driessen 1999 (C-steps and scale), from one
    deterministic start as in Hubert, Rousseeuw & Verdonck 2012.

    Args:
        x: Rows, shape (N, D), NumPy or torch. Gradients flow through the kept rows' moments.
        y: The same samples in a second view, or None: a sample is then judged by both its rows.
        trim: Share of the samples to be cut, in [0, 1/2].
        distance: `"full"`: as above, unchanged under linear maps; needs more than 2 D kept samples (both views' D
            together). `"radial"`: the Euclidean distance; unchanged under rotations, for any number of samples, and
            without that scale.

    Raises:
        ValueError: If an argument is out of range, a row is not finite, or there are too few samples.

    Example:
        >>> rows = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [7.0], [8.0], [1000.0]])
        >>> trimmed_moments(rows, trim=0.1).mean
        array([4.])
    """
    return _robust_moments(x, y, "trimmed", trim, distance)


def huber_moments(x: Array, y: Array | None = None, *, tail: float = 0.1, distance: Distance = "full") -> Moments:
    r"""Moments in which a sample at distance d counts min(1, k^2 / d^2).

    An outlier's part in the covariance is bounded, however far it is, and no sample is cut off. k is the distance
    that a `tail` of normal samples exceed, and the covariance is scaled to be right for these. Unlike the trimmed
    moments', its resistance falls with the dimension: outliers that all lie far out on one side carry the leading
    direction away once they are more than about 1 / k^2 of the samples, 9 % in 6 dimensions, 1 % in 90.

    Source: Huber's M-estimator of location and scatter, Maronna 1976, with one weight for both.

    Args:
        x: Rows, shape (N, D), NumPy or torch. Gradients flow through the moments, not through the weights.
        y: The same samples in a second view, or None.
        tail: Share of normal samples that count less than 1, in (0, 1/2].
        distance: As for `trimmed_moments`; `"radial"` takes k from the samples, as their quantile.

    Raises:
        ValueError: If an argument is out of range, a row is not finite, or there are too few samples.

    Example:
        >>> rows = np.linspace(-1, 1, 99)[:, None]
        >>> float(huber_moments(np.vstack([rows, [[1e6]]])).mean[0]) < 0.1
        True
    """
    return _robust_moments(x, y, "huber", tail, distance)


def row_weights(squared: Array, radius: Array, robust: Robust) -> Array:
    """What samples count at these squared distances, where `radius` is squared too: NumPy or torch."""
    if robust == "trimmed":
        return (squared <= radius) * (squared * 0 + 1)
    return (radius / squared.clip(1e-30)).clip(None, 1.0)


def _robust_moments(x: Array, y: Array | None, robust: Robust, share: float, distance: Distance) -> Moments:
    rows = np.concatenate([_known(each) for each in (x, y) if each is not None], axis=1)
    if not 0 <= share <= 0.5 or (robust == "huber" and not share):
        raise ValueError(f"the share of outliers must be in [0, 0.5] (for huber above 0), got {share}")
    if distance not in ("full", "radial"):
        raise ValueError(f"distance must be 'full' or 'radial', got {distance!r}")
    count, dimensions = rows.shape
    kept = count - int(share * count)
    least = 2 * dimensions + 1 if distance == "full" else 1
    if kept < least:
        raise ValueError(
            f"distance={distance!r} needs {least} or more samples that are kept, got {kept} of {count}; use "
            "distance='radial'"
        )
    if not np.isfinite(rows).all():
        raise ValueError("the rows hold NaN or infinite numbers: leave such samples out")
    weights, factor = (_full if distance == "full" else _radial)(rows, robust, share, kept)
    own = weights if isinstance(x, np.ndarray) else x.new_tensor(weights)
    moments = Moments.of(x, y, own)
    if factor == 1:
        return moments
    # Scaled about their mean, which stays, the rows have the scaled covariance.
    scaled = [
        None if each is None else mean() + factor**0.5 * (each - mean())
        for each, mean in ((x, lambda: moments.mean), (y, lambda: moments.y.mean))
    ]
    return Moments.of(scaled[0], scaled[1], own)


def _known(rows: Array) -> NDArray[np.float64]:
    array = rows if isinstance(rows, np.ndarray) else rows.detach().double().cpu().numpy()
    if array.ndim != 2 or not len(array):
        raise ValueError(f"expected rows of shape (N, D) with N > 0, got shape {array.shape}")
    return np.asarray(array, dtype=np.float64)


def _radial(rows: NDArray[np.float64], robust: Robust, share: float, kept: int) -> tuple[NDArray[np.float64], float]:
    centre = np.median(rows, axis=0)
    weights = np.zeros(len(rows))
    for _ in range(_ITERATIONS):
        squared = np.square(rows - centre).sum(1)
        before, weights = weights, row_weights(squared, np.partition(squared, kept - 1)[kept - 1], robust)
        centre = np.average(rows, axis=0, weights=weights)
        if np.abs(weights - before).max() < 1e-9:
            break
    return weights, 1.0


def _full(rows: NDArray[np.float64], robust: Robust, share: float, kept: int) -> tuple[NDArray[np.float64], float]:
    count, dimensions = rows.shape
    # The squared distance of normal samples is chi squared, about a covariance that is right for them.
    chi = stats.chi2(dimensions)
    cut, factor = float(chi.isf(share)), 1.0
    bounded = float(stats.chi2.cdf(cut, dimensions + 2)) + cut * share / dimensions if share else 1.0
    squared, weights = _start(rows), np.zeros(count)
    for _ in range(_ITERATIONS):
        radius = np.partition(squared, kept - 1)[kept - 1] if robust == "trimmed" else cut
        before, weights = weights, row_weights(squared, radius, robust)
        if np.abs(weights - before).max() < 1e-9:
            break
        moments = Moments.of(rows, weights=weights)
        squared = _distances(rows - moments.mean, moments.covariance())
        if robust == "huber":
            factor = float(weights.sum() / (count * bounded))
        elif kept < count:
            factor = float(np.median(squared) / chi.median())
        squared = squared / factor
    return weights, factor


def _start(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances in the directions of the spatial signs' covariance, scaled by median absolute deviations."""
    centred = rows - np.median(rows, axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    signs = centred / np.where(lengths > 0, lengths, 1)
    _, vectors = np.linalg.eigh(signs.T @ signs)
    projected = centred @ vectors
    deviations = 1.4826 * np.median(np.abs(projected - np.median(projected, axis=0)), axis=0)
    covariance = (vectors * np.square(deviations)) @ vectors.T
    return _distances(centred, covariance)


def _distances(centred: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(covariance)
    floor = max(_FLOOR * values[-1], np.finfo(np.float64).tiny)
    squared: NDArray[np.float64] = (np.square(centred @ vectors) / np.maximum(values, floor)).sum(1)
    return squared
