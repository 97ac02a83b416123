"""Sums over examples that objectives are functions of: they merge over chunks and ranks, and hand gradients back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from lsdr.regularizers.objectives.objective import Needs, Views
from lsdr.regularizers.objectives.sigreg import KNOTS, knots_like

Rows = Float[Tensor, "v n d"]


@dataclass(frozen=True)
class Sketch:
    """What is summed for an objective: its needs, and the directions of the step where it looks at slices."""

    needs: Needs
    directions: Float[Tensor, "d k"] | None = None

    def prepare(self, rows: Rows) -> Rows:
        """The rows as they are summed: with autograd's gradient, unlike what follows."""
        largest = self.needs.largest_norm
        if largest is None:
            return rows
        norms: Tensor = rows.norm(dim=-1, keepdim=True)
        return rows * (largest / norms.clamp(min=largest))


@dataclass
class ViewSums:
    """Weighted sums over examples in v views; those that are not needed are empty.

    Cross-products are about this state's own means, and states merge by the pairwise formula of Chan, Golub & LeVeque
    1983, so that far from the origin no digit is lost. Nothing here has a graph: `pull_back` is the backward pass.
    """

    count: Float[Tensor, ""]
    squares: Float[Tensor, ""]
    """Sum of the squared weights."""
    means: Float[Tensor, "v d"]
    spread: Float[Tensor, "v d"]
    within: Float[Tensor, "v d d"] | Float[Tensor, "0"]
    between: Float[Tensor, "d d"] | Float[Tensor, "0"]
    gap: Float[Tensor, " d"]
    overlap: Float[Tensor, ""]
    waves: Float[Tensor, "v 2 t k"] | Float[Tensor, "0"]
    histogram: Float[Tensor, " _"]
    """How many examples are how far out, where outliers are weighed; see `_row_weights`."""

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        rows: Rows,
        sketch: Sketch,
        weights: Float[Tensor, " n"] | None = None,
        histogram: Float[Tensor, " _"] | None = None,
    ) -> "ViewSums":
        """Sums over the rows of one chunk, the same examples in every view."""
        views, examples, _ = rows.shape
        needs, empty = sketch.needs, rows.new_zeros(0)
        if weights is None:
            count = squares = rows.new_tensor(float(examples))
            means = rows.sum(1) / max(examples, 1)
            centred = weighted = rows - means[:, None]
        else:
            count, squares = weights.sum(), weights.square().sum()
            means = (weights[:, None] * rows).sum(1) / count.clamp(min=torch.finfo(rows.dtype).tiny)
            centred = rows - means[:, None]
            weighted = weights[:, None] * centred
        gap = (rows[0] - rows[-1]).square()
        within = needs.covariance or (needs.cross_covariance and views == 1)
        return cls(
            count,
            squares,
            means,
            (centred * weighted).sum(1),
            centred.transpose(1, 2) @ weighted if within else empty,
            centred[0].T @ weighted[1] if needs.cross_covariance and views == 2 else empty,
            gap.sum(0) if weights is None else weights @ gap,
            _overlap(rows, weights).square().sum() if needs.overlap else rows.new_zeros(()),
            _waves(rows, weights, sketch.directions) if sketch.directions is not None else empty,
            empty if histogram is None else histogram,
        )

    def merge(self, other: "ViewSums") -> "ViewSums":
        """Add another state's examples in place and return self."""
        count = self.count + other.count
        part = other.count / count.clamp(min=torch.finfo(count.dtype).tiny)
        self._add(other, other.means - self.means, self.count * part)
        self.means = self.means + (other.means - self.means) * part
        self.count = count
        return self

    def views(self) -> Views:
        """The statistics, divided by the count."""
        n = self.count.clamp(min=1)  # below only where outliers' weights are all but 0: then there is no gradient
        return Views(
            n,
            (n.square() - self.squares).clamp(min=1),
            self.means,
            self.spread / n,
            self.gap / n,
            self.within / n if self.within.numel() else None,
            self.between / n if self.between.numel() else None,
            self.overlap,
            self.waves / n if self.waves.numel() else None,
        )

    def _add(self, other: "ViewSums", delta: Float[Tensor, "v d"], factor: Tensor) -> None:
        for name in _ADDITIVE:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self._spread_by(delta[None], factor[None])

    def _spread_by(self, deltas: Float[Tensor, "s v d"], factors: Float[Tensor, " s"]) -> None:
        """Add the cross-products of means about means, each times its factor."""
        weighted = factors[:, None, None] * deltas
        self.spread = self.spread + (weighted * deltas).sum(0)
        if self.within.numel():
            self.within = self.within + weighted.permute(1, 2, 0) @ deltas.transpose(0, 1)
        if self.between.numel():
            self.between = self.between + weighted[:, 0].T @ deltas[:, 1]


_ADDITIVE = tuple(field.name for field in fields(ViewSums) if field.name not in ("count", "means"))


def over_ranks(sums: Sequence[ViewSums]) -> list[ViewSums]:
    """The sums of all ranks, for all layers, in one collective; no gradient runs through it.

    What adds up is added up; of counts and means, about which cross-products are, every rank learns all: each has a
    place of its own in the message, O(D) numbers, where the others leave zeros.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return list(sums)
    world, rank = distributed.get_world_size(), distributed.get_rank()
    dtype = torch.float32
    parts: list[Tensor] = []
    for each in sums:
        dtype = torch.promote_types(dtype, each.means.dtype)
        places = each.means.new_zeros(world, 1 + each.means.numel())
        places[rank] = torch.cat([each.count[None], each.means.flatten()])
        parts += [places, *(getattr(each, name) for name in _ADDITIVE)]
    message = torch.cat([part.flatten().to(dtype) for part in parts])
    distributed.all_reduce(message)
    pieces = message.split([part.numel() for part in parts])
    received = [piece.view_as(part).to(part.dtype) for piece, part in zip(pieces, parts, strict=True)]
    size = 1 + len(_ADDITIVE)
    return [_joined(received[k * size : (k + 1) * size]) for k in range(len(sums))]


def _joined(received: list[Tensor]) -> ViewSums:
    """One state of what the ranks sent: all their counts and means, then what was added up."""
    places, *rest = received
    added = dict(zip(_ADDITIVE, rest, strict=True))
    views, width = added["spread"].shape
    counts, means = places[:, 0], places[:, 1:].reshape(-1, views, width)
    # From the first rank's mean on, so that no digit is lost far from the origin.
    weights = counts / counts.sum().clamp(min=torch.finfo(counts.dtype).tiny)
    mean = means[0] + (weights[:, None, None] * (means - means[0])).sum(0)
    joined = ViewSums(count=counts.sum(), means=mean, **added)
    joined._spread_by(means - mean, counts)
    return joined


@torch.no_grad()
def pull_back(
    rows: Rows,
    weights: Float[Tensor, " n"] | None,
    sketch: Sketch,
    views: Views,
    gradient: Views,
) -> Rows:
    """The gradient for rows of any chunk, from that of the statistics of all examples: exact, for those are sums.

    Args:
        rows: The chunk's rows.
        weights: What they were weighed with.
        sketch: What was summed.
        views: The statistics of all examples.
        gradient: Of the objective by each of `views`; that by a covariance summed over both orders of its dimensions.
    """
    centred = rows - views.means[:, None]
    total = gradient.means[:, None] + 2 * gradient.variances[:, None] * centred
    if gradient.covariances is not None:
        total.baddbmm_(centred, gradient.covariances)
    if gradient.cross_covariance is not None:
        total[0] += centred[1] @ gradient.cross_covariance.T
        total[1] += centred[0] @ gradient.cross_covariance
    apart = 2 * gradient.gap * (rows[0] - rows[-1])
    total[0] += apart
    total[-1] -= apart
    if gradient.waves is not None:
        assert sketch.directions is not None
        total += _waves_back(rows, sketch.directions, gradient.waves)
    total /= views.count
    if weights is not None:
        total *= weights[:, None]
    if gradient.overlap is not None:
        factor = 2 * gradient.overlap * _overlap(rows, weights)
        factor = (factor if weights is None else factor * weights)[:, None]
        total[0] += factor * rows[-1]
        total[-1] += factor * rows[0]
    return total


def _overlap(rows: Rows, weights: Float[Tensor, " n"] | None) -> Float[Tensor, " n"]:
    """Weighted inner product of each example's two views."""
    inner = (rows[0] * rows[-1]).sum(1)
    return inner if weights is None else weights * inner


def _waves(rows: Rows, weights: Float[Tensor, " n"] | None, directions: Float[Tensor, "d k"]) -> Tensor:
    """Sums of cos(t a'z) and sin(t a'z); by the addition theorem, for the knots are evenly spaced from 0."""
    ones = rows.new_ones(rows.shape[1]) if weights is None else weights
    sums = rows.new_empty(rows.shape[0], 2, KNOTS, directions.shape[1])
    sums[:, 0, 0], sums[:, 1, 0] = ones.sum(), 0
    for k, sign, cosine, sine in _knots(rows, directions):
        sums[:, 0, k], sums[:, 1, k] = sign * (ones @ cosine), sign * (ones @ sine)
    return sums


def _waves_back(rows: Rows, directions: Float[Tensor, "d k"], gradient: Float[Tensor, "v 2 t k"]) -> Rows:
    scaled = gradient * knots_like(rows)[:, None]
    slope = rows.new_zeros(*rows.shape[:2], directions.shape[1])
    for k, sign, cosine, sine in _knots(rows, directions):
        slope.addcmul_(cosine, scaled[:, 1, None, k], value=sign).addcmul_(sine, scaled[:, 0, None, k], value=-sign)
    return slope @ directions.T


def _knots(rows: Rows, directions: Float[Tensor, "d k"]) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Number k, a sign, and the cosines and sines of k times the first knot's angles, times that sign.

    By cos (k+1)a = 2 cos a cos ka - cos (k-1)a, and for sines alike, in place: two products a knot. With the signs
    + + - - + + ... both terms are added, which is one operation. Rounding grows as k^2, to 256 of the last digit's.
    """
    angles = rows @ directions * knots_like(rows)[1]
    cosine, sine = angles.cos(), angles.sin()
    twice = 2 * cosine
    before = torch.ones_like(angles), torch.zeros_like(angles)
    now, sign = (cosine, sine), 1
    for k in range(1, KNOTS):
        yield k, sign, *now
        flip = 1 if k % 2 == 0 else -1
        for old, current in zip(before, now, strict=True):
            old.addcmul_(twice, current, value=flip)
        before, now, sign = now, before, sign * flip
