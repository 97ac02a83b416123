"""What the options as given and a method that sets options have to do with each other."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from lsdr.experiments.method import Method


def refuse(config: Any, usual: Any, methods: Sequence[Method], plain: Mapping[str, Any]) -> None:
    """Refuse options that a method of ours would set otherwise: an option that is given must count.

    A stranger's method is taken at its word: what it sets, it sets on top of the options.

    Args:
        config: The options as given; a dataclass with a field `training` that is one too.
        usual: The same without any given.
        methods: The methods to train with.
        plain: What every method of ours sets.

    Raises:
        ValueError: If a method sets an option that was given with another value.
    """
    given = {
        each.name: value
        for own, default in ((config, usual), (config.training, usual.training))
        for each in fields(own)
        if (value := getattr(own, each.name)) != getattr(default, each.name)
    }
    for method in methods:
        if not plain.keys() <= method.overrides.keys():
            continue
        for name, value in method.overrides.items():
            if given.get(name, value) != value:
                raise ValueError(
                    f"method {method.name} sets {name}={value}, so --{name.replace('_', '-')} {given[name]} would not "
                    "count: leave it out, or name the method `options`, which trains with the options as they are; "
                    "NAME@NUMBER sets the number of a method"
                )
