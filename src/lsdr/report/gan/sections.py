"""What the report of a GAN shows beside what every report does."""

from typing import Any

from lsdr.report.figures.modes import histogram_plot, mode_plots
from lsdr.report.figures.points import point_plots
from lsdr.report.gan.coverage import coverage
from lsdr.report.gan.published import published_tables
from lsdr.report.gan.words import answers, noticed
from lsdr.report.load import Results


def gan_sections(results: Results, notes: list[str]) -> dict[str, Any]:
    """Everything that the template's part for GANs is filled with.

    Args:
        results: The runs.
        notes: Receives what could not be read.
    """
    columns, rows = coverage(results)
    told, more = noticed(results)
    return {
        "answers": answers(results),
        "noticed": told,
        "more_noticed": more,
        "columns": columns,
        "rows": rows,
        "published": published_tables(results),
        "plots": [plot for plot in (*mode_plots(results), histogram_plot(results)) if plot],
        "points": point_plots(results, notes),
    }
