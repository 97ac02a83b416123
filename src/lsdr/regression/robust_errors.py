"""Robust standard errors of a whole path: which passes over the rows they need, and how exact they are."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.clusters import MEMORY, ClusterGrams, ClusterScores
from lsdr.regression.columns import Column
from lsdr.regression.eliminate import eliminate
from lsdr.regression.heteroskedastic import KINDS, Heteroskedastic
from lsdr.regression.path import Path
from lsdr.regression.robust import BlockErrors, ClusterErrors, KnownErrors, SubmodelErrors
from lsdr.regression.system import System
from lsdr.regression.whitened import Whitened

# Multiplications that a pass through every model of the path may cost, and columns that it may have.
_WORK = 4e11
_COLUMNS = 250
_ROUNDS = 4


class RobustErrors:
    """HC0 to HC3 or clustered errors of a system: its path, those of its folds, and exact ones of any model.

    Clustered errors come from the clusters' own cross-products where these fit into memory: exact everywhere, and the
    rows are not read again. All others read the rows again: once for the full model, whose residuals give approximate
    errors of all submodels; then, where it is affordable, through every model of the path so found. If the exact errors
    order a removal otherwise, the path is found again, until every model on it is known exactly.

    Args:
        name: "HC0" to "HC3", or "cluster".
        system: The whole data's.
        read: One more pass over the rows: takes what makes an empty state, returns the state.
        blocks: Number of blocks.
        frequency: Whether the weights count rows.
        repeatable: Whether the rows can be read again.
        grams: The clusters' cross-products from the first pass, if any.
        refine: Whether to go through every model of the path where that is affordable.

    Attributes:
        path: The path by these errors.
        errors: What gives the covariances of its models.
        label: "exact" or "approximate": along the path.
        notes: What to know, in sentences.

    Raises:
        ValueError: If the rows must be read again and cannot be, or there are fewer than two clusters.
    """

    def __init__(
        self,
        name: str,
        system: System,
        read: Callable[[Callable[[], Any]], Any],
        *,
        blocks: int,
        frequency: bool = False,
        repeatable: bool = True,
        grams: ClusterGrams | None = None,
        refine: bool = True,
    ) -> None:
        """Make the passes that are needed."""
        if name != "cluster" and name not in KINDS:
            raise ValueError(f"errors must be 'classical', 'cluster' or one of {', '.join(KINDS)}, got {name!r}")
        self.name, self.system, self.read, self.frequency, self.repeatable = name, system, read, frequency, repeatable
        self.notes: list[str] = []
        self.grams = grams if grams is not None and not grams.overflowed else None
        self.errors: ClusterErrors | SubmodelErrors | KnownErrors
        if self.grams is not None:
            self.errors = ClusterErrors(self.grams, system)
            _check_clusters(self.errors.clusters)
            self.path = eliminate(system, standard_errors=self.errors)
            self.label = self.errors.label
            return
        refuse_one_shot(name, repeatable)
        if name == "cluster":
            self.notes.append(
                "The clusters' cross-products would take too much memory: their errors come from the full model's "
                "residuals."
            )
        self._full = whitened(system, eliminate(system), 0)
        self._state = self._through([replace(self._full, blocks=(block,)) for block in range(blocks)])
        self._whole = tuple(range(blocks))
        meat, clusters = self._meat(self._whole)
        if clusters is not None:
            _check_clusters(clusters)
        rough = SubmodelErrors(self._full, meat, name, clusters)
        self.errors, self.label = rough, rough.label
        self.path = eliminate(system, standard_errors=rough)
        self._count_full_leverage()
        if refine and self._affordable(clusters):
            self._refine(rough)
        elif len(self.path.order):
            self.notes.append(
                f"{name} errors along the path come from the full model's residuals: exact in the full model, "
                "approximate in the others."
            )

    def of_blocks(self, system: System, blocks: Iterable[int]) -> ClusterErrors | BlockErrors:
        """Errors of the submodels of some blocks' rows (a fold's, a half-sample's), without reading rows again.

        Args:
            system: The system of these blocks.
            blocks: Their numbers.
        """
        chosen = tuple(sorted(set(blocks)))
        if self.grams is not None:
            return ClusterErrors(self.grams, system, chosen)
        meat, clusters = self._meat(chosen)
        return BlockErrors(self._full, meat, system, self.name, clusters)

    def exact(self, models: Sequence[Whitened]) -> list[NDArray[np.float64]]:
        """Exact covariance matrices of any models, the intercept (if any) first: one more pass over the rows."""
        refuse_one_shot(self.name, self.repeatable)
        state = self._through(models)
        return [state.covariance(place) for place in range(len(models))]

    def _through(self, models: Sequence[Whitened]) -> Any:
        if self.name == "cluster":
            return self.read(partial(ClusterScores, tuple(models)))
        return self.read(partial(Heteroskedastic, tuple(models), self.name, self.frequency))

    def _meat(self, blocks: tuple[int, ...]) -> tuple[NDArray[np.float64], int | None]:
        """Of the full model over some blocks, and the clusters in them."""
        if self.name == "cluster":
            scores = self._state.scores(blocks)
            return np.asarray(scores.T @ scores), len(scores)
        return np.sum([self._state.meats[block] for block in blocks], axis=0), None

    def _affordable(self, clusters: int | None) -> bool:
        p = len(self.system.columns)
        work = (4 if self.name in ("HC2", "HC3") else 3) * self.system.rows * p**3 / 3
        kept = 8 * (clusters or 0) * p * (p + 3) / 2
        return p <= _COLUMNS and work <= _WORK and kept <= MEMORY

    def _refine(self, rough: SubmodelErrors) -> None:
        """Exact errors of every model on the path; the path again where they order it otherwise."""
        known: dict[tuple[Column, ...], tuple[Whitened, NDArray[np.float64]]] = {}
        for _ in range(_ROUNDS):
            steps = [whitened(self.system, self.path, step) for step in range(len(self.path.size))]
            new = [model for model in steps if model.columns not in known]
            for model, covariance in zip(new, self.exact(new), strict=True):
                known[model.columns] = (model, covariance)
            models, covariances = zip(*known.values(), strict=True)
            errors = KnownErrors(models, covariances, rough)
            self.path = eliminate(self.system, standard_errors=errors)
            self.errors, self.label = errors, errors.label
            if errors.label == "exact":
                return
        self.notes.append(
            f"After {_ROUNDS} passes some models of the path have {self.name} errors from the full model's residuals: "
            "approximate."
        )

    def _count_full_leverage(self) -> None:
        count = sum(self._state.full_leverage) if self.name in ("HC2", "HC3") else 0
        if count:
            self.notes.append(
                f"{count} rows have leverage 1 (a column of their own fits them whatever their value): {self.name} is "
                "undefined there, and they are left out of it. HC1 has no such rows."
            )


def whitened(system: System, path: Path, step: int, blocks: Sequence[int] | None = None) -> Whitened:
    """A step's model in whitened coordinates.

    Args:
        system: The system that the path was made from.
        path: The path.
        step: Which step.
        blocks: Blocks whose rows the system holds; None: all.
    """
    present = np.flatnonzero(~np.isnan(path.coefficients[step]))
    full = Whitened(
        columns=system.columns,
        coefficients=path.coefficients[step],
        mean=system.mean,
        mean_y=system.mean_y,
        root=system.root_inverse / system.unit[:, None],
        weight=system.weight,
        rows=system.rows,
        df_resid=float(path.df_resid[step]),
        intercept=system.intercept,
        blocks=None if blocks is None else tuple(blocks),
    )
    rows = full.without(present.tolist())
    return replace(
        full,
        columns=tuple(system.columns[place] for place in present),
        coefficients=path.coefficients[step][present],
        mean=full.mean[present],
        # Rows in p coordinates to a square root of the same product.
        root=rows if len(present) == len(system.columns) else np.asarray(np.linalg.qr(rows.T, mode="r")).T,
    )


def refuse_one_shot(name: str, repeatable: bool) -> None:
    """Refuse robust errors that would have to read the rows again where they can be read once only.

    Raises:
        ValueError: If the rows cannot be read again.
    """
    if not repeatable:
        raise ValueError(
            f"{name} errors read the rows again, but an iterator can be read only once: give a function that returns "
            "a new iterator, a table or a file, or ask for errors='classical'"
        )


def _check_clusters(clusters: int) -> None:
    if clusters < 2:
        raise ValueError(f"clustered errors need at least two clusters, the rows have {clusters}")
