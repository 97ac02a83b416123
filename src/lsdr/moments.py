"""Mergeable centred cross-moments of one or two views: the ground under covariances, wherever the rows come from.

Chunks, folds, ranks and machines all merge the same way. NumPy arrays stay NumPy (float64), torch tensors stay torch
(differentiable, on their device); torch is imported only where a torch tensor has been given already.
"""

import math
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from lsdr.array_moments import array_moments

# A NumPy array or a torch tensor: the arithmetic below is spelled the same in both.
Array = Any


class Moments:
    r"""Count, mean and centred cross-products of rows z (of the concatenated rows [x, y] where two views are given).

    .. math:: n, \quad \bar z = \tfrac1n\sum_n z_n, \quad S = \sum_n \sum_p (z_{np} - \bar z_p)(z_{np} - \bar z_p)^\top

    A chunk has shape (N, D), or (N, P, D): N samples, each holding P positions (vector-valued features). The mean is
    then taken per position, the cross-product is the inner product over positions, and N alone counts as samples.

    Each state keeps a detached shift c, the mean of its first rows, and the mean r relative to it, so that z is never
    squared about the origin: with mean/sd = 1e4 in float32 no digit of S is lost. States are merged by the pairwise
    formula of Chan, Golub & LeVeque, "Algorithms for computing the sample variance", The American Statistician 1983:
    with delta = (c2 - c1) + (r2 - r1), S = S1 + S2 + n1 n2 / n delta delta^T.

    Half-precision tensors are upcast to float32, float64 is kept, NumPy is always float64; autocast is ignored.
    Gradients flow to the rows of every chunk that was not detached. Cost of an update: O(N P D^2), state: O(D^2).

    Example:
        >>> rows = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 8.0]])
        >>> moments = Moments.of(rows[:1]).update(rows[1:])
        >>> moments.count, moments.mean
        (3, array([3., 4.]))
        >>> moments.covariance()
        array([[2.66666667, 4.        ],
               [4. , 8. ]])
    """

    __slots__ = ("_count", "_cross", "_relative", "_shift", "_split")

    def __init__(self) -> None:
        """Start empty; the first chunk decides shapes, device and whether there are two views."""
        self._count: int | float | None = (
            None  # None: no chunk seen, so nothing is known; 0: a chunk of no rows fixed the shapes
        )
        self._shift: Array = None
        self._relative: Array = None
        self._cross: Array = None
        self._split: int | None = None

    @classmethod
    def of(cls, x: Array, y: Array | None = None, weights: Array | None = None) -> "Moments":
        r"""Moments of one chunk; with weights, of rows that count w_n times each.

        .. math:: n = \sum_n w_n, \quad \bar z = \tfrac1n \sum_n w_n z_n, \quad
            S = \sum_n w_n \sum_p (z_{np} - \bar z_p)(z_{np} - \bar z_p)^\top

        Cost with NumPy: little more than that of the product z^T z, and no copy of the rows as a whole.

        Args:
            x: Rows, shape (N, D) or (N, P, D); N may be 0.
            y: The same samples in a second view, shape (N, Dy) or (N, P, Dy), or None.
            weights: What each sample counts, shape (N,), none below 0; None: 1, and `count` stays an int.

        Raises:
            TypeError: If x, y and weights are not all NumPy arrays or all torch tensors, or not real numbers.
            ValueError: If a chunk is not at least 2-D, the views differ in samples or positions, or a weight is
                negative, not finite, or missing.
        """
        x = _real(x, "x")
        moments = cls()
        if y is not None:
            y = _real(y, "y")
            if _is_torch(x) != _is_torch(y):
                raise TypeError(f"x and y must both be NumPy arrays or both tensors, got {type(x)} and {type(y)}")
            if x.shape[:-1] != y.shape[:-1]:
                raise ValueError(
                    f"x and y must hold the same samples (and positions), got shapes {tuple(x.shape)} and "
                    f"{tuple(y.shape)}: all but the last dimension must agree"
                )
            moments._split = x.shape[-1]
        if weights is not None:
            weights = _weights(weights, x)
        if not _is_torch(x):
            moments._count, moments._shift, moments._relative, moments._cross = array_moments(x, y, weights)
            return moments
        z = x if y is None else _concatenate(x, y)
        n = z.shape[0]
        with _full_precision(z):
            if weights is None:
                moments._count, total, counted = n, max(n, 1), z
            else:
                weights = weights.to(z.dtype).reshape(-1, *[1] * (z.ndim - 1))
                moments._count = float(_detached(weights).sum())
                total, counted = weights.sum() if moments._count else 1, weights * z
            # A chunk's own mean, as far as its floating type can say it: what it misses is the relative mean r.
            moments._shift = _detached(counted).sum(0) / _detached(total)
            centred = z - moments._shift
            # No branch on n = 0: sums over no rows are zeros that still belong to the graph, so that a rank without
            # rows takes part in the backward pass of `all_reduce`.
            moments._relative = (centred if weights is None else weights * centred).sum(0) / total
            centred = centred - moments._relative
            moments._cross = _outer(centred) if weights is None else _outer(centred, weights * centred)
        return moments

    def update(self, x: Array, y: Array | None = None, weights: Array | None = None) -> "Moments":
        """Add one chunk in place (see `of` for its shapes) and return self."""
        return self.merge(Moments.of(x, y, weights))

    def merge(self, other: "Moments") -> "Moments":
        """Add another state's rows in place and return self; `other` stays as it is.

        Raises:
            TypeError: If one state is NumPy's and the other is torch's.
            ValueError: If the states differ in positions, dimensions or views.
        """
        if other._count is None:
            return self
        if self._count is None:
            self._count, self._split = other._count, other._split
            self._shift, self._relative, self._cross = other._shift, other._relative, other._cross
            return self
        if _is_torch(self._shift) != _is_torch(other._shift):
            raise TypeError("cannot merge NumPy moments with torch moments: convert the rows of one first")
        if self._split != other._split or self._shift.shape != other._shift.shape:
            raise ValueError(f"cannot merge moments of {self._layout()} with moments of {other._layout()}")
        total = self._count + other._count
        shift = other._shift if self._count == 0 else self._shift
        start = self._relative if self._count == 0 else (self._shift - shift) + self._relative
        with _full_precision(shift):
            delta = (other._shift - shift) + (other._relative - start)
            self._relative = start + delta * (other._count / (total or 1))
            self._cross = self._cross + other._cross
            self._cross = self._cross + _outer(delta[None]) * (self._count * other._count / (total or 1))
        self._shift, self._count = shift, total
        return self

    @classmethod
    def given(cls, count: int | float, mean: Array, cross: Array) -> "Moments":
        """Moments known already: of `count` samples, with this mean (D,) and these cross-products (D, D)."""
        moments = cls()
        moments._count, moments._shift, moments._relative, moments._cross = count, mean, mean * 0, cross
        return moments

    @property
    def cross(self) -> Array:
        """Centred cross-products S of all columns, those of a second view last, shape (D, D). Not a copy."""
        self._need(0, "cross")
        return self._cross

    @property
    def count(self) -> Any:
        """Number of samples (rows) seen, an int; where they had weights, the sum of those, a float."""
        return self._count or 0

    @property
    def mean(self) -> Array:
        """Mean of x, shape (D,) or (P, D)."""
        self._need(0, "mean")
        return (self._shift + self._relative)[..., : self._split]

    @property
    def y(self) -> "Moments":
        """Moments of the second view alone (shares memory and graph with this state).

        Raises:
            ValueError: If there is one view only.
        """
        split = self._two_views()
        alone = Moments()
        alone._count = self._count
        alone._shift, alone._relative = self._shift[..., split:], self._relative[..., split:]
        alone._cross = self._cross[split:, split:]
        return alone

    def covariance(self, correction: int = 0) -> Array:
        """Covariance of x, shape (D, D): the cross-products divided by (count - correction).

        Args:
            correction: 0 for the plain average, 1 for the unbiased estimate.

        Raises:
            ValueError: If there are not more than `correction` samples.
        """
        divisor = self._need(correction, "covariance")
        return self._cross[: self._split, : self._split] / divisor

    def cross_covariance(self, correction: int = 0) -> Array:
        """Cross-covariance of x with y, shape (Dx, Dy); see `covariance`.

        Raises:
            ValueError: If there is one view only, or not more than `correction` samples.
        """
        split = self._two_views()
        divisor = self._need(correction, "cross_covariance")
        return self._cross[:split, split:] / divisor

    def expand(self, positions: Sequence[int], size: int) -> "Moments":
        """The same moments in a larger space, as a new state: column i goes to `positions[i]`, the others are 0.

        Exact, where the columns that are not there were 0: the dummy of a level that no row has held so far.

        Args:
            positions: Where each of the D columns goes, all different, below `size`.
            size: Number of columns of the larger space.

        Raises:
            ValueError: If there are two views, vector-valued features or torch tensors, no chunk has been seen, or the
                positions do not fit.
        """
        if self._count is None or self._split is not None or _is_torch(self._shift) or self._shift.ndim != 1:
            raise ValueError("expand is for NumPy moments of one view, rows of shape (N, D), that have seen a chunk")
        at = np.asarray(positions, dtype=np.intp)
        fits = at.shape == self._shift.shape and len(np.unique(at)) == len(at)
        if not fits or (len(at) and (at.min() < 0 or at.max() >= size)):
            raise ValueError(
                f"positions must be {len(self._shift)} different numbers from 0 to {size - 1}, got {positions}"
            )
        wide = Moments()
        wide._count = self._count
        wide._shift, wide._relative, wide._cross = np.zeros(size), np.zeros(size), np.zeros((size, size))
        wide._shift[at], wide._relative[at], wide._cross[at[:, None], at] = self._shift, self._relative, self._cross
        return wide

    def detach(self) -> "Moments":
        """The same moments without a graph, as a new state."""
        copy = Moments()
        copy._count, copy._split = self._count, self._split
        if self._count is not None:
            copy._shift = self._shift  # detached since it was made
            copy._relative, copy._cross = _detached(self._relative), _detached(self._cross)
        return copy

    def all_reduce(self, group: Any = None) -> "Moments":
        """Moments of the rows of all ranks, as a new state: a sum over ranks, with gradient.

        The backward pass sums over ranks too. Every rank then holds the gradient of (world size) copies of the same
        global loss, which the mean over ranks taken by DistributedDataParallel turns into exactly the gradient that
        one process would find, for uneven and heterogeneous shards as well. Every rank must call this and, where any
        rank runs backward through it, all must. Without an initialised process group it returns self.

        Cost: two collectives, of D and of D^2 numbers. Deviates from torch.distributed.nn.functional.all_reduce in
        nothing but being supported: that one is deprecated.

        Args:
            group: The process group; None is the default group.

        Raises:
            TypeError: If the state is NumPy's.
            ValueError: If this rank has not seen any chunk (one of 0 rows is enough to know the shapes).
        """
        distributed = sys.modules.get("torch.distributed")
        if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
            return self
        if self._count is None:
            raise ValueError(
                "all_reduce needs the shapes on every rank, and this one saw no chunk: give it a chunk of 0 rows"
            )
        if not _is_torch(self._shift):
            raise TypeError("all_reduce is for torch tensors: gather NumPy moments yourself and merge them")
        import torch

        # First a common detached shift, in float64: the mean of the ranks' shifts weighted by their counts.
        live = torch.is_grad_enabled() and (self._relative.requires_grad or self._cross.requires_grad)
        known = self._shift.new_tensor([self._count, live], dtype=torch.float64)
        header = torch.cat([known, self._count * self._shift.double().flatten()])
        distributed.all_reduce(header, group=group)
        count, live_ranks = header[:2].tolist()
        if isinstance(self._count, int) and count.is_integer():
            count = int(count)
        total = Moments()
        total._count, total._split = count, self._split
        total._shift = (header[2:] / (count or 1)).reshape(self._shift.shape).to(self._shift.dtype)
        # Then the sums about it. The shift is the global mean but for rounding, so centring costs no digits.
        with _full_precision(self._shift):
            relative = (self._shift - total._shift) + self._relative
            cross = self._cross + _outer(relative[None]) * self._count
            sums = torch.cat([(relative * self._count).flatten(), cross.flatten()])
            # Where other ranks run backward, this one must join their collective though its own rows are detached.
            if live_ranks and not live and torch.is_grad_enabled():
                sums = sums.requires_grad_()
            sums = _sum_over_ranks(sums, group)
            total._relative = sums[: relative.numel()].reshape(relative.shape) / (count or 1)
            total._cross = sums[relative.numel() :].reshape(cross.shape) - _outer(total._relative[None]) * count
        return total

    def _need(self, correction: int, what: str) -> Any:
        divisor = self.count - correction
        if divisor <= 0 or self._count is None:
            raise ValueError(f"{what} needs more than {max(correction, 0)} samples, got {self.count}: update() first")
        return divisor

    def _two_views(self) -> int:
        if self._split is None:
            raise ValueError("these moments are of one view: give both, Moments.of(x, y), to relate them")
        return self._split

    def _layout(self) -> str:
        *positions, dimensions = self._shift.shape
        at = f" at positions {tuple(positions)}" if positions else ""
        if self._split is None:
            return f"one view of {dimensions} dimensions{at}"
        return f"two views of {self._split} and {dimensions - self._split} dimensions{at}"


def _is_torch(array: Array) -> bool:
    return hasattr(array, "detach")


def _detached(array: Array) -> Array:
    return array.detach() if _is_torch(array) else array


def _real(array: Array, name: str) -> Array:
    """Rows in a floating type that sums of products survive in."""
    if not _is_torch(array):
        array = np.asarray(array)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
        array = array.astype(np.float64, copy=False)
    elif array.is_complex():
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    elif not array.is_floating_point():
        array = array.double()
    elif array.dtype.itemsize < 4:
        array = array.float()
    if array.ndim < 2:
        raise ValueError(f"{name} must be rows of shape (N, D) or (N, P, D), got shape {tuple(array.shape)}")
    return array


def _weights(weights: Array, x: Array) -> Array:
    """Weights that fit the samples of x, in a floating type."""
    if _is_torch(weights) != _is_torch(x):
        raise TypeError(f"weights must be of the same kind as the rows, got {type(weights)} for {type(x)}")
    if tuple(weights.shape) != (x.shape[0],):
        raise ValueError(f"weights must have shape ({x.shape[0]},), one a sample, got {tuple(weights.shape)}")
    weights = _real(weights[:, None], "weights")[:, 0]
    known = _detached(weights)
    if not bool(((known >= 0) & (known < math.inf)).all()):
        raise ValueError("weights must be finite and not negative")
    return weights


def _concatenate(x: Array, y: Array) -> Array:
    if not _is_torch(x):
        return np.concatenate([x, y], axis=-1)
    import torch

    return torch.cat([x, y], dim=-1)


def _outer(rows: Array, others: Array | None = None) -> Array:
    """Sum over all leading dimensions of the outer products of the last one."""
    flat = rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1])
    return flat.T @ (flat if others is None else others.reshape(flat.shape))


def _full_precision(array: Array) -> AbstractContextManager[Any]:
    """Autocast off: it would take the matrix products in half precision."""
    if not _is_torch(array):
        return nullcontext()
    import torch

    return torch.autocast(device_type=array.device.type, enabled=False)


def _sum_over_ranks(tensor: Array, group: Any) -> Array:
    """Sum over ranks whose backward pass sums over ranks."""
    import torch

    class SumOverRanks(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, local: Array) -> Array:
            total = local.clone()
            torch.distributed.all_reduce(total, group=group)
            return total

        @staticmethod
        def backward(ctx: Any, gradient: Array) -> Array:
            return _sum_over_ranks(gradient, group)

    return SumOverRanks.apply(tensor)
