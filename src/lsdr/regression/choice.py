"""What a rule chose on a path, what never entered it, and inference on rows that had no part in the choice."""

from dataclasses import dataclass
from typing import Any

from lsdr.regression.estimates import Estimated, Estimates


@dataclass(frozen=True)
class Chosen:
    """The size that the rule chose.

    Args:
        size: Number of terms.
        features: Their names, in the order of the data.
        rule: "size", "p_value", "aic", "bic", "cp", "cv" or "one_se".
        why: A sentence with the numbers that decided.
    """

    size: int
    features: tuple[str, ...]
    rule: str
    why: str


@dataclass(frozen=True, eq=False)
class Split(Estimated):
    """Inference on rows that had no part in the selection: its t values are what they seem.

    Args:
        features: The terms that the rule chose on the first half of the rows.
        estimates: Their coefficients and standard errors, from the second half alone.
        rows_selection: Rows of the first half.
        rows: Rows of the second half.
    """

    features: tuple[str, ...]
    estimates: Estimates
    rows_selection: float | int
    rows: float | int

    def to_json(self) -> dict[str, Any]:
        """Everything by name, as JSON has it."""
        return {
            "features": list(self.features),
            **self.estimates.to_json(),
            "rows_selection": self.rows_selection,
            "rows": self.rows,
        }


@dataclass(frozen=True)
class Dropped:
    """A column that never entered: constant, or a combination of others.

    Args:
        column: Its display name.
        term: The term it belongs to.
        reason: "constant", "aliased" or "duplicate of ...".
    """

    column: str
    term: str
    reason: str
