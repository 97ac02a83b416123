"""`lsdr reduce`."""

import csv
import json
import math
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from lsdr.regression.reduction import Reduction

_RULES = ("one_se", "cv", "aic", "bic", "cp", "p_value", "size")
_ERRORS = ("classical", "HC0", "HC1", "HC2", "HC3", "cluster")
_ENGINES = {"local": "threads", "processes": "processes", "ray": "ray"}
# What messages of the library call by Python's names.
_OPTIONS = (
    "target", "features", "categorical", "forced", "weights", "clusters", "errors", "ridge", "keep", "rule", "p_value",
    "folds", "fold_column", "resamples", "seed", "method", "missing", "engine", "workers", "formula",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reduce:
    """Drop a least-squares model's weakest terms one by one, in one pass over a table of any size.

    Fits a linear model of --target with every other column, drops the term with the least |t|, fits again, and so on
    down to none; a factor goes as a whole, by its F test. Shows in-sample and cross-validated error of every size and
    chooses one. Numbers are used as they are, text columns as factors. Examples:

      lsdr reduce houses.parquet --target price
      lsdr reduce houses.parquet --target price --keep 9
      lsdr reduce "parts/*.parquet" --target price --forced area --categorical floors,garage --html houses.html
      lsdr reduce houses.csv --formula "price ~ area * location + age" --rule bic
      lsdr reduce houses.parquet --target price --errors HC3 --resamples 100 --json - > houses.json

    Exit status: 0 done, 2 the table cannot be read or the options are wrong.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Table: a Parquet, CSV, TSV or Arrow file, a folder of them, or a glob in quotes. Need not fit into memory."""
    target: Annotated[str | None, tyro.conf.arg(metavar="COL")] = None
    """Column to explain; a number."""
    features: Annotated[str | None, tyro.conf.arg(metavar="COL,COL,...")] = None
    """Columns to explain it with; by default all others. A name with a comma goes between double quotes."""
    forced: Annotated[str | None, tyro.conf.arg(metavar="COL,COL,...")] = None
    """Columns (terms of a formula) that are never dropped."""
    categorical: Annotated[str | None, tyro.conf.arg(metavar="COL,COL,...")] = None
    """Columns of numbers to be read as factors."""
    formula: Annotated[str | None, tyro.conf.arg(metavar="FORMULA")] = None
    """Target and terms as "price ~ area * location + log(lot)", in place of --target and --features."""
    keep: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Choose the model of so many terms."""
    rule: Annotated[str | None, tyro.conf.arg(metavar="one_se|cv|aic|bic|cp|p_value")] = None
    """How the size is chosen: one_se, the smallest model within one standard error of the least cross-validated error,
    which is the default; cv, the least cross-validated error; aic, bic, cp, the least on the path; p_value, drop while
    the weakest term's p is above --p-value."""
    p_value: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Threshold of --rule p_value; 0.05 by default."""
    folds: int = 5
    """Folds of the cross-validation, which runs the selection again inside each; 0 for none."""
    fold_column: Annotated[str | None, tyro.conf.arg(metavar="COL")] = None
    """Column that says which fold a row belongs to, in place of chance."""
    resamples: int = 0
    """Random half-samples on which the selection is run again, for selection frequencies; 100 are good."""
    weights: Annotated[str | None, tyro.conf.arg(metavar="COL")] = None
    """Column of analytic weights: a row's precision."""
    frequency_weights: Annotated[str | None, tyro.conf.arg(metavar="COL")] = None
    """Column of frequency weights: how many equal rows a row stands for."""
    errors: Annotated[str | None, tyro.conf.arg(metavar="classical|HC0|HC1|HC2|HC3|cluster")] = None
    """Standard errors behind t: classical by default, or cluster where --clusters is given. HC and cluster hold where
    residuals differ in size or hang together; the table says whether they are exact along the path."""
    clusters: Annotated[str | None, tyro.conf.arg(metavar="COL")] = None
    """Column of clusters whose rows hang together; a cluster is never parted by a fold."""
    intercept: bool = True
    """Whether the models have an intercept."""
    ridge: float = 0.0
    """Penalty on squared coefficients, scikit-learn's alpha; not on the intercept."""
    method: Literal["auto", "gram", "qr"] = "auto"
    """gram, from cross-products; qr, slower and for columns that nearly tell the same; auto takes gram where that keeps
    enough digits and says so where it does not."""
    missing: Literal["drop", "raise"] = "drop"
    """Rows with a missing value: left out and counted, or refused."""
    engine: Literal["local", "processes", "ray"] = "local"
    """What reads the parts of the table: threads of this process, processes, or Ray; the result is the same."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """How many at once; by default one a processor."""
    seed: int = 0
    """Of folds, halves and resamples."""
    csv: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write one row a step into this CSV file, with all coefficients and t."""
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE|-")] = None
    """Write everything as JSON into this file; - is standard output, and nothing else is written there. `lsdr report`
    makes the page from it."""
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write a page with every plot into this file; it needs no other file and no network."""

    def run(self) -> int:
        """Reduce, show, write."""
        from lsdr.cli.inspect import check_writable

        options = self._options()
        for option, written in (("json", self.json), ("csv", self.csv), ("html", self.html)):
            if written is not None and (option, written) != ("json", "-"):
                check_writable(option, Path(written))
                _check_folder(option, Path(written))
        started = time.monotonic()
        try:
            reduction = self._reduce(options)
        except KeyboardInterrupt:
            print("lsdr: interrupted; nothing was written", file=sys.stderr)
            return 130
        except (ValueError, TypeError) as error:
            raise ValueError(as_options(str(error))) from error
        found = {**reduction.to_json(), "source": self.source, "seconds": round(time.monotonic() - started, 3)}
        found["notes"] = [as_options(str(note)) for note in found["notes"]]
        if self.json == "-":
            print(json.dumps(found, indent=1, allow_nan=False))
        else:
            from lsdr.cli.reduce_view import show_reduction

            show_reduction(found, written=self.html is not None)
        for file in self._write(found):
            print(f"written: {file}", file=sys.stderr if self.json == "-" else sys.stdout)
        return 0

    def _options(self) -> dict[str, Any]:
        """Arguments of the library; refuse what does not go together before anything is read."""
        self._check()
        errors = self.errors or ("cluster" if self.clusters else "classical")
        return {
            "categorical": _names("categorical", self.categorical) or (),
            "forced": _names("forced", self.forced) or (),
            "weights": self.weights or self.frequency_weights,
            "weight_kind": "frequency" if self.frequency_weights else "analytic",
            "clusters": self.clusters,
            "errors": errors,
            "intercept": self.intercept,
            "ridge": self.ridge,
            "keep": self.keep,
            "rule": "size" if self.keep is not None else self.rule or ("one_se" if self.folds else "bic"),
            "p_value": 0.05 if self.p_value is None else self.p_value,
            "folds": self.folds,
            "fold_column": self.fold_column,
            "resamples": self.resamples,
            "seed": self.seed,
            "method": self.method,
            "missing": self.missing,
            "engine": _ENGINES[self.engine],
            "workers": self.workers,
        }

    def _check(self) -> None:
        for option, asked, known in (("rule", self.rule, _RULES), ("errors", self.errors, _ERRORS)):
            if asked is not None and asked not in known:
                raise ValueError(f"--{option} must be one of {', '.join(known)}; got {asked!r}")
        if self.formula is None and self.target is None:
            raise ValueError("say what to explain: --target COLUMN, or --formula 'target ~ terms'")
        if self.formula is not None and (self.target or self.features or self.categorical):
            raise ValueError("--formula names target, terms and factors (C(column)); leave --target, --features and "
                             "--categorical out")  # fmt: skip
        if self.formula is not None and not self.intercept:
            raise ValueError("--formula says whether there is an intercept: write - 1 in it, without --no-intercept")
        if self.keep is not None and self.rule not in (None, "size"):
            raise ValueError(f"--keep {self.keep} is a rule by itself; leave --rule {self.rule} out, or --keep")
        if self.rule == "size" and self.keep is None:
            raise ValueError("--rule size needs --keep, the number of terms")
        if self.p_value is not None and self.rule != "p_value":
            raise ValueError("--p-value is the threshold of --rule p_value, which is not asked for")
        if self.p_value is not None and not 0 < self.p_value < 1:
            raise ValueError(f"--p-value must lie between 0 and 1, got {self.p_value}")
        if self.weights and self.frequency_weights:
            raise ValueError("--weights and --frequency-weights are two readings of a column; give one of them")
        if self.errors == "cluster" and not self.clusters:
            raise ValueError("--errors cluster needs --clusters, the column that says which rows hang together")
        if self.rule in ("one_se", "cv") and not (self.folds or self.fold_column):
            raise ValueError(f"--rule {self.rule} needs cross-validation; --folds 0 leaves it out")
        for name, least, value in (("keep", 0, self.keep), ("resamples", 0, self.resamples), ("folds", 0, self.folds),
                                   ("workers", 1, self.workers)):  # fmt: skip
            if value is not None and value < least:
                raise ValueError(f"--{name} must be {least} or more, got {value}")
        if not 0 <= self.ridge < math.inf:
            raise ValueError(f"--ridge must be 0 or more, got {self.ridge}")
        if self.folds == 1:
            raise ValueError("--folds must be 2 or more, or 0 for no cross-validation")

    def _reduce(self, options: dict[str, Any]) -> "Reduction":
        """Run it, with a bar on a terminal."""
        from lsdr.cli.inspect_bar import bar
        from lsdr.report.numbers import count

        with bar("reading") as advance:

            def progress(done: int, total: int | None) -> None:
                of = f" of {count(total)}" if total else ""
                advance("reading", done, total, f"{count(done)}{of} rows")

            if self.formula is not None:
                from lsdr.regression.reduce_formula import reduce_formula

                own = ("categorical", "intercept")
                options = {name: value for name, value in options.items() if name not in own}
                return reduce_formula(self.formula, self.source, progress=progress, **options)
            from lsdr.regression.backward_elimination import backward_elimination

            features = _names("features", self.features)
            return backward_elimination(self.source, self.target or "", features=features, progress=progress, **options)

    def _write(self, found: dict[str, Any]) -> list[Path]:
        """Write the files asked for; returns which."""
        from lsdr.runs import write_json

        written = []
        if self.json is not None and self.json != "-":
            write_json(Path(self.json), found)
            written.append(Path(self.json))
        if self.csv is not None:
            from lsdr.cli.reduce_csv import write_steps

            write_steps(found, self.csv)
            written.append(self.csv)
        if self.html is not None:
            from lsdr.report.regression.page import write_regression_page

            written.append(write_regression_page(found, self.html))
        return written


def _check_folder(option: str, path: Path) -> None:
    """Refuse a folder in which no file can be made, whatever its permissions say, before anything is read."""
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        why = error.strerror or str(error)
        raise ValueError(f"--{option} {path} cannot be written: {nearest} takes no file ({why})") from error


def _names(option: str, words: str | None) -> tuple[str, ...] | None:
    """Names separated by commas, as a line of CSV has them.

    Example:
        >>> _names("forced", 'area, "lot, fenced"')
        ('area', 'lot, fenced')
    """
    if words is None:
        return None
    names = tuple(name.strip() for line in csv.reader([words], skipinitialspace=True) for name in line)
    if not names or not all(names):
        raise ValueError(f"--{option} takes names of columns separated by commas, got {words!r}")
    return names


def as_options(message: str) -> str:
    """A message of the library, which names Python arguments, in the words of the command line.

    Example:
        >>> as_options("pass method='qr', fold_column=... or intercept=False; keep=12 is more than 10")
        'pass --method qr, --fold-column ... or --no-intercept; --keep 12 is more than 10'
        >>> as_options("name it in `categorical`")
        'name it in `--categorical`'
    """
    message = message.replace("intercept=False", "--no-intercept").replace("intercept=True", "--intercept")
    message = re.sub(r"weight_kind=(?:'|\")frequency(?:'|\")", "--frequency-weights", message)
    names = "|".join(_OPTIONS)
    message = re.sub(rf"`({names})`", lambda found: f"`--{found[1].replace('_', '-')}`", message)
    return re.sub(
        rf"(?<![\w-])({names})=(?:'([^']*)'|\"([^\"]*)\")?",
        lambda found: f"--{found[1].replace('_', '-')} {found[2] or found[3] or ''}",
        message,
    )
