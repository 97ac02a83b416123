"""What the options of a GAN and a method that sets options have to do with each other."""

from collections.abc import Sequence

from lsdr.cli.contradictions import refuse
from lsdr.experiments.gan_methods import GAN_PLAIN
from lsdr.experiments.method import Method
from lsdr.gan.config import GanConfig


def refuse_contradictions(config: GanConfig, methods: Sequence[Method]) -> None:
    """Refuse options that a method of ours would set otherwise: an option that is given must count.

    A stranger's method is taken at its word: what it sets, it sets on top of the options.

    Args:
        config: The options as given.
        methods: The methods to train with.

    Raises:
        ValueError: If a method sets an option that was given with another value.

    Example:
        >>> from lsdr.experiments.methods import resolve
        >>> refuse_contradictions(GanConfig(r1=3.0), [resolve("options", task="gan")])
        >>> refuse_contradictions(GanConfig(r1=3.0), [resolve("hinge", task="gan")])
        Traceback (most recent call last):
            ...
        ValueError: method hinge sets r1=0.0, so --r1 3.0 would not count: ...
    """
    refuse(config, GanConfig(), methods, GAN_PLAIN)
