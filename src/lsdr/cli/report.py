"""`lsdr report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write report.html for a run directory, from its files alone.

    The directory is that of a comparison or of a single training run, finished or not. Needs no torch and no network.
    """

    directory: Annotated[Path, tyro.conf.Positional]
    """The run directory."""

    def run(self) -> int:
        """Summarise where there is something to compare, then write the page."""
        from lsdr.experiments.summary import summarize
        from lsdr.report.report import write_report

        if not self.directory.is_dir():
            raise ValueError(f"{self.directory} is not a folder; give the folder that train or compare wrote (--out)")
        if (self.directory / "experiment.json").exists():
            summarize(self.directory)
        print(f"report: {write_report(self.directory)}")
        return 0
