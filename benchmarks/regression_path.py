"""What the whole backward-elimination path costs, beside refitting it and beside the least that any pass can cost.

Part 1, tables in memory (n=1e5 p=100 and n=1e6 p=50): ours without and with 5-fold held-out errors and by TSQR;
scikit-learn's RFE and RFECV, a loop of statsmodels fits, abess over all sizes; the floor is one symmetric product of
[X, y]. One process, one thread, CPU seconds (peers that take minutes run once, the others interleaved; medians). The
order of removal is compared with the loop's at every step.

Part 2, a Parquet table of 1e7 x 30, written by pyarrow (which polars decodes with one thread, as pages start with a
dictionary) and again by polars (which it decodes with all): our one pass beside polars reading the same columns by
batches, wall seconds; and the peak memory of each in a process of its own.

Run `python benchmarks/regression_path.py [--quick] [--repetitions 7] [--part 1|2]`; appends to
benchmarks/results/regression_path.jsonl. The whole takes about 40 minutes; --quick (small tables, a few of the loop's
fits scaled up) a minute, and goes to no file.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import statsmodels.api as sm
from sklearn.feature_selection import RFE, RFECV
from sklearn.linear_model import LinearRegression
from threadpoolctl import threadpool_limits

from lsdr.regression.backward_elimination import backward_elimination
from lsdr.runs import append_record, environment

try:
    from abess.linear import LinearRegression as BestSubset
except ImportError:
    BestSubset = None

RESULTS = Path(__file__).parent / "results" / "regression_path.jsonl"
SHAPES = ((100_000, 100), (1_000_000, 50))
QUICK_SHAPES = ((20_000, 30), (50_000, 20))
# Ours against others, ratio and goal: at least (peers), at most (floor, reading).
GOALS_AT_LEAST = {"RFE / ours": 300.0, "statsmodels loop / ours": 800.0}
GOALS_AT_MOST = {"ours / floor": 2.0, "ours with 5 folds / floor": 3.0, "ours / polars reading": 1.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small tables, to see that it runs; nothing is recorded")
    parser.add_argument("--repetitions", type=int, default=7, help="of everything that takes seconds, not minutes")
    parser.add_argument("--part", type=int, choices=(1, 2), help="only this part")
    parser.add_argument("--read", choices=tuple(READERS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        READERS[options.read](options.file)
        # Not getrusage: a process inherits its parent's peak there.
        print(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
        return
    if options.part in (None, 1):
        for rows, columns in QUICK_SHAPES if options.quick else SHAPES:
            with threadpool_limits(1):
                record(in_memory(rows, columns, options.repetitions, options.quick), options.quick)
    if options.part in (None, 2):
        rows = 400_000 if options.quick else 10_000_000
        for result in from_parquet(rows, 30, options.repetitions):
            record(result, options.quick)


def record(result: dict[str, Any], quick: bool) -> None:
    """Print the figures, their ratios and whether they meet the goals; keep them unless the tables are small."""
    print(f"\n{result['what']}, {result['rows']:,} x {result['columns']}")
    for name, value in result["seconds"].items():
        print(f"  {name:42} {value:10.4f} s")
    for name, value in result["ratios"].items():
        goal = ""
        if name in GOALS_AT_LEAST:
            goal = f"goal >= {GOALS_AT_LEAST[name]:g}: {'met' if value >= GOALS_AT_LEAST[name] else 'NOT met'}"
        elif name in GOALS_AT_MOST:
            goal = f"goal <= {GOALS_AT_MOST[name]:g}: {'met' if value <= GOALS_AT_MOST[name] else 'NOT met'}"
        print(f"  {name:42} {value:10.2f}   {goal}")
    for name, value in result["facts"].items():
        print(f"  {name}: {value}")
    if quick:
        print("  (quick: not recorded, and the goals are for the full sizes)")
    else:
        append_record(RESULTS, {"environment": environment(), **result})


def in_memory(rows: int, columns: int, repetitions: int, quick: bool) -> dict[str, Any]:
    """Time everything on one table in memory."""
    x, y = table(rows, columns)
    names = [f"x{j}" for j in range(columns)]
    both = np.column_stack([x, y])
    seconds = interleave(
        {
            "floor: one SYRK of [X, y]": lambda: both.T @ both,
            "ours": lambda: ours(x, y),
            "ours with 5 folds": lambda: ours(x, y, folds=5, rule="one_se"),
            "ours with folds and honest half": lambda: ours(x, y, folds=5, rule="one_se", split=True),
            "ours by TSQR": lambda: ours(x, y, method="qr"),
        },
        repetitions,
    )
    del both
    frame = pd.DataFrame(x, columns=names)
    every = max(1, columns // 4) if quick else 1
    loop = timed(lambda: statsmodels_loop(frame, y, every))
    seconds["statsmodels loop"] = loop.seconds * (columns / len(range(columns, 0, -every)) if quick else 1)
    seconds["RFE"] = timed(lambda: RFE(LinearRegression(), n_features_to_select=1, step=1).fit(x, y)).seconds
    seconds["RFECV, 5 folds"] = timed(lambda: RFECV(LinearRegression(), step=1, cv=5, n_jobs=1).fit(x, y)).seconds
    # Over every size from 1 to p, its fastest setting for many rows; no t values, no held-out errors.
    if BestSubset is None:
        print("abess is not installed (pip install abess): left out")
    else:
        abess = BestSubset(support_size=range(1, columns + 1), covariance_update=True, thread=1)
        seconds["abess, every size"] = timed(lambda: abess.fit(x, y)).seconds

    path = ours(x, y)
    facts: dict[str, Any] = {"method": path.method}
    if not quick:
        order = [name for name, _ in loop.value]
        steps = [step for step in path.steps if step.removed is not None]
        same = [step.removed == name for step, name in zip(steps, order, strict=True)]
        facts["steps whose removal is the loop's"] = f"{sum(same)} of {len(order)}"
        # The loop's last removals may have |t| of hundreds; a relative difference says the same for all.
        facts["largest relative difference of |t| removed"] = max(
            abs(abs(step.t) - t) / t for step, (_, t) in zip(steps, loop.value, strict=True)
        )
    floor, base = seconds["floor: one SYRK of [X, y]"], seconds["ours"]
    ratios = {
        "ours / floor": base / floor,
        "ours with 5 folds / floor": seconds["ours with 5 folds"] / floor,
        "ours with folds, honest half / floor": seconds["ours with folds and honest half"] / floor,
        "ours by TSQR / ours": seconds["ours by TSQR"] / base,
        "RFE / ours": seconds["RFE"] / base,
        "RFECV / ours with 5 folds": seconds["RFECV, 5 folds"] / seconds["ours with 5 folds"],
        "statsmodels loop / ours": seconds["statsmodels loop"] / base,
    }
    if "abess, every size" in seconds:
        ratios["abess / ours"] = seconds["abess, every size"] / base
    return {"what": "In memory, one thread, CPU seconds", "rows": rows, "columns": columns, "repetitions": repetitions,
            "seconds": seconds, "ratios": ratios, "facts": facts}  # fmt: skip


def table(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated columns, half of which matter, by ever smaller effects."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((rows, columns))
    x[:, 1:] += 0.5 * x[:, :-1]
    effects = np.where(np.arange(columns) % 2 == 0, 1 / (1 + np.arange(columns)), 0.0)
    return x, x @ effects + generator.standard_normal(rows)


def ours(x: np.ndarray, y: np.ndarray, folds: int = 0, rule: str = "bic", **options: Any) -> Any:
    """The whole path, through the function that users call."""
    return backward_elimination((x, y), "y", folds=folds, rule=rule, workers=1, **{"split": False, **options})


def statsmodels_loop(x: pd.DataFrame, y: np.ndarray, every: int = 1) -> list[tuple[str, float]]:
    """Fit, drop the smallest |t|, fit again: names in the order of their removal with their |t|.

    Args:
        x: The columns.
        y: The target.
        every: Fit one size in so many (the columns between are dropped without a fit).
    """
    left = list(x.columns)
    order = []
    while left:
        t = sm.OLS(y, sm.add_constant(x[left])).fit().tvalues.drop("const").abs()
        for name in t.nsmallest(every).index:
            left.remove(name)
            order.append((name, float(t[name])))
    return order


class Timed:
    """CPU seconds of a call, and what it gave."""

    def __init__(self, seconds: float, value: Any) -> None:
        self.seconds = seconds
        self.value = value


def timed(call: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> Timed:
    start = clock()
    value = call()
    return Timed(clock() - start, value)


def interleave(
    calls: dict[str, Callable[[], Any]], repetitions: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Median seconds of each call; rounds over all of them, so that a busy moment hits everyone; the first warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repetition in range(repetitions + 1):
        for name, call in calls.items():
            taken = timed(call, clock).seconds
            if repetition:
                times[name].append(taken)
    return {name: median(values) for name, values in times.items()}


def from_parquet(rows: int, columns: int, repetitions: int) -> Iterator[dict[str, Any]]:
    """Time our pass over a Parquet table, by two writers, beside polars reading it; and measure the memory of both."""
    with tempfile.TemporaryDirectory() as folder:
        by_pyarrow, by_polars = Path(folder) / "pyarrow.parquet", Path(folder) / "polars.parquet"
        write_parquet(by_pyarrow, rows, columns)
        yield one_file(by_pyarrow, "pyarrow", rows, columns, repetitions)
        pl.scan_parquet(by_pyarrow).sink_parquet(by_polars)
        by_pyarrow.unlink()
        yield one_file(by_polars, "polars", rows, columns, repetitions)


def one_file(file: Path, writer: str, rows: int, columns: int, repetitions: int) -> dict[str, Any]:
    """Everything about one file."""
    readers = {name: (lambda read=read: read(file)) for name, read in READERS.items() if name != "nothing"}
    load = os.getloadavg()[0]
    seconds = interleave(readers, repetitions, time.perf_counter)
    cpu = {f"{name}, CPU": timed(read).seconds for name, read in readers.items()}
    peaks = {name: peak_memory(name, file) for name in READERS}
    base = seconds["polars reading by batches"]
    ratios = {
        "ours / polars reading": seconds["ours"] / base,
        "ours with all defaults / polars reading": seconds["ours with 5 folds and honest half"] / base,
        "ours / polars reading, CPU": cpu["ours, CPU"] / cpu["polars reading by batches, CPU"],
    }
    facts = {
        "file, MB": round(file.stat().st_size / 1e6),
        "load of the machine before": round(load, 1),
        **{f"peak memory, {name}, MB": value for name, value in peaks.items()},
    }
    return {"what": f"Parquet written by {writer}, wall seconds", "rows": rows, "columns": columns,
            "repetitions": repetitions, "seconds": seconds | cpu, "ratios": ratios, "facts": facts}  # fmt: skip


def write_parquet(file: Path, rows: int, columns: int, chunk: int = 250_000) -> None:
    """Write a table of float64 by row groups, so that it never lies in memory whole."""
    generator = np.random.default_rng(0)
    names = [f"x{j}" for j in range(columns)]
    schema = pa.schema([(name, pa.float64()) for name in [*names, "y"]])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for start in range(0, rows, chunk):
            x = generator.standard_normal((min(chunk, rows - start), columns))
            y = x[:, ::3].sum(1) + generator.standard_normal(len(x))
            writer.write_table(pa.table([*x.T.copy(), y], schema=schema))


def read_with_polars(file: Path) -> int:
    """Decode every column, batch by batch, and do nothing with it."""
    return sum(len(batch) for batch in pl.scan_parquet(file).collect_batches(chunk_size=65536))


def read_whole_with_polars(file: Path) -> int:
    """Decode the whole table into memory."""
    return len(pl.read_parquet(file))


READERS: dict[str, Callable[[Path], Any]] = {
    "polars reading by batches": read_with_polars,
    "polars reading whole": read_whole_with_polars,
    "ours": lambda file: backward_elimination(file, "y", folds=0, rule="bic", split=False),
    "ours with 5 folds and honest half": lambda file: backward_elimination(file, "y"),
    "nothing": lambda file: None,
}


def peak_memory(reader: str, file: Path) -> int:
    """Largest resident size in MB of a fresh process that reads the file so ("nothing": the imports alone)."""
    command = [sys.executable, __file__, "--read", reader, "--file", str(file)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return round(int(answer.split()[-1]) / 1024)


if __name__ == "__main__":
    main()
