"""The steps of a result from the numbers of a path."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.columns import column_name
from lsdr.regression.criteria import adjusted_r2, aic, bic, mallows_cp
from lsdr.regression.crossvalidation import Heldout
from lsdr.regression.estimates import Estimates
from lsdr.regression.path import Path
from lsdr.regression.step import Step
from lsdr.regression.system import System

Names = NDArray[Any]


def path_steps(system: System, path: Path, error: Heldout | None = None) -> tuple[Step, ...]:
    """One Step for every size, the full model first.

    Args:
        system: The system that the path was made from.
        path: The path.
        error: Held-out errors of its sizes, if any.
    """
    parameters = system.rows - path.df_resid
    free = bool(path.df_resid[0] > 0)
    variance = float(path.rss[0] / path.df_resid[0]) if free else np.nan
    total = system.rows - system.intercept
    tss = float(system.tss)
    unknown = np.full(len(path.size), np.nan)
    aics = np.asarray(aic(path.rss, system.rows, parameters))
    bics = np.asarray(bic(path.rss, system.rows, parameters))
    cps = np.asarray(mallows_cp(path.rss, system.rows, parameters, variance))
    shares = 1 - path.rss / (tss if tss > 0 else np.nan)
    adjusted = np.asarray(adjusted_r2(path.rss, tss, path.df_resid, total))
    mse, se = (unknown, unknown) if error is None else (error.mse, error.se)
    steps = []
    names = names_of(system)
    left = [term.name for term in path.terms]
    for index in range(len(path.size)):
        last = index == len(path.size) - 1
        steps.append(
            Step(
                size=int(path.size[index]),
                terms=tuple(left),
                removed=None if last else path.order[index],
                t=np.nan if last else float(path.t[index]),
                F=np.nan if last else float(path.F[index]),
                df=0 if last else int(path.df[index]),
                p_value=np.nan if last else float(path.p_value[index]),
                estimates=estimates_of(system, path, index, names),
                rss=float(path.rss[index]),
                df_resid=float(path.df_resid[index]),
                mse=float(path.rss[index]) / system.weight,
                r_squared=float(shares[index]),
                adjusted_r_squared=float(adjusted[index]),
                aic=float(aics[index]),
                bic=float(bics[index]),
                cp=float(cps[index]),
                mse_heldout=float(mse[index]),
                mse_heldout_se=float(se[index]),
            )
        )
        if not last:
            left.remove(path.order[index])
    return tuple(steps)


def estimates_of(system: System, path: Path, index: int, names: Names | None = None) -> Estimates:
    """Coefficients of one step with their standard errors, the intercept first where there is one.

    Args:
        system: The system that the path was made from.
        path: The path; its variances may be robust ones.
        index: Step.
        names: Display names of the system's columns; None: looked up.
    """
    names = names_of(system) if names is None else names
    present = np.flatnonzero(~np.isnan(path.coefficients[index]))
    values, t = path.coefficients[index, present], path.tvalues[index, present]
    variances, named = path.variances[index, present], names[present].tolist()
    if system.intercept:
        named.insert(0, "Intercept")
        values = np.concatenate([[path.intercepts[index]], values])
        variances = np.concatenate([[path.intercept_variances[index]], variances])
        t = np.concatenate([[path.intercept_tvalues[index]], t])
    errors = np.sqrt(variances)
    # In an exact fit a coefficient that is 0 but for rounding is 0: its t is undefined rather than infinite.
    values = np.where((errors == 0) & np.isnan(t), 0.0, values)
    return Estimates(tuple(named), values, errors, float(path.df_t[index]))


def names_of(system: System) -> Names:
    """Display names of the columns of a system."""
    names = np.empty(len(system.columns), dtype=object)
    names[:] = [column_name(column) for column in system.columns]
    return names
