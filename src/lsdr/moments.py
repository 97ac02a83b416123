"""Mergeable centred cross-moments of one or two views: the ground under covariances, wherever the rows come from.

Chunks, folds, ranks and machines all merge the same way. NumPy arrays stay NumPy (float64), torch tensors stay torch
(differentiable, on their device); torch is imported only where a torch tensor has been given already.
"""

import math
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

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
        self._count: int | None = (
            None  # None: no chunk seen, so nothing is known; 0: a chunk of no rows fixed the shapes
        )
        self._shift: Array = None
        self._relative: Array = None
        self._cross: Array = None
        self._split: int | None = None

    @classmethod
    def of(cls, x: Array, y: Array | None = None) -> "Moments":
        """Moments of one chunk.

        Args:
            x: Rows, shape (N, D) or (N, P, D); N may be 0.
            y: The same samples in a second view, shape (N, Dy) or (N, P, Dy), or None.

        Raises:
            TypeError: If x and y are not both NumPy arrays or both torch tensors, or not real numbers.
            ValueError: If a chunk is not at least 2-D, or the views differ in samples or positions.
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
        z = x if y is None else _concatenate(x, y)
        n = z.shape[0]
        with _full_precision(z):
            # A chunk's own mean, as far as its floating type can say it: what it misses is the relative mean r.
            moments._shift = _detached(z).sum(0) / max(n, 1)
            centred = z - moments._shift
            # No branch on n = 0: sums over no rows are zeros that still belong to the graph, so that a rank without
            # rows takes part in the backward pass of `all_reduce`.
            moments._relative = centred.sum(0) / max(n, 1)
            moments._cross = _outer(centred - moments._relative)
        moments._count = n
        return moments

    def update(self, x: Array, y: Array | None = None) -> "Moments":
        """Add one chunk in place (see `of` for its shapes) and return self."""
        return self.merge(Moments.of(x, y))

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
            self._relative = start + delta * (other._count / max(total, 1))
            self._cross = self._cross + other._cross
            self._cross = self._cross + _outer(delta[None]) * (self._count * other._count / max(total, 1))
        self._shift, self._count = shift, total
        return self

    @property
    def count(self) -> int:
        """Number of samples (rows) seen."""
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
        count, live_ranks = (int(value) for value in header[:2].tolist())
        total = Moments()
        total._count, total._split = count, self._split
        total._shift = (header[2:] / max(count, 1)).reshape(self._shift.shape).to(self._shift.dtype)
        # Then the sums about it. The shift is the global mean but for rounding, so centring costs no digits.
        with _full_precision(self._shift):
            relative = (self._shift - total._shift) + self._relative
            cross = self._cross + _outer(relative[None]) * self._count
            sums = torch.cat([(relative * self._count).flatten(), cross.flatten()])
            # Where other ranks run backward, this one must join their collective though its own rows are detached.
            if live_ranks and not live and torch.is_grad_enabled():
                sums = sums.requires_grad_()
            sums = _sum_over_ranks(sums, group)
            total._relative = sums[: relative.numel()].reshape(relative.shape) / max(count, 1)
            total._cross = sums[relative.numel() :].reshape(cross.shape) - _outer(total._relative[None]) * count
        return total

    def _need(self, correction: int, what: str) -> int:
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


def _concatenate(x: Array, y: Array) -> Array:
    if not _is_torch(x):
        return np.concatenate([x, y], axis=-1)
    import torch

    return torch.cat([x, y], dim=-1)


def _outer(rows: Array) -> Array:
    """Sum over all leading dimensions of the outer products of the last one."""
    flat = rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1])
    return flat.T @ flat


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
