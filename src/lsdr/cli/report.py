"""`lsdr report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write report.html for a run directory, or a reduction's page, from files alone.

    The directory is that of a comparison or of a single training run, finished or not. The JSON of `lsdr reduce`
    becomes a page of the same name beside it. Needs no torch and no network.
    """

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIRECTORY|FILE.json")]
    """The run directory, or what `lsdr reduce --json` wrote."""

    def run(self) -> int:
        """Summarise where there is something to compare, then write the page."""
        from lsdr.experiments.summary import summarize
        from lsdr.report.report import write_report

        if self.directory.is_file():
            print(f"report: {_reduction(self.directory)}")
            return 0
        if not self.directory.is_dir():
            raise ValueError(f"{self.directory} is not a folder; give the folder that train or compare wrote (--out)")
        if (self.directory / "experiment.json").exists():
            summarize(self.directory)
        print(f"report: {write_report(self.directory)}")
        return 0


def _reduction(path: Path) -> Path:
    """Write the page of a reduction beside its JSON."""
    from lsdr.report.plain import mapping, sequence
    from lsdr.report.regression.page import write_regression_page
    from lsdr.runs import read_json

    found = mapping(read_json(path))
    if not sequence(found.get("steps")):
        raise ValueError(f"{path} has no steps: give what `lsdr reduce --json` wrote, or the folder of a run")
    page = path.with_suffix(".html")
    if page == path:
        raise ValueError(f"{path} is where the page would go; call the JSON file something.json")
    return write_regression_page(found, page)
