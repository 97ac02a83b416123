"""The least-squares problem that a pass has left, brought to a form from which terms can be removed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from lsdr.moments import Moments
from lsdr.regression.aliases import Aliased, described, independent_in_factor, independent_in_gram
from lsdr.regression.columns import Column, Term, column_name
from lsdr.regression.triangular import solve_transposed, upper_factor, upper_inverse

_EPS = float(np.finfo(np.float64).eps)
# Rounding left in a residual, in units of eps and of the terms that cancel in it.
_ROUNDING = 4.0
# Lengths of columns between which no square overflows or loses digits to underflow.
_RANGE = (1e-140, 1e140)
# Means and lengths that agree to this much of the length are the same.
_SAME = 1e-12


@dataclass(frozen=True, eq=False)
class System:
    r"""Centred least squares in units in which every column has length 1.

    .. math:: R^\top R = X^\top X + \Lambda, \quad z = R^{-\top} X^\top y, \quad b = R^{-1} z, \quad
        (X^\top X + \Lambda)^{-1} = W W^\top, \; W = R^{-1}

    Cross-products and TSQR both end here: the first by a Cholesky factor, the second by the factor itself, which has
    lost only half of the digits that the condition number takes.

    Attributes:
        terms: Terms that can be in the model, each with those of its columns that stayed.
        columns: Columns that stayed, in the terms' order.
        rows: n of the degrees of freedom: rows, or the sum of frequency weights.
        weight: Sum of the weights; rows where there are none.
        intercept: Whether there is one; then everything below is about the means.
        method: "gram" or "qr": where the numbers came from.
        mean: Means of the columns, shape (p,); 0 without an intercept.
        mean_y: Mean of the target; 0 without an intercept.
        scale: Lengths of the columns about their means, shape (p,): the standard deviation times root weight.
        scale_y: The same of the target; 1 where it is constant.
        ridge: Penalty on the squared coefficients in original units.
        unit: Lengths with the penalty, sqrt(scale^2 + ridge): the units of b and of everything triangular.
        penalty: ridge / unit^2, shape (p,): the diagonal of Lambda.
        root: R, upper triangular, shape (p, p).
        root_inverse: W, shape (p, p).
        projection: z, shape (p,), the target having length 1.
        objective: Least value of the penalised squared error, the target having length 1.
        rounding: Residual squared error, the target having length 1, below which a fit counts as exact.
        rss: Residual sum of squares in original units; 0 in an exact fit.
        tss: Sum of squares of the target, about its mean if there is an intercept.
        aliased: Columns that never enter.
        vif: Largest variance inflation factor (with the penalty), at least 1.
        doubtful: Whether columns are aliased as far as cross-products can tell; the factor tells more.
    """

    terms: tuple[Term, ...]
    columns: tuple[Column, ...]
    rows: float
    weight: float
    intercept: bool
    method: Literal["gram", "qr"]
    mean: NDArray[np.float64]
    mean_y: float
    scale: NDArray[np.float64]
    scale_y: float
    ridge: float
    unit: NDArray[np.float64]
    penalty: NDArray[np.float64]
    root: NDArray[np.float64]
    root_inverse: NDArray[np.float64]
    projection: NDArray[np.float64]
    objective: float
    rounding: float
    rss: float
    tss: float
    aliased: tuple[Aliased, ...]
    vif: float
    doubtful: bool

    @property
    def b(self) -> NDArray[np.float64]:
        """Coefficients in unit lengths, shape (p,)."""
        return np.asarray(self.root_inverse @ self.projection)

    @cached_property
    def inverse(self) -> NDArray[np.float64]:
        """Inverse of the (penalised) cross-products in unit lengths, shape (p, p)."""
        return np.asarray(self.root_inverse @ self.root_inverse.T)

    @property
    def exact(self) -> bool:
        """Whether the full model fits the target to rounding."""
        return self.rss == 0.0

    @property
    def digits(self) -> float:
        """About how many digits of the t values are right, from 0 to 15.7.

        Cross-products lose log10(VIF) of them, and as many as 1 - R^2 has zeros; the factor loses half of either.
        """
        lost = np.log10(self.vif) + (0.0 if self.tss == 0 else np.log10(max(self.rss / self.tss, _EPS**2)) * -1)
        return float(np.clip(-np.log10(_EPS) - lost / (1 if self.method == "gram" else 2), 0.0, None))


def system_of_moments(
    moments: Moments,
    columns: Sequence[Column],
    terms: Sequence[Term],
    *,
    rows: float | int,
    intercept: bool,
    ridge: float | int = 0.0,
) -> System:
    """The system of centred cross-products.

    Args:
        moments: Of [x, y], y last.
        columns: Of x, in the moments' order.
        terms: What can be in the model, from the highest priority to the lowest; columns in none take no part.
        rows: n of the degrees of freedom.
        intercept: Whether the model has one.
        ridge: Penalty on the squared coefficients in original units (scikit-learn's `Ridge(alpha)`), 0 for none.

    Raises:
        ValueError: If there are no rows, or a column's squares overflow.
    """
    _check(rows, ridge)
    frame = _Frame(terms, columns, float(rows), float(moments.count), intercept, float(ridge))
    chosen = np.append(frame.positions, len(columns))
    mean = np.asarray(moments.mean)[chosen]
    cross = np.asarray(moments.cross)[np.ix_(chosen, chosen)]
    if not intercept:
        cross = cross + moments.count * np.outer(mean, mean)
    square = np.diagonal(cross).copy()
    if not np.isfinite(cross).all():
        wrong = [*map(column_name, frame.columns), "the target"][int(np.isfinite(square).argmin())]
        raise ValueError(f"the squares of {wrong} leave the range of floats: divide it by a power of ten")
    about = mean if intercept else np.zeros_like(mean)
    varies = square > frame.weight * (0.5 * _EPS * about) ** 2
    scale = np.sqrt(np.where(varies, square, 0.0))
    part = _Part(frame, about, scale, np.flatnonzero(varies[:-1]))
    unit = np.append(part.unit, part.scale_y)
    some = np.append(part.varying, len(varies) - 1)
    scaled = cross[np.ix_(some, some)] / unit / unit[:, None]
    if not varies[-1]:
        scaled[-1] = scaled[:, -1] = 0.0
    a, r = scaled[:-1, :-1].copy(), scaled[:-1, -1]
    np.fill_diagonal(a, 1.0)
    stay = independent_in_gram(a, part.priority, part.most, part.offset)
    root, info = lapack.dpotrf(a[np.ix_(stay, stay)], lower=0, clean=1)
    if info:  # the tolerance holds for the pivots in order of priority; another order can have worse ones
        raise ValueError("the cross-products are singular: use method='qr'")
    projection = solve_transposed(root, r[stay])
    total = 1.0 if varies[-1] else 0.0
    left = max(total - float(projection @ projection), 0.0)
    combinations = solve_transposed(root, a[np.ix_(stay, ~stay)])
    return part.finish("gram", stay, root, projection, left, combinations)


def system_of_factor(
    R: NDArray[np.float64],
    columns: Sequence[Column],
    terms: Sequence[Term],
    *,
    rows: float | int,
    weight: float | int,
    intercept: bool,
    shift: NDArray[np.float64],
    ridge: float | int = 0.0,
) -> System:
    """The system of a triangular factor.

    Args:
        R: Factor of the weighted rows [1, x - shift, y - shift], shape (p + 2, p + 2); without the ones and with
            shifts of 0 if there is no intercept, shape (p + 1, p + 1).
        columns: Of x.
        terms: As in `system_of_moments`.
        rows: n of the degrees of freedom.
        weight: Sum of the weights.
        intercept: Whether the model has one.
        shift: What was taken off x and y, shape (p + 1,).
        ridge: As in `system_of_moments`.

    Raises:
        ValueError: If there are no rows, or the shapes do not fit.
    """
    _check(rows, ridge)
    size = len(columns) + 1 + intercept
    if R.shape != (size, size) or shift.shape != (len(columns) + 1,):
        raise ValueError(
            f"R must have shape {(size, size)} and shift {(len(columns) + 1,)}, got {R.shape, shift.shape}"
        )
    if not intercept and shift.any():
        raise ValueError("without an intercept nothing can be taken off the rows: shift must be 0")
    frame = _Frame(terms, columns, float(rows), float(weight), intercept, float(ridge))
    chosen = np.append(frame.positions, len(columns))
    if intercept:
        mean = shift[chosen] + R[0, 1:][chosen] / R[0, 0]
        factor = R[1:, 1:][:, chosen]
    else:
        mean, factor = np.zeros(len(chosen)), R[:, chosen]
    whole = _lengths(R[:, chosen + intercept])
    scale = _lengths(factor)
    varies = scale > _EPS * np.maximum(16 * whole * intercept, 0.5 * np.sqrt(frame.weight) * np.abs(mean))
    part = _Part(frame, mean, np.where(varies, scale, 0.0), np.flatnonzero(varies[:-1]))
    unit = np.append(part.unit, part.scale_y)
    some = np.append(part.varying, len(varies) - 1)
    factor = factor[:, some] / unit
    if not varies[-1]:
        factor[:, -1] = 0.0
    if ridge:
        diagonal = np.zeros((len(part.varying), factor.shape[1]))
        np.fill_diagonal(diagonal, np.sqrt(part.penalty))
        factor = np.vstack([factor, diagonal])
    stay = independent_in_factor(factor[:, :-1], part.priority, part.most, part.offset)
    k = int(stay.sum())
    order = np.concatenate([np.flatnonzero(stay), [len(stay)], np.flatnonzero(~stay)])
    full = upper_factor(np.vstack([factor[:, order], np.zeros((1, len(order)))]), k)
    left = float(full[k:, k] @ full[k:, k])
    root, projection = np.ascontiguousarray(full[:k, :k]), full[:k, k].copy()
    return part.finish("qr", stay, root, projection, left, full[:k, k + 1 :])


class _Frame:
    """What both routes know beforehand: the columns in the terms' order."""

    def __init__(
        self,
        terms: Sequence[Term],
        columns: Sequence[Column],
        rows: float,
        weight: float,
        intercept: bool,
        ridge: float,
    ) -> None:
        place = {column: at for at, column in enumerate(columns)}
        self.terms, self.rows, self.weight = tuple(terms), rows, weight
        self.intercept, self.ridge = intercept, ridge
        self.columns = tuple(column for term in terms for column in term.columns)
        self.forced = np.array([term.forced for term in terms for _ in term.columns], dtype=np.bool_)
        self.positions = np.array([place[column] for column in self.columns], dtype=np.intp)


class _Part:
    """The columns that vary, with their units and priority."""

    def __init__(
        self, frame: _Frame, mean: NDArray[np.float64], scale: NDArray[np.float64], varying: NDArray[np.intp]
    ) -> None:
        if not _RANGE[0] < frame.weight < _RANGE[1]:
            raise ValueError(
                f"the weights sum to {frame.weight:.0e}, and products with them leave the range of floats: multiply "
                "them by a power of ten, which changes no t value"
            )
        for column, length in zip([*frame.columns, ("the target", "")], scale, strict=True):
            if length and not _RANGE[0] < length < _RANGE[1]:
                raise ValueError(
                    f"the values of {column_name(column)} vary by about {length / np.sqrt(frame.weight):.0e}, and "
                    "their squares leave the range of floats: multiply it by a power of ten"
                )
        self.frame, self.varying = frame, varying
        self.mean, self.scale = mean[varying], scale[varying]
        self.mean_y, self.tss_root = float(mean[-1]), float(scale[-1])
        self.scale_y = self.tss_root or 1.0
        self.unit = np.hypot(self.scale, np.sqrt(frame.ridge))
        self.penalty = frame.ridge / self.unit**2
        self.priority = np.argsort(~frame.forced[varying], kind="stable")
        least = int(np.floor(frame.rows)) - frame.intercept
        self.most = len(varying) if frame.ridge else max(least, 0)
        root = np.sqrt(frame.weight)
        self.offset = np.hypot(1.0, root * self.mean / self.scale)
        self.offset_y = float(np.hypot(1.0, root * self.mean_y / self.scale_y))

    def finish(
        self,
        method: Literal["gram", "qr"],
        stay: NDArray[np.bool_],
        root: NDArray[np.float64],
        projection: NDArray[np.float64],
        left: float,
        combinations: NDArray[np.float64],
    ) -> System:
        """Put the system together.

        Args:
            method: The route.
            stay: Which of the varying columns stay.
            root: R of those.
            projection: z.
            left: Squared length of the target that z leaves over (with the penalty).
            combinations: R^-T X' of the columns that do not stay.
        """
        frame = self.frame
        inverse = upper_inverse(root)
        b = inverse @ projection
        penalty = self.penalty[stay]
        size = self.offset_y + float(np.abs(b) @ self.offset[stay])
        rounding = (_ROUNDING * _EPS * size) ** 2
        if method == "gram":
            rounding = max(rounding, _ROUNDING * _EPS * (1.0 + float(np.abs(b).sum())) ** 2)
        residual = max(left - float(penalty @ b**2), 0.0)
        saturated = not frame.ridge and len(b) >= frame.rows - frame.intercept
        if saturated or self.tss_root == 0 or residual <= rounding:
            left, residual = left - residual, 0.0
        kept = [frame.columns[place] for place in self.varying[stay]]
        gone = [frame.columns[place] for place in self.varying[~stay]]
        gap = np.abs(self.mean[stay][:, None] - self.mean[~stay]) * np.sqrt(frame.weight)
        near = _SAME * self.scale[~stay] + 8 * _EPS * np.sqrt(frame.weight) * np.abs(self.mean[~stay])
        same = (gap <= near) & (np.abs(self.scale[stay][:, None] / self.scale[~stay] - 1.0) <= _SAME)
        found = described(gone, kept, inverse @ combinations, same, [column_name(column) for column in kept])
        constant = set(range(len(frame.columns))) - set(self.varying.tolist())
        by_column = {aliased.column: aliased for aliased in found}
        by_column |= {frame.columns[place]: Aliased(frame.columns[place], "constant") for place in constant}
        ordered = tuple(by_column[column] for column in frame.columns if column in by_column)
        stayed = set(kept)
        terms = [
            replace(term, columns=tuple(column for column in term.columns if column in stayed)) for term in frame.terms
        ]
        return System(
            terms=tuple(term for term in terms if term.columns),
            columns=tuple(kept),
            rows=frame.rows,
            weight=frame.weight,
            intercept=frame.intercept,
            method=method,
            mean=self.mean[stay],
            mean_y=self.mean_y,
            scale=self.scale[stay],
            scale_y=self.scale_y,
            ridge=frame.ridge,
            unit=self.unit[stay],
            penalty=penalty,
            root=root,
            root_inverse=inverse,
            projection=projection,
            objective=left,
            rounding=rounding,
            rss=residual * self.tss_root**2,
            tss=self.tss_root**2,
            aliased=ordered,
            vif=float((inverse**2).sum(1).max(initial=1.0)),
            doubtful=method == "gram" and bool(found),
        )


def _check(rows: float | int, ridge: float | int) -> None:
    if not rows > 0:
        raise ValueError("there are no rows to fit: all were left out, or have weight 0")
    if not 0 <= ridge < np.inf:
        raise ValueError(f"ridge must be at least 0 and finite, got {ridge}")


def _lengths(factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths of the columns, without overflow or underflow."""
    largest = np.abs(factor).max(0, initial=0.0)
    safe = np.where(largest > 0, largest, 1.0)
    return np.asarray(safe * np.sqrt(((factor / safe) ** 2).sum(0)) * (largest > 0))
