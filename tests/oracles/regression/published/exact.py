"""Least squares without rounding: what the published digits and the computed ones are held against."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

Row = Sequence[Fraction]


@dataclass(frozen=True)
class Fit:
    """A least-squares fit in rational numbers: coefficients, (X'X)^-1, residual sum of squares."""

    coefficients: list[Fraction]
    inverse: list[list[Fraction]]
    rss: Fraction
    df_resid: int

    def increase(self, j: int) -> Fraction:
        """What dropping column j adds to the residual sum of squares."""
        return self.coefficients[j] ** 2 / self.inverse[j][j]


def fit(rows: Sequence[Row], y: Row) -> Fit:
    """Solve the normal equations by Gauss-Jordan elimination in rational numbers."""
    size = len(rows[0])
    normal = [[sum(row[i] * row[j] for row in rows) for j in range(size)] for i in range(size)]
    right = [sum(row[i] * value for row, value in zip(rows, y, strict=True)) for i in range(size)]
    table = [normal[i] + [Fraction(int(i == j)) for j in range(size)] + [right[i]] for i in range(size)]
    for i in range(size):
        pivot = next(k for k in range(i, size) if table[k][i])
        table[i], table[pivot] = table[pivot], table[i]
        table[i] = [value / table[i][i] for value in table[i]]
        for k in range(size):
            if k != i and table[k][i]:
                table[k] = [a - table[k][i] * b for a, b in zip(table[k], table[i], strict=True)]
    coefficients = [line[-1] for line in table]
    rss = sum(value * value for value in y) - sum(b * r for b, r in zip(coefficients, right, strict=True))
    return Fit(coefficients, [line[size:-1] for line in table], rss, len(rows) - size)


def standard_errors(model: Fit) -> list[Decimal]:
    """Standard errors of the coefficients to 40 digits."""
    scale = model.rss / model.df_resid
    return [root(scale * model.inverse[j][j]) for j in range(len(model.coefficients))]


def t_values(model: Fit) -> list[Decimal]:
    """The t values to 40 digits; infinite (or 0) for an exact fit."""
    values = []
    for j, b in enumerate(model.coefficients):
        size = root(model.increase(j) * model.df_resid / model.rss) if model.rss else Decimal("inf") if b else Decimal()
        values.append(size.copy_sign(decimal(b)))
    return values


def path(columns: dict[str, Row], y: Row, intercept: bool = True) -> list[tuple[list[str], str | None, Fit]]:
    """Backward elimination by refits, the full model first.

    Returns:
        For every step: the names in the model, the one that goes next (the later one of equals; none in the last
        model, which has the intercept alone, or one column without it) and the fit.
    """
    names = list(columns)
    steps = []
    while True:
        rows = [([Fraction(1)] if intercept else []) + [columns[name][i] for name in names] for i in range(len(y))]
        model = fit(rows, y)
        increases = {name: model.increase(j + intercept) for j, name in enumerate(names)}
        if len(names) + intercept <= 1:
            return [*steps, (list(names), None, model)]
        weakest = min(reversed(names), key=lambda name: increases[name])
        steps.append((list(names), weakest, model))
        names.remove(weakest)


def root(value: Fraction) -> Decimal:
    """Square root of a rational number to 40 digits."""
    with localcontext(prec=40):
        return decimal(value).sqrt()


def decimal(value: Fraction) -> Decimal:
    """A rational number to 40 digits."""
    with localcontext(prec=40):
        return Decimal(value.numerator) / Decimal(value.denominator)


def digits(value: float, truth: Fraction | Decimal) -> float:
    """Correct significant digits (NIST's log relative error): -log10 |value - truth| / |truth|, at most 16."""
    with localcontext(prec=40):
        truth = decimal(truth) if isinstance(truth, Fraction) else truth
        error = abs(Decimal(float(value)) - truth)
        if truth:
            error /= abs(truth)
        return 16.0 if error < Decimal("1e-16") else max(0.0, -float(error.log10()))
