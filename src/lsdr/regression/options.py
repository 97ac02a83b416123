"""Options of a backward elimination that are not about the table, and what is wrong with them."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from numbers import Integral

from lsdr.regression.rules import RULES

ERRORS = ("classical", "HC0", "HC1", "HC2", "HC3", "cluster")
METHODS = ("auto", "gram", "qr")


@dataclass(frozen=True)
class Options:
    """Options as `backward_elimination` has them."""

    errors: str
    ridge: float
    keep: int | None
    rule: str
    p_value: float
    folds: int
    resamples: int
    split: bool
    seed: int
    method: str

    def check(self, rule: str, clusters: str | None) -> None:
        """Refuse what has no meaning.

        Args:
            rule: As asked for, before `keep` made it "size".
            clusters: Name of the column of clusters.

        Raises:
            ValueError: If an option is not one of its values, or two of them contradict each other.
        """
        for name in ("keep", "folds", "resamples", "seed"):
            value = getattr(self, name)
            if not isinstance(value, Integral) and not (name == "keep" and value is None):
                raise TypeError(f"{name} must be a whole number, got {value!r}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")
        _one_of("rule", rule, RULES)
        _one_of("errors", self.errors, ERRORS)
        _one_of("method", self.method, METHODS)
        if rule == "size" and self.keep is None:
            raise ValueError('rule="size" needs keep, the number of terms to keep')
        if self.keep is not None and rule not in ("size", "one_se"):
            raise ValueError(f"keep={self.keep} and rule={rule!r} both say which model to choose: give one of them")
        if self.keep is not None and self.keep < 0:
            raise ValueError(f"keep must be a number of terms, 0 or more, got {self.keep}")
        if self.errors == "cluster" and clusters is None:
            raise ValueError('errors="cluster" needs clusters, the name of the column of cluster labels')
        if not (math.isfinite(self.ridge) and self.ridge >= 0):
            raise ValueError(f"ridge must be a finite number, 0 or more, got {self.ridge}")
        if self.ridge > 0 and self.errors != "classical":
            raise ValueError(f'errors={self.errors!r} are those of least squares: with ridge only "classical" is known')
        if not 0 <= self.p_value <= 1:
            raise ValueError(f"p_value must be from 0 to 1, got {self.p_value}")
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"folds must be 0 (no held-out errors) or at least 2, got {self.folds}")
        if self.resamples < 0:
            raise ValueError(f"resamples must be a number of half-samples, 0 or more, got {self.resamples}")

    def check_keep(self, order: Sequence[str], forced: Collection[str]) -> None:
        """Refuse a number of terms that there cannot be.

        Raises:
            ValueError: If `keep` is more than there are terms, or fewer than are forced in.
        """
        if self.keep is None:
            return
        if self.keep > len(order):
            raise ValueError(
                f"{self.keep} terms are to be kept, but there are only {len(order)}: {', '.join(order[:10])}"
            )
        if self.keep < len(forced):
            raise ValueError(f"{self.keep} terms are to be kept, but {len(forced)} are forced in: {', '.join(forced)}")


def _one_of(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{option} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
