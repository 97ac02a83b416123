"""What the options of a representation and a method that sets options have to do with each other."""

from collections.abc import Sequence

from lsdr.cli.contradictions import refuse
from lsdr.experiments.method import Method
from lsdr.experiments.representation_methods import REPRESENTATION_PLAIN
from lsdr.representation.config import RepresentationConfig


def refuse_contradictions(config: RepresentationConfig, methods: Sequence[Method]) -> None:
    """Refuse options that a method of ours would set otherwise: an option that is given must count.

    Args:
        config: The options as given.
        methods: The methods to train with.

    Raises:
        ValueError: If a method sets an option that was given with another value.

    Example:
        >>> from lsdr.experiments.methods import resolve
        >>> refuse_contradictions(RepresentationConfig(robust="huber"), [resolve("options", task="representation")])
        >>> refuse_contradictions(RepresentationConfig(robust="huber"), [resolve("sigreg", task="representation")])
        Traceback (most recent call last):
            ...
        ValueError: method sigreg sets robust=none, so --robust huber would not count: ...
    """
    refuse(config, RepresentationConfig(), methods, REPRESENTATION_PLAIN)
