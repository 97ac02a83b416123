"""Robust covariances of every submodel on the path, as the elimination asks for them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.clusters import ClusterGrams
from lsdr.regression.columns import Column
from lsdr.regression.path import Current
from lsdr.regression.small_sample import small_sample
from lsdr.regression.system import System
from lsdr.regression.whitened import Whitened


class SubmodelErrors:
    r"""Covariances of submodels from the full model's residuals and leverages: approximate, but for the full model.

    .. math:: V_S = C_S M_{SS} C_S, \quad M = \sum_i \omega_i x_i x_i^\top

    The submodel's coefficients and its bread C_S stay exact, and so does every cross-product of the columns; only the
    squared residuals are the full model's, where a submodel has its own. (Lawless & Singhal, Biometrics 1978, downdate
    the full model's V, which also bends the coefficients towards V's metric.)

    Args:
        model: The full model.
        meat: Sum of omega u u' in its whitened coordinates.
        name: What the errors are called, "HC3".
        clusters: Clusters that the meat sums over, None where rows stand alone.
    """

    label = "approximate"

    def __init__(self, model: Whitened, meat: NDArray[np.float64], name: str, clusters: int | None = None) -> None:
        """Keep the full model's root, and that of the submodel asked for last."""
        self.model, self.meat, self.name, self.clusters = model, meat, name, clusters
        self._last: tuple[tuple[int, ...], NDArray[np.float64]] = (tuple(range(len(model.columns))), model.root)

    def __call__(self, current: Current) -> NDArray[np.float64]:
        """Covariance matrix of the coefficients of the columns present, original units."""
        root = self._root(current)
        inner = self.meat[1:, 1:] if self.model.intercept else self.meat
        return np.asarray(root @ inner @ root.T) * self._factor(current)

    def intercept_variance(self, current: Current) -> float:
        """Variance of the intercept."""
        if not self.model.intercept:
            return float("nan")
        mean = self.model.mean[np.asarray(current.indices, dtype=np.intp)]
        row = np.concatenate([[1 / np.sqrt(self.model.weight)], -mean @ self._root(current)])
        return float(row @ self.meat @ row * self._factor(current))

    def df(self, current: Current) -> float:
        """Degrees of freedom of t: those of the residuals, or clusters - 1."""
        return _df(self.clusters, current)

    def _factor(self, current: Current) -> float:
        return small_sample(self.name, self.clusters, self.model.rows, current.df_resid)

    def _root(self, current: Current) -> NDArray[np.float64]:
        """Root of the submodel: from that asked for last where it is a part of it."""
        indices = tuple(int(index) for index in current.indices)
        before, root = self._last
        if not set(indices) <= set(before):
            before, root = tuple(range(len(self.model.columns))), self.model.root
        place = {index: at for at, index in enumerate(before)}
        self._last = (indices, self.model.without([place[index] for index in indices], root))
        return self._last[1]


class ClusterErrors:
    """CR1 covariances of every submodel from the clusters' own cross-products: exact.

    Args:
        grams: The clusters' cross-products.
        system: The system whose submodels are asked for: the whole data's, or that of the same blocks.
        blocks: Blocks whose rows the system holds; None: all.
    """

    label = "exact"
    name = "cluster"

    def __init__(self, grams: ClusterGrams, system: System, blocks: Iterable[int] | None = None) -> None:
        """Remember the system's means, columns and rows."""
        self.grams, self.system = grams, system
        self.blocks = None if blocks is None else tuple(blocks)
        self.clusters = len({label for label, block in grams.grams if self.blocks is None or block in self.blocks})

    def __call__(self, current: Current) -> NDArray[np.float64]:
        """Covariance matrix of the coefficients of the columns present, original units."""
        influence = self._influence(current)[1]
        return np.asarray(influence.T @ influence) * self._factor(current)

    def intercept_variance(self, current: Current) -> float:
        """Variance of the intercept."""
        if not self.system.intercept:
            return float("nan")
        ones, influence = self._influence(current)
        mean = self.system.mean[np.asarray(current.indices, dtype=np.intp)]
        return float(((ones / self.system.weight - influence @ mean) ** 2).sum() * self._factor(current))

    def df(self, current: Current) -> float:
        """Clusters - 1."""
        return _df(self.clusters, current)

    def _factor(self, current: Current) -> float:
        return small_sample(self.name, self.clusters, self.system.rows, current.df_resid)

    def _influence(self, current: Current) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sums of w e over the clusters, and what each cluster adds to the coefficients, C times its centred scores."""
        chosen = np.asarray(current.indices, dtype=np.intp)
        columns = [self.system.columns[index] for index in chosen]
        scores = self.grams.scores(columns, current.coefficients, float(current.intercept), self.blocks)
        place = {column: at for at, column in enumerate(self.grams.columns)}
        shift = self.grams.shift[np.array([place[column] for column in columns], dtype=np.intp)]
        centred = scores[:, 1:] - np.outer(scores[:, 0], self.system.mean[chosen] - shift)
        return scores[:, 0], centred @ current.inverse


class BlockErrors:
    """Covariances of the submodels of some blocks' rows, from the whole data's residuals: approximate.

    Folds and half-samples order their removals by these, without another pass for each.

    Args:
        model: The whole data's full model.
        meat: Sum of omega u u' over the rows of these blocks, in its whitened coordinates.
        system: The system of these blocks.
        name: What the errors are called.
        clusters: Clusters that the meat sums over, None where rows stand alone.
    """

    label = "approximate"

    def __init__(
        self, model: Whitened, meat: NDArray[np.float64], system: System, name: str, clusters: int | None = None
    ) -> None:
        """Bring the meat to the coordinates [1, x - mean of the blocks]."""
        self.system, self.name, self.clusters = system, name, clusters
        place = {column: at for at, column in enumerate(model.columns)}
        kept = np.array([place[column] for column in system.columns], dtype=np.intp)
        inverse = np.linalg.inv(model.root) if model.root.size else model.root
        if model.intercept:
            spread = np.zeros((len(model.columns) + 1, len(model.columns) + 1))
            spread[0, 0], spread[1:, 1:] = np.sqrt(model.weight), inverse
            spread[0, 1:] -= np.sqrt(model.weight) * (system_mean(system, model, kept) - model.mean)
            kept = np.concatenate([[0], kept + 1])
        else:
            spread = np.array(inverse)
        self.meat = (spread.T @ meat @ spread)[np.ix_(kept, kept)]

    def __call__(self, current: Current) -> NDArray[np.float64]:
        """Covariance matrix of the coefficients of the columns present, original units."""
        at = np.asarray(current.indices, dtype=np.intp) + self.system.intercept
        return np.asarray(current.inverse @ self.meat[np.ix_(at, at)] @ current.inverse) * self._factor(current)

    def intercept_variance(self, current: Current) -> float:
        """Variance of the intercept."""
        if not self.system.intercept:
            return float("nan")
        chosen = np.asarray(current.indices, dtype=np.intp)
        row = np.concatenate([[1 / self.system.weight], -self.system.mean[chosen] @ current.inverse])
        at = np.concatenate([[0], chosen + 1])
        return float(row @ self.meat[np.ix_(at, at)] @ row * self._factor(current))

    def df(self, current: Current) -> float:
        """Degrees of freedom of t: those of the residuals, or clusters - 1."""
        return _df(self.clusters, current)

    def _factor(self, current: Current) -> float:
        return small_sample(self.name, self.clusters, self.system.rows, current.df_resid)


class KnownErrors:
    """Exact covariances of the models that a pass has gone through, approximate ones of all others.

    Args:
        models: The models gone through.
        covariances: Their covariance matrices, the intercept (if any) first.
        otherwise: For all other models.
    """

    def __init__(
        self, models: Sequence[Whitened], covariances: Sequence[NDArray[np.float64]], otherwise: SubmodelErrors
    ) -> None:
        """Sort the models by their columns."""
        self.otherwise, self.name = otherwise, otherwise.name
        self.known: Mapping[frozenset[Column], tuple[Whitened, NDArray[np.float64]]] = {
            frozenset(model.columns): (model, covariance) for model, covariance in zip(models, covariances, strict=True)
        }
        self.missed = False

    @property
    def label(self) -> str:
        """Exact as long as every model asked for was known."""
        return "approximate" if self.missed else "exact"

    def __call__(self, current: Current) -> NDArray[np.float64]:
        """Covariance matrix of the coefficients of the columns present, original units."""
        found = self._found(current)
        if found is None:
            self.missed = True
            return self.otherwise(current)
        model, covariance = found
        place = {column: at + model.intercept for at, column in enumerate(model.columns)}
        at = np.array([place[column] for column in self._columns(current)], dtype=np.intp)
        return covariance[np.ix_(at, at)]

    def intercept_variance(self, current: Current) -> float:
        """Variance of the intercept."""
        found = self._found(current)
        if found is None or not found[0].intercept:
            return self.otherwise.intercept_variance(current)
        return float(found[1][0, 0])

    def df(self, current: Current) -> float:
        """Degrees of freedom of t."""
        return self.otherwise.df(current)

    def _columns(self, current: Current) -> list[Column]:
        return [self.otherwise.model.columns[index] for index in current.indices]

    def _found(self, current: Current) -> tuple[Whitened, NDArray[np.float64]] | None:
        return self.known.get(frozenset(self._columns(current)))


def system_mean(system: System, model: Whitened, kept: NDArray[np.intp]) -> NDArray[np.float64]:
    """The system's means in the order of the model's columns; its own where the system lacks a column."""
    mean = model.mean.copy()
    mean[kept] = system.mean
    return mean


def _df(clusters: int | None, current: Current) -> float:
    return float(clusters - 1 if clusters is not None else current.df_resid)
