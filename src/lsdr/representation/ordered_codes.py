"""Codes turned so that their first k dimensions are the best k: Rayleigh-Ritz from the moments of two views."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lsdr.moments import Moments
from lsdr.probes.evaluating import evaluating
from lsdr.representation.data.fields import Fields
from lsdr.representation.data.representation_data import examples
from lsdr.representation.encoder import Encoder
from lsdr.representation.inputs import count as number_of
from lsdr.representation.inputs import rows
from lsdr.representation.views.view import View
from lsdr.robust_moments import huber_moments, trimmed_moments
from lsdr.training.order import stream_seed

# Codes are computed in float32: a direction whose spread is rounding of the others' says nothing.
_ROUNDING = torch.finfo(torch.float32).eps
# Range of correlations that are told apart.
_KNOWN = (0.01, 0.999)
# Examples for each dimension of both views, from which on a robust covariance is well determined.
_PLENTY = 5


@dataclass(frozen=True, eq=False)
class OrderedCodes:
    r"""A rotation and scaling of codes z after which dimensions come in the order of what two views share.

    With C the covariance of the codes and A the cross-covariance of two views of the same example, both symmetrised
    (each pair counts in both orders, for views are exchangeable), the directions solve

    .. math:: A w_i = \rho_i C w_i, \qquad w_i^\top C w_j = \delta_{ij}, \qquad \rho_1 \ge \rho_2 \ge \dots

    and the ordered codes are w_i^T (z - mean), times a scale: uncorrelated, with correlation rho_i between views.

    Best k: by Ky Fan (Proc. Natl. Acad. Sci. 1949, theorem 1), among all D x k matrices W with W^T C W = I,

    .. math:: \max_W \operatorname{tr} W^\top A W = \rho_1 + \dots + \rho_k, \qquad
        \min_W \operatorname{E} \lVert W^\top (z - z') \rVert^2 = 2 \sum_{i \le k} (1 - \rho_i)

    and the first k columns attain both, for every k at once. Where rho_i >= 0 they are the canonical correlations of
    the views (of pairs in both orders), and LiDAR's eigenvalues rho_i / (1 - rho_i) come in the same order.

    Invariant to any invertible linear map of the codes. Cost O(D^3); no second look at the data.

    Source: Rayleigh-Ritz after Varıcı et al., "Eigenfunction Extraction for Ordered Representation Learning",
    arXiv:2510.24672 (2025): the rho_i are eigenvalues of the kernel of positive pairs within the span of the codes. We
    deviate by leaving out directions of no variance beyond rounding, so that collapsed codes have an order too, and by
    the scales of what is given out (see `scales`).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> shared = torch.randn(500, 2, generator=generator) * torch.tensor([1.0, 9.0])
        >>> a, b = (shared + torch.randn(500, 2, generator=generator) * torch.tensor([0.1, 9.0]) for _ in range(2))
        >>> ordered = OrderedCodes.of(Moments.of(a, b))
        >>> ordered.correlations
        tensor([0.99, 0.5], dtype=torch.float64)
        >>> ordered(a, n_components=1).shape
        torch.Size([500, 1])
    """

    mean: Tensor
    """(D,) mean of the codes."""
    rotation: Tensor
    """(D, r) the directions w_i as columns; r < D where codes are linearly dependent or constant."""
    correlations: Tensor
    """(r,) of the directions between two views, descending."""

    @classmethod
    def of(cls, moments: Moments) -> "OrderedCodes":
        """The order that the moments of two views of the codes give.

        Args:
            moments: Of (codes of view a, codes of view b), rows of shape (n, D), torch or NumPy.

        Raises:
            ValueError: If there is one view only, the views differ in width, there are fewer than two samples, or the
                codes are constant or not finite.
        """
        cross_covariance = _double(moments.cross_covariance(0))
        first, second = _double(moments.covariance()), _double(moments.y.covariance())
        means = _double(moments.mean), _double(moments.y.mean)
        if first.shape != second.shape or means[0].ndim != 1:
            raise ValueError(
                f"ordering needs two views of the same codes, rows of shape (n, D); got means of shapes "
                f"{tuple(means[0].shape)} and {tuple(means[1].shape)}"
            )
        if not moments.count >= 2:
            raise ValueError(f"ordering codes needs two samples at least, got {moments.count}")
        mean, half = (means[0] + means[1]) / 2, (means[0] - means[1]) / 2
        # Moments of the pairs (x, y) and (y, x) together, about their common mean.
        covariance = (first + second) / 2 + torch.outer(half, half)
        shared = (cross_covariance + cross_covariance.T) / 2 - torch.outer(half, half)
        if not bool(torch.isfinite(covariance).all() & torch.isfinite(shared).all()):
            raise ValueError("the codes' moments are not finite: the encoder returns NaN or infinity")
        variances, axes = torch.linalg.eigh(covariance)
        resolved = variances > len(mean) * _ROUNDING**2 * (covariance.diagonal() + mean.square()).max()
        if not bool(resolved.any()):
            raise ValueError("the codes do not vary: a collapsed encoder has no directions to order")
        whiten = axes[:, resolved] / variances[resolved].sqrt()
        correlations, turn = torch.linalg.eigh(whiten.T @ shared @ whiten)
        rotation = (whiten @ turn).flip(1)
        # Of w and -w, the one whose largest entry is positive: equal moments give equal codes everywhere.
        largest = rotation.gather(0, rotation.abs().argmax(0, keepdim=True))
        return cls(mean, rotation * largest.sign(), correlations.flip(0).clamp(-1, 1))

    def __call__(
        self, codes: Tensor, n_components: int | None = None, scale: Literal["signal", "unit"] = "signal"
    ) -> Tensor:
        """Ordered codes.

        Args:
            codes: (n, D).
            n_components: How many of the first dimensions; None: all r.
            scale: "signal" (see `scales`), or "unit" for variance 1. Truncated codes span the same space either way.

        Returns:
            (n, k), of the codes' type.

        Raises:
            ValueError: If there are no such dimensions, or the codes have another width.
        """
        width = self.rotation.shape[1]
        k = width if n_components is None else n_components
        if not 1 <= k <= width:
            raise ValueError(f"n_components must be from 1 to {width}, the rank of the codes; got {n_components}")
        if codes.ndim != 2 or codes.shape[1] != len(self.mean):
            raise ValueError(f"codes must have shape (n, {len(self.mean)}), got {tuple(codes.shape)}")
        rotation = self.rotation[:, :k] * (self.scales[:k] if scale == "signal" else 1)
        return ((codes.double() - self.mean.to(codes.device)) @ rotation.to(codes.device)).to(codes.dtype)

    @property
    def scales(self) -> Tensor:
        r"""(r,) what views share of each dimension, in units of what they do not.

        .. math:: \sqrt{\rho_i / (1 - \rho_i)}

        the standard deviation between examples over that within: distances, and penalties on weights, then count
        each dimension by what it tells. With variance 1 the many dimensions that tell nothing would drown the few.
        The rho are taken as 0.01 to 0.999, since a few thousand examples say no more.
        """
        known = self.correlations.clamp(*_KNOWN)
        return (known / (1 - known)).sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """What a file must hold of it."""
        return {name: getattr(self, name).cpu().contiguous() for name in ("mean", "rotation", "correlations")}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "OrderedCodes":
        """Back from `tensors`."""
        return cls(tensors["mean"], tensors["rotation"], tensors["correlations"])


@torch.no_grad()
def two_view_moments(
    encoder: Encoder,
    dataset: Dataset[Any],
    fields: Fields,
    view: View,
    *,
    count: int = 4096,
    robust: Literal["none", "trimmed", "huber"] = "none",
    batch_size: int = 256,
    seed: int = 0,
    device: torch.device | None = None,
) -> Moments:
    """Moments of the codes of two views of the same examples, in float64.

    The encoder is in evaluation mode meanwhile and is left as it was; nothing is drawn from the global generator.

    Args:
        encoder: The encoder.
        dataset: A part of `RepresentationData`.
        fields: Of the same data.
        view: What makes the views.
        count: Examples at most; drawn where there are more.
        robust: Moments that outliers cannot move, so that none of the first dimensions is there for them alone; or
            "none".
        batch_size: Examples at a time.
        seed: Which examples, and which views.
        device: Where the encoder is; the CPU by default.
    """
    inputs, _, _ = examples(dataset, fields, count, device or torch.device("cpu"), seed)
    generator = torch.Generator().manual_seed(stream_seed(seed, "ordered views"))
    codes: tuple[list[Tensor], list[Tensor]] = [], []
    with evaluating(encoder):
        for start in range(0, number_of(inputs), batch_size):
            batch = rows(inputs, slice(start, start + batch_size))
            for part in codes:
                part.append(encoder.features(view(batch, view.draws(number_of(batch), generator))).double())
    a, b = (torch.cat(part) for part in codes)
    if robust == "none":
        return Moments.of(a, b)
    # In their own metric, where there are enough examples to know it.
    distance: Literal["full", "radial"] = "full" if len(a) > _PLENTY * (a.shape[1] + b.shape[1]) else "radial"
    return trimmed_moments(a, b, distance=distance) if robust == "trimmed" else huber_moments(a, b, distance=distance)


def _double(array: Any) -> Tensor:
    return torch.as_tensor(array).detach().double()
