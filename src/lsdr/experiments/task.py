"""What a comparison compares methods on."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task by dotted paths, so that naming one imports nothing."""

    name: str
    """Goes into experiment.json."""
    run: str
    """`run(config, regularizers, directory, *, reference_seconds)`: trains, measures and writes the run's files."""
    measures: str
    """A dict from a measure's name to its label, unit, direction and description."""


DIFFUSION = Task(name="diffusion", run="lsdr.diffusion.run:run", measures="lsdr.diffusion.measures.catalogue:MEASURES")
GAN = Task(name="gan", run="lsdr.gan.run:run", measures="lsdr.gan.measures.catalogue:MEASURES")
REPRESENTATION = Task(
    name="representation",
    run="lsdr.representation.run:run",
    measures="lsdr.representation.measures.catalogue:MEASURES",
)
