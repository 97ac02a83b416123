"""Backward elimination: the whole path of models from one factorisation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc

from lsdr.regression.f_tail import log_f_tail
from lsdr.regression.path import Current, Path, StandardErrors
from lsdr.regression.projection import Projection
from lsdr.regression.system import System

# Statistics this close (relative, and of the target's length) are equal to rounding.
_TIE, _TIE_LENGTH = 1e-12, 4e-15


def eliminate(system: System, *, standard_errors: StandardErrors | None = None) -> Path:
    r"""Remove the weakest term, again and again, until none is left that may be removed.

    .. math:: t_j^2 = \frac{b_j^2}{s^2 C_{jj}}, \quad
        F_g = \frac{b_g^\top C_{gg}^{-1} b_g / |g|}{s^2}, \quad s^2 = \frac{\mathrm{RSS}}{n - 1 - k}

    Terms of one column go by the smallest |t|; where terms differ in their number of columns, that with the largest p
    value of F goes. Equal statistics: the later term goes. In an exact fit, and where no degrees of freedom are left,
    s^2 drops out, and the order is that of b_g' C_gg^-1 b_g / |g|.

    Cost: O(p^3) for all steps together. Five milliseconds for 100 columns, half a second for 1000.

    Args:
        system: The full model.
        standard_errors: Robust covariances of any model on the path, by which t, F and the order then go.
    """
    return _Elimination(system, standard_errors).path()


def eliminate_many(systems: Sequence[System]) -> list[Path]:
    """The paths of several systems: folds, resamples."""
    return [eliminate(system) for system in systems]


class _Elimination:
    """The tables of a path while they are filled, in unit lengths."""

    def __init__(self, system: System, errors: StandardErrors | None) -> None:
        self.system, self.errors = system, errors
        p = len(system.columns)
        self.steps = sum(not term.forced for term in system.terms) + 1
        self.b, self.unit_variance = np.zeros((2, self.steps, p))
        self.robust = np.zeros((self.steps, p))
        self.robust_intercept = np.full(self.steps, np.nan)
        self.df_robust = np.full(self.steps, np.nan)
        self.rss, self.df_resid, self.at_means = np.zeros((3, self.steps))
        self.gain = np.full(self.steps, np.nan)
        self.width = np.zeros(self.steps, dtype=np.intp)
        self.last = np.full(p, self.steps)  # first step without the column
        self.removed: list[int] = []
        sizes = [len(term.columns) for term in system.terms]
        self.starts = np.cumsum([0, *sizes])
        self.sizes = np.array(sizes, dtype=np.intp)
        self.term_of = np.repeat(np.arange(len(sizes)), sizes)

    def path(self) -> Path:
        state = Projection(self.system)
        if self.errors is None and (self.sizes == 1).all():
            self._single_columns(state)
        else:
            self._terms(state, self.errors)
        return self._finished()

    def _record(self, step: int, state: Projection) -> None:
        self.b[step, state.index] = state.b
        self.unit_variance[step, state.index] = state.variances
        self.at_means[step] = state.mean_variance
        self.rss[step] = state.objective
        self.df_resid[step] = len(state.index) if state.present.all() else np.count_nonzero(state.present)
        if self.system.ridge:
            penalty = self.system.penalty[state.index]
            self.rss[step] -= penalty @ state.b**2
            self.df_resid[step] -= penalty[state.present] @ state.diagonal[state.present]

    def _single_columns(self, state: Projection) -> None:
        """Every term has one column, and t is the classical one: nothing but the smallest b^2 / C_jj is looked for."""
        blocked = np.where([term.forced for term in self.system.terms], np.inf, 0.0)
        for step in range(self.steps - 1):
            self._record(step, state)
            gains = state.b * state.b / state.variances + blocked[state.index]
            place = _smallest(gains)
            column = int(state.index[place])
            self._removes(step, column, float(gains[place]))
            blocked[column] = np.inf
            state.remove(place)
        self._record(self.steps - 1, state)

    def _terms(self, state: Projection, errors: StandardErrors | None) -> None:
        """Terms of several columns, or robust errors."""
        candidates = [place for place, term in enumerate(self.system.terms) if not term.forced]
        for step in range(self.steps):
            state.update()
            self._record(step, state)
            covariance = None if errors is None else self._robust(step, state, errors)
            if not candidates:
                break
            place_of = np.full(len(self.b[0]), -1)
            place_of[state.index] = np.arange(len(state.index))
            groups = [place_of[self.starts[term] : self.starts[term + 1]] for term in candidates]
            gains = _gains(state, groups, covariance)
            chosen = self._weakest(step, gains, self.sizes[candidates], errors is not None)
            self._removes(step, candidates.pop(chosen), float(gains[chosen]))
            if len(groups[chosen]) == 1:
                state.remove(int(groups[chosen][0]))
            else:
                state.remove_group(groups[chosen])

    def _weakest(self, step: int, gains: NDArray[np.float64], sizes: NDArray[np.intp], robust: bool) -> int:
        """The candidate with the largest p value."""
        df = self.df_robust[step] if robust else self._free(step)
        noise = self._noise(step)
        if (sizes == sizes[0]).all() or not df > 0 or (noise <= 0 and not robust):
            return _smallest(gains / sizes)
        logs = log_f_tail(gains / sizes / (1.0 if robust else noise), sizes.astype(np.float64), df)
        largest = logs.max()
        return int(np.flatnonzero(logs >= largest - _TIE * 10 * max(1.0, abs(largest)))[-1])

    def _free(self, step: int) -> float:
        return float(self.system.rows - self.system.intercept - self.df_resid[step])

    def _noise(self, step: int) -> float:
        """Residual variance, the target having length 1; 0 in an exact fit."""
        rss, df = float(self.rss[step]), self._free(step)
        return rss / df if df > 0 and rss > self.system.rounding else 0.0

    def _robust(self, step: int, state: Projection, errors: StandardErrors) -> NDArray[np.float64]:
        """Robust covariance in unit lengths, the target's too."""
        system = self.system
        unit = system.unit[state.index]
        coefficients = state.b * (system.scale_y / unit)
        current = Current(
            indices=state.index,
            inverse=state.inverse() / unit / unit[:, None],
            coefficients=coefficients,
            intercept=float(system.mean_y - system.mean[state.index] @ coefficients),
            df_resid=self._free(step),
            rss=float(self.rss[step]) * system.tss,
        )
        covariance = np.asarray(errors(current), dtype=np.float64)
        if covariance.shape != (len(unit), len(unit)):
            raise ValueError(
                f"standard_errors must give a covariance of shape {(len(unit), len(unit))}, got {covariance.shape}"
            )
        self.robust[step, state.index] = np.diagonal(covariance)
        self.robust_intercept[step] = errors.intercept_variance(current)
        self.df_robust[step] = errors.df(current)
        return covariance * (unit / system.scale_y) * (unit / system.scale_y)[:, None]

    def _removes(self, step: int, term: int, gain: float) -> None:
        self.removed.append(term)
        self.gain[step], self.width[step] = gain, self.sizes[term]
        self.last[self.starts[term] : self.starts[term + 1]] = step + 1

    def _finished(self) -> Path:
        system, steps = self.system, self.steps
        absent = np.arange(steps)[:, None] >= self.last
        df_resid = system.rows - system.intercept - self.df_resid
        rss = np.where(self.rss > system.rounding, self.rss, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = np.where(df_resid > 0, rss / df_resid, np.nan)
            b, unit_variance = (np.where(absent, np.nan, table) for table in (self.b, self.unit_variance))
            coefficients = b * (system.scale_y / system.unit)
            inverse_diagonal = unit_variance / system.unit**2
            intercepts = system.mean_y - np.where(absent, 0.0, coefficients) @ system.mean
            at_means = 1 / system.weight + self.at_means if system.intercept else np.full(steps, np.nan)
            scale = noise * system.scale_y**2
            if self.errors is None:
                variances, intercept_variances, df_t = scale[:, None] * inverse_diagonal, scale * at_means, df_resid
                gain = self.gain / noise
            else:
                variances = np.where(absent, np.nan, self.robust)
                intercept_variances, df_t, gain = self.robust_intercept, self.df_robust, self.gain
            tvalues = coefficients / np.sqrt(variances)
            intercept_tvalues = intercepts / np.sqrt(intercept_variances)
            exact = rss == 0
            if exact.any():
                zero = exact[:, None] & (b * b <= system.rounding * unit_variance)
                tvalues[zero] = np.nan
                intercept_tvalues[exact & (intercepts**2 <= system.rounding * system.scale_y**2 * at_means)] = np.nan
                gain = np.where(exact & (self.gain <= system.rounding), np.nan, gain)
            F = gain / self.width
            p_value = np.where(np.isposinf(F), 0.0, fdtrc(self.width, df_t, F))
        t = np.full(steps, np.nan)
        for step, term in enumerate(self.removed):
            if self.width[step] == 1:
                t[step] = tvalues[step, self.starts[term]]
        return Path(
            terms=system.terms,
            order=tuple(system.terms[term].name for term in self.removed),
            size=len(system.terms) - np.arange(steps),
            rss=rss * system.scale_y**2,
            df_resid=df_resid,
            coefficients=coefficients,
            intercepts=intercepts,
            inverse_diagonal=inverse_diagonal,
            intercept_variance=at_means,
            variances=variances,
            intercept_variances=intercept_variances,
            df_t=df_t,
            tvalues=tvalues,
            intercept_tvalues=intercept_tvalues,
            t=t,
            F=F,
            df=self.width,
            p_value=p_value,
        )


def _gains(
    state: Projection, groups: Sequence[NDArray[np.intp]], covariance: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """b_g' V_gg^-1 b_g of every group, by the given covariance or the classical one."""
    if covariance is None:
        return np.array(
            [
                state.b[group[0]] ** 2 / state.variances[group[0]] if len(group) == 1 else state.gain(group)
                for group in groups
            ]
        )
    found = []
    for group in groups:
        b, own = state.b[group], covariance[np.ix_(group, group)]
        # Robust covariances can be singular (fewer clusters than columns): the Wald statistic of what they span.
        found.append(b @ np.linalg.lstsq(own, b, rcond=None)[0] if len(group) > 1 else _ratio(b[0] ** 2, own[0, 0]))
    return np.array(found)


def _ratio(square: float, variance: float) -> float:
    return float(square / variance) if variance > 0 else (np.inf if square > 0 else 0.0)


def _smallest(statistic: NDArray[np.float64]) -> int:
    """Place of the smallest; the last of those equal to rounding."""
    least = float(statistic.min())
    near = statistic <= (np.sqrt(least) * (1 + _TIE) + _TIE_LENGTH) ** 2
    return int(len(near) - 1 - near[::-1].argmax())
