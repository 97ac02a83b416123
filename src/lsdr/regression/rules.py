"""Rules that choose one model from the path of a backward elimination, each with a sentence saying why."""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.criteria import aic, bic, mallows_cp
from lsdr.regression.path import Path

Rule = Literal["size", "p_value", "aic", "bic", "cp", "cv", "one_se"]
RULES: tuple[str, ...] = get_args(Rule)

_NAMES = {"aic": "AIC", "bic": "BIC", "cp": "Mallows' Cp"}


def choose(
    path: Path,
    rule: str,
    *,
    rows: float | int,
    parameters: NDArray[np.float64],
    keep: int | None = None,
    p_value: float | int = 0.05,
    mse: NDArray[np.float64] | None = None,
    se: NDArray[np.float64] | None = None,
) -> tuple[int, str]:
    """Index of the chosen step of a path (0 is the full model), and a sentence saying why.

    - "size": the model of `keep` terms.
    - "p_value": drop while the weakest term's p exceeds the threshold (a p that is undefined counts as above it).
    - "aic", "bic", "cp": least criterion on the whole path. R's `step` stops at the first rise instead; where that
      ends elsewhere, the sentence says so.
    - "cv": least held-out error.
    - "one_se": the smallest model whose held-out error is within one standard error (that of the best model) of the
      least: Breiman, Friedman, Olshen & Stone, "Classification and regression trees", 1984, section 3.4.3.

    Ties go to the smaller model. Models that fit as many coefficients as there are rows are never chosen by an
    in-sample criterion, since such a fit says nothing. Where a criterion is undefined on the whole path (no folds, an
    exact fit under Cp), AIC takes its place, and where that is undefined too, the smallest model; the sentence says so.

    Args:
        path: The path, full model first.
        rule: One of RULES.
        rows: Number of rows n (sum of the weights where they are frequencies).
        parameters: Estimated coefficients of every step, intercept counted (effective ones under ridge).
        keep: Number of terms under "size".
        p_value: Threshold under "p_value".
        mse: Held-out error of every step under "cv" and "one_se".
        se: Its standard errors under "one_se".

    Raises:
        ValueError: If the rule is unknown, or "size" comes without `keep`.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if rule == "size":
        return _size(path, keep)
    if rule == "p_value":
        return _p_value(path, p_value)
    free = path.df_resid > 0
    if rule in ("cv", "one_se"):
        index = None if mse is None else _least(mse, np.isfinite(mse))
        if index is None or mse is None:
            return _instead(path, "there is no held-out error to judge by", rows, parameters)
        if rule == "cv" or se is None:
            return index, f"least held-out error ({mse[index]:.6g}) on the path"
        return _one_se(mse, se, index, path)
    if rule == "cp" and not (free[0] and path.rss[0] > 0):
        why = "an exact fit leaves no variance" if free[0] else "the full model leaves no degrees of freedom"
        return _instead(path, f"{why}, so that Mallows' Cp is undefined", rows, parameters)
    curves: dict[str, Callable[[], object]] = {
        "aic": lambda: aic(path.rss, rows, parameters),
        "bic": lambda: bic(path.rss, rows, parameters),
        "cp": lambda: mallows_cp(path.rss, rows, parameters, float(path.rss[0] / path.df_resid[0])),
    }
    return _criterion(path, _NAMES[rule], np.asarray(curves[rule]()), free)


def _size(path: Path, keep: int | None) -> tuple[int, str]:
    if keep is None:
        raise ValueError('rule="size" needs keep, the number of terms to keep')
    reached = np.flatnonzero(path.size <= keep)
    if not len(reached):
        return len(path.size) - 1, f"{keep} terms were asked for, but {path.size[-1]} are forced in"
    index = int(reached[0])
    if path.size[index] < keep:
        return index, f"{keep} terms were asked for, but only {path.size[index]} can be told apart in these rows"
    return index, f"{_terms(keep)} asked for"


def _p_value(path: Path, threshold: float | int) -> tuple[int, str]:
    last = len(path.size) - 1
    for index in range(last):
        p = path.p_value[index]
        if p <= threshold:
            return index, f"the weakest term left, {path.order[index]}, has p = {p:.3g}, not above {threshold:g}"
    if last == 0:
        return 0, "nothing can be dropped"
    return last, f"every term that may be dropped had p above {threshold:g} when its turn came"


def _criterion(path: Path, name: str, values: NDArray[np.float64], free: NDArray[np.bool_]) -> tuple[int, str]:
    index = _least(values, free & ~np.isnan(values))
    if index is None:
        return len(values) - 1, f"{name} is undefined at every size, so the smallest model stands"
    if np.isneginf(values[index]):
        return index, "smallest model of the path that fits exactly"
    why = f"least {name} ({values[index]:.6g}) on the path"
    # R's step() moves on only while the criterion falls.
    usable = np.flatnonzero(free)
    rises = [int(i) for i in usable[:-1] if values[i + 1] > values[i]]
    if rises and rises[0] != index:
        why += f"; a search that stops at the first rise, as R's step() does, would keep {_terms(path.size[rises[0]])}"
    return index, why


def _one_se(mse: NDArray[np.float64], se: NDArray[np.float64], best: int, path: Path) -> tuple[int, str]:
    margin = float(np.nan_to_num(se[best]))
    index = int(np.flatnonzero(mse <= mse[best] + margin)[-1])
    found = f"{mse[best]:.6g} ± {margin:.3g} at {_terms(path.size[best])}"
    if index == best:
        return index, f"least held-out error ({found}); no smaller model comes within one standard error of it"
    return (
        index,
        f"smallest model whose held-out error ({mse[index]:.6g}) is within one standard error of the least ({found})",
    )


def _instead(path: Path, trouble: str, rows: float | int, parameters: NDArray[np.float64]) -> tuple[int, str]:
    index, why = _criterion(path, "AIC", np.asarray(aic(path.rss, rows, parameters)), path.df_resid > 0)
    return index, f"{trouble}; instead: {why}"


def _least(values: NDArray[np.float64], usable: NDArray[np.bool_]) -> int | None:
    """Last (smallest model) of the least usable values."""
    if not usable.any():
        return None
    return int(np.flatnonzero(usable & (values == values[usable].min()))[-1])


def _terms(count: int | np.integer) -> str:
    return f"{count} term" if count == 1 else f"{count} terms"
