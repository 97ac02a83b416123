"""Backward elimination as a scikit-learn regressor and selector."""

from collections.abc import Mapping
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from lsdr.regression.backward_elimination import backward_elimination
from lsdr.regression.columns import column_name
from lsdr.regression.estimator_input import (
    columns_of,
    folds_of,
    group_names,
    has_text,
    positions,
    target_name,
    unused_name,
)
from lsdr.regression.formula import FormulaDesign
from lsdr.regression.reduce_formula import reduce_formula
from lsdr.regression.sources.arrays import open_arrays
from lsdr.regression.sources.frames import table_of
from lsdr.regression.sources.open import open_source
from lsdr.regression.summary import Summary


class BackwardElimination(SelectorMixin, RegressorMixin, BaseEstimator):
    r"""Least squares on the features that backward elimination by t leaves: regressor and selector in one.

    The feature of smallest |t| is removed, the model refitted, and so on down to the forced ones; then a rule chooses
    among the models. The whole path, with held-out errors of every size, comes from one pass over the rows. Neither the
    order of removal nor the predictions depend on the units of the features, unlike RFE's, which ranks coefficients.

    Data frames may hold text or categories: such a column is a factor, dropped as a whole by its F test.

    Cost: O(n p^2) once and O(p^3) for the path, about that of one least squares fit; memory beside the data O(p^2).

    Args:
        n_features: Number of features (terms) to keep; None: `rule` chooses.
        rule: "one_se" (the smallest model within one standard error of the least held-out error), "cv" (the least
            held-out error), "aic", "bic", "cp", or "p_value" (until all that is left is below `p_value`).
        p_value: For rule="p_value".
        cv: Number of folds, an array with a label for each row, or a splitter or its (train, test) pairs that hold out
            every row once.
        forced: Features (names or positions) or groups that are never removed.
        groups: Name of a group to its features: they are dropped as one.
        categorical: Features (names or positions) whose numbers are labels.
        errors: Standard errors for t: "classical", "HC0" to "HC3" or "cluster" (`fit` takes the clusters).
        weight_kind: What `sample_weight` is: "analytic" (precision) or "frequency" (how often a row occurred).
        fit_intercept: Whether there is an intercept.
        ridge: Penalty on the squared coefficients, scikit-learn's `Ridge(alpha)`.
        method: "auto" (cross-products where the digits suffice, else QR), "gram" or "qr".
        resamples: Half-samples for selection frequencies; 0: none.
        missing: "raise", or "drop" to leave rows with missing values out.
        random_state: Of folds, half-samples and the split.

    Attributes:
        result_: The `Reduction`: path, choice, split-sample inference, notes.
        path_: The path as a DataFrame, the full model first.
        params_, bse_, tvalues_, pvalues_: Of the chosen model, by name; t after selection is descriptive.
        coef_: (columns,) coefficients, 0 where removed; one for each feature, or for each of `columns_` with factors.
        columns_: What `coef_` belongs to.
        intercept_: The intercept; 0.0 without.
        n_features_: Number of terms kept.
        support_: (n_features_in_,) whether a feature is in the chosen model.
        ranking_: (n_features_in_,) 1 for the kept, 2 for the last removed, and so on.
        n_features_in_, feature_names_in_: As everywhere.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
        >>> found = BackwardElimination(n_features=4).fit(X, y)
        >>> found.get_feature_names_out().tolist()
        ['bmi', 'bp', 's1', 's5']
        >>> found.path_["removed"].tolist()
        ['age', 's3', 's6', 's4', 's2', 'sex', 's1', 'bp', 's5', 'bmi', nan]
    """

    # scikit-learn's contract: anything can be set here, and `fit` refuses what has no meaning.
    def __init__(
        self,
        n_features: Any = None,
        *,
        rule: Any = "one_se",
        p_value: Any = 0.05,
        cv: Any = 5,
        forced: Any = (),
        groups: Any = None,
        categorical: Any = (),
        errors: Any = "classical",
        weight_kind: Any = "analytic",
        fit_intercept: Any = True,
        ridge: Any = 0.0,
        method: Any = "auto",
        resamples: Any = 0,
        missing: Any = "raise",
        random_state: Any = 0,
    ) -> None:
        self.n_features = n_features
        self.rule = rule
        self.p_value = p_value
        self.cv = cv
        self.forced = forced
        self.groups = groups
        self.categorical = categorical
        self.errors = errors
        self.weight_kind = weight_kind
        self.fit_intercept = fit_intercept
        self.ridge = ridge
        self.method = method
        self.resamples = resamples
        self.missing = missing
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, clusters: Any = None) -> "BackwardElimination":
        """Remove features one by one and choose a size.

        Args:
            X: (n, p): NumPy, pandas or polars. Not sparse: centring fills the zeros in.
            y: (n,).
            sample_weight: (n,) weights, none below 0.
            clusters: (n,) labels, for errors="cluster"; rows of a cluster share folds.

        Raises:
            ValueError: If values are missing (missing="raise") or infinite, or arguments do not fit.
            TypeError: If X is sparse.
        """
        self._check_parameters()
        x, target = self._checked(X, y)
        names, rows = self._names, len(target)
        taken = {*names, *(self.groups or {})}
        response = target_name(y, taken)
        folds = folds_of(self.cv, X, target, rows)
        roles = {
            "weights": None if sample_weight is None else _weights(sample_weight, target),
            "clusters": None if clusters is None else column_or_1d(clusters),
            "fold_column": None if isinstance(folds, int) else folds,
        }
        vectors = {role: values for role, values in roles.items() if values is not None}
        columns = {unused_name(role, {*taken, response}): values for role, values in vectors.items()}
        check_consistent_length(target, *columns.values())
        if self._mixed:
            source = open_source(table_of({**columns_of(X, names), response: target, **columns}, "X"))
        else:
            source = open_arrays(x, target, names=names, target=response, description="X", **columns)
        self.result_ = backward_elimination(
            source,
            response,
            features=names,
            categorical=positions("categorical", self.categorical, names),
            forced=positions("forced", self.forced, names),
            groups=group_names(self.groups, names),
            intercept=bool(self.fit_intercept),
            folds=self._folds(folds, rows) if isinstance(folds, int) else 5,
            **(self._options() | dict(zip(vectors, columns, strict=True))),
        )
        self._formula: FormulaDesign | None = None
        return self._describe()

    @classmethod
    def from_formula(
        cls, formula: str, data: Any, *, weights: str | None = None, clusters: str | None = None, **parameters: Any
    ) -> "BackwardElimination":
        """An estimator fitted to a formula's terms; `predict` then takes tables with the formula's variables.

        Args:
            formula: "price ~ area + C(rooms) + region"; terms of several columns are dropped as one.
            data: A table in memory, or any source that `backward_elimination` reads.
            weights: Name of the column of weights.
            clusters: Name of the column of cluster labels.
            **parameters: The estimator's; `forced` names terms. `groups` and `categorical` are said by the formula, as
                is `fit_intercept` ("- 1"), and `cv` must be a number.

        Raises:
            ValueError: If a parameter is not one of these, or the formula cannot be used.
        """
        for name in ("groups", "categorical", "fit_intercept"):
            if name in parameters:
                raise ValueError(f"{name} is said by the formula itself: leave it out.")
        found = cls(**parameters)
        found._check_parameters()
        if not isinstance(found.cv, int):
            raise ValueError(f"With a formula cv is a number of folds, got {found.cv!r}.")
        found.result_ = reduce_formula(
            formula,
            data,
            weights=weights,
            clusters=clusters,
            forced=tuple(map(str, found.forced)),
            folds=found.cv,
            **found._options(),
        )
        design = found.result_.design
        assert isinstance(design, FormulaDesign)  # reduce_formula puts it there
        found._formula = design
        found._mixed = True
        found._names = design.right_variables
        found.feature_names_in_ = np.array(found._names, dtype=object)
        found.n_features_in_ = len(found._names)
        return found._describe()

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predictions of the chosen model, (n,); nan where a value is missing and missing="drop"."""
        check_is_fitted(self)
        if self._formula is not None:
            return self.result_.model().predict(X)
        _refuse_sparse(X)
        if self._mixed:
            X = validate_data(self, X, skip_check_array=True, reset=False)
            made = self.result_.model().predict(columns_of(X, self._names))
            if self.missing == "raise" and np.isnan(made).any():
                row = int(np.flatnonzero(np.isnan(made))[0])
                raise ValueError(f"Row {row} of X contains NaN: fill it in, or use missing='drop' for nan there.")
            return made
        finite: bool | str = True if self.missing == "raise" else "allow-nan"
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite=finite, reset=False)
        kept = np.flatnonzero(self.coef_)
        # Only the kept columns: a missing value in a removed one does no harm.
        return np.asarray(X[:, kept] @ self.coef_[kept] + self.intercept_)

    def transform(self, X: Any) -> Any:
        """The features of the chosen model."""
        check_is_fitted(self)
        _refuse_sparse(X)
        if self._formula is not None:
            X = X[list(self.feature_names_in_)]
        return super().transform(X)

    def summary(self) -> Summary:
        """The chosen model as a table."""
        check_is_fitted(self)
        return self.result_.model().summary()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "drop"
        return tags

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        return np.asarray(self.support_)

    def _check_parameters(self) -> None:
        """Refuse parameters of kinds that `backward_elimination` would not understand; it checks their values."""
        kinds: dict[str, tuple[tuple[type, ...], str]] = {
            "n_features": ((int, np.integer, NoneType), "a whole number, or None to let the rule choose"),
            "rule": ((str,), "the name of a rule"),
            "p_value": ((float, int, np.number), "a number from 0 to 1"),
            "groups": ((Mapping, NoneType), "a dict of names to features"),
            "errors": ((str,), "'classical', 'HC0' to 'HC3' or 'cluster'"),
            "weight_kind": ((str,), "'analytic' or 'frequency'"),
            "fit_intercept": ((bool, np.bool_), "True or False"),
            "ridge": ((float, int, np.number), "a number"),
            "method": ((str,), "'auto', 'gram' or 'qr'"),
            "resamples": ((int, np.integer), "a whole number"),
            "missing": ((str,), "'raise' or 'drop'"),
        }
        for name, (types, wanted) in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
                raise TypeError(f"{name} must be {wanted}, got {value!r}.")

    def _checked(self, X: Any, y: Any) -> tuple[Any, NDArray[np.float64]]:
        """X, an array where all of it is numbers, and y; notes names."""
        _refuse_sparse(X)
        finite: bool | str = True if self.missing == "raise" else "allow-nan"
        self._mixed = bool(len(self.categorical)) or has_text(X)
        if self._mixed:
            validate_data(self, X, y, skip_check_array=True)
        elif y is None:
            validate_data(self, X, y)
        else:
            X = validate_data(self, X, dtype=np.float64, ensure_all_finite=finite, ensure_min_samples=2)
        y = column_or_1d(y, warn=True)
        y = check_array(y, ensure_2d=False, dtype=np.float64, ensure_all_finite=finite, input_name="y", estimator=self)
        check_consistent_length(X, y)
        given = getattr(self, "feature_names_in_", [f"x{place}" for place in range(self.n_features_in_)])
        self._names = tuple(map(str, given))
        return X, y

    def _folds(self, folds: int, rows: int) -> int:
        """The number of folds; where held-out errors decide nothing, fewer will do for few rows."""
        if self.n_features is None and self.rule in ("one_se", "cv") and rows < folds:
            raise ValueError(f"cv={folds} folds need as many rows, got {rows}: give fewer folds or another rule.")
        return min(folds, rows)

    def _options(self) -> dict[str, Any]:
        """What `backward_elimination` calls as we do."""
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        return {
            "keep": None if self.n_features is None else int(self.n_features),
            "rule": self.rule if self.n_features is None else "size",
            "p_value": float(self.p_value),
            "errors": self.errors,
            "weight_kind": self.weight_kind,
            "ridge": float(self.ridge),
            "method": self.method,
            "resamples": int(self.resamples),
            "missing": self.missing,
            "seed": int(seed),
        }

    def _describe(self) -> "BackwardElimination":
        """The attributes under which users of scikit-learn and statsmodels look for the result."""
        result, names = self.result_, self._names
        model = result.model()
        self.path_ = result.frame()
        self.params_, self.bse_ = model.params, model.bse
        self.tvalues_, self.pvalues_ = model.tvalues, model.pvalues
        self.n_features_ = model.size
        place = int(result.intercept)
        self.intercept_ = float(model.estimates.values[0]) if result.intercept else 0.0
        if self._mixed:
            self.columns_ = tuple(column_name(column) for term in result.terms for column in term.columns)
        else:
            self.columns_ = names
        found = dict(zip(model.estimates.names[place:], model.estimates.values[place:].tolist(), strict=True))
        self.coef_ = np.array([found.get(name, 0.0) for name in self.columns_])
        removed = [step.removed for step in result.steps if step.removed is not None and step.size > model.size]
        rank = dict.fromkeys(model.features, 1) | {name: 2 + back for back, name in enumerate(reversed(removed))}
        last = 2 + len(removed)
        terms = self._terms_of_features()
        self.ranking_ = np.array([min((rank.get(term, last) for term in terms[name]), default=last) for name in names])
        self.support_ = self.ranking_ == 1
        return self

    def _terms_of_features(self) -> dict[str, list[str]]:
        """The terms in which each of X's columns plays a part."""
        if self._formula is not None:
            used = self._formula.right.term_variables
            return {
                name: [str(term) for term, variables in used.items() if name in set(map(str, variables))]
                for name in self._names
            }
        of = {name: [name] for name in self._names}
        for group, members in group_names(self.groups, self._names).items():
            of |= {member: [group] for member in members}
        return of


def _refuse_sparse(X: Any) -> None:
    if issparse(X):
        raise TypeError(
            "Sparse data was passed for X, but dense data is required: centring fills the zeros in, so nothing would "
            "be saved. Use X.toarray()."
        )


def _weights(sample_weight: Any, y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(_check_sample_weight(sample_weight, y, dtype=np.float64, ensure_non_negative=True))
