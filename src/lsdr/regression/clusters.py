"""Standard errors that hold where the rows of a cluster (a person, a village) share their noise: CR1."""

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lsdr.regression.batch import Batch
from lsdr.regression.columns import Column
from lsdr.regression.small_sample import small_sample
from lsdr.regression.whitened import Whitened

MEMORY = 512 * 2**20  # Bytes that the cross-products of all clusters may take.
_BLOCK = 2**24  # Numbers that one batched product may hold at a time.


class ClusterGrams:
    r"""Cross-products of [1, x - shift, y - shift] of every cluster: exact clustered errors of every submodel.

    .. math:: u_c = G_c[S, y] - G_c[S, S]\, b_S, \qquad V = C_S \Big(\sum_c u_c u_c^\top\Big) C_S

    The shift (means of the first batch) is fixed beforehand, so that states merge by adding. Clusters are recognised by
    their labels in whatever batch or part they come; each is kept block by block, so that folds and halves have theirs.

    Cost: O(n p^2) once and O(G p^2) a removal. Memory: 8 G (p + 2)^2 bytes. When that would pass `memory`, the state
    gives its cross-products up (`overflowed`), and `ClusterScores` of the full model take their place.

    Args:
        columns: Columns x, in the order of the shift.
        shift: About what to take x, shape (p,).
        shift_y: About what to take y.
        memory: Most bytes that the cross-products may take.
    """

    def __init__(
        self, columns: Sequence[Column], shift: NDArray[np.float64], shift_y: float, memory: int = MEMORY
    ) -> None:
        """Start empty."""
        self.columns, self.shift, self.shift_y, self.memory = tuple(columns), shift, shift_y, memory
        self.grams: dict[tuple[Hashable, int], NDArray[np.float64]] = {}
        self.overflowed = False
        self._stacked: NDArray[np.float64] | None = None

    @property
    def bytes_each(self) -> int:
        """Bytes of one cluster's cross-products."""
        return 8 * (len(self.columns) + 2) ** 2

    def add(self, batch: Batch) -> "ClusterGrams":
        """Add the rows of one batch, which must carry clusters; rows of weight 0 count for nothing."""
        if self.overflowed:
            return self
        self._take_in(batch.columns)
        places = {column: place for place, column in enumerate(batch.columns)}
        taken = np.array([places.get(column, -1) for column in self.columns], dtype=np.intp)
        for names, rows in _by_cluster(batch):
            # rows: (g, m) positions of g clusters of m rows each, one batched product.
            x = np.where(taken < 0, 0.0, batch.x[rows][..., taken]) - self.shift
            z = np.concatenate([np.ones((*rows.shape, 1)), x, (batch.y[rows] - self.shift_y)[..., None]], axis=-1)
            weighted = z if batch.weights is None else z * batch.weights[rows][..., None]
            for name, gram in zip(names, np.swapaxes(weighted, 1, 2) @ z, strict=True):
                self.grams[name] = self.grams[name] + gram if name in self.grams else gram
        self._watch()
        return self

    def merge(self, other: "ClusterGrams") -> "ClusterGrams":
        """Add another state's rows in place; columns are aligned by name."""
        self._take_in(other.columns, dict(zip(other.columns, other.shift.tolist(), strict=True)))
        if other.overflowed:
            self.overflowed = True
        if not self.overflowed:
            place = {column: 1 + at for at, column in enumerate(self.columns)}
            size = len(self.columns) + 2
            order = np.array([0, *(place[column] for column in other.columns), size - 1], dtype=np.intp)
            # A column that the other has not met was 0 in all its rows: -shift about the shift.
            spread = np.zeros((size, len(order)))
            spread[order, np.arange(len(order))] = 1
            missing = [at for column, at in place.items() if column not in set(other.columns)]
            spread[missing, 0] = -self.shift[np.array(missing, dtype=np.intp) - 1]
            same = size == len(order) and bool((order == np.arange(size)).all())
            for name, gram in other.grams.items():
                here = gram if same else spread @ gram @ spread.T
                self.grams[name] = self.grams[name] + here if name in self.grams else here
        self._watch()
        return self

    def scores(
        self,
        columns: Sequence[Column],
        coefficients: NDArray[np.float64],
        intercept: float,
        blocks: Iterable[int] | None = None,
    ) -> NDArray[np.float64]:
        """Sum of w e [1, x - shift] over each cluster (its rows in the blocks), shape (clusters, k + 1), of a model."""
        place = {column: 1 + at for at, column in enumerate(self.columns)}
        chosen = np.array([place[column] for column in columns], dtype=np.intp)
        # e = (y - shift_y) - (x - shift) b - c, with c what the shifts make of the intercept.
        vector = np.zeros(len(self.columns) + 2)
        vector[-1] = 1
        vector[chosen] = -coefficients
        vector[0] = -(intercept - self.shift_y + self.shift[chosen - 1] @ coefficients)
        stack = self._stack()
        scores = (stack.reshape(-1, len(vector)) @ vector).reshape(len(stack), len(vector))[:, [0, *chosen]]
        wanted = None if blocks is None else set(blocks)
        keys = [(at, key[0]) for at, key in enumerate(self.grams) if wanted is None or key[1] in wanted]
        number: dict[Hashable, int] = {}
        which = [number.setdefault(label, len(number)) for _, label in keys]
        summed = np.zeros((len(number), scores.shape[1]))
        np.add.at(summed, which, scores[[at for at, _ in keys]])
        return summed

    def _stack(self) -> NDArray[np.float64]:
        """All cross-products in one array, made once and then shared with the dictionary."""
        if self._stacked is None:
            size = len(self.columns) + 2
            self._stacked = np.array(list(self.grams.values())).reshape(-1, size, size)
            self.grams = dict(zip(self.grams, self._stacked, strict=True))
        return self._stacked

    def _take_in(self, columns: Sequence[Column], shifts: dict[Column, float] | None = None) -> None:
        """Make room for columns not met yet (they were 0 in every row so far), about 0 unless a shift is given."""
        new = [column for column in columns if column not in set(self.columns)]
        if not new:
            return
        fresh = np.array([(shifts or {}).get(column, 0.0) for column in new])
        spread = np.zeros((len(self.columns) + len(new) + 2, len(self.columns) + 2))
        old = len(self.columns) + 1
        spread[:old, :old] = np.eye(old)
        spread[old:-1, 0] = -fresh
        spread[-1, -1] = 1
        self.grams = {name: spread @ gram @ spread.T for name, gram in self.grams.items()}
        self.columns, self.shift = (*self.columns, *new), np.concatenate([self.shift, fresh])

    def _watch(self) -> None:
        """Give the cross-products up where they would take too much memory; what was stacked is out of date."""
        self._stacked = None
        if self.overflowed or len(self.grams) * self.bytes_each > self.memory:
            self.overflowed, self.grams = True, {}


class ClusterScores:
    r"""Scores of every cluster under one or more fitted models, from one more pass: memory G k instead of G p^2.

    Exact for the models given. Of submodels they give V_S = C_S M_SS C_S with these models' residuals, which is
    approximate.
    """

    def __init__(self, models: Sequence[Whitened]) -> None:
        """Start empty."""
        self.models = tuple(models)
        self.sums: list[dict[Hashable, NDArray[np.float64]]] = [{} for _ in self.models]

    def add(self, batch: Batch) -> "ClusterScores":
        """Add the rows of one batch, which must carry clusters; rows of weight 0 count for nothing."""
        labels = _labels(batch)
        for sums, model in zip(self.sums, self.models, strict=True):
            start, mine = 0, labels[model.used(batch)]
            for u, residuals, weights in model.rows_of(batch):
                names, first = np.unique(mine[start : start + len(u)], return_inverse=True)
                start += len(u)
                scores = u * (residuals * np.sqrt(weights))[:, None]
                order = np.argsort(first, kind="stable")
                starts = np.searchsorted(first[order], np.arange(len(names)))
                for name, score in zip(names.tolist(), np.add.reduceat(scores[order], starts), strict=True):
                    sums[name] = sums[name] + score if name in sums else score
        return self

    def merge(self, other: "ClusterScores") -> "ClusterScores":
        """Add another state's rows in place."""
        for mine, theirs in zip(self.sums, other.sums, strict=True):
            for name, score in theirs.items():
                mine[name] = mine[name] + score if name in mine else score
        return self

    def scores(self, places: Sequence[int]) -> NDArray[np.float64]:
        """Scores of every cluster, shape (clusters, k), summed over models that differ only in their blocks."""
        summed: dict[Hashable, NDArray[np.float64]] = {}
        for place in places:
            for name, score in self.sums[place].items():
                summed[name] = summed[name] + score if name in summed else score
        size = self.models[places[0]].root.shape[1] + self.models[places[0]].intercept
        return np.array(list(summed.values())).reshape(-1, size)

    def covariance(self, place: int) -> NDArray[np.float64]:
        """Exact covariance matrix of a model's coefficients in original units, the intercept (if any) first."""
        model = self.models[place]
        influence = self.scores([place]) @ model.back.T
        return np.asarray(influence.T @ influence) * small_sample("cluster", len(influence), model.rows, model.df_resid)


def _labels(batch: Batch) -> NDArray[np.generic]:
    """The rows' clusters."""
    if batch.clusters is None:
        raise ValueError("clustered errors need a label of its cluster in every row: name the column, `clusters=...`")
    return batch.clusters


def _by_cluster(batch: Batch) -> Iterator[tuple[list[tuple[Hashable, int]], NDArray[np.intp]]]:
    """Clusters (in a block) of as many rows together: their (label, block) and their rows' positions, shape (g, m)."""
    rows = np.arange(len(batch.y)) if batch.weights is None else np.flatnonzero(batch.weights > 0)
    if not len(rows):
        return
    labels, label = np.unique(_labels(batch)[rows], return_inverse=True)
    blocks = np.asarray(batch.blocks)[rows]
    many = int(blocks.max()) + 1
    pairs, first, counts = np.unique(label * many + blocks, return_inverse=True, return_counts=True)
    names = list(zip(labels[pairs // many].tolist(), (pairs % many).tolist(), strict=True))
    order = np.argsort(first, kind="stable")
    starts = np.cumsum(counts) - counts
    width = len(batch.columns) + 2
    for m in np.unique(counts).tolist():
        which = np.flatnonzero(counts == m)
        step = max(1, _BLOCK // max(m * width, width * width))
        for at in range(0, len(which), step):
            some = which[at : at + step]
            yield [names[one] for one in some], rows[order[starts[some][:, None] + np.arange(m)]]
