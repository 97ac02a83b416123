"""The runs behind docs/evidence/regression.md: `python docs/evidence/regression.py STAGE...`.

Every stage leaves docs/evidence/results/regression-STAGE.json, which docs/evidence/regression_tables.py judges.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from lsdr.regression.backward_elimination import backward_elimination
from lsdr.regression.reduction import Reduction
from lsdr.runs import environment

RESULTS = Path(__file__).parent / "results"
RULES = ("one_se", "cv", "aic", "bic", "p_value")


def reduce(x: np.ndarray, y: np.ndarray, **options: Any) -> Reduction:
    """The reduction of one table with columns x0, x1, ..."""
    frame = pd.DataFrame(x, columns=[f"x{j}" for j in range(x.shape[1])])
    return backward_elimination(frame.assign(y=y), "y", workers=1, **options)


def coefficients(result: Reduction, p: int) -> tuple[float, np.ndarray]:
    """Intercept and all p coefficients of the chosen model, zeros for what has been dropped."""
    params = result.model().params
    return float(params["Intercept"]), np.array([params.get(f"x{j}", 0.0) for j in range(p)], dtype=float)


def least_squares(x: np.ndarray, y: np.ndarray, keep: Any) -> tuple[float, np.ndarray]:
    """Intercept and coefficients of least squares on some columns."""
    b = np.zeros(x.shape[1])
    centred = x[:, keep] - x[:, keep].mean(0)
    b[keep] = np.linalg.lstsq(centred, y - y.mean(), rcond=1e-12)[0]
    return float(y.mean() - x.mean(0) @ b), b


def ridge(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Ridge regression on standardised columns, the penalty by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    scale = np.where(x.std(0) > 0, x.std(0), 1.0)
    model = RidgeCV(alphas=np.logspace(-3, 4, 29)).fit((x - x.mean(0)) / scale, y)
    b = model.coef_ / scale
    return float(y.mean() - x.mean(0) @ b), b


def arms(
    x: np.ndarray, y: np.ndarray, error: Callable[[float, np.ndarray], float], generator: np.random.Generator
) -> dict[str, float]:
    """Error of every arm over that of all variables, less 1; sizes; falls of the training error."""
    p = x.shape[1]
    full = error(*least_squares(x, y, np.arange(p)))
    found: dict[str, float] = {}
    for rule in RULES:
        result = reduce(x, y, rule=rule, split=False)
        found[rule] = error(*coefficients(result, p)) / full - 1
        found[f"size {rule}"] = float(result.chosen.size)
    training = np.array([step.mse for step in result.steps])
    found["steps"] = float(len(training) - 1)
    found["falls in-sample"] = float((np.diff(training) < -1e-12 * training[:-1]).sum())
    kept = reduce(x, y, rule="size", keep=p, split=False)
    found["all variables"] = error(*coefficients(kept, p)) / full - 1
    drawn = generator.permutation(p)[: int(found["size one_se"])]
    found["random variables"] = error(*least_squares(x, y, drawn)) / full - 1
    found["ridge"] = error(*ridge(x, y)) / full - 1
    return found


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns, numbers to six digits."""
    return {name: [_rounded(row[name]) for row in rows] for name in rows[0]}


def _rounded(value: Any) -> Any:
    return [_rounded(each) for each in value] if isinstance(value, list) else float(f"{value:.6g}")


def simulated() -> list[dict[str, Any]]:
    """Every scenario of known truth, with the arms of its ten draws."""
    found = []
    for place, truth in enumerate(("three", "equal", "falling")):
        for p in (10, 40):
            slopes = {"three": np.zeros(p), "equal": np.ones(p), "falling": 0.8 ** np.arange(p)}[truth]
            if truth == "three":
                slopes[[0, p // 2, p - 1]] = 1.0
            for correlation in (0.0, 0.7):
                covariance = correlation ** np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
                root, signal = np.linalg.cholesky(covariance), float(slopes @ covariance @ slopes)
                for r2 in (0.2, 0.6):
                    noise = signal * (1 - r2) / r2
                    for n in (60, 200, 1000):
                        scenario = {"truth": truth, "p": p, "n": n, "correlation": correlation, "r2": r2}
                        generator = np.random.default_rng([place, p, n, int(10 * correlation), int(10 * r2)])

                        def error(
                            b0: float,
                            b: np.ndarray,
                            slopes: np.ndarray = slopes,
                            covariance: np.ndarray = covariance,
                            noise: float = noise,
                        ) -> float:
                            return float(b0**2 + (b - slopes) @ covariance @ (b - slopes) + noise)

                        draws = []
                        for _ in range(10):
                            x = generator.normal(size=(n, p)) @ root.T
                            y = x @ slopes + np.sqrt(noise) * generator.normal(size=n)
                            draws.append(arms(x, y, error, generator))
                        found.append({"scenario": scenario, "draws": _columns(draws)})
        print(truth, len(found), flush=True)
    return found


def tables_of_others() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Real tables of numbers that come with scikit-learn and statsmodels: name to (x, y)."""
    import statsmodels.api as sm
    from sklearn import datasets

    found = {"diabetes": datasets.load_diabetes(return_X_y=True)}
    exercises = datasets.load_linnerud()
    for j, name in enumerate(exercises.target_names):
        found[f"linnerud {name}"] = (exercises.data, exercises.target[:, j])
    wine, iris = datasets.load_wine().data, datasets.load_iris().data
    found["wine alcohol"] = (wine[:, 1:], wine[:, 0])
    found["iris petal width"] = (iris[:, :3], iris[:, 3])
    targets = {
        "ccard": "AVGEXP",
        "committee": "BILLS104",
        "copper": "WORLDCONSUMPTION",
        "cpunish": "EXECUTIONS",
        "longley": "TOTEMP",
        "scotland": "YES",
        "stackloss": "STACKLOSS",
        "spector": "GRADE",
        "statecrime": "murder",
        "fair": "affairs",
        "randhie": "mdvis",
        "anes96": "PID",
    }
    left_out = {"statecrime": ["violent"], "anes96": ["vote"]}
    for name, target in targets.items():
        data = getattr(sm.datasets, name).load_pandas().data.astype(float)
        x = data.drop(columns=[target, *left_out.get(name, [])])
        found[name] = (x.to_numpy(), data[target].to_numpy())
    schools = sm.datasets.star98.load_pandas().data.astype(float)
    above, below = schools["NABOVE"], schools["NBELOW"]
    found["star98"] = (schools.drop(columns=["NABOVE", "NBELOW"]).to_numpy(), (above / (above + below)).to_numpy())
    return found


def real(splits: int = 20) -> list[dict[str, Any]]:
    """Every real table, with the arms of its random splits."""
    found = []
    for place, (name, (x, y)) in enumerate(tables_of_others().items()):
        generator, draws = np.random.default_rng([7, place]), []
        for _ in range(splits):
            order = generator.permutation(len(y))
            cut = round(0.8 * len(y))
            train, test = order[:cut], order[cut:]

            def error(b0: float, b: np.ndarray, x: np.ndarray = x[test], y: np.ndarray = y[test]) -> float:
                return float(np.mean((y - b0 - x @ b) ** 2))

            draws.append(arms(x[train], y[train], error, generator))
        found.append(
            {"scenario": {"truth": "real", "name": name, "n": len(y), "p": x.shape[1]}, "draws": _columns(draws)}
        )
        print(name, x.shape, {rule: round(float(np.median([d[rule] for d in draws])), 3) for rule in RULES}, flush=True)
    return found


def generalisation() -> dict[str, Any]:
    """Claim 6.2, and the in-sample part of 6.4."""
    return {"data_sets": [*real(), *simulated()]}


def cost() -> dict[str, Any]:
    """Claim 6.1: CPU seconds of predictions by size, and of the path."""
    rows, p = 100_000, 100
    with tempfile.TemporaryDirectory() as folder:
        return {"rows": rows, "p": p, "seeds": [_cost_of(seed, rows, p, Path(folder)) for seed in range(7)]}


def _cost_of(seed: int, rows: int, p: int, folder: Path) -> dict[str, float]:
    """Median CPU seconds of everything timed, in turns, on one table."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, p))
    y = x[:, :50] @ generator.normal(size=50) + generator.normal(size=rows) * 5
    path = folder / "rows.parquet"
    pl.DataFrame(x, schema=[f"x{j}" for j in range(p)]).write_parquet(path, row_group_size=20_000)
    result = reduce(x, y, rule="size", keep=50)
    work: dict[str, Callable[[], Any]] = {}
    for size, again in ((100, ""), (50, ""), (10, ""), (100, " again")):
        model = result.model(size)
        names = list(model.features)
        slopes = model.params[names].to_numpy()
        beside = np.ascontiguousarray(x[:, [int(name[1:]) for name in names]])
        work[f"memory {size}{again}"] = partial(np.matmul, beside, slopes)
        work[f"parquet {size}{again}"] = partial(_from_parquet, path, names, slopes)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(11):
        for name, each in work.items():
            spent = _seconds(each)
            if turn:
                seconds[name].append(spent)
    design = np.column_stack([np.ones(rows), x])
    seconds["path"] = [_seconds(partial(reduce, x, y, split=False)) for _ in range(3)]
    seconds["one fit"] = [_seconds(partial(_normal_equations, design, y)) for _ in range(3)]
    found = {name: float(np.median(each)) for name, each in seconds.items()}
    print({name: round(each, 4) for name, each in found.items()}, flush=True)
    return found


def _from_parquet(path: Path, names: list[str], slopes: np.ndarray) -> np.ndarray:
    return pl.read_parquet(path, columns=names).to_numpy() @ slopes


def _normal_equations(design: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.solve(design.T @ design, design.T @ y)


def _seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def selection(sets: int = 400) -> dict[str, Any]:
    """Claim 6.3: t values of what is left of pure noise."""
    found = {}
    for n, p, keep in ((500, 50, 5), (100, 20, 3)):
        rows = []
        for seed in range(sets):
            generator = np.random.default_rng([n, seed])
            x, y = generator.normal(size=(n, p)), generator.normal(size=n)
            result = reduce(x, y, rule="size", keep=keep)
            own = reduce(x, y, split=False)
            split = result.split
            if split is None:
                raise RuntimeError("the reduction must come with split-sample inference here")
            honest = np.asarray(split.estimates.values / split.estimates.errors)[1:]
            rows.append(
                {
                    "selected": np.abs(result.model().tvalues.drop("Intercept")).tolist(),
                    "split": np.abs(honest).tolist(),
                    "default size": own.chosen.size,
                }
            )
        found[f"n={n} p={p} keep={keep}"] = _columns(rows)
        print(n, p, flush=True)
    return found


def housing(sets: int = 300) -> dict[str, Any]:
    """Claim 6.4, held-out: the true error of nine variables over that of ten."""
    slopes = np.array([3.0, 3, 2, 2, 1, 1, 1, 1, 0, 0])
    found: dict[str, Any] = {}
    for n in (15, 20, 30, 50, 100, 200):
        rows = []
        for seed in range(sets):
            generator = np.random.default_rng([n, seed, 64])
            x = generator.normal(size=(n, 10))
            y = x @ slopes + 5 * generator.normal(size=n)
            result = reduce(x, y, rule="size", keep=9, split=False)
            nine, ten = coefficients(result, 10), least_squares(x, y, np.arange(10))
            error = [25 + b0**2 + float(((b - slopes) ** 2).sum()) for b0, b in (nine, ten)]
            first, second = result.steps[0], result.steps[1]
            rows.append(
                {
                    "held-out": error[0] / error[1],
                    "in-sample": second.rss / first.rss,
                    "residual variance": (second.rss / second.df_resid) / (first.rss / first.df_resid),
                    "t": abs(first.t),
                }
            )
        found[str(n)] = _columns(rows)
        print(n, flush=True)
    return found


STAGES: dict[str, Callable[[], dict[str, Any]]] = {
    "cost": cost,
    "generalisation": generalisation,
    "selection": lambda: {"settings": selection()},
    "housing": lambda: {"by_n": housing()},
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", choices=list(STAGES))
    warnings.simplefilter("ignore")
    for stage in parser.parse_args().stages:
        began = time.process_time()
        content = STAGES[stage]()
        seconds = round(time.process_time() - began, 1)
        RESULTS.mkdir(exist_ok=True)
        content = {"environment": environment(), "seconds": seconds, **content}
        (RESULTS / f"regression-{stage}.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")
