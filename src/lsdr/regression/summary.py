"""The table of a model's coefficients, in text and in HTML."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsdr.regression.model import Model

_HEAD = ("", "coef", "std err", "t", "P>|t|", "[0.025", "0.975]")


@dataclass(frozen=True)
class Summary:
    """A printed model: str() is text, notebooks show HTML.

    Args:
        title: What was fitted.
        facts: (name, value) pairs.
        rows: One a coefficient: name, coefficient, standard error, t, p, lower and upper bound.
        remarks: What to know when reading it.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        """The table in plain text."""
        table = (_HEAD, *self.rows)
        widths = [max(len(row[place]) for row in table) for place in range(len(_HEAD))]
        lines = [
            row[0].ljust(widths[0])
            + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            for row in table
        ]
        facts = [f"{name}: {value}" for name, value in self.facts]
        rule = "-" * max(map(len, (*lines, *facts, self.title)))
        return "\n".join([self.title, rule, *facts, rule, lines[0], rule, *lines[1:], rule, *self.remarks])

    def _repr_html_(self) -> str:
        """The table for notebooks."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in _HEAD)
        body = "".join(
            f"<tr><th>{escape(row[0])}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
            for row in self.rows
        )
        facts = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self.facts)
        remarks = "".join(f"<p>{escape(remark)}</p>" for remark in self.remarks)
        return (
            f"<table><caption>{escape(self.title)}</caption>{facts}</table>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{remarks}"
        )


def summarize(model: "Model") -> Summary:
    """The summary of a model; says which standard errors, and that t values after selection are descriptive."""
    interval = model.conf_int().to_numpy()
    rows = tuple(
        (name, number(value), number(error), f"{t:.3f}", f"{p:.3f}", number(low), number(high))
        for name, value, error, t, p, (low, high) in zip(
            model.estimates.names,
            model.estimates.values,
            model.estimates.errors,
            model.estimates.t,
            model.pvalues,
            interval,
            strict=True,
        )
    )
    facts = (
        ("Target", model.target),
        ("Rows", f"{model.nobs:g}" if model.nobs % 1 else f"{int(model.nobs)}"),
        ("Terms", str(model.size)),
        ("Residual degrees of freedom", f"{model.df_resid:g}" if model.df_resid % 1 else f"{int(model.df_resid)}"),
        ("Residual variance", number(model.mse_resid)),
        ("R squared", f"{model.rsquared:.4f} (adjusted {model.rsquared_adj:.4f})"),
        ("Standard errors", f"{model.errors}; {'exact' if model.exact else 'approximate'} in this model"),
    )
    return Summary(f"Least squares, {model.size} terms", facts, rows, remarks(model.selected))


def remarks(selected: bool) -> tuple[str, ...]:
    """What a table of t values has to say about itself."""
    if not selected:
        return ()
    return (
        "Descriptive: t values after selection. The terms were chosen on the same rows, so t, P>|t| and the",
        "intervals look better than they are; split-sample inference (`split`) gives ones that hold.",
    )


def number(value: float) -> str:
    """A number with six significant digits."""
    return f"{value:.6g}"
